"""A run that is killed at random moments, again and again, ends as one that was never interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.paths import ROOT
from trainer.training import checkpoint

SCRIPT = ROOT / "tests/support/trainer/killed_training.py"
TIMES = {"images_per_second", "seconds", "cpu_seconds", "memory_mb", "quality/seconds"}


def ran(runs: Path, kills: int, seed: int = 0) -> dict[str, int]:
    command = [sys.executable, str(SCRIPT), str(runs), str(kills), str(seed)]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def metrics(runs: Path) -> list[dict[str, Any]]:
    lines = (runs / "0001-crash" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def board(runs: Path) -> list[tuple[str, int]]:
    """(tag, step) of every scalar in the TensorBoard events, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs / "0001-crash" / "tensorboard"))
    events.Reload()
    return [(tag, event.step) for tag in events.Tags()["scalars"] if "/" in tag for event in events.Scalars(tag)]


@pytest.mark.slow
def test_training_killed_at_random_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    reported = ran(tmp_path / "killed", kills=12)
    assert reported["kills"] >= 10
    assert reported["while_writing"] >= 3
    ran(tmp_path / "whole", kills=0)

    ours, theirs = (checkpoint.load_latest(tmp_path / name / "0001-crash")[1] for name in ("killed", "whole"))
    assert ours["counters"]["images_seen"] == 2000
    for part in ("G", "D", "G_ema"):
        for name, tensor in ours[part].items():
            assert torch.equal(tensor, theirs[part][name]), f"{part}.{name}"
    for part in ("g_optimizer", "d_optimizer"):
        for index, slots in ours[part]["state"].items():
            assert all(torch.equal(slots[slot], theirs[part]["state"][index][slot]) for slot in slots)
    assert torch.equal(ours["rng"], theirs["rng"])
    assert ours["best"] == theirs["best"]

    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert len({line["step"] for line in metrics(tmp_path / "killed")}) == len(metrics(tmp_path / "killed")) == 50
    seen = board(tmp_path / "killed")
    assert len(seen) == len(set(seen))
    assert sorted(seen) == sorted(board(tmp_path / "whole"))
    assert not list((tmp_path / "killed" / "0001-crash").glob(".*.partial"))
