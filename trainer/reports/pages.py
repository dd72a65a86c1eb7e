"""The HTML page of a run, `report.html`, which holds all its pictures; what every page needs."""

from __future__ import annotations

import base64
import io
import json
from bisect import bisect_right
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
from trainer.finetune.record import describe
from trainer.reports import image_grids, plots
from trainer.reports.plots import Tick
from trainer.training import checkpoint

TEMPLATES = Path(__file__).with_name("templates")
MAX_FRAMES = 60  # of an animation; of a longer run, evenly spaced ticks
KINDS = ("fixed", "random")
Item = TypeVar("Item")


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write a run's curves.png, animations and report.html, and return the path of the page.

    Args:
        run_dir: The run folder.
        output: The folder to write. Default: the run folder.

    Raises:
        TrainerError: If it is not a run folder, has no metrics yet, or `output` is the name of a file.
    """
    _check_folder(output)
    plots.write_curves(run_dir, output)
    for kind in KINDS:
        animate(run_dir, kind, output=output)
    return write_page(run_dir, output)


def write_page(run_dir: Path, output: Path | None = None) -> Path:
    """Write report.html from the pictures that are already in a folder, by default the run folder."""
    folder = output or run_dir
    ticks = plots.read_metrics(run_dir / "metrics.jsonl")
    if not ticks:
        raise TrainerError(f"{run_dir} has no metrics yet; there is nothing to report")
    config = read_config(run_dir)
    record = read_json(run_dir / "made_by.json")
    page = render(
        "report.html",
        name=config.name,
        run=run_dir.name,
        facts=run_facts(config, ticks[-1], record, early_end(run_dir)),
        last={key: f"{value:.3f}" for key, value in ticks[-1].items() if "/" in key and key != "quality/seconds"},
        best=best_checkpoint(run_dir),
        curves=embed(folder / "curves.png"),
        fixed=embed(folder / "fixed.webp"),
        random=embed(folder / "random.webp"),
        real_and_fake=embed(sheet_paths(run_dir, "real-beside-fake")[-1]),
        config=loading.to_json(config),
        made_by=record,
    )
    return write_text(page, folder / "report.html")


def animate(run_dir: Path, kind: str, fps: float = 8.0, output: Path | None = None) -> list[Path]:
    """Write `<kind>.gif` and `<kind>.webp`, one frame per tick.

    Args:
        run_dir: The run folder.
        kind: One of KINDS: the same seeds in each tick, or new ones.
        fps: Ticks per second.
        output: The folder to write. Default: the run folder.

    Returns:
        The paths.

    Raises:
        TrainerError: If the run has no such pictures, or `output` is the name of a file.
    """
    _check_folder(output)
    frames = [Image.open(path) for path in thin(sheet_paths(run_dir, kind))]
    if not frames:
        raise TrainerError(f"no {kind}-*.png in {run_dir / 'samples'}; is it a run folder?")
    paths = [(output or run_dir) / f"{kind}.{suffix}" for suffix in ("gif", "webp")]
    for path in paths:
        image_grids.write_animation(frames, path, fps)
    return paths


def _check_folder(output: Path | None) -> None:
    """Raise TrainerError for the name of a file where several files are written."""
    if output is not None and output.suffix in (".gif", ".webp", ".png", ".html") and not output.is_dir():
        raise TrainerError(f"{output} is not a folder, and several files are written; give {output.with_suffix('')}")


def sheet_paths(run_dir: Path, kind: str) -> list[Path]:
    """Return the pictures of a kind (fixed, random, real-beside-fake), one per tick, the oldest first."""
    return sorted((run_dir / "samples").glob(f"{kind}-*.png"))


def read_sheet(run_dir: Path, images_seen: int) -> Image.Image:
    """Return the picture of the fixed seeds at the last tick until `images_seen`, or the first one, as RGB."""
    paths = sheet_paths(run_dir, "fixed")
    if not paths:
        raise TrainerError(f"no pictures in {run_dir / 'samples'}; is it a run folder with metrics?")
    index = bisect_right([int(path.stem.rpartition("-")[2]) for path in paths], images_seen)
    return image_grids.to_rgb(Image.open(paths[max(0, index - 1)]))


def thin(items: Sequence[Item]) -> list[Item]:
    """Return at most MAX_FRAMES items, evenly spaced, with the first and the last."""
    if len(items) <= MAX_FRAMES:
        return list(items)
    return [items[round(i * (len(items) - 1) / (MAX_FRAMES - 1))] for i in range(MAX_FRAMES)]


def run_facts(config: Config, last: Tick, record: dict[str, Any], ended: str | None) -> dict[str, str]:
    """Return the head of a report: what was trained, on what, for how long.

    Args:
        config: The run's config.
        last: Its last tick.
        record: The content of its made_by.json.
        ended: Why it ended before its length, if it did.
    """
    g_parameters, d_parameters = parameter_counts(config)
    machine, images = record.get("machine", {}), record.get("image_set", {})
    data, model, optim, hours = config.data, config.model, config.optim, last["seconds"] / 3600
    conditional = f", conditional on {len(data.class_names)} classes" if model.conditional else ""
    count = f", {images['n']:,} of them" if isinstance(images.get("n"), int) else ""
    return {
        "images": f"{data.source}{count}, {data.resolution} px, {data.channels} channel{'s' * (data.channels > 1)}",
        "networks": f"{model.architecture}{conditional}; G {g_parameters} parameters, D {d_parameters}",
        **({"fine-tuned from": describe(record["parent"])} if isinstance(record.get("parent"), dict) else {}),
        **({"frozen": f"D's weights up to block {optim.d_freeze}, from the image on"} if optim.d_freeze else {}),
        "objective": config.objective.name,
        "optimizer": f"{optim.algorithm}, batch {optim.batch_size}, G {optim.g_lr:g}, D {optim.d_lr:g}",
        "length": f"{last['images_seen'] / 1000:,.1f} of {config.run.total_kimg:,g} kimg in {last['step']:,} steps"
        + (f"; ended: {ended}" if ended else ""),
        "time": f"{hours:.2f} hours" if hours >= 1 else f"{last['seconds']:.0f} seconds",
        "speed": f"{last['images_seen'] / max(last['seconds'], 1e-9):,.0f} images/s on average",
        "machine": f"{machine.get('gpu') or machine.get('cpu', '?')}, {config.run.device}, {config.run.precision}, "
        f"{config.run.threads} threads, torch {machine.get('torch', '?')}",
        "seed": str(config.run.seed),
    }


def parameter_counts(config: Config) -> tuple[str, str]:
    """Return the numbers of G's and D's parameters; "?" where a user's module would have to be imported to count them.

    A report runs no code of a run's author. At the end of a training, the module is already imported.
    """
    if not networks.is_loaded(config):
        return "?", "?"
    G, D = networks.build(config)
    return f"{networks.parameter_count(G):,}", f"{networks.parameter_count(D):,}"


def best_checkpoint(run_dir: Path) -> str | None:
    """Return the best checkpoint's name and score, None where quality was not measured."""
    try:
        path = checkpoint.best_path(run_dir)
    except TrainerError:
        return None
    return f"{path.name}, Fréchet distance {read_json(run_dir / checkpoint.BEST)['frechet']:.3f}"


def early_end(run_dir: Path) -> str | None:
    """Return why a run ended before its length, None if it did not."""
    try:
        ended = read_json(run_dir / checkpoint.BEST).get("ended")
    except (AttributeError, TrainerError):  # damaged
        return None
    return ended if isinstance(ended, str) else None


def run_labels(run_dirs: Sequence[Path]) -> list[str]:
    """Return the folders' names, with the parent's name where two are equal."""
    names = [path.name for path in run_dirs]
    return [str(Path(path.parent.name) / path.name) if names.count(path.name) > 1 else path.name for path in run_dirs]


def render(template: str, **values: Any) -> str:
    """Return a page of trainer/reports/templates, with all values escaped."""
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(template).render(version=__version__, **values)


def write_text(text: str, path: Path) -> Path:
    """Write text without characters that UTF-8 does not encode, and return the path. Atomic."""
    with atomic_path(path) as partial:
        partial.write_text(valid_text(text), encoding="utf-8")
    return path


def read_config(run_dir: Path) -> Config:
    """Return the config of a run folder, or raise TrainerError where it is not one."""
    if not (run_dir / "config.json").is_file():
        raise TrainerError(f"no config.json in {run_dir}; is it a run folder?")
    return loading.parse(read_json(run_dir / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, empty where there is no file."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TrainerError(f"{path} is damaged: {error}") from error
    return content


def embed(path: Path) -> str:
    """Return a picture's file as a data URL."""
    return data_url(path.suffix[1:], path.read_bytes())


def png_url(picture: Image.Image) -> str:
    """Return a picture as a PNG data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return data_url("png", buffer.getvalue())


def data_url(kind: str, content: bytes) -> str:
    """Return the bytes of an image as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
