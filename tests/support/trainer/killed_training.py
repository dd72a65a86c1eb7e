"""Train a tiny run to its end in children that are killed again and again: `killed_training.py RUNS KILLS SEED`.

The children are forks of one process that has imported everything and computed nothing, so that a life costs
milliseconds. Every other kill waits for a checkpoint's temporary file: it falls while a checkpoint is being written.
Prints, as JSON, how many kills fell, and how many of them while a checkpoint was half written.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from imagesets.types import ImageSet
from tests.support.trainer import runs as runs_support
from trainer.config import loading
from trainer.errors import TrainerError
from trainer.training import checkpoint, run_folder

CONFIG = {
    "name": "crash",
    "data": {"source": "digits", "resolution": 8, "channels": 1},
    "model": {"z_dim": 4, "g_widths": [64], "d_widths": [64]},
    "optim": {"batch_size": 8},
    "run": {
        "total_kimg": 2.0,
        "tick_kimg": 0.04,
        "quality_ticks": 7,
        "quality_images": 20,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
    },
}


def images() -> ImageSet:
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
    return ImageSet("noise", pixels, None, (), {"n": 50})


def live(run_dir: Path) -> None:
    """One life of the run: from its newest checkpoint, or from the start where there is none."""
    console = Console(file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123  the process closes it
    config = loading.parse(CONFIG)
    try:
        payload = checkpoint.load_latest(run_dir)[1]
    except TrainerError:
        runs_support.start(config, images(), run_dir, console)
    else:
        runs_support.resume(run_dir, payload, config, images(), console)


def half_written(run_dir: Path) -> bool:
    return any(name.startswith(".checkpoint-") and ".pt." in name for name in os.listdir(run_dir))  # noqa: PTH208  fast


def main(runs: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    run_dir = run_folder.create(runs, loading.parse(CONFIG))
    fallen = while_writing = 0
    while True:
        child = os.fork()
        if child == 0:
            live(run_dir)
            os._exit(0)
        if fallen == kills:
            assert os.waitpid(child, 0)[1] == 0
            break
        # while a checkpoint is being written, by turns with any moment at all
        waits_for_file = fallen % 2 == 1
        deadline = time.monotonic() + (30 if waits_for_file else rng.uniform(0.02, 0.3))
        while time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
            if waits_for_file and half_written(run_dir):
                break
            time.sleep(0.0003 if waits_for_file else 0.005)
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):  # it reached its end before its time
            break
        fallen += 1
        while_writing += half_written(run_dir)
    print(json.dumps({"kills": fallen, "while_writing": while_writing}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
