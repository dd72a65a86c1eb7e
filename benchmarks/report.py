"""Print the tables of the benchmarks, from their result files.

    python -m benchmarks.report [--write docs/results/performance.md]

With --write, put each between its markers, `<!-- serving -->` and `<!-- /serving -->`, and leave those without
a result as they are. `make bench` writes the table `bench`, every ratio with its counterpart.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import PACKAGES, RESULTS, existing_file, format_spread

NOT_SLOWER = 1.0  # the target of what has no other
# What this project wants of two cores; of a training step, with bfloat16 in the processor
TRAINING_TARGETS = {"mnist-dcgan": 2.0, "mnist-gan": 3.5, "examples-dcgan": 2.2}
# Of the speed of the best matrix products of the same shapes, on a processor
PRODUCTS_TARGETS = {"mnist-dcgan": 0.75, "cifar10-dcgan": 0.75, "examples-dcgan": 0.75, "mnist-gan": 0.6}
SERVING_TARGETS = {"cifar10-dcgan": {"npy": 0.9, "json": 0.5}, "mnist-dcgan": {"npy": 0.7, "json": 0.5}}
ALONE_MS = 4.0  # at most, more than the bare session's single run, of the same presets
INCEPTION_TARGET = 3.0  # of pytorch-fid
EFFICIENTNET_TARGET = 2.0  # of its package
SCORING_TARGET = round(1 / 1.2, 2)  # of generating and extracting, one after the other
FRECHET = {  # the words of each case, and the target against pytorch-fid
    "full_rank": ("full rank", 8.0),
    "singular": ("singular", 5.0),
    "nearly_full_rank": ("singular, the slowest case", 5.0),
}
MANNERS = {
    "documents": "plain loop in Kunal627's style",
    "examples": "plain loop in the PyTorch example's manner",
    "dcgan_notebook": "plain loop in Aiden-Ross-Dsouza's style",
    "wgan_notebook": "plain loop in Aiden-Ross-Dsouza's style",
    "digits_notebook": "plain loop in divyam25's style",
}
SERVED = {"npy": "npy", "json": "PNG in JSON"}
SERVERS = {
    "gan_atelier_npy": "GAN Atelier, npy",
    "gan_atelier_json_png": "GAN Atelier, PNG in JSON",
    "fastapi_torch_npy": "FastAPI + torch, npy",
    "bentoml_batchable_json": "BentoML's batchable endpoint, JSON",
}
TOOLS = {
    "pytorch_fid": "pytorch-fid",
    "torch_fidelity": "torch-fidelity",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
}
METRICS = {
    "fid": "FID",
    "kid": "KID",
    "is": "IS",
    "prc": "precision and recall",
    "together": "FID, KID, IS, precision, recall",
}
SCALING_WAYS = {
    "one_worker_one_core": "1 worker, 1 core",
    "one_worker_two_cores": "1 worker, 2 cores",
    "two_workers_two_cores": "2 workers, 2 cores",
}
REPLICA_LOAD = 0.7  # of what a replica can do; above it waiting grows quickly

Document = Mapping[str, Any]  # a result file


def row(
    part: str,
    case: str,
    unit: str,
    ours: float,
    counterpart: str,
    theirs: float,
    ratio: Mapping[str, float],
    load_average: list[float],
    at_least: float | None = None,
) -> dict[str, Any]:
    """Return one ratio: {"median", "min", "max"} of how many times as fast as the counterpart ours is, per round.

    `at_least` is the target of its median.
    """
    target = None if at_least is None else f"at least {at_least:g}"
    met = None if at_least is None else ratio["median"] >= at_least
    found = {"part": part, "case": case, "unit": unit, "ours": ours, "counterpart": counterpart, "theirs": theirs}
    return found | {"ratio": ratio, "load_average": load_average, "target": target, "met": met}


def training_rows(document: Document) -> Iterator[dict[str, Any]]:
    for result in document["results"]:
        rates = result["images_per_second"]
        case = f"`{result['case']}`, batch {result['batch_size']}, {result['precision']}"
        if not result["images"].startswith(result["preset"].partition("-")[0]):
            case += f", on {result['images']}"
        for kind, name in {"plain": MANNERS[result["plain_loop"]], "peer": f"{script(result)}, unmodified"}.items():
            if kind in rates:
                more = result[f"ratio_to_{kind}"], result["load_average"]
                targets = {} if result.get("threads") == 1 else TRAINING_TARGETS
                limit = targets.get(result["case"], NOT_SLOWER)
                yield row("training step", case, "images/s", rates["trainer"], name, rates[kind], *more, limit)
        if gflops := result.get("gflop_per_second"):
            more = result["share_of_products"], result["load_average"]
            limit = PRODUCTS_TARGETS.get(result["case"])
            products = "the best matrix products of its shapes"
            yield row("training step", case, "GFLOP/s", gflops["trainer"], products, gflops["products"], *more, limit)


def script(result: Document) -> str:
    """Return the name of the original script of a training result."""
    return f"`{str(result['peer']).partition(',')[0]}`"


def serving_rows(document: Document) -> Iterator[dict[str, Any]]:
    clients = f"{document['clients']} clients of n={document['images_per_request']}"
    for name, found in document["generators"].items():
        bare, alone, load, targets = found["bare"], found["alone"], found["load_average"], SERVING_TARGETS.get(name, {})
        for form, words in SERVED.items():
            case, loop = f"`{name}`, {clients}, {words}", f"bare ONNX Runtime loop, batch {bare['batch']}"
            rates = found[form]["images_per_s"], loop, bare["images_per_s"]
            yield row("service", case, "images/s", *rates, found[form]["ratio_spread"], load, targets.get(form))
        case, run = f"`{name}`, one image at a time, p50", "bare ONNX Runtime run"
        one = row("service", case, "ms", alone["p50_ms"], run, alone["bare_ms"], alone["ratio_spread"], load)
        if targets:
            over = alone.get("over_bare_ms", alone["p50_ms"] - alone["bare_ms"])
            one |= {"target": f"at most {ALONE_MS:g} ms more", "met": over <= ALONE_MS}
        yield one


def serving_peers_rows(document: Document) -> Iterator[dict[str, Any]]:
    clients = f"{document['clients']} clients of n={document['images_per_request']}"
    for name, found in document["peers"].items():
        for pair, ratio in found["times_as_fast"].items():
            ours, theirs = pair.split("/")
            case = f"`{name}`, {clients}, {SERVERS[ours].removeprefix('GAN Atelier, ')}"
            rates = found[ours]["images_per_s"], SERVERS[theirs], found[theirs]["images_per_s"]
            yield row("service", case, "images/s", *rates, ratio, found["load_average"], NOT_SLOWER)


def evaluation_rows(document: Document) -> Iterator[dict[str, Any]]:
    def tools(
        part: str, found: Document, case: str, unit: str = "s", ours: str = "ours_s", **limits: float
    ) -> Iterator[dict[str, Any]]:
        """Yield a row per tool of `times_as_fast`."""
        for tool, ratio in found["times_as_fast"].items():
            rates = found[ours], TOOLS[tool], found[f"{tool}_{unit.replace('/', '_per_')}"]
            load = document[part]["load_average"]
            yield row("evaluation", case, unit, *rates, ratio, load, limits.get(tool))

    if found := document.get("frechet"):
        for key, (words, limit) in FRECHET.items():
            case = f"Fréchet distance, {found['features']} features, {found[key]['images']:,} images, {words}"
            yield from tools("frechet", found[key], case, pytorch_fid=limit, torch_fidelity=NOT_SLOWER)
    if found := document.get("inception"):
        for tool, resize, ours, limit in (
            ("pytorch_fid", "torch", "ours_images_per_s", INCEPTION_TARGET),
            ("torch_fidelity", "tf1", "ours_tf1_images_per_s", NOT_SLOWER),
        ):
            one = found | {"times_as_fast": {tool: found["times_as_fast"][tool]}}
            case = f"Inception's features, 32 px, `{resize}` resize"
            yield from tools("inception", one, case, "images/s", ours, **{tool: limit})
    if found := document.get("efficientnet"):
        case, target = f"EfficientNet-Lite0's features, 32 px enlarged to {found['side']}", EFFICIENTNET_TARGET
        ours = "ours_images_per_s"
        yield from tools("efficientnet", found, case, "images/s", ours, efficientnet_lite_pytorch=target)
    if found := document.get("metrics"):
        for metric, words in METRICS.items():
            yield from tools("metrics", found[metric], f"{words} of {found['images']:,} images' features")
    if found := document.get("command"):
        n = found["images_a_side"]
        case = f"the whole command: Inception and five metrics, {n} PNGs against {n}"
        yield from tools("command", found, case, torch_fidelity=NOT_SLOWER)
    if found := document.get("score"):
        separately = round(found["generating_s"] + found["extracting_s"], 2)
        case, other = f"scoring {found['images']:,} images of a service", "generating and extracting separately"
        more = found["times_as_fast"]["the_two"], found["load_average"], SCORING_TARGET
        yield row("evaluation", case, "s", found["scoring_s"], other, separately, *more)


ROWS: dict[str, Callable[[Document], Iterator[dict[str, Any]]]] = {
    "train_step": training_rows,
    "serving": serving_rows,
    "serving_peers": serving_peers_rows,
    "evaluation": evaluation_rows,
}


def rows(documents: Mapping[str, Document]) -> list[dict[str, Any]]:
    """Return all rows of result documents (by file name, without .json)."""
    return [each for name, document in documents.items() for each in ROWS[name](document)]


def print_rows(documents: Mapping[str, Document]) -> bool:
    """Print each row of result documents in one line, and return whether all targets were met."""
    found = rows(documents)
    for each in found:
        print("{case}: {ours}; {counterpart}: {theirs}; ratio {spread} {kept}".format_map(worded(each)), flush=True)
    return all(each["met"] is not False for each in found)


def worded(each: Document) -> dict[str, Any]:
    """Return a row whose numbers are texts with units."""
    kept = "" if each["target"] is None else f"{each['target']}: {'met' if each['met'] else '**missed**'}"
    values = {side: f"{number(each[side])} {each['unit']}" for side in ("ours", "theirs")}
    return {**each, **values, "spread": format_spread(each["ratio"]), "kept": kept}


def table(heads: str, row: str, records: Iterable[Document]) -> str:
    """Return a Markdown table: `heads`, and the format `row` for each record; both separate their cells by ` | `."""
    columns = heads.count(" | ")
    if row.count(" | ") != columns:
        raise ValueError(f"the row {row!r} does not fit the heads {heads!r}")
    lines = [heads, "--- | " * columns + "---", *(row.format_map(record) for record in records)]
    return "\n".join(f"| {line} |" for line in lines)


def number(value: float) -> str:
    """Return three significant digits, with a comma between thousands."""
    if value == 0 or math.isnan(value):
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits):,.{min(digits, 3)}f}"


def page(document: Document) -> str:
    """Return bench.md."""
    (before, after), machine = document["load_average"], document["machine"]
    quick = " (`--quick`: one short round, for trying it out)" if document["quick"] else ""
    paragraphs = [
        "# Benchmarks",
        f"Measured {document['measured']} in {document['minutes']:.0f} minutes{quick}, load average {before:.1f} "
        f"before and {after:.1f} after, on:",
        describe(machine),
        ", ".join(f"{name} {machine[name]}" for name in ("python", *PACKAGES) if name in machine) + ".",
        ratio_table(each | {"case": f"{each['part']}: {each['case']}"} for each in document["rows"]),
        "The ratio is how many times as fast as the counterpart ours is: the rounds' median, and their lowest and "
        "highest; it need not be the quotient of the two medians next to it. What is compared alternates.",
        *(f"Not measured: {name}: {why}" for name, why in document["not_measured"].items()),
        "docs/results/performance.md describes how to fetch the peers.",
    ]
    return "\n\n".join(paragraphs) + "\n"


def ratio_table(found: Iterable[Document]) -> str:
    """Return the table of rows."""
    row = "{case} | {ours} | {counterpart}: {theirs} | **{spread}** | {kept}"
    return table("case | ours | counterpart | ratio | target", row, map(worded, found))


def evaluation_table(document: Document) -> str:
    """Return the rows of bench.json that compare the evaluation with other tools."""
    found = ratio_table(each for each in document["rows"] if each["part"] == "evaluation")
    return f"{found}\n\n{describe(document['machine'])}"


def training_table(document: Document) -> str:
    """Return the trainer's loop against plain loops and original scripts."""
    return f"{ratio_table(training_rows(document))}\n\n{describe(document['machine'])}"


def describe(machine: Document) -> str:
    """Return the machine as a line of Markdown."""
    model = f" ({machine['cpu_model']})" if machine.get("cpu_model") else ""
    sets = ", ".join(machine.get("instructions") or ()) or "no known vector instructions"
    memory = f", {machine['memory_gib']} GiB" if machine.get("memory_gib") else ""
    return (
        f"{machine['cpu']}{model}, {machine['cores']} cores{memory}; {sets}; GPU: {machine.get('gpu') or 'none'}; "
        f"{machine.get('system', '')}."
    )


def serving_table(document: Document) -> str:
    heads = "generator | bare loop | npy | PNG in JSON | npy: p50 / p99 | one client, n=1: p50 / p99 | bare single run"
    row = "`{name}` | {bare[images_per_s]:.0f} images/s (batch {bare[batch]})"
    row += "".join(f" | {{{form}[images_per_s]:.0f}}, **{{{form}[ratio]:.2f}}** of it" for form in SERVED)
    row += " | {npy[p50_ms]:.0f} / {npy[p99_ms]:.0f} ms"
    row += " | {alone[p50_ms]:.1f} / {alone[p99_ms]:.1f} ms | {alone[bare_ms]:.1f} ms"
    records = ({"name": name, **found} for name, found in document["generators"].items())
    return f"{table(heads, row, records)}\n\n{describe(document['machine'])}"


def serving_peers_table(document: Document) -> str:
    heads, row = "", "{name}"
    for preset in document["peers"]:
        heads += f" | `{preset}`: images/s, p50 / p99"
        row += f" | {{{preset}[images_per_s]:.0f}}, {{{preset}[p50_ms]:.0f}} / {{{preset}[p99_ms]:.0f}} ms"
    records = [
        {"name": name, **{preset: found[key] for preset, found in document["peers"].items()}}
        for key, name in SERVERS.items()
    ]
    return f"{table(heads, row, records)}\n\n{describe(document['machine'])}"


def scaling_table(document: Document) -> str:
    """Return what one core serves and what two serve."""
    row = "`{name}` | {way} | {rate} | {p50_ms:.0f} / {p99_ms:.0f} ms | {pss_mb:.0f} MB"
    records = []
    for name, generator in document["generators"].items():
        for key, way in SCALING_WAYS.items():
            full = {**generator[key]["npy"][-1], "pss_mb": generator[key]["pss_mb"]}
            records.append(full | {"name": name, "way": way, "rate": number(full["images_per_s"])})
    return table("generator | served by | images/s | p50 / p99 | memory", row, records)


def core_rate(generator: Document) -> float:
    """Return the measured images/s of one core."""
    return float(generator["one_worker_one_core"]["npy"][-1]["images_per_s"])


def replicas(images_per_s: float, rate_per_core: float, cores: int = 2) -> int:
    """Return the replicas of so many cores for a rate: at least two, each at most 70 % busy."""
    return max(2, math.ceil(images_per_s / (REPLICA_LOAD * cores * rate_per_core)))


def limited_data_table(document: Document) -> str:
    """Return the distances of each share of the images, without and with adaptive augmentation."""
    heads = "images | kimg | without | adaptive | ratio | p at the end"
    row = "{share} % ({images:,}) | {kimg:g} | {without} | {adaptive} | {ratio} | {p}"
    records = []
    for share, arms in sorted(document["runs"].items(), key=lambda item: -float(item[0])):
        distances = {name: arms[name]["distance"] for name in ("without", "adaptive") if name in arms}
        shown = {name: number(distances[name]) if name in distances else "–" for name in ("without", "adaptive")}
        both = len(distances) == 2
        ratio = f"**{distances['adaptive'] / distances['without']:.2f}**" if both else "–"
        p = f"{arms['adaptive']['augment/p']:.2f}" if "adaptive" in arms else "–"
        either = next(iter(arms.values()))
        records.append(
            {"share": share, "images": either["images"], "kimg": either["kimg"], "ratio": ratio, "p": p, **shown}
        )
    return table(heads, row, records)


TABLES: dict[str, Callable[[Document], str]] = {  # by the result file's name
    "bench": evaluation_table,  # training and service have their own tables
    "serving": serving_table,
    "serving_peers": serving_peers_table,
    "scaling": scaling_table,
    "limited_data": limited_data_table,
    "train_step": training_table,
    "train_step_bf16": training_table,
    "train_step_one_core_fp32": training_table,
    "train_step_one_core_bf16": training_table,
}


def main() -> None:
    """Print the tables, or write them into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", type=existing_file, help="a document with markers")
    args = parser.parse_args()
    texts = {
        name: make(json.loads(path.read_text(encoding="utf-8")))
        for name, make in TABLES.items()
        if (path := args.results / f"{name}.json").is_file()
    }
    if args.write is None:
        print("\n\n".join(f"{name}:\n\n{text}" for name, text in texts.items()))
        return
    document = args.write.read_text(encoding="utf-8")
    names = marked(document)
    if unknown := [name for name in names if name not in TABLES]:
        parser.error(f"{args.write} has a place for {', '.join(unknown)}; the tables are {', '.join(TABLES)}")
    try:
        for name in names:
            document = between(document, name, texts[name]) if name in texts else document
    except ValueError as error:
        parser.error(f"{args.write}: {error}")
    args.write.write_text(document, encoding="utf-8")
    missing = [name for name in names if name not in texts]
    unchanged = f"; unchanged, without a result: {', '.join(missing)}" if missing else ""
    print(f"{args.write}: {len(names) - len(missing)} tables{unchanged}")


def between(text: str, name: str, made: str) -> str:
    """Return `text` with `made` between `<!-- name -->` and `<!-- /name -->`, which must occur once (ValueError)."""
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)"
    text, count = re.subn(pattern, lambda match: f"{match[1]}{made}\n{match[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"there are {count} places for the table {name}")
    return text


def marked(text: str) -> list[str]:
    """Return the names of the tables that a document has markers for, in order."""
    return re.findall(r"^<!-- (\w+) -->$", text, flags=re.MULTILINE)


if __name__ == "__main__":
    main()
