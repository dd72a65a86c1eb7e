"""The service under load: too many clients, ten minutes of everything, and one core against two.

    python -m benchmarks.serving_load overload | soak | scaling

overload  200 clients at once for a minute: what is answered, the share of the best rate, memory, and how soon a single
          client is served as on an idle server again. Twice: with n=4 all rows fit into the queue; with n=16 they do
          not, and clients that are refused (503) wait for Retry-After. Exit 1: a target was missed.
soak      Ten minutes of requests of every kind, invalid and aborted ones included, and whether memory grows: the last
          fifth's median against that of the second fifth. Exit 1: it grew by 2 %, or there was a 5xx other than 503.
scaling   What one core serves and what two serve, with one worker and with two: the figures of docs/scaling.md. With
          one core `wrk` has the other one. The event loop is the worker's main thread, all other threads inference.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    RESULTS,
    at_least_one,
    describe_machine,
    existing_file,
    file_to_write,
    load_average,
    print_targets,
    target,
    write,
)
from benchmarks.servers import (
    JSON,
    NPY,
    PRESETS,
    atelier,
    make_generator,
    require_wrk,
    tree,
    tree_anonymous_mb,
    tree_pss_mb,
    wrk,
)

MAX_GROWTH = 0.02  # of memory
SCALING_WAYS = {  # name: (workers, threads of each, cores)
    "one_worker_one_core": (1, 1, 1),
    "one_worker_two_cores": (1, 2, 2),
    "two_workers_two_cores": (2, 1, 2),
}
SCALING_CLIENTS, SCALING_N = 16, 4


def time_single_client(port: int, seconds: float) -> list[tuple[float, float]]:
    """Return (seconds since the first request, latency in ms) of each response to one client, n=1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json", "Accept": NPY}
    times, started, seed = [], time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        sent = time.perf_counter()
        connection.request("POST", "/v1/generate", json.dumps({"seed": seed}), headers)
        connection.getresponse().read()
        times.append((time.perf_counter() - started, 1e3 * (time.perf_counter() - sent)))
        seed += 1
    return times


def measure_overload(pid: int, port: int, n: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one overload."""
    idle = statistics.median(ms for _, ms in time_single_client(port, 3.0))
    best = wrk(port, 32, 4, args.seconds / 6)["images_per_s"]
    memory: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            memory.append(tree_anonymous_mb(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    load = wrk(port, args.clients or 200, n, args.seconds, count=True)
    stop.set()
    watcher.join()
    after = time_single_client(port, 5.0)
    # Idle again: from then on the median of ten in a row is at most twice the idle one.
    windows = [statistics.median(ms for _, ms in after[i : i + 10]) for i in range(max(1, len(after) - 9))]
    slow = [i for i, ms in enumerate(windows) if ms > 2 * idle]
    back = 0.0 if not slow else after[min(slow[-1] + 1, len(after) - 1)][0]
    sixth = max(1, len(memory) // 6)
    early, late = statistics.median(memory[sixth : 2 * sixth]), statistics.median(memory[-sixth:])
    kept = ("status_200", "status_503", "others", "broken", "closed", "timed_out", "p50_ms", "p99_ms")
    return {
        "images_per_request": n,
        **{key: load[key] for key in kept},
        "images_per_s": load["status_200"] * n / load["seconds"],
        "best_images_per_s": best,
        "goodput": load["status_200"] * n / load["seconds"] / best,
        "memory_early_mb": early,
        "memory_late_mb": late,
        "growth": late / early - 1,
        "idle_p50_ms": idle,
        "first_after_ms": after[0][1],
        "back_to_idle_s": back,
    }


def overload(args: argparse.Namespace) -> None:
    """Measure two overloads and compare them with the targets."""
    require_wrk()
    result: dict[str, Any] = {"machine": describe_machine(), "clients": args.clients or 200, "seconds": args.seconds}
    loads = result["loads"] = []
    with serve(args.generators[:1], "mnist-dcgan") as (pid, port, _):
        wrk(port, 32, 4, args.seconds / 12)
        for n in (4, 16):
            loads.append(measure_overload(pid, port, n, args))
            print(json.dumps(loads[-1], indent=2), flush=True)
    result["targets"] = [
        target(f"n={load['images_per_request']}: {what}", value, sense, limit)
        for load in loads
        for what, value, sense, limit in (
            ("answers but 200 and 503", load["others"] + load["broken"] + load["timed_out"], "at most", 0),
            ("goodput", load["goodput"], "at least", 0.8),
            ("growth of memory", load["growth"], "at most", MAX_GROWTH),
            ("seconds until it is as idle", load["back_to_idle_s"], "at most", 2.0),
        )
    ]
    write(args.output, result, 3)
    print_targets(result["targets"])


@contextmanager
def serve(generators: list[Path], preset: str) -> Iterator[tuple[int, int, float]]:
    """Serve generator files, or an untrained preset's."""
    with tempfile.TemporaryDirectory() as folder:
        for path in generators:
            shutil.copy(path, folder)
        if not generators:
            make_generator(preset, Path(folder))
        with atelier(Path(folder)) as started:
            yield started


class Client:
    """One connection, opened again when it breaks, that counts responses by kind and status."""

    def __init__(self, port: int, seed: int, counts: collections.Counter[str]):
        self.port, self.random, self.counts = port, random.Random(seed), counts
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(self, kind: str, method: str, path: str, body: Any = None, accept: str = "*/*") -> None:
        """Send one request."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        try:
            headers = {"Accept": accept, "Content-Type": "application/json"}
            self.connection.request(method, path, content, headers)
            response = self.connection.getresponse()
            response.read()
            self.counts[f"{kind} {response.status}"] += 1
        except (OSError, http.client.HTTPException) as error:
            self.counts[f"{kind} {type(error).__name__}"] += 1
            self.connection.close()

    def seed(self) -> int:
        """Return a random seed."""
        return self.random.randrange(2**53 - 1000)

    def generate(self) -> None:
        """Request images."""
        accept = self.random.choice([NPY, JSON, "application/zip", "image/png"])
        self.send("generate", "POST", "/v1/generate", {"seed": self.seed(), "n": self.random.randint(1, 32)}, accept)

    def interpolate(self) -> None:
        """Request an interpolation."""
        accept = self.random.choice([JSON, "image/gif", "image/webp", "image/png"])
        keys = [self.seed() for _ in range(self.random.randint(2, 4))]
        body = {"keyframes": keys, "steps": self.random.randint(2, 12), "loop": self.random.random() < 0.5}
        self.send("interpolate", "POST", "/v1/interpolate", body, accept)

    def mix(self) -> None:
        """Request a mixture."""
        terms = [{"seed": self.seed(), "weight": self.random.uniform(-1, 2)} for _ in range(self.random.randint(1, 5))]
        self.send("mix", "POST", "/v1/mix", {"terms": terms})

    def image(self) -> None:
        """Request an image resource."""
        suffix = self.random.choice(["png", "webp"])
        self.send("image", "GET", f"/v1/models/mnist-dcgan/images/{self.seed()}.{suffix}")

    def invalid(self) -> None:
        """Send two invalid requests."""
        bodies: list[Any] = [{"n": 10**6}, {"nothing": 1}, {"model": f"no-{self.seed()}"}, {"latents": [[1.0]]}]
        self.send("mistake", "POST", "/v1/generate", self.random.choice([*bodies, b"{", b"\xff", []]))
        self.send("mistake", "GET", f"/nowhere/{self.seed()}")

    def abort(self) -> None:
        """Close the connection in the middle of a request."""
        body = json.dumps({"seed": self.seed(), "n": 64}).encode()
        head = b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
                connection.sendall((head % len(body) + body)[: self.random.choice([20, 150, 10**6])])
                time.sleep(self.random.uniform(0, 0.2))
            self.counts["hang up"] += 1
        except OSError as error:
            self.counts[f"hang up {type(error).__name__}"] += 1

    def run(self, is_over: Callable[[], bool]) -> None:
        """Send requests of random kinds until the end."""
        kinds = [self.generate, self.interpolate, self.mix, self.image, self.invalid, self.abort]
        while not is_over():
            self.random.choices(kinds, [6, 1, 1, 4, 2, 1])[0]()
        self.connection.close()


def soak(args: argparse.Namespace) -> None:
    """Send requests of every kind for minutes, and compare memory early and late."""
    counts: collections.Counter[str] = collections.Counter()
    memory: list[tuple[float, float]] = []
    machine, number = describe_machine(), args.clients or 8
    with serve([], "mnist-dcgan") as (pid, port, _):
        started = time.monotonic()
        end = started + 60 * args.minutes
        clients = [Client(port, seed, counts) for seed in range(number)]
        threads = [threading.Thread(target=one.run, args=(lambda: time.monotonic() > end,)) for one in clients]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            time.sleep(min(5.0, 60 * args.minutes / 20))
            memory.append((time.monotonic() - started, tree_anonymous_mb(pid)))
            if len(memory) % 12 == 0:
                print(f"{memory[-1][0]:.0f} s: {memory[-1][1]:.1f} MB, {counts.total()} requests", flush=True)
        for thread in threads:
            thread.join()
    fifth = len(memory) // 5
    early = statistics.median(mb for _, mb in memory[fifth : 2 * fifth])
    late = statistics.median(mb for _, mb in memory[-fifth:])
    errors = {kind for kind in counts if " 5" in kind and not kind.endswith(" 503")}
    result = {
        "machine": machine,
        "minutes": args.minutes,
        "clients": number,
        "answers": dict(sorted(counts.items())),
        "early_mb": early,
        "late_mb": late,
        "growth": late / early - 1,
        "memory_mb": [[round(seconds, 1), round(mb, 1)] for seconds, mb in memory],
    }
    write(args.output, result, 3)
    print(f"{counts.total()} requests; {early:.1f} MB, then {late:.1f} MB: {100 * (late / early - 1):+.2f} %")
    raise SystemExit(1 if late / early >= 1 + MAX_GROWTH or errors else 0)


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Start processes within on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Return the processor seconds of the main threads, and of all other threads, of a process and its descendants."""
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


def batch_rows(port: int) -> tuple[float, float]:
    """Return (rows, count) of the inferences so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
    found = dict(line.rsplit(" ", 1) for line in lines)
    return float(found["atelier_batch_rows_sum"]), float(found["atelier_batch_rows_count"])


def measure_scaling_load(pid: int, port: int, seconds: float, accept: str = NPY) -> dict[str, Any]:
    """Measure one load: processor milliseconds of the event loop per request, and of inference per image."""
    before, rows = cpu_seconds(pid), batch_rows(port)
    load = wrk(port, SCALING_CLIENTS, SCALING_N, seconds, accept)
    if load["refused"] or load["broken"] or load["timed_out"]:
        raise SystemExit(f"the load met errors: {load}")
    after, later = cpu_seconds(pid), batch_rows(port)
    loop, inference = after[0] - before[0], after[1] - before[1]
    images = later[0] - rows[0]
    return {
        "clients": SCALING_CLIENTS,
        "images_per_s": images / load["seconds"],  # computed, not answered: a window is only a few answers long
        **{key: load[key] for key in ("p50_ms", "p99_ms")},
        "loop_ms_per_request": 1e3 * loop / (images / SCALING_N),
        "inference_ms_per_image": 1e3 * inference / images,
        "cores_used": (loop + inference) / load["seconds"],
        "rows_a_batch": images / (later[1] - rows[1]),
    }


def measure_scaling(path: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure one generator, served in each of SCALING_WAYS."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        for name, (workers, threads, cores) in SCALING_WAYS.items():
            settings = {"ATELIER_WORKERS": str(workers), "ATELIER_THREADS": str(threads)}
            with (
                on_cores({first, second} if cores == 2 else {first}),
                atelier(Path(folder), **settings) as (pid, port, _),
                on_cores({first, second} if cores == 2 else {second}),
            ):
                wait_until_ready(port, workers)
                wrk(port, SCALING_CLIENTS, SCALING_N, 1.0)
                loads = [measure_scaling_load(pid, port, seconds) for _ in range(rounds)]
                npy = {key: statistics.median(load[key] for load in loads) for key in loads[0]}
                result[name] = {
                    "workers": workers,
                    "threads": threads,
                    "cores": cores,
                    "npy": [npy],
                    "json": measure_scaling_load(pid, port, seconds, JSON),
                    "pss_mb": tree_pss_mb(pid),
                }
            print(
                f"{path.stem}, {name}: {npy['images_per_s']:.0f} images/s on {npy['cores_used']:.2f} cores, "
                f"event loop {npy['loop_ms_per_request']:.2f} ms per request, inference "
                f"{npy['inference_ms_per_image']:.2f} ms per image, {npy['rows_a_batch']:.1f} rows per batch",
                flush=True,
            )
    return result


def scaling(args: argparse.Namespace) -> None:
    """Measure one core and two, with one worker and with two."""
    require_wrk()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two cores are needed")
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        paths = args.generators or [make_generator(preset, Path(folder)) for preset in PRESETS]
        generators = {path.stem: measure_scaling(path, args.seconds / 15, args.rounds) for path in paths}
    document = {"machine": machine, "images_per_request": SCALING_N, "seconds": args.seconds / 15}
    document |= {"rounds": args.rounds, "load_average_after": load_average(), "generators": generators}
    write(args.output, document, 3)


PARTS = {"overload": overload, "soak": soak, "scaling": scaling}
FILES = {"overload": "serving_overload", "soak": "serving_soak", "scaling": "scaling"}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("generators", type=existing_file, nargs="*", help="generator files; default: untrained ones")
    parser.add_argument("--clients", type=at_least_one, help="200 (overload) or 8 (soak) by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="of an overload; a fifteenth of it for scaling")
    parser.add_argument("--minutes", type=float, default=10.0, help="of a soak")
    parser.add_argument("--rounds", type=at_least_one, default=1, help="of scaling")
    parser.add_argument("--output", type=file_to_write, help="the result file")
    args = parser.parse_args()
    args.output = args.output or RESULTS / f"{FILES[args.part]}.json"
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
