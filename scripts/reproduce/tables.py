"""The tables and sentences that results.json fills between the markers of a page, `<!-- table: NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from scripts.reproduce.comparison import PAIRS
from scripts.reproduce.runs import FEATURES, ORDER, RUNS

TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)
COLLAPSED = 0.01  # a recall below it in every extractor's features: next to nothing of the real images is covered
KINDS = {"fd": "distance", "fid": "distance", "precision": "precision", "recall": "recall"}
MOMENTS = {"images": "equal images", "time": "equal time", "end": "the ends"}
Row = dict[str, Any]


def render(folder: Path, results: dict[str, Any]) -> None:
    """Write the tables of the results between the markers of a folder's pages; make a page where there is none."""
    index = folder / "index.md"
    if not index.is_file():
        tables = ["status", *(name for dataset in results["real"] for name in (dataset, f"protocol-{dataset}"))]
        tables += ["machines", *dict.fromkeys(f"comparison-{preset}" for preset, _ in PAIRS)]
        markers = (f"<!-- table: {table} -->\n<!-- /table -->\n" for table in tables)
        index.write_text("# Results\n\n" + "\n".join(markers), encoding="utf-8")
    for page in sorted(folder.glob("*.md")):
        page.write_text(rendered(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def rendered(text: str, results: dict[str, Any]) -> str:
    """Return a page with its tables as the results have them."""
    kinds: dict[str, Callable[[dict[str, Any], str], Iterator[str]]] = {
        "status": status,
        "machines": machines,
        "protocol": protocol,
        "comparison": comparison,
        "mistakes": mistakes,
    }

    def fill(match: re.Match[str]) -> str:
        kind, _, of = match[2].partition("-")
        lines = kinds[kind](results, of) if kind in kinds else scores(results, match[2])
        text = "\n".join(lines)
        return f"{match[1]}\n{text}\n\n{match[3]}"

    return TABLE.sub(fill, text)


def presets(results: dict[str, Any], dataset: str | None = None) -> Iterator[list[Row]]:
    """Yield the rows of each preset, one per seed."""
    rows = (row for row in results["runs"] if dataset in (None, row["dataset"]))
    yield from (list(group) for _, group in groupby(rows, key=lambda row: row["preset"]))


def scores(results: dict[str, Any], dataset: str) -> Iterator[str]:
    """Yield the table of a dataset: a row per preset, a distance per extractor, precision and recall of the first."""
    keys = extractors_of(results, dataset)
    titles, dashes = cells(FEATURES[key] for key in keys), cells("---:" for _ in keys)
    yield f"| model | trained for | time |{titles} precision | recall |"
    yield f"| --- | --- | ---: |{dashes} ---: | ---: |"
    kinds = [(key, "distance") for key in keys] + [(key, kind) for key in keys[:1] for kind in ("precision", "recall")]
    real = results["real"].get(dataset, {})
    if real:
        found = [spread([by_kind(real.get(key, {})).get(kind)], kind) for key, kind in kinds]
        yield f"| real images<br>![real images](images/{dataset}-real.png) | | |{cells(found)}"
    for rows in presets(results, dataset):
        run, preset, seeds = rows[0], rows[0]["preset"], f", {len(rows)} seeds" if len(rows) > 1 else ""
        kimg = median(row["end"]["kimg"] for row in rows)
        found = [
            spread([by_kind(row["end"]["averaged"].get(key, {})).get(kind) for row in rows], kind)
            for key, kind in kinds
        ]
        if is_collapsed(rows):
            found[-1] += ", collapsed"
        yield (
            f"| `{preset}`{', conditional' if run['conditional'] else ''}{seeds}"
            f"<br>![samples of {preset}](images/{preset}.png) | "
            f"{kimg:,.0f} of {run['full_kimg']:,.0f} kimg | {minutes(median(map(seconds_of, rows)))} |{cells(found)}"
        )


def status(results: dict[str, Any], _: str) -> Iterator[str]:
    """Yield which presets were trained to their full length, which were stopped, and which were not trained."""
    ended, stopped, trained = list[str](), list[str](), list[str]()
    for rows in presets(results):
        preset, full, kimg = rows[0]["preset"], rows[0]["full_kimg"], min(row["end"]["kimg"] for row in rows)
        trained.append(preset)
        if kimg >= full:
            ended.append(f"`{preset}`")
        else:
            stopped.append(f"`{preset}` ({kimg:,.0f} of {full:,.0f} kimg)")
    if ended:
        yield f"**Full length:** {', '.join(ended)}.\n"
    if stopped:
        yield f"**Stopped early:** {', '.join(stopped)}. Their rows do not show what the source reached.\n"
    if missing := [f"`{run.preset}`" for run in RUNS if run.preset not in trained]:
        yield f"**Not trained:** {', '.join(missing)}."


def machines(results: dict[str, Any], _: str) -> Iterator[str]:
    """Yield a line per machine with the presets that it trained."""
    found: dict[str, list[str]] = {}
    for row in results["runs"]:
        machine = row["machine"]
        clock = "wall-clock time, other work on the machine included"
        if machine["device"] == "cpu" and "cpu_seconds" in row["end"]:
            clock = "CPU time of the training"
        threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
        text = f"{machine['processor']}, {machine['precision']}, {threads}, torch {machine['torch']}; {clock}"
        name = f"`{row['preset']}`"
        found.setdefault(text, []).extend([name] if name not in found.get(text, []) else [])
    yield from (f"- {', '.join(names)}: {text}" for text, names in found.items())


def protocol(results: dict[str, Any], dataset: str) -> Iterator[str]:
    """Yield what each column of a dataset's table is: its full name, its features."""
    for key in extractors_of(results, dataset):
        rows = (row["end"]["averaged"].get(key, {}) for row in results["runs"] if row["dataset"] == dataset)
        name = next(name for found in rows for name in found if re.match(r"(clean_)?fi?d", name))
        accuracy = results["accuracy"].get(dataset)
        features = {
            "inception": "Inception",
            "classifier": f"a classifier that names {accuracy:.1%} of the test images' classes correctly".replace(
                "%", " %"
            )
            if accuracy
            else "a classifier of the images' classes",
            "efficientnet": "EfficientNet-Lite0, trained on ImageNet",
            "random": "a small untrained network",
        }[key]
        yield f"- **{FEATURES[key]}**: `{name}`, in the features of {features}"


def comparison(results: dict[str, Any], preset: str) -> Iterator[str]:
    """Yield the table of a preset compared with others: ratios of the distances, below 1 where it is ahead."""
    rows = [row for row in results["comparisons"] if row["first"]["preset"] == preset]
    keys = [key for key in FEATURES if any(key in row["first"]["distances"] for row in rows)]
    if not keys:
        yield f"`{preset}` has not been compared yet."
        return
    yield f"| `{preset}` against | at | trained for | time |{cells(FEATURES[key] for key in keys)}"
    yield f"| --- | --- | --- | --- |{cells('---:' for _ in keys)}"
    for row in rows:
        first, second = row["first"], row["second"]
        yield (
            f"| `{second['preset']}` | {MOMENTS[row['at']]} | {first['kimg']:,.0f} / {second['kimg']:,.0f} kimg | "
            f"{first['seconds'] / 60:.1f} / {minutes(second['seconds'])} |"
            f"{cells(ratio(first['distances'].get(key), second['distances'].get(key)) for key in keys)}"
        )


def mistakes(results: dict[str, Any], dataset: str) -> Iterator[str]:
    """Yield the table of published mistakes, repeated in a dataset's features."""
    yield "| compared | real images | generated |\n| --- | ---: | ---: |"
    for row in results["mistakes"].get(dataset, []):
        yield f"| {row['count']:,} {row['compared']} | {row['real']:.2f} | {row['generated']:.2f} |"


def extractors_of(results: dict[str, Any], dataset: str) -> list[str]:
    """Return the extractors that scored a preset of a dataset, the leading one first."""
    rows = [row for row in results["runs"] if row["dataset"] == dataset]
    return [key for key in ORDER[dataset] if any(key in row["end"]["averaged"] for row in rows)]


def by_kind(named: dict[str, float]) -> dict[str, float]:
    """Return distance, precision and recall of a report, whatever their protocol: `fd_…`, `clean_fid5k`."""
    found = {re.split(r"[_\d]", name.removeprefix("clean_"))[0]: value for name, value in named.items()}
    return {KINDS[kind]: value for kind, value in found.items() if kind in KINDS}


def is_collapsed(rows: list[Row]) -> bool:
    """Whether the recall of every seed is next to nothing in the features of every extractor."""
    found = [by_kind(named) for row in rows for named in row["end"]["averaged"].values()]
    return bool(found) and all(one["recall"] < COLLAPSED for one in found)


def seconds_of(row: Row) -> float:
    """Return the time of a run: the CPU's where it trained and its time was recorded."""
    end = row["end"]
    return float(end.get("cpu_seconds", end["seconds"]) if row["machine"]["device"] == "cpu" else end["seconds"])


def spread(values: list[float | None], kind: str = "distance") -> str:
    """Return the median of values, and their range where there are several; a dash without a value."""
    found = [value for value in values if value is not None]
    if not found:
        return "–"
    middle, low, high = (
        f"{value:.2g}" if kind == "distance" and 0 < value < 0.1 else f"{value:.2f}"
        for value in (median(found), min(found), max(found))
    )
    return middle if len(found) == 1 else f"{middle} ({low}–{high})"


def ratio(first: list[float] | None, second: list[float] | None) -> str:
    """Return the median of the first distances as a share of that of the second, with both."""
    if not first or not second:
        return "–"
    return f"**{spread([median(first) / median(second)])}** ({spread([*first])} / {spread([*second])})"


def cells(values: Iterable[str]) -> str:
    return "".join(f" {value} |" for value in values)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"
