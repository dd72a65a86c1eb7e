"""The training benchmark parses other scripts' output, and a loop is stopped between its turns."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks import training
from benchmarks.training import Loop, alternate_loops


def test_parse_step_reads_the_step_of_each_script() -> None:
    assert training.parse_step("step 7") == 7
    assert training.parse_step(" 17%|#7  | 156/937 [02:28<17:59,  1.38s/it, d_loss=0.914, g_loss=1.39]step 156") == 156
    assert training.parse_step("Epoch 2/50:   3%|#   | 28/938 [00:01<00:36, 24.9it/s, d_loss=1.3, g_loss=0.7]") == 966
    assert training.parse_step("Epoch [1/50]:   1%|   | 5/469 [00:08<12:01,  1.55s/it]") == 5
    line = "[1/25][3/16] Loss_D: 1.6 Loss_G: 5.3 D(x): 0.5 D(G(z)): 0.4 / 0.007"
    assert training.parse_step(line) == 19
    assert training.parse_step("Using device: cpu") is None


COUNT = "import time\nfor i in range(10**6): print('step', i, flush=True); time.sleep({pause})"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="turns use SIGSTOP and SIGCONT")
def test_loops_run_only_in_their_turns_and_the_faster_wins(tmp_path: Path) -> None:
    loops = []
    for name, pause in (("fast", 0.005), ("slow", 0.05)):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", COUNT.format(pause=pause)]
        loops.append(Loop(command, batch=10, cwd=tmp_path / name))
    with alternate_loops(loops, warm_up_s=0.2) as turn:
        fast, slow = turn(1.0)
        time.sleep(0.2)  # what was written before they stopped is read
        before = [len(loop.seen) for loop in loops]
        time.sleep(0.5)
        assert [len(loop.seen) for loop in loops] == before
    assert fast > 2 * slow
    assert all(loop.process.poll() is not None for loop in loops)


def test_loop_that_ends_raises_with_its_output(tmp_path: Path) -> None:
    loop = Loop([sys.executable, "-c", "raise OSError('no data here')"], 1, tmp_path)
    with pytest.raises(SystemExit, match="no data here"):
        loop.warm_up(0.1)
    loop.end()
