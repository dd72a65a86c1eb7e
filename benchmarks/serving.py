"""The service's throughput against a bare ONNX Runtime loop and against peers, on the same cores in the same run.

    python -m benchmarks.serving [GENERATOR.onnx ...] [--no-peers]

Without generator files it makes those of `cifar10-dcgan` and `mnist-dcgan`, untrained. Starts a real `bentoml serve`
for each, then alternates, round by round, between a bare loop at its best (batch size, spinning or not), wrk with 32
clients of n=4 that request raw uint8 images, the same for PNGs in JSON, and a single client. Then the peers of
benchmarks/peers alternate with a bare loop. Ratios are medians of the rounds' ratios. What cannot be measured is
reported in one line, and the rest continues; results are written as they are measured. Exit 1: a target was missed, or
something could not be measured.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort

from benchmarks.harness import (
    at_least_one,
    attempt,
    describe_machine,
    existing_file,
    load_average,
    make_parser,
    print_targets,
    spread,
    target,
    write,
)
from benchmarks.servers import (
    JSON,
    NPY,
    PRESETS,
    atelier,
    bare_feed,
    bare_rate,
    bare_session,
    make_generator,
    require_wrk,
    server,
    tree_cpu_s,
    tree_pss_mb,
    wrk,
)

SHARES = {"cifar10-dcgan": {"npy": 0.9, "json": 0.5}, "mnist-dcgan": {"npy": 0.7, "json": 0.5}}  # of the bare loop
ALONE_MS, ALONE_SPREAD = 4.0, 3.0  # more than the bare session's single run; p99 / p50
PAIRS = (("gan_atelier_npy", "fastapi_torch_npy"), ("gan_atelier_json_png", "bentoml_batchable_json"))
BATCHES = (4, 8, 16, 32, 64, 128)


def best_bare(path: Path, seconds: float) -> tuple[ort.InferenceSession, int, dict[str, Any]]:
    """Return the fastest session (spinning or not), its batch size, and all that were tried."""
    sessions = {name: bare_session(path, name == "spinning") for name in ("spinning", "not_spinning")}
    sweep = {name: {b: bare_rate(s, b, seconds) for b in BATCHES} for name, s in sessions.items()}
    name = max(sweep, key=lambda name: max(sweep[name].values()))
    return sessions[name], max(sweep[name], key=lambda b: sweep[name][b]), {"best": name, **sweep}


def one_image_ms(session: ort.InferenceSession, seconds: float) -> float:
    """Return the median time of one image on an otherwise idle machine, without spinning."""
    feed, times, end = bare_feed(session, 1), [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def median(rows: list[dict[str, Any]], key: str) -> float:
    """Return the median of a figure over rounds."""
    return statistics.median(row[key] for row in rows)


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one served generator, alternating with the bare loop."""
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
                    time.sleep(0.5)  # It still computes for clients that are gone.
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
            # Other work on the machine does not change this one: a bare image's processor time over a served one's.
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
    """Measure the same load on the service and on peers, alternating with a bare loop."""
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
                    time.sleep(0.5)  # It still computes for clients that are gone.
                rounds.append(row)
                print(f"{preset}: " + ", ".join(f"{name} {row[name]['ratio']:.2f}" for name in loads), flush=True)
    keys = ("ratio", "images_per_s", "p50_ms", "p99_ms", "refused_share")
    found: dict[str, Any] = {name: {key: median([r[name] for r in rounds], key) for key in keys} for name in loads}
    ratios = {
        f"{ours}/{theirs}": spread([r[ours]["images_per_s"] / r[theirs]["images_per_s"] for r in rounds])
        for ours, theirs in PAIRS
    }
    return {**found, "times_as_fast": ratios, "load_average": [before, load_average()]}


def check_targets(generators: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare the presets' results with what they are to reach on two cores."""
    found = []
    for name, shares in SHARES.items():
        if result := generators.get(name):
            found += [
                target(f"{name}: {form}, share of the bare loop", result[form]["ratio"], "at least", share)
                for form, share in shares.items()
            ]
            alone = result["alone"]
            found.append(
                target(f"{name}: alone, ms over the bare single run", alone["over_bare_ms"], "at most", ALONE_MS)
            )
            found.append(target(f"{name}: alone, p99 over p50", alone["p99_over_p50"], "at most", ALONE_SPREAD))
    return found


def main() -> None:
    """Measure generators and peers."""
    parser = make_parser(__doc__, "serving")
    parser.add_argument("generators", type=existing_file, nargs="*", help="generator files; default: untrained ones")
    parser.add_argument("--clients", type=at_least_one, default=32)
    parser.add_argument("--n", type=at_least_one, default=4, help="images per request")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--no-peers", action="store_true", help="leave benchmarks/peers out")
    args = parser.parse_args()
    require_wrk()
    conditions: dict[str, Any] = {
        "machine": describe_machine(),
        "clients": args.clients,
        "images_per_request": args.n,
        "load_generator": "wrk, on the same cores",
        "seconds": args.seconds,
        "rounds": args.rounds,
    }
    failed: dict[str, str] = {}
    generators: dict[str, Any] = {}
    peers: dict[str, Any] = {}
    targets: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        made = {preset: make_generator(preset, Path(folder)) for preset in (() if args.generators else PRESETS)}
        for path in args.generators or made.values():
            with attempt(path.stem, failed):
                generators[path.stem] = measure(path, args)
            targets = check_targets(generators)
            if generators or not args.output.exists():
                write(args.output, conditions | {"generators": generators, "targets": targets, "failed": failed}, 3)
        peers_output = args.output.with_name(f"{args.output.stem}_peers.json")
        for preset, path in () if args.no_peers else made.items():
            with attempt(f"{preset} and its peers", failed):
                peers[preset] = measure_peers(preset, path, args)
            if peers or not peers_output.exists():
                write(peers_output, conditions | {"peers": peers, "failed": failed}, 3)
    print_targets(targets)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
