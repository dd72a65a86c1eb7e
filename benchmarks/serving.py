"""How much of a bare ONNX Runtime loop is left behind HTTP, on the same cores in the same run, and beside peers.

    python -m benchmarks.serving [GENERATOR.onnx ...] [--no-peers]

Without generator files it makes those of `cifar10-dcgan` and `mnist-dcgan`, untrained. Starts a real `bentoml serve`
for each; then takes turns, round by round, between a bare loop at its best (batch size, spinning or not), wrk with 32
clients of n=4 that ask for raw uint8 images, the same for PNGs in JSON, and one client alone. Then the peers of
benchmarks/peers take turns with a bare loop. Ratios are medians over the rounds of a round's own ratio. What
cannot be measured is told in a line, and the rest goes on; results are written as they come. Exit 1: a target was
missed, or something could not be measured.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort

from benchmarks.arguments import at_least_one, file_to_write
from benchmarks.attempts import attempt
from benchmarks.machine import describe, load_average
from benchmarks.rounds import spread
from benchmarks.serving_tools import (
    JSON,
    NPY,
    ROOT,
    atelier,
    bare_feed,
    bare_rate,
    bare_session,
    make_generator,
    report,
    require_wrk,
    server,
    tree_cpu_s,
    tree_pss_mb,
    write,
    wrk,
)

PRESETS = ("cifar10-dcgan", "mnist-dcgan")
SHARES = {"cifar10-dcgan": {"npy": 0.9, "json": 0.5}, "mnist-dcgan": {"npy": 0.7, "json": 0.5}}  # of the bare loop
ALONE_MS, ALONE_SPREAD = 4.0, 3.0  # over the bare session's single run; p99 over p50
BESIDE = (("gan_atelier_npy", "fastapi_torch_npy"), ("gan_atelier_json_png", "bentoml_batchable_json"))
BATCHES = (4, 8, 16, 32, 64, 128)


def best_bare(path: Path, seconds: float) -> tuple[ort.InferenceSession, int, dict[str, Any]]:
    """The fastest session (spinning or not) and batch size, and all that were tried."""
    sessions = {name: bare_session(path, name == "spinning") for name in ("spinning", "not_spinning")}
    sweep = {name: {b: bare_rate(s, b, seconds) for b in BATCHES} for name, s in sessions.items()}
    name = max(sweep, key=lambda name: max(sweep[name].values()))
    return sessions[name], max(sweep[name], key=lambda b: sweep[name][b]), {"best": name, **sweep}


def one_image_ms(session: ort.InferenceSession, seconds: float) -> float:
    """The median of one image's run, not spinning, as alone on an idle machine."""
    feed, times, end = bare_feed(session, 1), [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One generator, served, in turns with the bare loop."""
    before = load_average()
    session, batch, sweep = best_bare(path, args.seconds / 5)
    single = bare_session(path)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        with atelier(Path(folder)) as (pid, port, ready_s):
            pss_ready = tree_pss_mb(pid)
            wrk(port, args.clients, args.n, 1.0)
            for _ in range(args.rounds):
                used = time.process_time()
                row: dict[str, Any] = {"bare_images_per_s": bare_rate(session, batch, args.seconds)}
                row["bare_cpu_ms_per_image"] = 1e3 * (time.process_time() - used) / args.seconds
                row["bare_cpu_ms_per_image"] /= row["bare_images_per_s"]
                for name, accept in (("npy", NPY), ("json", JSON)):
                    used = tree_cpu_s(pid)
                    row[name] = wrk(port, args.clients, args.n, args.seconds, accept)
                    time.sleep(0.5)  # what it still computes for clients that are gone
                    images = row[name]["images_per_s"] * row[name]["seconds"]
                    row[name]["cpu_ms_per_image"] = 1e3 * (tree_cpu_s(pid) - used) / images
                    row[f"{name}_ratio"] = row[name]["images_per_s"] / row["bare_images_per_s"]
                    if row[name]["refused"] or row[name]["broken"]:
                        raise SystemExit(f"the load met errors: {row[name]}")
                row["one_image_ms"] = one_image_ms(single, args.seconds / 3)
                row["alone"] = wrk(port, 1, 1, args.seconds)
                rounds.append(row)
                print(
                    f"{path.stem}: bare {row['bare_images_per_s']:.0f}, npy {row['npy_ratio']:.2f} of it, "
                    f"JSON {row['json_ratio']:.2f}; alone {row['alone']['p50_ms']:.1f} ms, "
                    f"p99 {row['alone']['p99_ms']:.1f}, bare {row['one_image_ms']:.1f}",
                    flush=True,
                )
            pss_loaded = tree_pss_mb(pid)
    served = {
        name: {
            "ratio": median(rounds, f"{name}_ratio"),
            "ratio_spread": spread([row[f"{name}_ratio"] for row in rounds]),
            **{key: median([r[name] for r in rounds], key) for key in ("images_per_s", "p50_ms", "p99_ms")},
            "cpu_ms_per_image": median([r[name] for r in rounds], "cpu_ms_per_image"),
            # what the machine's other work cannot flatter: a bare image's processor time over a served one's
            "cpu_ratio": statistics.median(r["bare_cpu_ms_per_image"] / r[name]["cpu_ms_per_image"] for r in rounds),
        }
        for name in ("npy", "json")
    }
    alone = {key: median([r["alone"] for r in rounds], key) for key in ("p50_ms", "p99_ms")}
    return {
        "bare": {"images_per_s": median(rounds, "bare_images_per_s"), "batch": batch, "sweep": sweep},
        **served,
        "alone": {
            **alone,
            "bare_ms": median(rounds, "one_image_ms"),
            "over_bare_ms": statistics.median(r["alone"]["p50_ms"] - r["one_image_ms"] for r in rounds),
            "p99_over_p50": statistics.median(r["alone"]["p99_ms"] / r["alone"]["p50_ms"] for r in rounds),
            "ratio_spread": spread([r["one_image_ms"] / r["alone"]["p50_ms"] for r in rounds]),
        },
        "ready_s": ready_s,
        "pss_ready_mb": pss_ready,
        "pss_after_load_mb": pss_loaded,
        "load_average": [before, load_average()],
        "rounds": rounds,
    }


def measure_peers(preset: str, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The same load on the service and on what else one might serve the generator with, in turns with a bare loop."""
    before = load_average()
    session, batch, _ = best_bare(path, args.seconds / 5)
    fastapi = ["uvicorn", "benchmarks.peers.fastapi_torch:app", "--port", "{port}", "--no-access-log"]
    bentoml = ["bentoml", "serve", "benchmarks.peers.bentoml_batchable:Batchable", "--port", "{port}"]
    with (
        tempfile.TemporaryDirectory() as folder,
        server(fastapi, "/openapi.json", PRESET=preset) as (_, fastapi_port, _),
        server(bentoml, "/readyz", GENERATOR=str(path)) as (_, bentoml_port, _),
    ):
        shutil.copy(path, folder)
        with atelier(Path(folder)) as (_, port, _):
            loads: dict[str, tuple[int, str, bool]] = {
                "gan_atelier_npy": (port, NPY, False),
                "gan_atelier_json_png": (port, JSON, False),
                "fastapi_torch_npy": (fastapi_port, NPY, False),
                "bentoml_batchable_json": (bentoml_port, JSON, True),
            }
            for at, accept, seeds in loads.values():
                wrk(at, args.clients, args.n, 1.0, accept, seeds=seeds)
            rounds: list[dict[str, Any]] = []
            for _ in range(args.rounds):
                row: dict[str, Any] = {"bare_images_per_s": bare_rate(session, batch, args.seconds)}
                for name, (at, accept, seeds) in loads.items():
                    row[name] = wrk(at, args.clients, args.n, args.seconds, accept, seeds=seeds)
                    row[name]["ratio"] = row[name]["images_per_s"] / row["bare_images_per_s"]
                    row[name]["refused_share"] = row[name]["refused"] / max(1, row[name]["requests"])
                    time.sleep(0.5)  # what it still computes for clients that are gone
                rounds.append(row)
                print(f"{preset}: " + ", ".join(f"{name} {row[name]['ratio']:.2f}" for name in loads), flush=True)
    keys = ("ratio", "images_per_s", "p50_ms", "p99_ms", "refused_share")
    told: dict[str, Any] = {name: {key: median([r[name] for r in rounds], key) for key in keys} for name in loads}
    beside = {
        f"{ours}/{theirs}": spread([r[ours]["images_per_s"] / r[theirs]["images_per_s"] for r in rounds])
        for ours, theirs in BESIDE
    }
    return {**told, "times_as_fast": beside, "load_average": [before, load_average()]}


def targets(generators: dict[str, Any]) -> list[dict[str, Any]]:
    """What is promised of the presets on two cores, and whether it was kept."""
    found = []
    for name, shares in SHARES.items():
        told = generators.get(name)
        if told is None:
            continue
        checks = [(f"{form}, share of the bare loop", told[form]["ratio"], "at least", s) for form, s in shares.items()]
        checks.append(("alone, ms over the bare single run", told["alone"]["over_bare_ms"], "at most", ALONE_MS))
        checks.append(("alone, p99 over p50", told["alone"]["p99_over_p50"], "at most", ALONE_SPREAD))
        for what, value, sense, limit in checks:
            met = value >= limit if sense == "at least" else value <= limit
            found.append({"target": f"{name}: {what}", "value": value, sense: limit, "met": met})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", type=Path, nargs="*", help="generator files (.onnx); default: untrained ones")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--n", type=int, default=4, help="images a request")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--no-peers", action="store_true", help="leave benchmarks/peers out")
    parser.add_argument("--output", type=file_to_write, default=ROOT / "benchmarks" / "results" / "serving.json")
    args = parser.parse_args()
    require_wrk()
    for path in args.generators:
        if not path.is_file():
            parser.error(f"there is no generator file at {path}")

    told: dict[str, Any] = {
        "machine": describe(),
        "clients": args.clients,
        "images_per_request": args.n,
        "load_generator": "wrk, on the same cores",
        "seconds": args.seconds,
        "rounds": args.rounds,
    }
    failed: dict[str, str] = {}
    generators: dict[str, Any] = {}
    peers: dict[str, Any] = {}
    kept: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        made = {preset: make_generator(preset, Path(folder)) for preset in (() if args.generators else PRESETS)}
        for path in args.generators or made.values():
            with attempt(path.stem, failed):
                generators[path.stem] = measure(path, args)
            kept = targets(generators)
            if generators or not args.output.exists():
                write(args.output, told | {"generators": generators, "targets": kept, "failed": failed})
        beside = args.output.with_name(f"{args.output.stem}_peers.json")
        for preset, path in () if args.no_peers else made.items():
            with attempt(f"{preset} beside peers", failed):
                peers[preset] = measure_peers(preset, path, args)
            if peers or not beside.exists():
                write(beside, told | {"peers": peers, "failed": failed})
    report(kept)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
