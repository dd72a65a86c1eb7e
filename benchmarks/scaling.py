"""What one core serves and what two serve, with one worker and with two: the table of docs/operations/scaling.md.

    python -m benchmarks.scaling [GENERATOR.onnx ...]

With one core, the load generator wrk has the other one. Without generator files it makes those of `cifar10-dcgan` and
`mnist-dcgan`, untrained.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import harness, servers

WAYS = {  # name: (workers, threads of each, cores)
    "one_worker_one_core": (1, 1, 1),
    "one_worker_two_cores": (1, 2, 2),
    "two_workers_two_cores": (2, 1, 2),
}
CLIENTS, IMAGES_PER_REQUEST = 16, 4


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Start processes within on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wait_until_ready(port: int, workers: int) -> None:
    """Wait until twenty connections per worker reached only ready ones: a probe reaches one worker of several."""
    remaining, end = 20 * workers if workers > 1 else 0, time.monotonic() + 90
    while remaining:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                remaining -= 1
        except OSError:
            remaining = 20 * workers
            time.sleep(0.1)
        if time.monotonic() > end:
            raise SystemExit("not all workers became ready")


def measure(path: Path, seconds: float) -> dict[str, Any]:
    """Measure one generator, served in each of WAYS."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        for name, (workers, threads, cores) in WAYS.items():
            settings = {"ATELIER_WORKERS": str(workers), "ATELIER_THREADS": str(threads)}
            with (
                on_cores({first, second} if cores == 2 else {first}),
                servers.atelier(Path(folder), **settings) as (pid, port, _),
                on_cores({first, second} if cores == 2 else {second}),
            ):
                wait_until_ready(port, workers)
                servers.wrk(port, CLIENTS, IMAGES_PER_REQUEST, 1.0)
                load = servers.wrk(port, CLIENTS, IMAGES_PER_REQUEST, seconds)
                if load["refused"] or load["broken"] or load["timed_out"]:
                    raise SystemExit(f"the load met errors: {load}")
                ways = {"workers": workers, "threads": threads, "cores": cores}
                result[name] = {**ways, "npy": [load], "pss_mb": servers.tree_pss_mb(pid)}
            print(f"{path.stem}, {name}: {load['images_per_s']:.0f} images/s", flush=True)
    return result


def main() -> None:
    """Measure the generators."""
    parser = harness.make_parser(__doc__, "scaling")
    files = "generator files; default: untrained ones"
    parser.add_argument("generators", type=harness.existing_file, nargs="*", help=files)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    args = parser.parse_args()
    servers.require_wrk()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two cores are needed")
    document: dict[str, Any] = {"machine": harness.describe_machine(), "images_per_request": IMAGES_PER_REQUEST}
    with tempfile.TemporaryDirectory() as folder:
        paths = args.generators or [servers.make_generator(preset, Path(folder)) for preset in servers.PRESETS]
        document["generators"] = {path.stem: measure(path, args.seconds) for path in paths}
    harness.write(args.output, document | {"load_average_after": harness.load_average()})


if __name__ == "__main__":
    main()
