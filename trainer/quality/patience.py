"""When a run ends before its length: its quality has not improved for `run.patience_ticks` ticks.

Everything follows from the step of the best checkpoint and the images seen, which every checkpoint has.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config.schema import Config


def images_at(config: Config, step: float) -> int:
    """Return the number of real images that D has seen after `step` steps."""
    return int(step) * config.optim.batch_size * config.optim.n_critic


def ticks_without_improvement(config: Config, best: Mapping[str, float], images_seen: int) -> int:
    """Return the number of ticks since the best measurement; 0 without one.

    Args:
        config: The config of the run.
        best: {"step", "frechet"} of the lowest Fréchet distance, or empty.
        images_seen: The real images shown to D so far.
    """
    if not best:
        return 0
    tick_images = config.run.tick_kimg * 1000
    return int(images_seen // tick_images - images_at(config, best["step"]) // tick_images)


def is_exhausted(config: Config, best: Mapping[str, float], images_seen: int) -> bool:
    """Return whether the patience of a run is used up; never where `run.patience_ticks` is 0."""
    patience = config.run.patience_ticks
    return patience > 0 and ticks_without_improvement(config, best, images_seen) >= patience


def describe_end(config: Config, best: Mapping[str, float], images_seen: int) -> str | None:
    """Return why a run ended before its length; None if it did not."""
    if images_seen >= config.run.total_kimg * 1000 or not is_exhausted(config, best, images_seen):
        return None
    ticks = ticks_without_improvement(config, best, images_seen)
    at = images_at(config, best["step"]) / 1000
    return f"no improvement of quality/frechet for {ticks} ticks; best at {at:g} kimg"
