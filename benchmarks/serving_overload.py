"""200 clients at once for a minute: what is answered, how much of the best rate is left, what memory does, and how
soon a lone client is served as on an idle server again.

    python -m benchmarks.serving_overload [GENERATOR.onnx]

Twice: with n=4 all rows find room in the queue; with n=16 they do not, and clients that are refused (503) wait as
long as Retry-After tells. Goodput is over the images a second of 32 clients just before. Exit 1: a target was missed.
"""

import argparse
import http.client
import json
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.arguments import file_to_write
from benchmarks.machine import describe
from benchmarks.serving_tools import (
    NPY,
    ROOT,
    atelier,
    make_generator,
    report,
    require_wrk,
    tree_anonymous_mb,
    write,
    wrk,
)


def alone(port: int, seconds: float) -> list[tuple[float, float]]:
    """One client, n=1: (seconds since the first request, latency in ms) of each answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json", "Accept": NPY}
    times, began, seed = [], time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        sent = time.perf_counter()
        connection.request("POST", "/v1/generate", json.dumps({"seed": seed}), headers)
        connection.getresponse().read()
        times.append((time.perf_counter() - began, 1e3 * (time.perf_counter() - sent)))
        seed += 1
    return times


def overload(pid: int, port: int, n: int, args: argparse.Namespace) -> dict[str, Any]:
    idle = statistics.median(ms for _, ms in alone(port, 3.0))
    best = wrk(port, 32, 4, args.seconds / 6)["images_per_s"]
    memory: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            memory.append(tree_anonymous_mb(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    load = wrk(port, args.clients, n, args.seconds, count=True)
    stop.set()
    watcher.join()
    after = alone(port, 5.0)
    # back to idle: from then on the median of ten in a row is at most twice the idle one
    windows = [statistics.median(ms for _, ms in after[i : i + 10]) for i in range(max(1, len(after) - 9))]
    late = [i for i, ms in enumerate(windows) if ms > 2 * idle]
    back = 0.0 if not late else after[min(late[-1] + 1, len(after) - 1)][0]
    sixth = max(1, len(memory) // 6)
    early, end = statistics.median(memory[sixth : 2 * sixth]), statistics.median(memory[-sixth:])
    return {
        "images_per_request": n,
        **{
            k: load[k]
            for k in ("status_200", "status_503", "others", "broken", "closed", "timed_out", "p50_ms", "p99_ms")
        },
        "images_per_s": load["status_200"] * n / load["seconds"],
        "best_images_per_s": best,
        "goodput": load["status_200"] * n / load["seconds"] / best,
        "memory_early_mb": early,
        "memory_late_mb": end,
        "growth": end / early - 1,
        "idle_p50_ms": idle,
        "first_after_ms": after[0][1],
        "back_to_idle_s": back,
    }


def targets(loads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is promised of an overloaded service, and whether it was kept."""
    found = []
    for load in loads:
        strange = load["others"] + load["broken"] + load["timed_out"]
        for what, value, sense, limit in (
            ("answers but 200 and 503", strange, "at most", 0),
            ("goodput", load["goodput"], "at least", 0.8),
            ("growth of memory", load["growth"], "at most", 0.02),
            ("seconds until it is as idle", load["back_to_idle_s"], "at most", 2.0),
        ):
            met = value >= limit if sense == "at least" else value <= limit
            found.append(
                {"target": f"n={load['images_per_request']}: {what}", "value": value, sense: limit, "met": met}
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path, nargs="?", help="generator file; default: mnist-dcgan, untrained")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--output", type=file_to_write, default=ROOT / "benchmarks" / "results" / "serving_overload.json"
    )
    args = parser.parse_args()
    if args.generator and not args.generator.is_file():
        parser.error(f"there is no generator file at {args.generator}")
    require_wrk()
    result: dict[str, Any] = {"machine": describe(), "clients": args.clients, "seconds": args.seconds, "loads": []}
    with tempfile.TemporaryDirectory() as folder:
        if args.generator:
            shutil.copy(args.generator, folder)
        else:
            make_generator("mnist-dcgan", Path(folder))
        with atelier(Path(folder)) as (pid, port, _):
            wrk(port, 32, 4, args.seconds / 12)
            for n in (4, 16):
                result["loads"].append(overload(pid, port, n, args))
                print(json.dumps(result["loads"][-1], indent=2), flush=True)
    result["targets"] = targets(result["loads"])
    write(args.output, result)
    report(result["targets"])


if __name__ == "__main__":
    main()
