"""Every ratio of a run of `make bench` beside its counterpart: from the parts' results to one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.machine import in_words
from benchmarks.markdown import number, table
from benchmarks.sources import how_to_fetch

NOT_SLOWER = 1.0  # the target of what has no other
# What this project wants of two cores; of a training step, with bfloat16 in the processor
TRAINING_TARGETS = {"mnist-dcgan": 2.0, "mnist-gan": 3.5, "examples-dcgan": 2.2}
FRECHET_TARGETS = {"full_rank": 8.0, "singular": 5.0, "nearly_full_rank": 5.0}  # of pytorch-fid
INCEPTION_TARGET = 3.0  # of pytorch-fid
SCORING_TARGET = round(1 / 1.2, 2)  # of generating and extracting, one after the other
MANNERS = {
    "documents": "plain loop in Kunal627's style",
    "examples": "plain loop in the PyTorch example's manner",
    "dcgan_notebook": "plain loop in Aiden-Ross-Dsouza's style",
    "wgan_notebook": "plain loop in Aiden-Ross-Dsouza's style",
    "digits_notebook": "plain loop in divyam25's style",
}
SERVED = {"npy": "npy", "json": "PNG in JSON"}
PEERS = {
    "gan_atelier_npy": "npy",
    "gan_atelier_json_png": "PNG in JSON",
    "fastapi_torch_npy": "FastAPI + torch, npy",
    "bentoml_batchable_json": "BentoML's batchable endpoint, JSON",
}
TOOLS = {"pytorch_fid": "pytorch-fid", "torch_fidelity": "torch-fidelity"}
FRECHET = {"full_rank": "full rank", "singular": "singular", "nearly_full_rank": "singular, the slowest case"}
METRICS = {
    "fid": "FID",
    "kid": "KID",
    "is": "IS",
    "prc": "precision and recall",
    "together": "FID, KID, IS, precision, recall",
}


@dataclass(frozen=True)
class Row:
    """`ratio` {"median", "min", "max"} is how many times as fast as the counterpart ours is, round by round."""

    part: str
    case: str
    unit: str
    ours: float
    counterpart: str
    theirs: float
    ratio: Mapping[str, float]
    load_average: list[float]
    target: str | None = None
    met: bool | None = None


def row(part: str, case: str, unit: str, ours: float, counterpart: str, theirs: float, **more: Any) -> Row:
    """A row whose target is `at_least` for its median ratio, where one is given."""
    limit = more.pop("at_least", None)
    if limit is not None:
        more |= {"target": f"at least {limit:g}", "met": more["ratio"]["median"] >= limit}
    return Row(part, case, unit, ours, counterpart, theirs, **more)


def training(document: dict[str, Any]) -> Iterator[Row]:
    for result in document["results"]:
        rates, source = result["images_per_second"], result["preset"].partition("-")[0]
        case = f"`{result['case']}`, batch {result['batch_size']}, {result['precision']}"
        if not result["images"].startswith(source):
            case += f", on {result['images']}"
        peers = [(MANNERS[result["plain_loop"]], "plain", "ratio_to_plain")]
        if result["peer"]:
            peers.append((f"`{result['peer'].partition(',')[0]}`, unmodified", "peer", "ratio_to_peer"))
        for name, kind, key in peers:
            target = TRAINING_TARGETS.get(result["case"], NOT_SLOWER)
            more = {"ratio": result[key], "load_average": result["load_average"], "at_least": target}
            yield row("training step", case, "images/s", rates["trainer"], name, rates[kind], **more)


def serving(document: dict[str, Any]) -> Iterator[Row]:
    kept = {target["target"]: target for target in document["targets"]}
    clients = f"{document['clients']} clients of n={document['images_per_request']}"
    for name, told in document["generators"].items():
        for form, words in SERVED.items():
            target = kept.get(f"{name}: {form}, share of the bare loop", {})
            yield row(
                *("service", f"`{name}`, {clients}, {words}", "images/s", told[form]["images_per_s"]),
                *(f"bare ONNX Runtime loop, batch {told['bare']['batch']}", told["bare"]["images_per_s"]),
                ratio=told[form]["ratio_spread"],
                load_average=told["load_average"],
                at_least=target.get("at least"),
            )
        alone, over = told["alone"], kept.get(f"{name}: alone, ms over the bare single run")
        yield row(
            *("service", f"`{name}`, one image alone, p50", "ms", alone["p50_ms"]),
            *("bare ONNX Runtime run", alone["bare_ms"]),
            ratio=alone["ratio_spread"],
            load_average=told["load_average"],
            target=over and f"at most {over['at most']:g} ms more",
            met=over and over["met"],
        )


def serving_peers(document: dict[str, Any]) -> Iterator[Row]:
    clients = f"{document['clients']} clients of n={document['images_per_request']}"
    for name, told in document["peers"].items():
        for pair, ratio in told["times_as_fast"].items():
            ours, theirs = pair.split("/")
            yield row(
                *("service", f"`{name}`, {clients}, {PEERS[ours]}", "images/s", told[ours]["images_per_s"]),
                *(PEERS[theirs], told[theirs]["images_per_s"]),
                ratio=ratio,
                load_average=told["load_average"],
                at_least=NOT_SLOWER,
            )


def evaluation(document: dict[str, Any]) -> Iterator[Row]:
    if found := document.get("frechet"):
        for case, words in FRECHET.items():
            told = found[case]
            name = f"Fréchet distance, {found['features']} features, {told['images']:,} images, {words}"
            targets = {"pytorch_fid": FRECHET_TARGETS[case]}
            yield from beside(name, "s", told, "ours_s", "{}_s", found["load_average"], NOT_SLOWER, targets)
    if found := document.get("inception"):
        for tool, resize in (("pytorch_fid", "torch"), ("torch_fidelity", "tf1")):
            told = found | {"times_as_fast": {tool: found["times_as_fast"][tool]}}
            ours = "ours_images_per_s" if resize == "torch" else f"ours_{resize}_images_per_s"
            name, load = f"Inception's features, 32 px, `{resize}` resize", found["load_average"]
            targets = {"pytorch_fid": INCEPTION_TARGET}
            yield from beside(name, "images/s", told, ours, "{}_images_per_s", load, NOT_SLOWER, targets)
    if found := document.get("metrics"):
        for metric, words in METRICS.items():
            name, load = f"{words} of {found['images']:,} images' features", found["load_average"]
            yield from beside(name, "s", found[metric], "ours_s", "{}_s", load, None)
    if found := document.get("command"):
        n = found["images_a_side"]
        name = f"the whole command: Inception and five metrics, {n} PNGs against {n}"
        yield from beside(name, "s", found, "ours_s", "{}_s", found["load_average"], NOT_SLOWER)
    if found := document.get("score"):
        yield row(
            *("evaluation", f"scoring {found['images']:,} images of a service", "s", found["scoring_s"]),
            *("generating them and extracting, alone", round(found["generating_s"] + found["extracting_s"], 2)),
            ratio=found["times_as_fast"]["the_two"],
            load_average=found["load_average"],
            at_least=SCORING_TARGET,
        )


def beside(
    case: str,
    unit: str,
    told: dict[str, Any],
    ours: str,
    theirs: str,
    load: list[float],
    at_least: float | None,
    targets: Mapping[str, float] = {},
) -> Iterator[Row]:
    """A row for each tool of `times_as_fast`; its target is `targets`' own, or else `at_least`."""
    for tool, ratio in told["times_as_fast"].items():
        its = told[theirs.format(tool)]
        yield row(
            *("evaluation", case, unit, told[ours], TOOLS[tool], its),
            ratio=ratio,
            load_average=load,
            at_least=targets.get(tool, at_least),
        )


ROWS = {"train_step": training, "serving": serving, "serving_peers": serving_peers, "evaluation": evaluation}


def rows(documents: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows of the parts' results (by their file's name, without .json), as JSON values."""
    return [asdict(each) for name, told in documents.items() for each in ROWS[name](told)]


def bench(document: dict[str, Any]) -> str:
    """The table of bench.json, with what it was measured on above."""
    cells = []
    for each in document["rows"]:
        ratio = each["ratio"]
        kept = "" if each["target"] is None else f"{each['target']}: {'met' if each['met'] else '**missed**'}"
        cells.append([
            f"{each['part']}: {each['case']}",
            f"{number(each['ours'])} {each['unit']}",
            f"{each['counterpart']}: {number(each['theirs'])} {each['unit']}",
            f"**{ratio['median']:.2f}**",
            f"{ratio['min']:.2f}–{ratio['max']:.2f}",
            kept,
        ])  # fmt: skip
    before, after = document["load_average"]
    lines = [
        f"Measured {document['measured']} in {document['minutes']:.0f} minutes"
        + (" (`--quick`: one short round, for trying it out)" if document["quick"] else "")
        + f", load average {before:.1f} before and {after:.1f} after, on:\n",
        in_words(document["machine"]) + "\n",
        table(["case", "ours", "counterpart", "ratio", "spread", "target"], cells),
        "\nThe ratio is how many times as fast as the counterpart ours is: the rounds' median, and their lowest and "
        "highest; it need not be the quotient of the two medians beside it. What is compared took turns.",
    ]
    lines += [f"\nNot measured: {name}: {why}" for name, why in document["not_measured"].items()]
    return "\n".join(lines)


def page(document: dict[str, Any]) -> str:
    """bench.md."""
    return f"# Benchmarks\n\n{bench(document)}\n\n## What it is measured beside\n\n{how_to_fetch()}\n"


def evaluation_table(document: dict[str, Any]) -> str:
    """The rows of bench.json that compare evaluation with other tools."""
    cells = [
        [
            each["case"],
            f"{number(each['ours'])} {each['unit']}",
            f"{each['counterpart']}: {number(each['theirs'])} {each['unit']}",
            f"**{each['ratio']['median']:.2f}**",
        ]
        for each in document["rows"]
        if each["part"] == "evaluation"
    ]
    return f"{table(['case', 'ours', 'counterpart', 'ratio'], cells)}\n\n{in_words(document['machine'])}"


TABLES = {"bench": evaluation_table}  # training and service have tables of their own
