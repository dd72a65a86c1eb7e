"""The loops that train_step.py compares, one a process: `python -m benchmarks.train_loops LOOP CONFIG FOLDER`.

`ours` is the trainer's; the others are plain ones, in the manner of what people start from, at the same networks and
batch:

- documents: as source 000's scripts (and 004's, which are alike) have it. A DataLoader over PIL images with ToTensor
  and Normalize, a sigmoid at the end of D and binary cross-entropy on it, one backward for D, a fresh forward of G for
  each of its updates, D's gradients computed in them too, `.item()` after each loss, a progress bar that shows both.
- examples: as PyTorch's examples/dcgan has it. The same but for: two loader processes that decode image files, D's two
  halves backward one by one, G's update on the fakes that D has just seen, five `.item()` a step.
- dcgan_notebook: as source 001's DCGAN. Images enlarged to 64 px by the loader; one forward of G, from which D's loss
  is not cut off, so that its backward runs through G too and keeps the graph for G's own; two `.item()` a step.
- wgan_notebook: as source 001's WGAN. Five updates of the critic on the same reals, each with a forward of G and a
  backward through it, RMSprop, every weight clamped by itself after each; then G's update on the last fakes.
- digits_notebook: as source 002. Images enlarged to 64 px by the loader; D's loss not cut off from G; a second forward
  of G from the same latents for its update; `.item()` of either loss before its backward.

Each prints `step N` when it ended one. FOLDER holds the images as train_step.py laid them out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.train_notebooks import dcgan_notebook, digits_notebook, wgan_notebook
from benchmarks.train_plain import documents, examples
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.training import devices
from trainer.training import loop as trainers
from trainer.training.state import TrainState


def ours(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    devices.configure_process(config)
    state = TrainState.create(config)
    batches = Batches(np.load(folder / "images.npy"), config.optim.batch_size, seed=0, device=device)
    while True:
        trainers.train_iteration(state, batches)
        yield


PLAIN = (documents, examples, dcgan_notebook, wgan_notebook, digits_notebook)
LOOPS = {loop.__name__: loop for loop in (*PLAIN, ours)}


def main() -> None:
    name, config_path, folder = sys.argv[1:]
    config = loading.parse(json.loads(Path(config_path).read_text(encoding="utf-8")))
    device = torch.device(config.run.device)
    for step, _ in enumerate(LOOPS[name](config, Path(folder), device)):
        if device.type == "cuda" and step % 20 == 0:
            torch.cuda.synchronize()  # so that `step` tells of work done, not of work asked for
        if device.type != "cuda" or step % 20 == 0:
            print(f"step {step}", flush=True)


if __name__ == "__main__":
    main()
