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
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnxruntime as ort

from benchmarks import harness, report, servers

PAIRS = (("gan_atelier_npy", "fastapi_torch_npy"), ("gan_atelier_json_png", "bentoml_batchable_json"))
BATCHES = (4, 8, 16, 32, 64, 128)


def best_bare(path: Path, seconds: float) -> tuple[ort.InferenceSession, int, dict[str, Any]]:
    """Return the fastest session (spinning or not), its batch size, and all that were tried."""
    sessions = {name: servers.bare_session(path, name == "spinning") for name in ("spinning", "not_spinning")}
    sweep = {name: {b: servers.bare_rate(s, b, seconds) for b in BATCHES} for name, s in sessions.items()}
    name = max(sweep, key=lambda name: max(sweep[name].values()))
    return sessions[name], max(sweep[name], key=lambda b: sweep[name][b]), {"best": name, **sweep}


def medians(rounds: list[dict[str, Any]], name: str, *keys: str) -> dict[str, float]:
    """Return the median over rounds of each figure of a load."""
    return {key: statistics.median(row[name][key] for row in rounds) for key in keys}


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one served generator, alternating with the bare loop."""
    before = harness.load_average()
    session, batch, sweep = best_bare(path, args.seconds / 5)
    single = servers.bare_session(path)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        with servers.atelier(Path(folder)) as (pid, port, ready_s):
            pss_ready = servers.tree_pss_mb(pid)
            servers.wrk(port, args.clients, args.n, 1.0)
            for _ in range(args.rounds):
                used = time.process_time()
                row: dict[str, Any] = {"bare_images_per_s": servers.bare_rate(session, batch, args.seconds)}
                used = 1e3 * (time.process_time() - used) / args.seconds
                row["bare_cpu_ms_per_image"] = used / row["bare_images_per_s"]
                for name, accept in (("npy", servers.NPY), ("json", servers.JSON)):
                    used = servers.tree_cpu_s(pid)
                    load = row[name] = servers.wrk(port, args.clients, args.n, args.seconds, accept)
                    time.sleep(0.5)  # It still computes for clients that are gone.
                    images = load["images_per_s"] * load["seconds"]
                    load["cpu_ms_per_image"] = 1e3 * (servers.tree_cpu_s(pid) - used) / images
                    load["ratio"] = load["images_per_s"] / row["bare_images_per_s"]
                    if load["refused"] or load["broken"]:
                        raise SystemExit(f"the load met errors: {load}")
                row["one_image_ms"] = 1e3 * statistics.median(servers.bare_times(single, 1, args.seconds / 3))
                row["alone"] = servers.wrk(port, 1, 1, args.seconds)
                rounds.append(row)
            pss_loaded = servers.tree_pss_mb(pid)
    served = {
        name: {
            "ratio_spread": harness.spread([row[name]["ratio"] for row in rounds]),
            **medians(rounds, name, "ratio", "images_per_s", "p50_ms", "p99_ms", "cpu_ms_per_image"),
            # Other work on the machine does not change this one: a bare image's processor time over a served one's.
            "cpu_ratio": statistics.median(r["bare_cpu_ms_per_image"] / r[name]["cpu_ms_per_image"] for r in rounds),
        }
        for name in ("npy", "json")
    }
    bare_images_per_s = statistics.median(row["bare_images_per_s"] for row in rounds)
    return {
        "bare": {"images_per_s": bare_images_per_s, "batch": batch, "sweep": sweep},
        **served,
        "alone": {
            **medians(rounds, "alone", "p50_ms", "p99_ms"),
            "bare_ms": statistics.median(r["one_image_ms"] for r in rounds),
            "over_bare_ms": statistics.median(r["alone"]["p50_ms"] - r["one_image_ms"] for r in rounds),
            "p99_over_p50": statistics.median(r["alone"]["p99_ms"] / r["alone"]["p50_ms"] for r in rounds),
            "ratio_spread": harness.spread([r["one_image_ms"] / r["alone"]["p50_ms"] for r in rounds]),
        },
        "ready_s": ready_s,
        "pss_ready_mb": pss_ready,
        "pss_after_load_mb": pss_loaded,
        "load_average": [before, harness.load_average()],
        "rounds": rounds,
    }


def measure_peers(preset: str, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the same load on the service and on peers, alternating with a bare loop."""
    before = harness.load_average()
    session, batch, _ = best_bare(path, args.seconds / 5)
    fastapi = ["uvicorn", "benchmarks.peers.fastapi_torch:app", "--port", "{port}", "--no-access-log"]
    bentoml = ["bentoml", "serve", "benchmarks.peers.bentoml_batchable:Batchable", "--port", "{port}"]
    rounds: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shutil.copy(path, folder)
        ours = stack.enter_context(servers.atelier(folder))[1]
        fastapi_port = stack.enter_context(servers.server(fastapi, "/openapi.json", PRESET=preset))[1]
        bentoml_port = stack.enter_context(servers.server(bentoml, "/readyz", GENERATOR=str(path)))[1]
        loads: dict[str, tuple[int, str, bool]] = {
            "gan_atelier_npy": (ours, servers.NPY, False),
            "gan_atelier_json_png": (ours, servers.JSON, False),
            "fastapi_torch_npy": (fastapi_port, servers.NPY, False),
            "bentoml_batchable_json": (bentoml_port, servers.JSON, True),
        }
        for port, accept, seeds in loads.values():
            servers.wrk(port, args.clients, args.n, 1.0, accept, seeds)
        for _ in range(args.rounds):
            bare = servers.bare_rate(session, batch, args.seconds)
            row = {}
            for name, (port, accept, seeds) in loads.items():
                load = row[name] = servers.wrk(port, args.clients, args.n, args.seconds, accept, seeds)
                load["ratio"] = load["images_per_s"] / bare
                load["refused_share"] = load["refused"] / max(1, load["requests"])
                time.sleep(0.5)  # It still computes for clients that are gone.
            rounds.append(row)
    ratios = {
        f"{ours}/{theirs}": harness.spread([r[ours]["images_per_s"] / r[theirs]["images_per_s"] for r in rounds])
        for ours, theirs in PAIRS
    }
    keys = ("ratio", "images_per_s", "p50_ms", "p99_ms", "refused_share")
    found: dict[str, Any] = {name: medians(rounds, name, *keys) for name in loads}
    return {**found, "times_as_fast": ratios, "load_average": [before, harness.load_average()]}


def main() -> None:
    """Measure generators and peers."""
    parser = harness.make_parser(__doc__, "serving")
    parser.add_argument(
        "generators", type=harness.existing_file, nargs="*", help="generator files; default: untrained ones"
    )
    parser.add_argument("--clients", type=harness.at_least_one, default=32)
    parser.add_argument("--n", type=harness.at_least_one, default=4, help="images per request")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=harness.at_least_one, default=5)
    parser.add_argument("--no-peers", action="store_true", help="leave benchmarks/peers out")
    args = parser.parse_args()
    servers.require_wrk()
    conditions: dict[str, Any] = {
        "machine": harness.describe_machine(),
        "clients": args.clients,
        "images_per_request": args.n,
        "load_generator": "wrk, on the same cores",
        "seconds": args.seconds,
        "rounds": args.rounds,
    }
    failed: dict[str, str] = {}
    generators: dict[str, Any] = {}
    peers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = {
            preset: servers.make_generator(preset, Path(folder))
            for preset in (() if args.generators else servers.PRESETS)
        }
        for path in args.generators or made.values():
            with harness.attempt(path.stem, failed):
                generators[path.stem] = measure(path, args)
            document = conditions | {"generators": generators, "failed": failed}
            if generators or not args.output.exists():
                harness.write(args.output, document)
        peers_output = args.output.with_name(f"{args.output.stem}_peers.json")
        for preset, path in () if args.no_peers else made.items():
            with harness.attempt(f"{preset} and its peers", failed):
                peers[preset] = measure_peers(preset, path, args)
            if peers or not peers_output.exists():
                harness.write(peers_output, conditions | {"peers": peers, "failed": failed})
    met = report.print_rows({"serving": document, "serving_peers": conditions | {"peers": peers}})
    raise SystemExit(0 if met and not failed else 1)


if __name__ == "__main__":
    main()
