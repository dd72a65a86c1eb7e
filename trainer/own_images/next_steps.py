"""The commands that serve and score the generator of a run on a set of images, as a user can copy them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.typer_group import command_name
from evaluation.extractors.extractor import weights_path
from evaluation.extractors.extractor_export import missing_packages
from evaluation.references.data_paths import DataPaths

if TYPE_CHECKING:
    from trainer.own_images.report import Inspection

ENOUGH_FOR_FID = 2_000  # real images; with fewer, KID, whose expectation does not depend on their number
NUM_IMAGES = 10_000
KID_IMAGES = 2_000
MOST_FOR_COPIES = 10_000  # training images, each of which `memorization` compares
PORT = 3000


def serve_lines(name: str, folder: Path) -> list[str]:
    """Return the command that serves the models of a folder, and where to look at them."""
    url = f"http://127.0.0.1:{PORT}"
    return [
        f"serve:  MODEL_DIR={shlex.quote(str(folder))} {command_name('python')} -m service serve",
        f"look:   {url}/ or curl -o {name}-7.png {url}/v1/models/{name}/images/7.png",
    ]


def score_lines(found: Inspection, generator: Path, data_root: Path) -> list[str]:
    """Return the commands that score a generator file; the first one makes the extractor where there is none.

    The reference is the held-out images if they are enough for FID, and else the training images, as in the papers on
    few images. `memorization` needs both.
    """
    source, count, channels = found.findings.source, len(found.images), found.config.data.channels
    evaluation, root = command_name("evaluation"), _data_root(data_root)
    reference, images = source.train, count
    if source.reference is not None and source.held_out >= ENOUGH_FOR_FID:
        reference, images = source.reference, source.held_out
    if images >= ENOUGH_FOR_FID:
        metrics, options = "fid", f"--num-images {NUM_IMAGES}"
    else:
        # The real baseline compares the training images with the held-out ones.
        subset = min(1000, images // 2, source.held_out if source.can_show_copies else images)
        metrics, options = "kid", f"--num-images {KID_IMAGES} --kid-subset-size {subset}"
    if source.can_show_copies and count <= MOST_FOR_COPIES:
        metrics += ",memorization"
    make, extractor = _extractor(found, channels, root)
    command = (
        f"{evaluation} score {shlex.quote(str(generator))} --reference {shlex.quote(reference)} --metrics {metrics} "
        f"{options}{extractor} --output {shlex.quote(f'{found.config.name}-score')}{root}"
    )
    return [*(f"first:  {evaluation} {text}" for text in make), f"score:  {command}"]


def _extractor(found: Inspection, channels: int, root: str) -> tuple[list[str], str]:
    """Return the commands that make an extractor, and the option that names it; nothing where the default exists."""
    cache = DataPaths().extractors
    built = [cache / "inception-torch.onnx", *([cache / "efficientnet-lite0.onnx"] if channels != 1 else [])]
    has_network = not missing_packages("imagenet")
    if weights_path().is_file() or any(path.is_file() for path in built) or (channels != 1 and has_network):
        return [], ""
    resolution = found.config.data.resolution
    if found.config.model.conditional:
        images = f"--images {shlex.quote(found.findings.source.base)} --resolution {resolution}{root}"
        return _made(f"classifier {images}", f"extractors/{found.config.name}.onnx")
    if has_network:
        return _made("efficientnet-lite0", "extractors/efficientnet-lite0.onnx")
    size = f"--resolution {resolution} --channels {min(channels, 3)}"
    return _made(f"random-convolutions {size}", "extractors/random-convolutions.onnx")


def _made(command: str, path: str) -> tuple[list[str], str]:
    return [f"extractor {command} --output {shlex.quote(path)}"], f" --extractor {shlex.quote(path)}"


def _data_root(data_root: Path) -> str:
    return "" if data_root == Path("data") else f" --data-root {shlex.quote(str(data_root))}"
