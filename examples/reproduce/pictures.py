"""The pictures of the pages, taken from the run folders and made small enough to be kept with the text."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

FRAMES = 16
KINDS = ("fixed", "random", "real-beside-fake", "curves")


def sheets(run: Path, kind: str) -> list[Path]:
    """The pictures of a kind (fixed, random, real-beside-fake), a tick each, oldest first."""
    return sorted((run / "samples").glob(f"{kind}-*.png"))


def take(run: Path, into: Path, name: str) -> dict[str, str]:
    """Copy the last sheets, the curves and the animations of a run; what was there, by kind → its file name."""
    from trainer.reports import plots

    into.mkdir(parents=True, exist_ok=True)
    plots.write_curves(run)  # a run that was cut short has none yet
    found = {}
    for kind in ("fixed", "real-beside-fake"):
        if of_kind := sheets(run, kind):
            found[kind] = f"{name}-{kind}.png"
            Image.open(of_kind[-1]).save(into / found[kind], optimize=True)
    found["curves"] = f"{name}-curves.png"
    chart = Image.open(run / "curves.png").convert("P", palette=Image.Palette.ADAPTIVE)
    chart.save(into / found["curves"], optimize=True)
    for kind in ("fixed", "random"):
        if len(sheets(run, kind)) > 1:
            found[f"{kind} animation"] = f"{name}-{kind}.webp"
            animate(sheets(run, kind), into / found[f"{kind} animation"])
    return found


def animate(paths: list[Path], output: Path) -> None:
    """A WebP of at most FRAMES sheets, evenly spaced over the run, the last one held."""
    step = max(1.0, (len(paths) - 1) / (FRAMES - 1))
    chosen = [paths[min(round(i * step), len(paths) - 1)] for i in range(min(FRAMES, len(paths)))]
    frames = [Image.open(path).convert("RGB") for path in chosen]
    durations = [160] * (len(frames) - 1) + [1500]
    frames[0].save(output, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=50, method=4)


def copy(source: Path, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, output)
