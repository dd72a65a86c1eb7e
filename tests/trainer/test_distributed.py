"""Two processes that train together (gloo, on the CPU) against one, and against what may befall them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def torchrun(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *arguments]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ATELIER_CACHE": str(cache)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> dict[str, Any]:
    """What tests/trainer/ranks.py found out."""
    output = tmp_path_factory.mktemp("ranks") / "found.json"
    command = torchrun("--standalone", str(Path(__file__).with_name("ranks.py")), str(output))
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    return json.loads(output.read_text())


def test_every_architecture_and_objective_ends_with_equal_ranks(found: dict[str, Any]) -> None:
    """G, D, G_ema with their buffers, both optimizers and the random numbers, to the last bit."""
    assert len(found["equal"]) == 14
    assert [name for name, equal in found["equal"].items() if not equal] == []


def test_an_mlps_losses_are_one_processs(found: dict[str, Any]) -> None:
    assert len(found["losses"]) == 7
    for name, (together, alone) in found["losses"].items():
        assert len(together) == len(alone) == 6
        for ours, theirs in zip(together, alone, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4), name
        assert abs(alone[0]["loss/D"] - alone[-1]["loss/D"]) > 1e-3, f"{name}: went nowhere"


def test_resumed_equals_never_interrupted_to_the_last_bit(found: dict[str, Any]) -> None:
    for told in found["resumed"].values():
        assert told["to the last bit"]
        assert told["processes"] == 2


def test_one_process_reads_what_two_saved(found: dict[str, Any]) -> None:
    for told in found["resumed"].values():
        assert told["weights alone"]
        assert told["sums alone"] == pytest.approx(told["sums"])


def test_a_nan_in_one_process_stops_all(found: dict[str, Any]) -> None:
    ours, theirs = found["diverges"]
    assert "loss/D became NaN" in ours
    assert ours == theirs


def test_a_stop_that_one_process_is_asked_for_is_heard_by_all_at_once(found: dict[str, Any]) -> None:
    assert found["stops"] == [[False, False, False, True]] * 2


def test_the_spread_of_the_reals_is_the_whole_batchs(found: dict[str, Any]) -> None:
    together, alone = found["std"]
    assert together == pytest.approx(alone, rel=1e-6)
