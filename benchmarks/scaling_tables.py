"""Tables for capacity planning: measured numbers, multiplied.

    python -m benchmarks.scaling_tables --core-hour 0.04 [--write FILE]

A core-hour's price is yours to say, in whatever currency; so are a GPU's rate and price (--gpu-images-per-s,
--gpu-hour), which were not measured. --write puts the tables between their markers in that file.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.markdown import RESULTS, between, number, table

WAYS = {
    "one_worker_one_core": "1 worker, 1 core",
    "one_worker_two_cores": "1 worker, 2 lanes, 2 cores",
    "two_workers_two_cores": "2 workers, 2 cores",
}
HOURS_A_MONTH = 730
MILLION = 1_000_000


def measured(scaling: dict[str, Any], **_: Any) -> str:
    rows = []
    for name, generator in scaling["generators"].items():
        one = generator["one_worker_one_core"]["npy"][-1]["images_per_s"]
        for way, title in WAYS.items():
            told = generator[way]
            full, documents = told["npy"][-1], told["json"]
            rows.append([
                f"`{name}`",
                title,
                f"{number(full['images_per_s'])}, {full['images_per_s'] / max(one, 1e-9):.2f} times",
                f"{full['p50_ms']:.0f} / {full['p99_ms']:.0f} ms",
                f"{full['cores_used']:.2f}",
                f"{full['inference_ms_per_image']:.2f} ms",
                f"{full['loop_ms_per_request']:.2f} ms",
                number(documents["images_per_s"]),
                f"{told['pss_mb']:.0f} MB",
            ])  # fmt: skip
    heads = ["generator", "served by", "images/s, of one core's", "p50 / p99", "cores used", "inference an image"]
    machine = scaling["machine"]
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, ONNX Runtime {machine['onnxruntime']}; load average "
        f"{machine['load_average_before']:.1f} before, {scaling['load_average_after']:.1f} after."
    )
    return table([*heads, "event loop a request", "PNG in JSON, images/s", "memory"], rows) + "\n\n" + where


def first(scaling: dict[str, Any], simulation: dict[str, Any], **_: Any) -> str:
    rows = []
    for name in scaling["generators"]:
        told = simulation[name]
        loop, image = told["loop_ms"] / 1e3, told["image_ms"] / 1e3
        for n in (1, 4, 16):
            core = 1 / (image + loop / n)
            rows.append([
                f"`{name}`", str(n), number(core), "not run", number(n / loop), number(n * image / loop),
            ])  # fmt: skip
    heads = ["generator", "images a request", "images/s a core", "a GPU", "images/s at which an event loop is full"]
    return table([*heads, "cores of inference that one loop feeds"], rows)


def validation(simulation: dict[str, Any], scaling: dict[str, Any], **_: Any) -> str:
    rows = [
        [
            f"`{name}`",
            WAYS[row["way"]],
            str(row["clients"]),
            f"{number(row['measured_images_per_s'])} / {number(row['predicted_images_per_s'])}",
            f"{row['images_per_s_ratio']:.2f}",
            f"{row['measured_p50_ms']:.1f} / {row['predicted_p50_ms']:.1f} ms",
            f"{row['measured_cpu_ms']:.2f} / {row['predicted_cpu_ms']:.2f} ms",
        ]
        for name in scaling["generators"]
        for row in simulation[name]["validation"]
    ]
    heads = [
        "generator",
        "served by",
        "clients",
        "images/s, measured / predicted",
        "ratio",
        "p50, measured / predicted",
    ]
    return table([*heads, "processor time an image, measured / predicted"], rows)


def load(simulation: dict[str, Any], scaling: dict[str, Any], **_: Any) -> str:
    rows = []
    for name in scaling["generators"]:
        shares = simulation[name]["load"]
        for least, lot in zip(shares[::2], shares[1::2], strict=True):
            cells = [f"`{name}`", f"{least['share']:.0%}"]
            for told in (least, lot):
                cells += [
                    f"{told['p50_ms']:.0f} / {told['p99_ms']:.0f} ms",
                    number(told["mean_rows_waiting"]),
                    f"{told['refused_share']:.1%}",
                ]
            rows.append(cells)
    heads = ["generator", "asked of what they can do"]
    for balance in ("fewest requests", "by lot"):
        heads += [f"{balance}: p50 / p99", "rows waiting", "refused"]
    return table(heads, rows)


def cost(
    simulation: dict[str, Any],
    scaling: dict[str, Any],
    core_hour: float,
    gpu_hour: float | None = None,
    gpu_images_per_s: float | None = None,
    **_: Any,
) -> str:
    rows = []
    cores, utilisation = simulation["cores_a_replica"], simulation["utilisation"]
    for name in scaling["generators"]:
        for rate, told in simulation[name]["rates"].items():
            used = told["replicas"] * cores
            hour = used * core_hour
            full = 1e6 / (simulation[name]["core_images_per_s"] * utilisation) / 3600 * core_hour
            rows.append([
                f"`{name}`", f"{int(rate):,}", f"{told['replicas']} of {cores} cores", str(used),
                f"{told['least']['p99_ms']:.0f} / {told['lot']['p99_ms']:.0f} ms",
                f"{told['least']['refused_share']:.1%} / {told['lot']['refused_share']:.1%}",
                number(hour), number(hour * HOURS_A_MONTH), number(full),
            ])  # fmt: skip
    if gpu_hour is not None and gpu_images_per_s is not None:
        for rate in (1, 100, 10_000):
            gpus = max(2, math.ceil(rate / (gpu_images_per_s * utilisation)))
            full = 1e6 / (gpu_images_per_s * utilisation) / 3600 * gpu_hour
            cells = ["on GPUs, as you say", f"{rate:,}", f"{gpus} GPUs", "", "", "", number(gpus * gpu_hour)]
            rows.append([*cells, number(gpus * gpu_hour * HOURS_A_MONTH), number(full)])
    heads = ["generator", "images/s", "replicas", "cores", "p99, fewest requests / by lot", "refused", "an hour"]
    return table([*heads, "a month", "a million images, when all are busy"], rows)


def million(simulation: dict[str, Any], scaling: dict[str, Any], evaluation: dict[str, Any], **_: Any) -> str:
    """Shards of two cores; the service supplies at the planned utilisation, with at most as many replicas as said.

    A shard's own time is what the measured job took beyond fetching what was generated: extraction, statistics, and
    its start-up, counted as if it grew with the images. Fetching and decoding are in the time that is taken off, hence
    an upper bound of the rate. With Inception, the same but for extraction, which is Inception's.
    """
    cores, utilisation = simulation["cores_a_replica"], simulation["utilisation"]
    job = evaluation["score"]
    own = (job["scoring_s"] - job["generating_s"]) / job["images"]
    around = max(0.0, own - job["extracting_s"] / job["images"])
    extractors = {
        "a classifier, 28 px": 1 / own,
        "Inception": 1 / (around + 1 / evaluation["inception"]["ours_images_per_s"]),
    }
    rows = []
    for name in scaling["generators"]:
        replica = simulation[name]["core_images_per_s"] * cores * utilisation
        for title, rate in extractors.items():
            for shards, replicas in ((1, 2), (4, 10), (64, 100)):
                asked, supplied = shards * rate, replicas * replica
                seconds = MILLION / min(asked, supplied)
                used = cores * (shards * min(1, supplied / asked) + replicas * min(1, asked / supplied))
                rows.append([
                    f"`{name}`", title, str(shards), str(replicas), number(asked), number(supplied),
                    "the service" if supplied < asked else "the shards",
                    f"{number(seconds / 3600)} h", number(used * seconds / 3600),
                ])  # fmt: skip
    heads = ["generator", "features", "shards", "replicas", "images/s that shards take at most", "that replicas give"]
    return table([*heads, "bound by", "a million images", "core-hours at work"], rows)


TABLES: dict[str, Callable[..., str]] = {
    "measured": measured,
    "first": first,
    "validation": validation,
    "load": load,
    "cost": cost,
    "million": million,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core-hour", type=float, required=True, help="the price of a core for an hour")
    parser.add_argument("--gpu-hour", type=float, help="of a GPU with its machine")
    parser.add_argument("--gpu-images-per-s", type=float, help="what yours does (wrk, n=4, 16 clients)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, help="a file with `<!-- NAME -->` and `<!-- /NAME -->` around each table")
    args = parser.parse_args()
    told = {}
    for name in ("scaling", "scaling_simulation", "evaluation"):
        path = args.results / f"{name}.json"
        if not path.is_file():
            parser.error(f"there is no {path}; python -m benchmarks.{name} makes it")
        told[name.removeprefix("scaling_")] = json.loads(path.read_text(encoding="utf-8"))
    given = {"core_hour": args.core_hour, "gpu_hour": args.gpu_hour, "gpu_images_per_s": args.gpu_images_per_s}
    text = args.write.read_text(encoding="utf-8") if args.write else ""
    for name, make in TABLES.items():
        made = make(**told, **given)
        if not args.write:
            print(f"{name}\n\n{made}\n")
            continue
        try:
            text = between(text, name, made)
        except ValueError as error:
            parser.error(f"{args.write}: {error}")
    if args.write:
        args.write.write_text(text, encoding="utf-8")
        machine = told["scaling"]["machine"]
        print(
            f"{args.write}: {len(TABLES)} tables; load average {machine['load_average_before']:.1f} as it was measured"
        )


if __name__ == "__main__":
    main()
