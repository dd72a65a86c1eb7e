"""What was run, and how good it is: the figures of every page, gathered from run folders and reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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


def trained(shop: Workshop, systems: tuple[System, ...]) -> tuple[System, ...]:
    """Those that have a checkpoint."""
    return tuple(system for system in systems if tick_at(shop.run_of(system)))


def end(shop: Workshop, system: System) -> dict[str, Any]:
    """The last tick that has a checkpoint."""
    found = tick_at(shop.run_of(system))
    assert found is not None, f"{system.preset} has no checkpoint"
    return found


def as_many_images(shop: Workshop, ours: System, theirs: System) -> dict[str, Any] | None:
    """The last tick of ours within the images that theirs had seen at its end; None: it has none so early."""
    return tick_at(shop.run_of(ours), images_seen=end(shop, theirs)["images_seen"])


def as_much_time(shop: Workshop, ours: System, theirs: System) -> dict[str, Any] | None:
    """The last tick of ours within the seconds that theirs had trained at its end; None: it has none so early."""
    return tick_at(shop.run_of(ours), seconds=end(shop, theirs)["seconds"])


At = Callable[[Workshop, System, System], dict[str, Any] | None]


def rivals(systems: tuple[System, ...], ours: System) -> tuple[System, ...]:
    """The documents' systems of the same images; none for a document's own."""
    return () if ours.documents else tuple(s for s in systems if s.documents and s.images == ours.images)


def at_equal_epochs(shop: Workshop, systems: Sequence[System], system: System) -> dict[str, Any] | None:
    """The last tick of a system within the images of the one of `systems` that saw the fewest."""
    fewest = min(int(end(shop, other)["images_seen"]) for other in systems)
    return tick_at(shop.run_of(system), images_seen=fewest)


def to_score(shop: Workshop, systems: tuple[System, ...], system: System) -> list[int]:
    """The steps at which a system is scored: its end, and where it is held against others.

    Ours against each of the documents'; those of source 004 against each other, at equal epochs.
    """
    ticks = [end(shop, system)]
    pair = [other for other in systems if "004" in other.documents]
    if system in pair and (tick := at_equal_epochs(shop, pair, system)):
        ticks.append(tick)
    for theirs in rivals(systems, system):
        ticks += [tick for at in (as_many_images, as_much_time) if (tick := at(shop, system, theirs))]
    return sorted({int(tick["step"]) for tick in ticks})


def mark(shop: Workshop, system: System, tick: dict[str, Any]) -> Mark:
    step = int(tick["step"])
    ema, last = (scores_of(shop, system.images, model_name(system, step, average)) for average in (True, False))
    return Mark(system, step, int(tick["images_seen"]), float(tick["seconds"]), ema, last)


def made_by(shop: Workshop, system: System) -> dict[str, Any]:
    path = shop.run_of(system) / "made_by.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def changes(shop: Workshop, system: System) -> list[str]:
    """`section.field: the preset's → the run's`, but for where the images are and what every run here has."""
    from trainer.config import loading

    ran, preset = loading.parse(config_of(shop, system)), loading.resolve(system.preset)
    alike = {"data.source", "run.total_kimg", "run.tick_kimg", "run.checkpoint_ticks", "run.keep_checkpoints"}
    resolved = {"run.device", "run.precision", "run.cuda_graphs"}  # `auto`, as the machine decided it
    told = loading.differences(preset, ran)
    return [line for line in told if line.partition(":")[0] not in alike | resolved]


def config_of(shop: Workshop, system: System) -> dict[str, Any]:
    return dict(json.loads((shop.run_of(system) / "config.json").read_text(encoding="utf-8")))


def parameters(system: System) -> tuple[int, int]:
    """Trainable parameters of G and D."""
    from trainer import networks
    from trainer.config import loading

    G, D = networks.build(loading.resolve(system.preset))
    return networks.parameter_count(G), networks.parameter_count(D)


def images_per_second(shop: Workshop, system: System) -> float:
    last = ticks_of(shop.run_of(system))[-1]
    return float(last["images_seen"] / last["seconds"])


def document(shop: Workshop, systems: tuple[System, ...]) -> dict[str, Any]:
    """The runs and their scores, for scripts."""
    rows = []
    for system in systems:
        g, d = parameters(system)
        run = config_of(shop, system)["run"]
        row: dict[str, Any] = {
            "preset": system.preset,
            "documents": list(system.documents),
            "images": system.images,
            "parameters": {"G": g, "D": d},
            "images_per_second": round(images_per_second(shop, system), 1),
            "machine": made_by(shop, system).get("machine", {}),
            **{field: run[field] for field in ("precision", "threads", "seed")},
            "document_kimg": system.kimg,
            "end": told(mark(shop, system, end(shop, system))),
        }
        for theirs in rivals(systems, system):
            for name, at in (("equal images", as_many_images), ("equal time", as_much_time)):
                if tick := at(shop, system, theirs):
                    row.setdefault(name, {})[theirs.preset] = told(mark(shop, system, tick))
        rows.append(row)
    return {"runs": rows}


def told(found: Mark) -> dict[str, Any]:
    return {
        "step": found.step,
        "kimg": found.kimg,
        "seconds": round(found.seconds, 1),
        "G_ema": found.scores,
        "G": found.last,
    }
