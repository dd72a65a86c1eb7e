"""What one core serves, what two serve, and what is used up first (docs/operations/scaling.md).

    python -m benchmarks.scaling [GENERATOR.onnx ...]

Serves each generator (by default those of `mnist-dcgan` and `cifar10-dcgan`, untrained) three ways in turns: one worker
on one core, one worker with two lanes on two cores, two workers with a core each. `wrk` asks for n=4 raw images with 1,
4 and 16 clients; with one core it has the other to itself, with two it shares them. Processor time is told apart by
thread: the worker's main thread is the event loop, all others are inference. benchmarks.scaling_simulation goes on
from there, benchmarks.scaling_tables prints both.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime as ort

from benchmarks.arguments import at_least_one, file_to_write
from benchmarks.machine import describe
from benchmarks.serving_tools import (
    JSON,
    NPY,
    ROOT,
    atelier,
    bare_feed,
    make_generator,
    require_wrk,
    tree,
    tree_pss_mb,
    write,
    wrk,
)

PRESETS = ("mnist-dcgan", "cifar10-dcgan")
WAYS = {  # name: (workers, threads and lanes of each, cores)
    "one_worker_one_core": (1, 1, 1),
    "one_worker_two_cores": (1, 2, 2),
    "two_workers_two_cores": (2, 1, 2),
}
CLIENTS = (1, 4, 16)
N = 4
BATCHES = (1, 2, 4, 8, 16, 32, 64)


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Processes started within run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(pid: int) -> tuple[float, float]:
    """Processor seconds so far of the main threads and of all other threads of a process and its descendants."""
    main = other = 0.0
    for process in tree(pid):
        for stat in Path(f"/proc/{process}/task").glob("*/stat"):
            try:
                fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            if stat.parent.name == str(process):
                main += seconds
            else:
                other += seconds
    return main, other


def until_all_ready(port: int, workers: int) -> None:
    """A probe reaches one worker of several: all are ready when twenty connections a worker met none that is not."""
    left, end = 20 * workers if workers > 1 else 0, time.monotonic() + 90
    while left:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                left -= 1
        except OSError:
            left = 20 * workers
            time.sleep(0.1)
        if time.monotonic() > end:
            raise SystemExit("not all workers became ready")


def batches(port: int) -> tuple[float, float]:
    """(rows, count) of the inferences so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        told = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    return float(told["atelier_batch_rows_sum"]), float(told["atelier_batch_rows_count"])


def load(pid: int, port: int, clients: int, seconds: float, accept: str = NPY) -> dict[str, Any]:
    """One load, and what it took: processor milliseconds of the loop a request, of all else an image."""
    before, rows = cpu_s(pid), batches(port)
    found: dict[str, Any] = wrk(port, clients, N, seconds, accept)
    if found["refused"] or found["broken"] or found["timed_out"]:
        raise SystemExit(f"the load met errors: {found}")
    after, later = cpu_s(pid), batches(port)
    loop, rest = after[0] - before[0], after[1] - before[1]
    images = later[0] - rows[0]
    return {
        "clients": clients,
        "images_per_s": images / found["seconds"],  # run, not answered: a window is only a few answers long
        **{key: found[key] for key in ("p50_ms", "p99_ms")},
        "loop_ms_per_request": 1e3 * loop / (images / N),
        "inference_ms_per_image": 1e3 * rest / images,
        "cores_used": (loop + rest) / found["seconds"],
        "rows_a_batch": images / (later[1] - rows[1]),
    }


def bare(path: Path, core: int) -> dict[int, float]:
    """Milliseconds of a bare single-threaded run by rows."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = {}
    with on_cores({core}):
        for rows in BATCHES:
            feed, times, end = bare_feed(session, rows), [], time.perf_counter() + 0.4
            while time.perf_counter() < end or len(times) < 3:
                began = time.perf_counter()
                session.run(None, feed)
                times.append(time.perf_counter() - began)
            found[rows] = 1e3 * statistics.median(times)
    return found


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def measure(path: Path, seconds: float, rounds: int) -> dict[str, Any]:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    result: dict[str, Any] = {"bare_ms_by_rows": bare(path, first)}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        for name, (workers, threads, cores) in WAYS.items():
            ours = {first, second} if cores == 2 else {first}
            settings = {"ATELIER_WORKERS": str(workers), "ATELIER_THREADS": str(threads)}
            with on_cores(ours):
                serving = atelier(Path(folder), **settings)
                started = serving.__enter__()
            try:
                pid, port, _ = started
                until_all_ready(port, workers)
                with on_cores({first, second} if cores == 2 else {second}):
                    wrk(port, CLIENTS[-1], N, 1.0)
                    loads = {
                        clients: median([load(pid, port, clients, seconds) for _ in range(rounds)])
                        for clients in CLIENTS
                    }
                    documents = load(pid, port, CLIENTS[-1], seconds, JSON)
                result[name] = {
                    "workers": workers,
                    "threads": threads,
                    "cores": cores,
                    "npy": list(loads.values()),
                    "json": documents,
                    "pss_mb": tree_pss_mb(pid),
                }
            finally:
                serving.__exit__(None, None, None)
            full = result[name]["npy"][-1]
            print(
                f"{path.stem}, {name}: {full['images_per_s']:.0f} images/s on {full['cores_used']:.2f} cores, "
                f"loop {full['loop_ms_per_request']:.2f} ms a request, "
                f"inference {full['inference_ms_per_image']:.2f} ms an image, {full['rows_a_batch']:.1f} rows a batch",
                flush=True,
            )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", type=Path, nargs="*", help="generator files (.onnx); default: untrained ones")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--rounds", type=at_least_one, default=1)
    parser.add_argument("--output", type=file_to_write, default=ROOT / "benchmarks" / "results" / "scaling.json")
    args = parser.parse_args()
    require_wrk()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two cores are needed")
    for path in args.generators:
        if not path.is_file():
            parser.error(f"there is no generator file at {path}")
    told = {"machine": describe(), "images_per_request": N, "seconds": args.seconds, "rounds": args.rounds}
    with tempfile.TemporaryDirectory() as folder:
        paths = args.generators or [make_generator(preset, Path(folder)) for preset in PRESETS]
        generators = {path.stem: measure(path, args.seconds, args.rounds) for path in paths}
    write(args.output, {**told, "load_average_after": os.getloadavg()[0], "generators": generators})


if __name__ == "__main__":
    main()
