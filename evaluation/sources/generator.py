"""Images made in this process: by a generator file, a checkpoint that is exported to one, or a Python function."""

from __future__ import annotations

import atexit
import contextlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.generator_file import ContractError, check
from artifacts.latents import seeds_to_latents
from artifacts.processes import child_environment, python_module
from evaluation.errors import EvaluationError
from evaluation.onnx_runtime import create_session, read_model, run_session
from evaluation.sources.base import ImageBatch, SamplingOptions, SeedRange

_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.pt")


class GeneratorSource:
    """A generator file that follows the contract and whose digest matches its content."""

    seeded = True
    num_images: int | None = None

    def __init__(self, path: Path, sampling: SamplingOptions = SamplingOptions()) -> None:
        model = read_model(path, "generator file")
        try:
            self._metadata = check(model)
        except ContractError as error:
            raise EvaluationError(f"{path}: {error}") from error
        self._session = create_session(model, path)
        self.shape, self.class_names = self._metadata.image_shape, self._metadata.class_names
        sampling.check(self._metadata.z_distribution, self.class_names, str(path))
        self._sampling = sampling
        self.description = {
            "kind": "generator file",
            "path": str(path),
            "model": self._metadata.name,
            "digest": self._metadata.digest,
            "shape": list(self.shape),
            "dataset": self._metadata.dataset,
            "images_seen": self._metadata.images_seen,
            **vars(sampling),
        }

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield the images of the seeds, each from its own latent and label."""
        seeds.check()
        for first in range(start, stop, batch_size):
            seed, n = seeds.seed(first), min(batch_size, stop - first)
            z, labels = seeds_to_latents(
                range(seed, seed + n),
                self._metadata.z_dim,
                self._metadata.z_distribution,
                self._sampling.truncation,
                len(self.class_names),
            )
            chosen = self._sampling.labels_for(seed, n, self.class_names)
            labels = labels if chosen is None else chosen
            feed: dict[str, np.ndarray] = {"latents": z} if labels is None else {"latents": z, "labels": labels}
            images = run_session(self._session, ["images"], feed, f"the generator {self._metadata.name}")[0]
            if images.shape != (n, *self.shape):
                raise EvaluationError(
                    f"the generator returned images {list(images.shape)}; its metadata states {[n, *self.shape]}"
                )
            yield ImageBatch(images, self._metadata.digest, labels)


class CheckpointSource(GeneratorSource):
    """The averaged generator of a checkpoint file, or of a run folder's latest checkpoint."""

    def __init__(self, path: Path, sampling: SamplingOptions = SamplingOptions()) -> None:
        if not path.exists():
            raise EvaluationError(f"there is no checkpoint at {path}")
        if path.is_dir() and not checkpoints_of(path):
            raise EvaluationError(f"{path} has no checkpoint yet; `trainer resume {shlex.quote(str(path))}` makes one")
        super().__init__(_export(path), sampling)
        self.description |= {"kind": "checkpoint", "path": str(path)}
        if match := _CHECKPOINT.fullmatch(path.name):
            self.description["step"] = int(match[1])


def is_run(path: Path) -> bool:
    """Return whether a folder is a trainer's run: it has checkpoints, or a config to make some."""
    return path.is_dir() and bool(checkpoints_of(path) or (path / "config.json").is_file())


def checkpoints_of(run: Path) -> list[Path]:
    """Return the checkpoints of a run folder, oldest first."""
    found = [(int(match[1]), path) for path in run.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _export(path: Path) -> Path:
    """Export a checkpoint to a temporary generator file in another process, so that this one needs no torch."""
    folder = Path(tempfile.mkdtemp(prefix="atelier-export-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [*python_module("trainer"), "export", "--no-user-code", "--output", str(folder), "--", str(path)]
    options: dict[str, Any] = {"text": True, "encoding": "utf-8", "errors": "replace", "check": False}
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, env=child_environment(), **options)
        if done.returncode == 0 and (files := list(folder.glob("*.onnx"))):
            return files[0]
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("error: ") if lines else f"exit code {done.returncode}"
        if "No module named" in reason:
            reason += "; exporting a checkpoint needs the trainer: pip install 'gan-atelier[train]'"
        raise EvaluationError(f"{path} could not be exported: {reason}")
    raise EvaluationError(f"{path} could not be exported: {sys.executable} could not be started")


class FunctionSource:
    """Images of a Python function: `function(n)`, or `function(seeds)` if its first parameter has that name.

    `seeds` is int64 [n]; the function returns uint8 [n, H, W, C]. It is called once more, for one image, to learn the
    shape.
    """

    class_names: tuple[str, ...] = ()
    num_images: int | None = None

    def __init__(self, function: Callable[[Any], Any]) -> None:
        try:
            self.seeded = next(iter(inspect.signature(function).parameters), "") == "seeds"
        except (TypeError, ValueError):  # some callables of C extensions have no signature
            self.seeded = False
        self._function = function
        height, width, channels = self._call(0, 1).shape[1:]
        self.shape = (height, width, channels)
        self.description: dict[str, Any] = {
            "kind": "function",
            "name": getattr(function, "__qualname__", type(function).__qualname__),
            "shape": list(self.shape),
            "id": uuid.uuid4().hex,  # so that no other function's unfinished work is resumed
        }

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield what the function returns for each batch."""
        seeds.check()
        for first in range(start, stop, batch_size):
            yield ImageBatch(self._call(seeds.seed(first), min(batch_size, stop - first)))

    def _call(self, seed: int, n: int) -> np.ndarray:
        images = np.asarray(self._function(np.arange(seed, seed + n) if self.seeded else n))
        if images.ndim != 4 or len(images) != n:
            raise EvaluationError(f"the function returned {list(images.shape)}, not images [{n}, H, W, C]")
        return images
