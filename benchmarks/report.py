"""The tables of the benchmarks, from their result files.

    python -m benchmarks.report [--write docs/results/performance.md]

Prints them; --write puts each between its markers, `<!-- serving -->` and `<!-- /serving -->`, and leaves those without
a result as they are. `make bench` writes the table `bench`, every ratio with its counterpart.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import PACKAGES, RESULTS, format_spread

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
NAMES = {
    "gan_atelier_npy": "GAN Atelier, npy",
    "gan_atelier_json_png": "GAN Atelier, PNG in JSON",
    "fastapi_torch_npy": "FastAPI + torch, npy",
    "bentoml_batchable_json": "BentoML's batchable endpoint, JSON",
}
SCORES = {"fd_classifier": "Fréchet distance", "precision": "precision", "recall": "recall", "coverage": "coverage"}
SCALING_WAYS = {
    "one_worker_one_core": "1 worker, 1 core",
    "one_worker_two_cores": "1 worker, 2 cores",
    "two_workers_two_cores": "2 workers, 2 cores",
}
REPLICA_LOAD = 0.7  # of what a replica can do; above it waiting grows quickly


@dataclass(frozen=True)
class Repository:
    """A repository on GitHub; `commit` is the one that was measured or read."""

    name: str
    commit: str
    folder: str
    scripts: tuple[str, ...] = ()  # that `--peer` runs, unmodified
    read: str = ""  # what was read to write a plain loop in its manner

    @property
    def commands(self) -> str:
        return (
            f"git clone https://github.com/{self.name} ../peers/{self.folder}\n"
            f"git -C ../peers/{self.folder} checkout --quiet \\\n    {self.commit}"
        )


REPOSITORIES = (
    Repository(
        "Kunal627/kunal627.github.io",
        "66699470c4680670d4caf084ead6c377ae38b850",
        "kunal627",
        ("code/gan/train_gan.py", "code/gan/train_dcgan.py"),
    ),
    Repository("pytorch/examples", "77f55b912142e11fcfdf5b530231fb9c52f181e8", "pytorch-examples", ("dcgan/main.py",)),
    Repository(
        "Aiden-Ross-Dsouza/Generative-Models",
        "4baeaac67168f099334c0ef2c471788585a2f9ea",
        "aiden-ross-dsouza",
        read="DCGAN.ipynb and WGAN.ipynb",
    ),
    Repository("divyam25/Oh-My-GAN", "4df7576e5969111a1993968d1bd488ee593e6959", "divyam25", read="DCGAN_MNIST.ipynb"),
)
INSTALLED = "pytorch-fid, torch-fidelity, FastAPI and BentoML"


def how_to_fetch() -> str:
    """Return Markdown: the commands that fetch the peers, and what was read."""
    runnable = [one for one in REPOSITORIES if one.scripts]
    peers = "".join(f" \\\n    --peer ../peers/{one.folder}/{script}" for one in runnable for script in one.scripts)
    read = "; ".join(f"{one.name} at {one.commit[:8]} ({one.read})" for one in REPOSITORIES if one.read)
    fetched = "\n".join(one.commands for one in runnable)
    return (
        f"`make setup` installs {INSTALLED}. Fetch the authors' training scripts, which then run unmodified:\n\n"
        f"```\n{fetched}\nmake bench ARGS='training{peers}'\n```\n\n"
        f"Notebooks cannot be run; the plain loops were written after reading {read}."
    )


@dataclass(frozen=True)
class Row:
    """One ratio: {"median", "min", "max"} of how many times as fast as the counterpart ours is, per round."""

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
    """Return a row; `at_least` is the target of its median ratio."""
    limit = more.pop("at_least", None)
    if limit is not None:
        more |= {"target": f"at least {limit:g}", "met": more["ratio"]["median"] >= limit}
    return Row(part, case, unit, ours, counterpart, theirs, **more)


def training_rows(document: dict[str, Any]) -> Iterator[Row]:
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


def serving_rows(document: dict[str, Any]) -> Iterator[Row]:
    kept = {target["target"]: target for target in document["targets"]}
    clients = f"{document['clients']} clients of n={document['images_per_request']}"
    for name, reported in document["generators"].items():
        for form, words in SERVED.items():
            target = kept.get(f"{name}: {form}, share of the bare loop", {})
            yield row(
                *("service", f"`{name}`, {clients}, {words}", "images/s", reported[form]["images_per_s"]),
                *(f"bare ONNX Runtime loop, batch {reported['bare']['batch']}", reported["bare"]["images_per_s"]),
                ratio=reported[form]["ratio_spread"],
                load_average=reported["load_average"],
                at_least=target.get("at least"),
            )
        alone, over = reported["alone"], kept.get(f"{name}: alone, ms over the bare single run")
        yield row(
            *("service", f"`{name}`, one image at a time, p50", "ms", alone["p50_ms"]),
            *("bare ONNX Runtime run", alone["bare_ms"]),
            ratio=alone["ratio_spread"],
            load_average=reported["load_average"],
            target=over and f"at most {over['at most']:g} ms more",
            met=over and over["met"],
        )


def serving_peers_rows(document: dict[str, Any]) -> Iterator[Row]:
    clients = f"{document['clients']} clients of n={document['images_per_request']}"
    for name, reported in document["peers"].items():
        for pair, ratio in reported["times_as_fast"].items():
            ours, theirs = pair.split("/")
            yield row(
                *("service", f"`{name}`, {clients}, {PEERS[ours]}", "images/s", reported[ours]["images_per_s"]),
                *(PEERS[theirs], reported[theirs]["images_per_s"]),
                ratio=ratio,
                load_average=reported["load_average"],
                at_least=NOT_SLOWER,
            )


def evaluation_rows(document: dict[str, Any]) -> Iterator[Row]:
    if found := document.get("frechet"):
        for case, words in FRECHET.items():
            reported = found[case]
            name = f"Fréchet distance, {found['features']} features, {reported['images']:,} images, {words}"
            targets = {"pytorch_fid": FRECHET_TARGETS[case]}
            yield from tool_rows(name, "s", reported, "ours_s", "{}_s", found["load_average"], NOT_SLOWER, targets)
    if found := document.get("inception"):
        for tool, resize in (("pytorch_fid", "torch"), ("torch_fidelity", "tf1")):
            reported = found | {"times_as_fast": {tool: found["times_as_fast"][tool]}}
            ours = "ours_images_per_s" if resize == "torch" else f"ours_{resize}_images_per_s"
            name, load = f"Inception's features, 32 px, `{resize}` resize", found["load_average"]
            targets = {"pytorch_fid": INCEPTION_TARGET}
            yield from tool_rows(name, "images/s", reported, ours, "{}_images_per_s", load, NOT_SLOWER, targets)
    if found := document.get("metrics"):
        for metric, words in METRICS.items():
            name, load = f"{words} of {found['images']:,} images' features", found["load_average"]
            yield from tool_rows(name, "s", found[metric], "ours_s", "{}_s", load, None)
    if found := document.get("command"):
        n = found["images_a_side"]
        name = f"the whole command: Inception and five metrics, {n} PNGs against {n}"
        yield from tool_rows(name, "s", found, "ours_s", "{}_s", found["load_average"], NOT_SLOWER)
    if found := document.get("score"):
        yield row(
            *("evaluation", f"scoring {found['images']:,} images of a service", "s", found["scoring_s"]),
            *("generating and extracting separately", round(found["generating_s"] + found["extracting_s"], 2)),
            ratio=found["times_as_fast"]["the_two"],
            load_average=found["load_average"],
            at_least=SCORING_TARGET,
        )


def tool_rows(
    case: str,
    unit: str,
    reported: dict[str, Any],
    ours: str,
    theirs: str,
    load: list[float],
    at_least: float | None,
    targets: Mapping[str, float] = {},
) -> Iterator[Row]:
    """Yield a row per tool of `times_as_fast`; its target is in `targets`, or else `at_least`."""
    for tool, ratio in reported["times_as_fast"].items():
        its = reported[theirs.format(tool)]
        yield row(
            *("evaluation", case, unit, reported[ours], TOOLS[tool], its),
            ratio=ratio,
            load_average=load,
            at_least=targets.get(tool, at_least),
        )


ROWS = {
    "train_step": training_rows,
    "serving": serving_rows,
    "serving_peers": serving_peers_rows,
    "evaluation": evaluation_rows,
}


def rows(documents: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all rows of result documents (by file name, without .json), as JSON values."""
    return [asdict(each) for name, reported in documents.items() for each in ROWS[name](reported)]


def bench_table(document: dict[str, Any]) -> str:
    """Return the table of bench.json under the machine it was measured on."""
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
        describe(document["machine"]) + "\n",
        table(["case", "ours", "counterpart", "ratio", "spread", "target"], cells),
        "\nThe ratio is how many times as fast as the counterpart ours is: the rounds' median, and their lowest and "
        "highest; it need not be the quotient of the two medians next to it. What is compared alternates.",
    ]
    lines += [f"\nNot measured: {name}: {why}" for name, why in document["not_measured"].items()]
    return "\n".join(lines)


def evaluation_table(document: dict[str, Any]) -> str:
    """Return the rows of bench.json that compare the evaluation with other tools."""
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
    return f"{table(['case', 'ours', 'counterpart', 'ratio'], cells)}\n\n{describe(document['machine'])}"


def page(document: dict[str, Any]) -> str:
    """Return bench.md."""
    return f"# Benchmarks\n\n{bench_table(document)}\n\n## Peers\n\n{how_to_fetch()}\n"


def table(heads: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table, or raise ValueError for a row of another width."""
    lines = [heads, ["---"] * len(heads), *rows]
    if any(len(cells) != len(heads) for cells in lines):
        raise ValueError(f"a row does not fit the heads {heads}")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    """Return three significant digits, with a comma between thousands."""
    if value == 0 or math.isnan(value):
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits):,.{min(digits, 3)}f}"


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


def conditions(document: dict[str, Any]) -> str:
    """Return a sentence on what a result was measured on, and how."""
    machine = document["machine"]
    cpu = machine["cpu"] + (f" ({', '.join(sets)})" if (sets := machine.get("instructions")) else "")
    parts = [cpu, *([f"{machine['cores']} cores"] if "cores" in machine else [])]
    if "seconds" in document:
        parts.append(f"windows of {document['seconds']:g} s, {document['rounds']} rounds")
    if "load_average_before" in machine:
        parts.append(f"load average {machine['load_average_before']:.1f} before")
    return "; ".join(parts) + "."


def describe(machine: dict[str, Any]) -> str:
    """Return the machine as two lines of Markdown."""
    model = f" ({machine['cpu_model']})" if machine.get("cpu_model") else ""
    sets = ", ".join(machine.get("instructions") or ()) or "no known vector instructions"
    memory = f", {machine['memory_gib']} GiB" if machine.get("memory_gib") else ""
    packages = ", ".join(f"{name} {machine[name]}" for name in ("python", *PACKAGES) if name in machine)
    return (
        f"{machine['cpu']}{model}, {machine['cores']} cores{memory}; {sets}; GPU: {machine.get('gpu') or 'none'}; "
        f"{machine.get('system', '')}.\n{packages}."
    )


def serving_table(result: dict[str, Any]) -> str:
    rows = []
    for name, g in result["generators"].items():
        bare, npy, document, alone = g["bare"], g["npy"], g["json"], g["alone"]
        rows.append([
            f"`{name}`",
            f"{bare['images_per_s']:.0f} images/s (batch {bare['batch']})",
            f"{npy['images_per_s']:.0f}, **{npy['ratio']:.2f}** of it",
            f"{document['images_per_s']:.0f}, **{document['ratio']:.2f}** of it",
            f"{npy['p50_ms']:.0f} / {npy['p99_ms']:.0f} ms",
            f"{alone['p50_ms']:.1f} / {alone['p99_ms']:.1f} ms",
            f"{alone['bare_ms']:.1f} ms",
        ])  # fmt: skip
    heads = ["generator", "bare loop", "npy", "PNG in JSON", "npy: p50 / p99", "one client, n=1: p50 / p99"]
    return table([*heads, "bare single run"], rows) + f"\n\n{conditions(result)}"


def serving_peers_table(result: dict[str, Any]) -> str:
    presets = result["peers"]
    rows = []
    for key, name in NAMES.items():
        cells = (g[key] for g in presets.values())
        rows.append([name, *(f"{c['images_per_s']:.0f}, {c['p50_ms']:.0f} / {c['p99_ms']:.0f} ms" for c in cells)])
    return table(["", *(f"`{p}`: images/s, p50 / p99" for p in presets)], rows) + f"\n\n{conditions(result)}"


def overload_table(result: dict[str, Any]) -> str:
    rows = []
    for load in result["loads"]:
        counts = (load[key] for key in ("images_per_request", "status_200", "status_503", "others"))
        times = f"{load['idle_p50_ms']:.1f} ms", f"{load['first_after_ms']:.0f} ms", f"{load['back_to_idle_s']:.1f} s"
        rows.append([*map(str, counts), f"{load['goodput']:.2f}", f"{100 * load['growth']:+.2f} %", *times])
    heads = ["images per request", "200", "503", "other statuses", "goodput / best rate", "memory growth"]
    return table([*heads, "idle p50", "first answer after", "idle again after"], rows)


def soak_text(result: dict[str, Any]) -> str:
    early, late, growth = (x := result["early_mb"]), (y := result["late_mb"]), 100 * (y / x - 1)
    total = sum(result["answers"].values())
    return f"{total} requests in {result['minutes']:.0f} minutes; {early:.1f} MB, then {late:.1f} MB: {growth:+.2f} %."


def training_table(document: dict[str, Any]) -> str:
    """Return the trainer's loop against plain loops and original scripts."""
    rows = []
    for result in document["results"]:
        rates = result["images_per_second"]
        peer = f"{rates['peer']:.0f} (`{result['peer'].split(',')[0]}`)" if "peer" in rates else "not run"
        rows.append([
            f"`{result['case']}`, batch {result['batch_size']}", f"{rates['trainer']:.0f}", f"{rates['plain']:.0f}",
            f"**{format_spread(result['ratio_to_plain'])}**", peer,
            format_spread(result["ratio_to_peer"]) if "ratio_to_peer" in result else "",
        ])  # fmt: skip
    loads = [result["load_average"][0] for result in document["results"]]
    heads = ["case", "trainer, images/s", "plain loop", "ratio", "original script", "ratio"]
    where = (
        f"{conditions(document).removesuffix('.')}; load average {min(loads):.1f} to {max(loads):.1f} before a case."
    )
    return f"{table(heads, rows)}\n\n{where}"


def quality_table(document: dict[str, Any]) -> str:
    rows = []
    for run in sorted(document["runs"], key=lambda run: (run["path"], run["seed"])):
        values = [next(value for name, value in run.items() if name.startswith(score)) for score in SCORES]
        rows.append([run["path"], str(run["seed"]), *(f"{value:.3g}" for value in values)])
    where = (
        f"{document['machine']['cpu']}, {document['threads']} thread; fast: {document['fast_precision']}, plain: fp32."
    )
    return f"{table(['path', 'seed', *SCORES.values()], rows)}\n\n{where}"


def memory_table(document: dict[str, Any]) -> str:
    """Return the memory of long runs."""
    results = document["results"]
    first, *_, last = results[0]["resident_mib_at_step"]
    rows = [
        [
            *(f"`{result['case']}`", f"{result['image_set_mib']}", f"{result['networks_and_optimizers_mib']}"),
            *(f"{result['resident_mib_at_step'][step]:.1f}" for step in (first, last)),
            f"{result['growth_mib']:+.1f} MiB ({result['growth_percent']:+.2f} %)",
        ]
        for result in results
    ]
    return table(["case", "image set", "networks and optimizers", f"step {first}", f"step {last}", "growth"], rows)


def gpu_table(document: dict[str, Any]) -> str:
    """Return the measured parts on a GPU, each with its card."""
    rows = []
    if compared := document.get("beside"):
        rates = compared["images_per_second"]
        for kind in ("peer", "plain"):
            if kind in rates:
                name = (
                    f"`{compared['peer'].split(',')[0]}`, unmodified" if kind == "peer" else "plain loop in its style"
                )
                rows.append([
                    f"`{compared['preset']}`, 64 px, batch {compared['batch_size']}", compared["machine"]["gpu"],
                    f"{rates['trainer']:,.0f} images/s", f"{name}: {rates[kind]:,.0f}",
                    f"**{format_spread(compared[f'ratio_to_{kind}'])}**",
                ])  # fmt: skip
    if found := document.get("rates"):
        rates = found["images_per_second"]
        rows.append([
            f"`{found['preset']}`, batch {found['batch_size']}, steps only", found["machine"]["gpu"],
            f"{rates['fast']:,.0f} images/s", f"float32, no graph, unfused: {rates['plain']:,.0f}",
            f"**{rates['fast'] / rates['plain']:.1f}**",
        ])  # fmt: skip
    if whole := document.get("whole"):
        rows.append([
            f"`{whole['preset']}`, all {whole['images'] / 1e6:.1f} M images", whole["machine"]["gpu"],
            f"{whole['images_per_second']:,.0f} images/s, **{whole['minutes_of_training']:.2f} min** "
            f"({whole['minutes_of_the_command']:.2f} for the command)", "", "",
        ])  # fmt: skip
    text = table(["what", "GPU", "trainer", "compared with", "ratio"], rows)
    if ends := document.get("lengths", {}).get("runs"):
        rows = [
            [
                *(f"`{run['preset']}`", run["gpu"], f"{run['kimg']:,.0f}", f"{run['seconds']:.0f} s"),
                *(f"{run['quality'][-1]['frechet']:.3g}", f"{run['quality'][-1]['recall']:.2f}"),
            ]
            for run in ends
        ]
        text += "\n\n" + table(["full length", "GPU", "kimg", "time", "cheap distance", "recall"], rows)
    return text


def scaling_table(result: dict[str, Any]) -> str:
    """Return what one core serves and what two serve."""
    rows = []
    for name, generator in result["generators"].items():
        for way, title in SCALING_WAYS.items():
            full = generator[way]["npy"][-1]
            latency, memory = f"{full['p50_ms']:.0f} / {full['p99_ms']:.0f} ms", f"{generator[way]['pss_mb']:.0f} MB"
            rows.append([f"`{name}`", title, number(full["images_per_s"]), latency, memory])
    return table(["generator", "served by", "images/s", "p50 / p99", "memory"], rows)


def core_rate(generator: dict[str, Any], images_per_request: int) -> float:
    """Return the images/s of a core: 1 / (inference per image + event loop per request / images per request)."""
    full = generator["one_worker_one_core"]["npy"][-1]
    return 1e3 / (full["inference_ms_per_image"] + full["loop_ms_per_request"] / images_per_request)


def replicas(images_per_s: float, rate_per_core: float, cores: int = 2) -> int:
    """Return the replicas of so many cores for a rate: at least two, each at most 70 % busy."""
    return max(2, math.ceil(images_per_s / (REPLICA_LOAD * cores * rate_per_core)))


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {  # by the result file's name
    "bench": evaluation_table,  # training and service have their own tables
    "serving": serving_table,
    "serving_peers": serving_peers_table,
    "serving_overload": overload_table,
    "serving_soak": soak_text,
    "scaling": scaling_table,
    "train_step": training_table,
    "train_step_bf16": training_table,
    "train_quality": quality_table,
    "train_memory": memory_table,
    "train_gpu": gpu_table,
}
PEERS_PLACE = "peers"  # the commands that fetch them, without a result file


def main() -> None:
    """Print the tables, or write them into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, help="a document with markers")
    args = parser.parse_args()
    texts = make_tables(args.results)
    if args.write is None:
        print("\n\n".join(f"{name}:\n\n{text}" for name, text in texts.items()))
        return
    texts |= {PEERS_PLACE: how_to_fetch()}
    if not args.write.is_file():
        parser.error(f"there is no {args.write}")
    document = args.write.read_text(encoding="utf-8")
    names = marked(document)
    if unknown := [name for name in names if name not in (*TABLES, PEERS_PLACE)]:
        known = ", ".join((*TABLES, PEERS_PLACE))
        parser.error(f"{args.write} has a place for {', '.join(unknown)}; the tables are {known}")
    for name in names:
        if name in texts:
            try:
                document = between(document, name, texts[name])
            except ValueError as error:
                parser.error(f"{args.write}: {error}")
    args.write.write_text(document, encoding="utf-8")
    missing = [name for name in names if name not in texts]
    unchanged = f"; unchanged, without a result: {', '.join(missing)}" if missing else ""
    print(f"{args.write}: {len(names) - len(missing)} tables{unchanged}")


def make_tables(results: Path) -> dict[str, str]:
    """Return the tables whose result file exists."""
    files = {name: results / f"{name}.json" for name in TABLES}
    return {
        name: TABLES[name](json.loads(path.read_text(encoding="utf-8")))
        for name, path in files.items()
        if path.is_file()
    }


if __name__ == "__main__":
    main()
