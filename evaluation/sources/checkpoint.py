"""A trainer's checkpoint: exported to a generator file by a process of its own, so that this one needs no torch."""

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

from artifacts.processes import child_environment, python_module
from evaluation.errors import EvaluationError
from evaluation.sources.base import Conditions
from evaluation.sources.generator import GeneratorSource

_NAME = re.compile(r"checkpoint-(\d+)\.pt")


def is_run(path: Path) -> bool:
    """Whether a folder is a trainer's run: it has checkpoints, or is about to."""
    return path.is_dir() and bool(checkpoints_of(path) or (path / "config.json").is_file())


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    found = [(int(match[1]), path) for path in run.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


class CheckpointSource(GeneratorSource):
    """The averaged generator of a checkpoint file, or of a run folder's newest checkpoint."""

    def __init__(self, path: Path, conditions: Conditions = Conditions()) -> None:
        if path.is_dir() and not checkpoints_of(path):
            raise EvaluationError(f"{path} has no checkpoint yet; `trainer resume {shlex.quote(str(path))}` makes one")
        super().__init__(_exported(path), conditions)
        self.description |= {"kind": "checkpoint", "path": str(path)}
        if match := _NAME.fullmatch(path.name):
            self.description["step"] = int(match[1])


def _exported(path: Path) -> Path:
    """A temporary generator file, gone when this process ends. EvaluationError: in the trainer's words."""
    folder = Path(tempfile.mkdtemp(prefix="atelier-export-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [*python_module("trainer"), "export", "--no-user-code", "--output", str(folder), "--", str(path)]
    with contextlib.suppress(OSError):
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            env=child_environment(),
        )
        if done.returncode == 0 and (made := list(folder.glob("*.onnx"))):
            return made[0]
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        told = lines[-1].removeprefix("error: ") if lines else f"exit code {done.returncode}"
        if "No module named" in told:
            told += "; exporting a checkpoint needs the trainer: pip install 'gan-atelier[train]'"
        raise EvaluationError(f"{path} could not be exported: {told}")
    raise EvaluationError(f"{path} could not be exported: {sys.executable} could not be started")
