"""A run's metrics as curves: losses, D's scores, gradients and quality against the images seen."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.files import atomic_path
from trainer.errors import TrainerError

Tick = dict[str, Any]  # a line of metrics.jsonl

# Panel → its metrics. A panel whose metrics no run has is left out.
PANELS: dict[str, tuple[str, ...]] = {
    "loss": ("loss/D", "loss/G", "loss/penalty", "loss/reconstruction"),
    "D's scores": ("D/real", "D/fake"),
    "augmentation": ("augment/p", "augment/r_t"),
    "gradient norm": ("gradient/D", "gradient/G"),
    "Fréchet distance": ("quality/frechet",),
    "recall": ("quality/recall",),
    "share of near-copies": ("quality/memorization", "quality/memorization_real"),
    "images/s": ("images_per_second",),
}


def read_metrics(path: Path, *, growing: bool = False) -> list[Tick]:
    """Return the lines of a metrics.jsonl.

    Args:
        path: The file.
        growing: Whether to leave out a last line that is being written.

    Raises:
        TrainerError: If there is no such file, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1 if growing else None].splitlines()]
    except FileNotFoundError:
        raise TrainerError(f"no metrics at {path}; is it a run folder with metrics?") from None
    except ValueError as error:
        raise TrainerError(f"{path} is damaged: {error}") from error


def draw_curves(runs: Mapping[str, Sequence[Tick]]) -> bytes:
    """Return the panels as PNG, one line per metric; several runs share each panel."""
    from matplotlib.figure import Figure

    panels = [
        (title, [m for m in metrics if any(m in tick for ticks in runs.values() for tick in ticks)])
        for title, metrics in PANELS.items()
    ]
    panels = [(title, metrics) for title, metrics in panels if metrics]
    columns = min(2, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(5.5 * columns, 2.8 * rows), layout="constrained")
    for index, (title, metrics) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        for name, ticks in runs.items():
            for metric in metrics:
                points = [(tick["images_seen"] / 1000, tick[metric]) for tick in ticks if metric in tick]
                if points:
                    label = metric if len(runs) == 1 else f"{name} {metric}"
                    axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2, marker="." * (len(points) < 30))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("kimg", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        if len(axes.lines) > 1:
            axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": "GAN Atelier"})
    return buffer.getvalue()


def write_curves(run_dir: Path, output: Path | None = None) -> Path:
    """Draw a run's metrics.jsonl to curves.png in a folder, by default its own, and return the path."""
    path = (output or run_dir) / "curves.png"
    content = draw_curves({run_dir.name: read_metrics(run_dir / "metrics.jsonl")})
    with atomic_path(path) as partial:
        partial.write_bytes(content)
    return path
