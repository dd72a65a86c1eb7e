"""Known ways for a GAN to go wrong, recognised in its metrics: each with a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Line = Mapping[str, float]  # a tick's, as metrics.jsonl has it

WON = 0.02  # a D loss this near zero leaves G next to nothing to learn from
COLLAPSED = 0.5  # of the best recall so far
SATURATED = 0.25  # more of the pixels at either end than of the real ones


def troubles(ticks: Sequence[Line], objective: str) -> list[str]:
    """What the last tick shows, given those before it: a line each, empty while all is well."""
    checks = (discriminator_wins(ticks, objective), mode_collapse(ticks), saturation(ticks))
    return [line for line in checks if line]


def discriminator_wins(ticks: Sequence[Line], objective: str) -> str | None:
    """D's loss is near zero, and G's grew over the last three ticks. A Wasserstein critic has no such state."""
    if objective == "wasserstein" or len(ticks) < 3:
        return None
    first, middle, last = (tick["loss/G"] for tick in ticks[-3:])
    if ticks[-1]["loss/D"] < WON and last > middle > first:
        return (
            f"D wins: its loss is {ticks[-1]['loss/D']:.3f} while G's grows ({first:.2f} → {last:.2f}). Hold D back: "
            "a lower optim.d_lr, objective.r1_gamma=1, model.d_spectral_norm=true, or data.augment for a small set"
        )
    return None


def mode_collapse(ticks: Sequence[Line]) -> str | None:
    """Recall, the share of real images that G can come near, fell below half of its best and kept falling."""
    recalls = [tick["quality/recall"] for tick in ticks if "quality/recall" in tick]
    if len(recalls) < 3 or "quality/recall" not in ticks[-1]:
        return None
    best = max(recalls[:-1])
    if best >= 0.05 and recalls[-1] <= recalls[-2] < best and recalls[-1] < COLLAPSED * best:
        return (
            f"diversity falls: recall is {recalls[-1]:.2f}, after {best:.2f}. G may be collapsing onto few images: "
            "lower optim.g_lr, raise optim.batch_size, or go back to the best checkpoint"
        )
    return None


def saturation(ticks: Sequence[Line]) -> str | None:
    """Far more of the generated pixels than of the real ones are black or full."""
    fakes, reals = ticks[-1].get("saturated/fake"), ticks[-1].get("saturated/real")
    if fakes is None or reals is None or fakes < reals + SATURATED:
        return None
    return (
        f"saturated outputs: {fakes:.0%} of the generated values are 0 or 255, {reals:.0%} of the real ones. "
        "tanh has no slope there: lower optim.g_lr, or start again with a smaller model.init_std"
    )
