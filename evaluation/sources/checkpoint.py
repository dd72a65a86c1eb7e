"""The images of a training's checkpoint, which a process of the trainer exports first."""

from __future__ import annotations

import atexit
import contextlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from artifacts.processes import child_environment, python_module
from evaluation.errors import EvaluationError
from evaluation.sources.base import SamplingOptions
from evaluation.sources.generator import GeneratorSource

CHECKPOINT = re.compile(r"checkpoint-(\d+)\.pt")


class CheckpointSource(GeneratorSource):
    """The averaged generator of a checkpoint file, or of a run folder's latest checkpoint."""

    def __init__(self, path: Path, sampling: SamplingOptions = SamplingOptions()) -> None:
        if not path.exists():
            raise EvaluationError(f"there is no checkpoint at {path}")
        if path.is_dir() and not checkpoints_of(path):
            raise EvaluationError(f"{path} has no checkpoint yet; `trainer resume {shlex.quote(str(path))}` makes one")
        super().__init__(_export(path), sampling)
        self.description |= {"kind": "checkpoint", "path": str(path)}
        if match := CHECKPOINT.fullmatch(path.name):
            self.description["step"] = int(match[1])


def is_run(path: Path) -> bool:
    """Return whether a folder is a trainer's run: it has checkpoints, or a config to make some."""
    return path.is_dir() and bool(checkpoints_of(path) or (path / "config.json").is_file())


def checkpoints_of(run: Path) -> list[Path]:
    """Return the checkpoints of a run folder, oldest first."""
    found = [(int(match[1]), path) for path in run.iterdir() if (match := CHECKPOINT.fullmatch(path.name))]
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
            reason += "; exporting a checkpoint needs the trainer: pip install '.[train]' in the checkout"
        if "--user-code" in reason:
            reason += ": export it with trainer export --user-code, then score the generator file"
        raise EvaluationError(f"{path} could not be exported: {reason}")
    raise EvaluationError(f"{path} could not be exported: {sys.executable} could not be started")
