"""A run as people look at it: curves, animations, and one page that holds them all."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from artifacts.files import atomic_path
from artifacts.terminal import valid_text
from trainer import __version__, networks
from trainer.config import loading
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.reports import image_grids, plots
from trainer.training import checkpoint

PAGES = Path(__file__).with_name("templates")
MAX_FRAMES = 60  # of an animation; a longer run shows every so-manieth tick
KINDS = ("fixed", "random")
Item = TypeVar("Item")


def write_all(run_dir: Path) -> Path:
    """curves.png, fixed and random animations (.gif, .webp), report.html. Raises TrainerError without any tick."""
    plots.write(run_dir)
    for kind in KINDS:
        animate(run_dir, kind)
    return write_page(run_dir)


def sheets(run_dir: Path, kind: str) -> list[Path]:
    """The pictures of a kind (fixed, random, real-beside-fake), a tick each, oldest first."""
    return sorted((run_dir / "samples").glob(f"{kind}-*.png"))


def animate(run_dir: Path, kind: str, fps: float = 8.0) -> list[Path]:
    """Write `<kind>.gif` and `<kind>.webp`: how the images of a fixed z (or of fresh ones) changed, tick by tick."""
    frames = [Image.open(path) for path in thinned(sheets(run_dir, kind))]
    if not frames:
        raise TrainerError(f"no {kind} pictures in {run_dir / 'samples'}; is it a run folder that has had a tick?")
    written = [run_dir / f"{kind}.gif", run_dir / f"{kind}.webp"]
    for path in written:
        image_grids.write_animation(frames, path, fps)
    return written


def thinned(items: Sequence[Item]) -> list[Item]:
    """At most MAX_FRAMES of them, evenly spaced, the first and the last among them."""
    if len(items) <= MAX_FRAMES:
        return list(items)
    return [items[round(i * (len(items) - 1) / (MAX_FRAMES - 1))] for i in range(MAX_FRAMES)]


def write_page(run_dir: Path) -> Path:
    """`report.html`: what was trained, how it went, what it looks like; every picture inside the file."""
    lines = plots.read_metrics(run_dir / "metrics.jsonl")
    if not lines:
        raise TrainerError(f"{run_dir} has had no tick yet; there is nothing to report")
    config = read_config(run_dir)
    page = rendered(
        "report.html",
        name=config.name,
        run=run_dir.name,
        facts=facts(run_dir, config, lines),
        last=shown(lines[-1]),
        best=best(run_dir),
        curves=embedded(run_dir / "curves.png"),
        fixed=embedded(run_dir / "fixed.webp"),
        random=embedded(run_dir / "random.webp"),
        beside=embedded(sheets(run_dir, "real-beside-fake")[-1]),
        config=loading.to_json(config),
        made_by=read_json(run_dir / "made_by.json"),
    )
    path = run_dir / "report.html"
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def rendered(template: str, **values: Any) -> str:
    """A page of trainer/reports/templates, all that is put into it escaped."""
    import jinja2

    loader = jinja2.FileSystemLoader(PAGES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return valid_text(environment.get_template(template).render(version=__version__, **values))


def facts(run_dir: Path, config: Config, lines: Sequence[plots.Line]) -> dict[str, str]:
    """What stands at the head of a report."""
    G, D = networks.build(config)
    last, record = lines[-1], read_json(run_dir / "made_by.json")
    machine, images = record.get("machine", {}), record.get("image_set", {})
    model, hours = config.model, last["seconds"] / 3600
    conditional = f", conditional on {len(config.data.class_names)} classes" if model.conditional else ""
    size = f"{config.data.resolution} px, {config.data.channels} channel{'s' * (config.data.channels > 1)}"
    return {
        "images": f"{config.data.source}, {images.get('n', '?'):,} of them, {size}"
        if isinstance(images.get("n"), int)
        else f"{config.data.source}, {size}",
        "networks": f"{model.architecture}{conditional}; G {networks.parameter_count(G):,} parameters, "
        f"D {networks.parameter_count(D):,}",
        "objective": config.objective.name,
        "optimizer": f"{config.optim.algorithm}, batch {config.optim.batch_size}, G {config.optim.g_lr:g}, "
        f"D {config.optim.d_lr:g}",
        "length": f"{last['images_seen'] / 1000:,.1f} of {config.run.total_kimg:,g} kimg in {last['step']:,} steps",
        "time": f"{hours:.2f} hours" if hours >= 1 else f"{last['seconds']:.0f} seconds",
        "speed": f"{last['images_seen'] / max(last['seconds'], 1e-9):,.0f} images/s on average",
        "machine": f"{machine.get('gpu') or machine.get('cpu', '?')}, {config.run.device}, {config.run.precision}, "
        f"{config.run.threads} threads, torch {machine.get('torch', '?')}",
        "seed": str(config.run.seed),
    }


def shown(line: plots.Line) -> dict[str, str]:
    return {name: f"{value:.3f}" for name, value in line.items() if "/" in name and name != "quality/seconds"}


def best(run_dir: Path) -> str | None:
    """The best checkpoint in words, or None when quality was not measured."""
    try:
        path = checkpoint.best_path(run_dir)
    except TrainerError:
        return None
    return f"{path.name}, Fréchet distance {read_json(run_dir / checkpoint.BEST)['frechet']:.3f}"


def read_config(run_dir: Path) -> Config:
    """The config of a run folder; raises TrainerError when it is no run folder."""
    if not (run_dir / "config.json").is_file():
        raise TrainerError(f"no config.json in {run_dir}; is it a run folder?")
    return loading.parse(read_json(run_dir / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TrainerError(f"{path} is damaged: {error}") from error


def embedded(path: Path) -> str:
    """A picture as a data URL."""
    return data_url(path.suffix[1:], path.read_bytes())


def data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
