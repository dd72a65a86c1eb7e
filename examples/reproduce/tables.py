"""What was run, and how good it is: the figures of every page, gathered from run folders and reports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from examples.reproduce.plan import System
from examples.reproduce.work import Workshop, model_name, scores_of, tick_at, ticks_of


@dataclass(frozen=True)
class Mark:
    """A moment of a run that is scored: its end, or the last checkpoint within what all runs of a table had."""

    system: System
    step: int
    images_seen: int
    seconds: float
    scores: dict[str, Any]  # of G_ema
    last: dict[str, Any]  # of G as the step left it, which is what the documents have

    @property
    def kimg(self) -> float:
        return self.images_seen / 1000

    def distance(self, last: bool = False) -> float | None:
        scores = self.last if last else self.scores
        return next((value for name, value in scores.items() if name.startswith("fd_")), None)


@dataclass(frozen=True)
class Limits:
    """What every run of a table had: images seen, and seconds of training."""

    images_seen: int
    seconds: float


def trained(shop: Workshop, systems: tuple[System, ...]) -> tuple[System, ...]:
    """Those that have a checkpoint."""
    return tuple(system for system in systems if tick_at(shop.run_of(system)))


def limits(shop: Workshop, systems: tuple[System, ...]) -> Limits:
    """The images of the run that saw the fewest, and the seconds of the one that trained the shortest."""
    ends = [tick for system in systems if (tick := tick_at(shop.run_of(system)))]
    return Limits(int(min(end["images_seen"] for end in ends)), min(end["seconds"] for end in ends))


def moments(shop: Workshop, system: System, within: Limits) -> dict[str, dict[str, Any]]:
    """The ticks to score: `end`, `images` (at equal images seen) and `time` (at equal time)."""
    run = shop.run_of(system)
    found = {
        "end": tick_at(run),
        "images": tick_at(run, images_seen=within.images_seen),
        "time": tick_at(run, seconds=within.seconds),
    }
    return {name: tick for name, tick in found.items() if tick}


def mark(shop: Workshop, system: System, tick: dict[str, Any]) -> Mark:
    step = int(tick["step"])
    ema, last = (scores_of(shop, model_name(system, step, average)) for average in (True, False))
    return Mark(system, step, int(tick["images_seen"]), float(tick["seconds"]), ema, last)


def made_by(shop: Workshop, system: System) -> dict[str, Any]:
    path = shop.run_of(system) / "made_by.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def config_of(shop: Workshop, system: System) -> dict[str, Any]:
    return dict(json.loads((shop.run_of(system) / "config.json").read_text()))


def parameters(system: System) -> tuple[int, int]:
    """Trainable parameters of G and D."""
    from trainer import config, networks

    G, D = networks.build(config.resolve(system.preset))
    return networks.parameter_count(G), networks.parameter_count(D)


def images_per_second(shop: Workshop, system: System) -> float:
    end = ticks_of(shop.run_of(system))[-1]
    return float(end["images_seen"] / end["seconds"])


def document(shop: Workshop, systems: tuple[System, ...]) -> dict[str, Any]:
    """Everything that the pages say in numbers, for scripts."""
    rows = []
    for images in dict.fromkeys(system.images for system in systems):
        group = trained(shop, tuple(system for system in systems if system.images == images))
        if not group:
            continue
        within = limits(shop, group)
        for system in group:
            g, d = parameters(system)
            row: dict[str, Any] = {
                "preset": system.preset,
                "documents": list(system.documents),
                "images": images,
                "parameters": {"G": g, "D": d},
                "images_per_second": round(images_per_second(shop, system), 1),
                "machine": made_by(shop, system).get("machine", {}),
                "precision": config_of(shop, system)["run"]["precision"],
                "threads": config_of(shop, system)["run"]["threads"],
                "seed": config_of(shop, system)["run"]["seed"],
                "document_kimg": system.kimg,
            }
            for name, tick in moments(shop, system, within).items():
                found = mark(shop, system, tick)
                row[name] = {
                    "step": found.step,
                    "kimg": found.kimg,
                    "seconds": round(found.seconds, 1),
                    "G_ema": found.scores,
                    "G": found.last,
                }
            rows.append(row)
    return {"runs": rows}
