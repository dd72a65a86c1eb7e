"""Two presets at equal images, at equal time and at their ends.

A point of the first preset is compared with the second's first point that has seen at least as many images, or has
taken at least as much time, so that a difference of ticks favors the second. A seed of the second that has ended before
is compared at its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from scripts.reproduce.runs import Point, ReproductionContext, Trial, collected, points

PAIRS = (
    ("mnist-best", "mnist-dcgan"),
    ("mnist-best", "mnist-dcgan-2g"),
    ("mnist-best-unconditional", "mnist-dcgan"),
    ("mnist-best-unconditional", "mnist-dcgan-2g"),
    ("mnist-dcgan", "mnist-gan"),
)
SHARES = (0.25, 1.0)  # of the images, or the time, that both presets have
SLACK = 1.001  # batches differ, so equal images are equal to a batch

Points = tuple[Point, ...]  # one per seed


@dataclass(frozen=True)
class Moment:
    """Where two presets are compared."""

    at: str  # images, time or end
    clock: str | None  # the metric that measures time: cpu_seconds or seconds; None: times cannot be compared
    first: Points
    second: Points


def moments(context: ReproductionContext, first: str, second: str) -> Iterator[Moment]:
    """Yield the moments at which two presets are compared; none where one of them is not collected."""
    sides = [[trial for trial in collected(context) if trial.run.preset == preset] for preset in (first, second)]
    if not all(sides):
        return
    ours, theirs = ([points(context, trial) for trial in side] for side in sides)
    clock = common_clock(context, [trial for side in sides for trial in side])
    ends = tuple(seed[-1] for seed in ours), tuple(seed[-1] for seed in theirs)
    metrics = {"images": "images_seen"} | ({"time": clock} if clock else {})
    for at, metric in metrics.items():
        known = [ends]
        for share in SHARES:
            matched = match(ours, theirs, metric, share)
            if matched and matched not in known:
                known.append(matched)
                yield Moment(at, clock, *matched)
    yield Moment("end", clock, *ends)


def match(
    first: list[list[Point]], second: list[list[Point]], metric: str, share: float
) -> tuple[Points, Points] | None:
    """Return the points to compare at a share of the shorter side; None where the first side has none.

    Args:
        first: The points of each seed.
        second: Those of the other side.
        metric: What is to be equal, of a tick: images_seen, cpu_seconds or seconds.
        share: Of the images or time that both sides have.
    """
    shorter = min(median(seed[-1].tick[metric] for seed in side) for side in (first, second))
    within = [point for point in first[0] if point.tick[metric] <= shorter * SLACK]
    if not within:
        return None
    step = min(within, key=lambda point: abs(point.tick[metric] - share * shorter)).tick["step"]
    ours = tuple(point for seed in first for point in seed if point.tick["step"] == step)
    least = median(point.tick[metric] for point in ours) / SLACK
    return ours, tuple(next((point for point in seed if point.tick[metric] >= least), seed[-1]) for seed in second)


def common_clock(context: ReproductionContext, trials: list[Trial]) -> str | None:
    """Return the metric that measures the time of these trials: the CPU's where all have it; None on two machines."""
    machines = [machine_of(context, trial) for trial in trials]
    if any(machine != machines[0] for machine in machines):
        return None
    ticks = [point.tick for trial in trials for point in points(context, trial)]
    return (
        "cpu_seconds" if machines[0]["device"] == "cpu" and all("cpu_seconds" in tick for tick in ticks) else "seconds"
    )


def machine_of(context: ReproductionContext, trial: Trial) -> dict[str, object]:
    """Return what a trial's time depends on: processor, device, precision, threads and torch."""
    record = context.record(trial)
    run = json.loads((record / "config.json").read_text(encoding="utf-8"))["run"]
    machine = json.loads((record / "made_by.json").read_text(encoding="utf-8")).get("machine", {})
    processor = machine.get("gpu" if run["device"] == "cuda" else "cpu")
    if run["device"] == "cpu" and "cpu_capability" in machine:  # processors of several generations share a name
        processor = f"{processor} ({machine['cpu_capability']})"
    return {"processor": processor, "torch": machine.get("torch")} | {
        field: run[field] for field in ("device", "precision", "threads")
    }
