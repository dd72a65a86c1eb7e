"""Replicas that this machine has no cores for, as a discrete-event simulation of what benchmarks.scaling measured.

    python -m benchmarks.scaling_simulation

A worker is an event loop (one request at a time), a bounded queue of rows, and lanes that take up to a batch of rows
each. Its times are processor times of the loads of one worker on one core; all else is predicted. It is first held
against the measured loads, then asked for more replicas: open arrivals (Poisson, n images a request), shared out to the
replica with the fewest requests (`least`), in turn (`turns`) or by lot (`lot`, as a Kubernetes Service does with
connections). Not in it: a network, a proxy, jitter, replicas that die.
"""

import argparse
import heapq
import json
import math
import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least_one, file_to_write
from benchmarks.serving_tools import ROOT, write

RESULTS = ROOT / "benchmarks" / "results"
UTILISATION = 0.7


@dataclass(frozen=True)
class Times:
    """Seconds: `loop` of the event loop a request; `batch[r]` of a lane for r rows (0 to the largest batch)."""

    loop: float
    batch: tuple[float, ...]

    @property
    def rows(self) -> int:
        """The largest batch."""
        return len(self.batch) - 1

    def core_rate(self, n: int) -> float:
        """Images a second that one core can do when it does nothing else, n a request: 1 / (image + loop / n)."""
        return 1 / (self.batch[-1] / self.rows + self.loop / n)

    @classmethod
    def measured(cls, generator: dict[str, Any]) -> "Times":
        """Of one worker on one core under 16 clients; smaller batches by the proportions of the bare runs."""
        full = generator["one_worker_one_core"]["npy"][-1]
        rows = max(1, round(full["rows_a_batch"]))
        bare = {int(r): ms for r, ms in generator["bare_ms_by_rows"].items()}
        points = [0.0] + [interpolated(bare, r) for r in range(1, rows + 1)]
        scale = full["inference_ms_per_image"] * rows / points[-1] / 1e3
        return cls(full["loop_ms_per_request"] / 1e3, tuple(point * scale for point in points))


def interpolated(points: dict[int, float], at: int) -> float:
    below = max((x for x in points if x <= at), default=min(points))
    above = min((x for x in points if x >= at), default=max(points))
    if below == above:
        return points[below]
    return points[below] + (points[above] - points[below]) * (at - below) / (above - below)


@dataclass
class Replica:
    queue: deque[list[Any]] = field(default_factory=deque)  # [rows left to take, rows left to finish, arrived, client]
    waiting: int = 0
    busy: int = 0
    loop_free: float = 0.0
    outstanding: int = 0
    busy_s: float = 0.0
    loop_s: float = 0.0
    debt: float = 0.0  # loop's work that no core was free for: the next batch pays it


@dataclass
class Outcome:
    """Latencies in seconds of the requests that came after the warm-up, rows waiting as their arrivals met them."""

    latencies: list[float]
    refused: int
    seconds: float
    images: int
    waiting: list[int]
    utilisation: float
    loop_utilisation: float

    def told(self) -> dict[str, float]:
        ordered = sorted(self.latencies) or [math.nan]
        return {
            "images_per_s": self.images / self.seconds,
            "p50_ms": 1e3 * ordered[len(ordered) // 2],
            "p99_ms": 1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
            "refused_share": self.refused / max(1, self.refused + len(self.latencies)),
            "mean_rows_waiting": sum(self.waiting) / max(1, len(self.waiting)),
            "utilisation": self.utilisation,
            "loop_utilisation": self.loop_utilisation,
        }


def simulate(
    times: Times,
    *,
    replicas: int = 1,
    lanes: int = 1,
    n: int = 4,
    clients: int | None = None,
    images_per_s: float | None = None,
    balance: str = "least",
    seconds: float = 60.0,
    max_queue_rows: int = 1024,
    seed: int = 0,
) -> Outcome:
    """Either `clients` that ask again as soon as they are answered, each at one replica, or open arrivals.

    A lane has a core. The loop has none of its own: while all lanes run, its work is taken from them.
    """
    assert (clients is None) != (images_per_s is None)
    draw = random.Random(seed)
    workers = [Replica() for _ in range(replicas)]
    events: list[tuple[float, int, str, int, Any]] = []
    order = turn = refused = images = 0
    warm = seconds / 5
    latencies: list[float] = []
    waiting: list[int] = []

    def push(at: float, kind: str, index: int, what: Any) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (at, order, kind, index, what))

    def chosen() -> int:
        nonlocal turn
        if balance == "lot":
            return draw.randrange(replicas)
        if balance == "turns":
            turn = (turn + 1) % replicas
            return turn
        return min(range(replicas), key=lambda i: workers[i].outstanding)

    def start(now: float, index: int) -> None:
        worker = workers[index]
        while worker.waiting and worker.busy < lanes:
            room = worker.waiting if worker.waiting <= times.rows else min(times.rows, -(-worker.waiting // lanes))
            took, parts = 0, []
            while room and worker.queue:
                job = worker.queue[0]
                rows = min(room, job[0])
                job[0] -= rows
                room -= rows
                took += rows
                parts.append((job, rows))
                if not job[0]:
                    worker.queue.popleft()
            worker.waiting -= took
            worker.busy += 1
            duration, worker.debt = times.batch[took] + worker.debt, 0.0
            worker.busy_s += max(0.0, min(now + duration, seconds) - max(now, warm)) if now < seconds else 0.0
            push(now + duration, "batch", index, parts)

    if images_per_s is not None:
        push(draw.expovariate(images_per_s / n), "arrival", 0, None)
    else:
        assert clients is not None
        for client in range(clients):  # connections find their replica by lot, and keep it
            push(1e-9 * client, "arrival", draw.randrange(replicas), client)
    while events:
        now, _, kind, index, what = heapq.heappop(events)
        if now > seconds:
            break
        if kind == "arrival":
            if what is None:
                assert images_per_s is not None
                push(now + draw.expovariate(images_per_s / n), "arrival", 0, None)
                index = chosen()
            worker = workers[index]
            worker.outstanding += 1
            worker.loop_free = max(now, worker.loop_free) + times.loop
            worker.loop_s += times.loop if now > warm else 0.0
            worker.debt += times.loop if worker.busy == lanes else 0.0
            push(worker.loop_free, "queued", index, (now, what))
        elif kind == "queued":
            worker = workers[index]
            arrived, client = what
            if arrived > warm:
                waiting.append(worker.waiting)
            if worker.waiting and worker.waiting + n > max_queue_rows:
                refused += arrived > warm
                worker.outstanding -= 1
                if client is not None:
                    push(now + 1.0, "arrival", index, client)  # after Retry-After
                continue
            worker.queue.append([n, n, arrived, client])
            worker.waiting += n
            start(now, index)
        else:
            worker = workers[index]
            worker.busy -= 1
            for job, rows in what:
                job[1] -= rows
                if now > warm:
                    images += rows
                if not job[1]:
                    worker.outstanding -= 1
                    if job[2] > warm:
                        latencies.append(now - job[2])
                    if job[3] is not None:
                        push(now, "arrival", index, job[3])
            start(now, index)
    span = seconds - warm
    return Outcome(
        latencies,
        refused,
        span,
        images,
        waiting,
        sum(w.busy_s for w in workers) / (span * lanes * replicas),
        sum(w.loop_s for w in workers) / (span * replicas),
    )


def validate(generator: dict[str, Any], times: Times, n: int) -> list[dict[str, Any]]:
    """Each measured load beside its prediction; connections fall to workers by lot, so the mean of 20 draws."""
    found = []
    for name, way in generator.items():
        if name == "bare_ms_by_rows":
            continue
        for load in way["npy"]:
            outcomes = [
                simulate(
                    times,
                    replicas=way["workers"],
                    lanes=way["threads"],
                    n=n,
                    clients=round(load["clients"]),
                    seconds=10.0,
                    seed=seed,
                ).told()
                for seed in range(20 if way["workers"] > 1 else 1)
            ]
            row = {"way": name, "clients": round(load["clients"])}
            for key in ("images_per_s", "p50_ms"):
                predicted = sum(outcome[key] for outcome in outcomes) / len(outcomes)
                row |= {f"measured_{key}": load[key], f"predicted_{key}": predicted}
                row[f"{key}_ratio"] = load[key] / predicted
            # what the machine's other work cannot flatter
            row["measured_cpu_ms"] = 1e3 * load["cores_used"] / max(load["images_per_s"], 1e-9)
            row["predicted_cpu_ms"] = 1e3 / times.core_rate(n)
            found.append(row)
    return found


def replicas_for(times: Times, images_per_s: float, cores: int, n: int, least: int = 2) -> int:
    """Replicas of so many cores that UTILISATION of them is enough; never one alone."""
    return max(least, math.ceil(images_per_s / (times.core_rate(n) * cores * UTILISATION)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--output", type=file_to_write, default=RESULTS / "scaling_simulation.json")
    parser.add_argument("--requests", type=at_least_one, default=40_000, help="of each open simulation")
    args = parser.parse_args()
    try:
        measured = json.loads(args.measured.read_text(encoding="utf-8"))
        n, cores = measured["images_per_request"], 2
        times_of = {name: Times.measured(generator) for name, generator in measured["generators"].items()}
    except FileNotFoundError:
        parser.error(f"there is no {args.measured}; python -m benchmarks.scaling makes it")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        parser.error(f"--measured takes what python -m benchmarks.scaling wrote, and {args.measured} is something else")
    result: dict[str, Any] = {"images_per_request": n, "cores_a_replica": cores, "utilisation": UTILISATION}
    for name, generator in measured["generators"].items():
        times = times_of[name]
        told: dict[str, Any] = {
            "loop_ms": 1e3 * times.loop,
            "image_ms": 1e3 * times.batch[-1] / times.rows,
            "batch": times.rows,
            "core_images_per_s": times.core_rate(n),
            "validation": validate(generator, times, n),
            "rates": {},
            "load": [],
        }
        for rate in (1, 100, 10_000):
            count = replicas_for(times, rate, cores, n)
            told["rates"][str(rate)] = {"replicas": count}
            for balance in ("least", "lot"):
                outcome = simulate(
                    times,
                    replicas=count,
                    lanes=cores,
                    n=n,
                    images_per_s=rate,
                    balance=balance,
                    seconds=args.requests * n / rate if rate > 1 else 4000.0,
                )
                told["rates"][str(rate)][balance] = outcome.told()
        for share in (0.5, 0.7, 0.8, 0.9, 0.95, 1.05):  # of what eight replicas can do
            for balance in ("least", "lot"):
                rate = share * 8 * cores * times.core_rate(n)
                outcome = simulate(
                    times,
                    replicas=8,
                    lanes=cores,
                    n=n,
                    images_per_s=rate,
                    balance=balance,
                    seconds=args.requests * n / rate,
                )
                told["load"].append({"share": share, "balance": balance, **outcome.told()})
        result[name] = told
        worst = max(abs(math.log(row["images_per_s_ratio"])) for row in told["validation"] if row["images_per_s_ratio"])
        print(f"{name}: measured within a factor {math.exp(worst):.2f} of predicted images/s", flush=True)
    write(args.output, result)


if __name__ == "__main__":
    main()
