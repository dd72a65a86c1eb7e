"""docs/results: a page a source document, one for our own presets, one over all of them, and the numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx

from examples.reproduce import mistakes, pictures, tables
from examples.reproduce.plan import NATIVE, SYSTEMS, TITLES, WHERE, System
from examples.reproduce.tables import Mark, config_of, images_per_second, made_by, mark, parameters
from examples.reproduce.work import Workshop, compare, model_name
from imagesets import ImageSetError
from imagesets.folder import all_files

COMMAND = "make reproduce"
VARIED = 0.01  # recall below which a generator covers next to nothing
SOUND = 0.1  # precision below which next to nothing that it makes is among the real images
SHORTEST = 0.2  # epochs of a run that ours is held against
WORDS = Path(__file__).with_name("words")


def words(name: str, **figures: str) -> str:
    """The text of words/<name>.md with its figures."""
    return words_of(name).format(**figures)


def words_of(name: str) -> str:
    return (WORDS / f"{name}.md").read_text(encoding="utf-8")


def write(shop: Workshop, output: Path) -> None:
    """Write every page anew from what the workshop holds. Raises SystemExit when nothing has been trained."""
    ran = tables.trained(shop, SYSTEMS)
    if not ran:
        raise SystemExit("nothing has been trained yet; there is nothing to write")
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    shown = {system.preset: pictures.take(shop.run_of(system), output / "pictures", system.preset) for system in ran}
    whole = tables.document(shop, ran)
    texts = {"index": index(shop, ran), "best": best(shop, ran, shown)}
    for source in TITLES:
        texts[source] = page(shop, source, ran, shown, output)
    for name, text in texts.items():
        (output / f"{name}.md").write_text(text, encoding="utf-8")
    for picture in taken(output / "pictures"):
        if not any(f"pictures/{picture.name})" in text for text in texts.values()):
            picture.unlink()  # of no page: an animation that only source 002 has a place for, or of a run that is gone
    (output / "results.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def taken(folder: Path) -> list[Path]:
    """The pictures that an earlier run has left there, by their names; never a file of somebody else's."""
    names = [system.preset for system in SYSTEMS] + list(TITLES)
    return [path for name in names for kind in pictures.KINDS for path in folder.glob(f"{name}-{kind}.*")]


def strange(output: Path) -> bool:
    """Whether a folder holds an index.md that is no work of ours."""
    path = output / "index.md"
    return path.is_file() and not path.read_text(errors="replace", encoding="utf-8").startswith(
        words_of("index").splitlines()[0]
    )


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def number(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def metric_of(shop: Workshop, images: str) -> str:
    n = shop.count(images)
    return f"fd_classifier{f'{n // 1000}k' if n % 1000 == 0 else n}"


def machine_of(shop: Workshop, system: System) -> str:
    machine, run = made_by(shop, system).get("machine", {}), config_of(shop, system)["run"]
    where = machine.get("gpu") or f"{machine.get('cpu')}, {run['threads']} thread{'s' * (run['threads'] > 1)}"
    return f"{where}, {run['precision']}, torch {machine.get('torch')}"


def end_of(shop: Workshop, system: System) -> Mark:
    return mark(shop, system, tables.end(shop, system))


def index(shop: Workshop, ran: Sequence[System]) -> str:
    rows = []
    for system in SYSTEMS:
        g, d = parameters(system)
        home = f"[{', '.join(system.documents)}]({system.documents[0]}.md)" if system.documents else "[ours](best.md)"
        facts: list[object] = [f"`{system.preset}`", home, f"{g:,} / {d:,}", f"{system.kimg:g}"]
        if system not in ran:
            rows.append([*facts, "not run", "", "", "", ""])
            continue
        end = end_of(shop, system)
        rows.append(
            [
                *facts,
                f"{end.kimg:g}",
                minutes(end.seconds),
                f"{images_per_second(shop, system):.0f}",
                number(end.distance(last=True)) if not system.averages else "",
                f"**{number(end.distance())}**",
            ]
        )
    floors = [floor(shop, images, ran) for images in dict.fromkeys(system.images for system in ran)]
    documents = [[f"[{source}]({source}.md)", title, WHERE[source]] for source, title in TITLES.items()]
    header = [
        "preset", "document", "G / D parameters", "kimg asked for", "kimg run", "training", "images/s",
        "distance of G as its last step left it", "of its average",
    ]  # fmt: skip
    kinds = list(dict.fromkeys(system.images for system in ran))
    return words(
        "index",
        table=table(header, rows),
        counts=" and ".join(f"{shop.count(images):,} ({images})" for images in kinds),
        metrics=" and ".join(f"`{metric_of(shop, images)}`" for images in kinds),
        floors="; ".join(floors),
        machines="; ".join(dict.fromkeys(machine_of(shop, system) for system in ran)),
        documents=table(["document", "what", "whose"], documents),
        copy=copied(shop) if "cifar10" in kinds else "",
    )


def floor(shop: Workshop, images: str, ran: Sequence[System]) -> str:
    """What real images get before a judge, and how good a judge it is."""
    metric = metric_of(shop, images)
    reals = scores_of_group(shop, images, ran).get(metric)
    name = shop.sources[images].rpartition("/")[2]
    told = f"real training images get {number(reals)} (`{metric}`, {shop.count(images):,} {name} images"
    right = accuracy(shop.extractor(images))
    return told + (")" if right is None else f"; the classifier names {right:.1%} of the test images' classes right)")


def accuracy(extractor: Path) -> float | None:
    """The share of test images that an extractor's classifier was right about when it was trained, 0 to 1."""
    if not extractor.is_file():
        return None
    facts = {entry.key: entry.value for entry in onnx.load(extractor, load_external_data=False).metadata_props}
    return float(facts["accuracy"]) if "accuracy" in facts else None


def scores_of_group(shop: Workshop, images: str, ran: Sequence[System]) -> dict[str, float]:
    """What real training images get, from any report of the group."""
    for system in ran:
        if system.images == images:
            reals = end_of(shop, system).scores.get("reals")
            if reals:
                return dict(reals)
    return {}


def figure(name: str, files: dict[str, str], kind: str, caption: str) -> str:
    return f"![{caption}](pictures/{files[kind]})" if kind in files else f"({caption}: no picture of {name})"


def run_rows(shop: Workshop, systems: Sequence[System], ran: Sequence[System]) -> str:
    """The table of a document's runs: what it says beside what was found."""
    rows = []
    for system in systems:
        g, d = parameters(system)
        facts: list[object] = [f"`{system.preset}`", f"{g:,} / {d:,}", system.said, system.said_epoch]
        if system not in ran:
            rows.append([*facts, "not run", "", "", "", "", "", *([""] if shop.inception else [])])
            continue
        end = end_of(shop, system)
        epoch = system.epoch_kimg * 1000 / images_per_second(shop, system)
        rows.append(
            [
                *facts,
                minutes(epoch),
                f"{end.kimg / system.epoch_kimg:.1f} of {system.kimg / system.epoch_kimg:.0f}",
                number(end.distance(last=True)),
                number(end.distance()),
                *(
                    " / ".join(number(scores.get(name)) for scores in (end.last, end.scores))
                    for name in both(shop, system)
                ),
                *([number(fid_of(end))] if shop.inception else []),
            ]
        )
    header = [
        "preset", "G / D parameters", "the document shows", "an epoch, in the document", "here", "epochs run",
        f"`{metric_of(shop, systems[0].images)}`: G", "G averaged", "precision: G / averaged", "recall: G / averaged",
        *(["FID of the average"] if shop.inception else []),
    ]  # fmt: skip
    return table(header, rows)


def fid_of(end: Mark) -> float | None:
    return next((value for name, value in end.scores.items() if name.startswith("fid")), None)


def trained_on(shop: Workshop, systems: Sequence[System], ran: Sequence[System]) -> str:
    here = [system for system in systems if system in ran]
    if not here:
        return "None of these presets was trained here."
    machines = "; ".join(dict.fromkeys(machine_of(shop, system) for system in here))
    told = []
    for system in here:
        end, changed = end_of(shop, system), tables.changes(shop, system)
        how = f" (changed from the preset: `{'`, `'.join(changed)}`)" if changed else ""
        told.append(f"`{system.preset}`: {end.kimg:g} kimg in {minutes(end.seconds)}{how}.")
    return f"Trained on {machines}. {' '.join(told)}"


def page(
    shop: Workshop,
    source: str,
    ran: Sequence[System],
    shown: dict[str, dict[str, str]],
    output: Path,
) -> str:
    systems = [system for system in SYSTEMS if source in system.documents]
    head = f"# {source}: {TITLES[source]}\n\n`{COMMAND} ONLY={source}`\n\n"
    if source == "003":
        return head + celeba(shop, systems[0], ran)
    body = run_rows(shop, systems, ran) + "\n" + trained_on(shop, systems, ran) + "\n\n"
    for system in systems:
        if system in ran:
            body += gallery(shop, system, shown[system.preset])
    if source == "002":
        return head + body + of_002(shown.get(systems[0].preset, {}))
    if source == "004":
        return head + body + of_004(shop, systems, ran, output)
    return head + body + {"000": of_000, "001": of_001}[source](shop, systems, ran)


def gallery(shop: Workshop, system: System, files: dict[str, str]) -> str:
    grid = figure(
        system.preset, files, "fixed", f"{system.preset}: seeds 0 to 63 of the averaged generator, at the end"
    )
    curves = figure(system.preset, files, "curves", f"{system.preset}: losses, D's opinion, gradients")
    return f"## `{system.preset}`\n\n{collapse(shop, system)}{grid}\n\n{curves}\n\n"


def collapse(shop: Workshop, system: System) -> str:
    """A sentence for a generator that makes a few images over and over, which precision alone would praise."""
    end = end_of(shop, system)
    scores = end.last or end.scores
    precision, recall = (scores.get(name, 1.0) for name in both(shop, system))
    if recall >= VARIED:
        return ""
    if precision < SOUND:
        return (
            f"**Nothing like the real images**, after {end.step:,} steps: precision {precision:.3f}, recall "
            f"{recall:.3f}. The picture shows it.\n\n"
        )
    return (
        f"**Next to no variety**, after {end.step:,} steps: recall {recall:.3f}, so hardly any test image lies near "
        f"what it makes, whose precision of {precision:.2f} is one of a few kinds of image. The picture shows it.\n\n"
    )


def both(shop: Workshop, system: System) -> tuple[str, str]:
    """The names of precision and recall beside the distance."""
    metric = metric_of(shop, system.images)
    return metric.replace("fd_", "precision_"), metric.replace("fd_", "recall_")


def of_000(shop: Workshop, systems: Sequence[System], ran: Sequence[System]) -> str:
    return words("000", mistakes=mistaken(shop, systems, ran), note=note(shop, "mnist"))


def of_001(shop: Workshop, systems: Sequence[System], ran: Sequence[System]) -> str:
    found = mistaken(shop, systems, ran)
    facts = {"metric": metric_of(shop, "cifar10"), "copy": copied(shop), "note": note(shop, "cifar10")}
    return words("001", mistakes=found, **facts)


def note(shop: Workshop, images: str) -> str:
    """What the table of mistakes holds, and why its first row is not the overview's."""
    return (
        f"(`{metric_of(shop, images)}`'s distance; the generator is G as its last step left it. Other training images "
        "than in the overview stand for the reals, and the reference is of as many test images as are compared, so the "
        "first row may differ from the overview's.)\n\n"
    )


def copied(shop: Workshop) -> str:
    """A sentence where CIFAR-10 came as a folder of files."""
    kind, _, path = shop.sources["cifar10"].partition(":")
    if kind != "folder":
        return ""
    forms = {Path(member.path).suffix.lower() for member in all_files(Path(path))}
    if forms & {".jpg", ".jpeg"}:
        return (
            " CIFAR-10 is here a copy as JPEG files, which lose a little: no figure of it compares with published ones."
        )
    return " CIFAR-10 is here a copy as files."


def mistaken(shop: Workshop, systems: Sequence[System], ran: Sequence[System]) -> str:
    """The table of mistakes.py, with the first of these systems whose generator is there, or with reals alone."""
    images = systems[0].images
    if not shop.extractor(images).is_file():
        return "(Not run: there is no classifier of these images.)\n"
    count, side = shop.count(images), NATIVE[images]
    fakes, name = None, ""
    for system in systems:
        path = (
            shop.models / f"{model_name(system, end_of(shop, system).step, ema=False)}.onnx" if system in ran else None
        )
        if path is not None and path.is_file():
            fakes, name = mistakes.generated(path, count, side), f"`{system.preset}`"
            break
    try:
        found = mistakes.distances(shop.extractor(images), shop.sources[images], side, fakes, shop.data_root, count)
    except ImageSetError as error:
        return f"(Not run: {error}.)\n"
    header = ["compared", "items", "real training images", *([name] if name else [])]
    rows = [
        [row.name, f"{row.items:,}", number(row.reals), *([number(row.generated)] if name else [])] for row in found
    ]
    return table(header, rows)


def of_002(files: dict[str, str]) -> str:
    return words(
        "002",
        fixed=figure("002", files, "fixed animation", "the same z at every tick"),
        random=figure("002", files, "random animation", "fresh z at every tick"),
    )


def of_004(shop: Workshop, systems: Sequence[System], ran: Sequence[System], output: Path) -> str:
    if not all(system in ran for system in systems):
        return "The comparison needs both runs.\n"
    folder = shop.folder / "compare-004"
    compare(shop, [shop.run_of(system) for system in systems], folder)
    pictures.copy(folder / "fixed.png", output / "pictures" / "004-fixed.png")
    pictures.copy(folder / "curves.png", output / "pictures" / "004-curves.png")
    told = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    rows = [[title, *values] for title, values in told["rows"].items() if set(values) != {"not measured"}]
    marks = [mark(shop, system, tick) for system in systems if (tick := tables.at_equal_epochs(shop, systems, system))]
    rows.append([f"`{metric_of(shop, 'mnist')}`, G averaged", *(number(found.distance()) for found in marks)])
    rows.append(["the same of G as its step left it", *(number(found.distance(last=True)) for found in marks)])
    return words("004", kimg=f"{told['images_seen'] / 1000:g}", table=table(["", *told["runs"]], rows))


def celeba(shop: Workshop, system: System, ran: Sequence[System]) -> str:
    g, d = parameters(system)
    said = run_rows(shop, [system], ran) if system in ran else "It was not run here.\n"
    return words("003", g=f"{g:,}", d=f"{d:,}", ran=said)


def best(shop: Workshop, ran: Sequence[System], shown: dict[str, dict[str, str]]) -> str:
    parts = []
    for ours in (system for system in ran if not system.documents):
        end = end_of(shop, ours)
        rivals = tables.rivals(tuple(ran), ours)
        theirs = [system for system in rivals if epochs(shop, system) >= SHORTEST]
        short = ", ".join(f"`{s.preset}` ({epochs(shop, s):.2f} epochs)" for s in rivals if s not in theirs)
        grids = [(system, shown[system.preset]) for system in (ours, *theirs)]
        parts.append(
            f"## `{ours.preset}`\n\n"
            + (
                f"### At equal images seen\n\n{versus(shop, ours, theirs, tables.as_many_images)}\n"
                f"### At equal time\n\n{versus(shop, ours, theirs, tables.as_much_time)}\n"
                if theirs
                else "No document's run of these images is long enough to be held against: "
                f"{number(end.distance())} after {end.kimg:g} kimg.\n\n"
            )
            + f"### `{ours.preset}` beside reals, and how it went\n\n"
            + precision_and_recall(shop, ours)
            + collapse(shop, ours)
            + figure(ours.preset, shown[ours.preset], "real-beside-fake", f"{ours.preset}: reals left, fakes right")
            + "\n\n"
            + figure(ours.preset, shown[ours.preset], "curves", f"{ours.preset}: losses, D's opinion, gradients")
            + "\n\n"
            + (f"Left out, as too short to be held against: {short}.\n\n" if short else "")
            + "### Seeds 0 to 63 of each at its end, averaged\n\n"
            + "\n\n".join(
                f"`{system.preset}`, {end_of(shop, system).kimg:g} kimg:\n\n"
                + figure(system.preset, files, "fixed", f"{system.preset}: seeds 0 to 63")
                for system, files in grids
            )
            + "\n"
        )
    copy = copied(shop) if any(system.images == "cifar10" for system in ran) else ""
    return words("best", parts="\n".join(parts) or "Not run yet.\n", command=COMMAND, copy=copy)


def precision_and_recall(shop: Workshop, system: System) -> str:
    """How many of its images look real, and how much of the real ones it covers, beside what real images get."""
    scores, name = end_of(shop, system).scores, metric_of(shop, system.images)
    names = [name.replace("fd_", f"{metric}_") for metric in ("precision", "recall")]
    reals = dict(scores.get("reals") or {})
    figures = [number(values.get(each)) for each in names for values in (scores, reals)]
    told = "Precision {}, where real training images have {}; recall {}, where they have {}."
    return told.format(*figures) + "\n\n"


def epochs(shop: Workshop, system: System) -> float:
    return end_of(shop, system).kimg / system.epoch_kimg


def versus(shop: Workshop, ours: System, theirs: Sequence[System], at: tables.At) -> str:
    """A row for each of theirs at its end, and ours at that moment."""
    rows = []
    for system in theirs:
        end, tick = end_of(shop, system), at(shop, ours, system)
        mine = mark(shop, ours, tick) if tick else None
        row: list[object] = [
            f"`{system.preset}`",
            f"{end.kimg:g}",
            minutes(end.seconds),
            number(end.distance(last=True)),
            number(end.distance()),
        ]
        if mine is None:
            rows.append([*row, "no checkpoint so early", "", "", "", ""])
            continue
        ended = " (its end)" if mine.step == end_of(shop, ours).step else ""
        row += [f"{mine.kimg:g}{ended}", minutes(mine.seconds), f"**{number(mine.distance())}**"]
        rows.append([*row, share(mine.distance(), end.distance(last=True)), share(mine.distance(), end.distance())])
    header = [
        "the document's", "kimg", "training", f"`{metric_of(shop, ours.images)}`: its G", "its average",
        "ours: kimg", "training", "distance", "of G's", "of the average's",
    ]  # fmt: skip
    return table(header, rows)


def share(ours: float | None, theirs: float | None) -> str:
    return "" if ours is None or not theirs else f"{ours / theirs:.2g}"
