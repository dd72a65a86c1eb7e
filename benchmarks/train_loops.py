"""The loops that train_step.py compares, one a process: `python -m benchmarks.train_loops LOOP CONFIG FOLDER`.

`ours` is the trainer's; `documents` and `examples` are plain ones, at the same networks and batch:

- documents: as source 000's scripts have it. A DataLoader over PIL images with ToTensor and Normalize, a sigmoid at
  the end of D and binary cross-entropy on it, one backward for D, a fresh forward of G for each of its updates, D's
  gradients computed in them too, `.item()` after each loss, a progress bar that shows both.
- examples: as PyTorch's examples/dcgan has it. The same but for: two loader processes that decode image files, D's two
  halves backward one by one, G's update on the fakes that D has just seen, five `.item()` a step.

Each prints `step N` when it ended one. FOLDER holds the images as train_step.py laid them out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainer import config as configuration
from trainer import hardware, networks
from trainer import loop as trainers
from trainer.batches import Batches
from trainer.config import Config


def plain_networks(config: Config) -> tuple[nn.Module, nn.Module]:
    """The same networks from torch's own layers alone, D with a sigmoid."""
    G, D = networks.build(config)
    for network in (G, D):
        for module in network.modules():
            if isinstance(module, networks.Project):
                module.__class__ = AsConvTranspose2d
            elif isinstance(module, networks.Score):
                module.__class__ = AsConv2d
    return G, nn.Sequential(D, nn.Sigmoid())


class AsConvTranspose2d(networks.Project):
    def forward(self, z: Tensor, output_size: list[int] | None = None) -> Tensor:
        return nn.ConvTranspose2d.forward(self, z[:, :, None, None])


class AsConv2d(networks.Score):
    def forward(self, features: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, features)


def normalize(channels: int) -> object:
    from torchvision import transforms

    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.5,) * channels)])


def documents(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    from torchvision.datasets import MNIST
    from tqdm import tqdm

    optim, z_dim = config.optim, config.model.z_dim
    G, D = (network.to(device) for network in plain_networks(config))
    g_optimizer = torch.optim.Adam(G.parameters(), lr=optim.g_lr, betas=optim.betas)
    d_optimizer = torch.optim.Adam(D.parameters(), lr=optim.d_lr, betas=optim.betas)
    criterion = nn.BCELoss()
    images = MNIST(root=str(folder / "data"), train=True, transform=normalize(1))
    loader = torch.utils.data.DataLoader(images, batch_size=optim.batch_size, shuffle=True, drop_last=True)
    while True:
        progress = tqdm(loader)
        for batch, _ in progress:
            real = batch.to(device)
            real_labels, fake_labels = (torch.full((len(real),), label, device=device) for label in (0.9, 0.0))

            d_loss_real = criterion(D(real), real_labels)
            fake = G(torch.randn(len(real), z_dim, device=device))
            d_loss = d_loss_real + criterion(D(fake.detach()), fake_labels)
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()
            d_loss.item()

            for _ in range(optim.g_steps):
                fake = G(torch.randn(len(real), z_dim, device=device))
                g_loss = criterion(D(fake), real_labels)
                g_optimizer.zero_grad()
                g_loss.backward()
                g_optimizer.step()
                g_loss.item()
            progress.set_postfix(d_loss=d_loss.item(), g_loss=g_loss.item())
            yield


def examples(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    from torchvision.datasets import ImageFolder

    optim, z_dim = config.optim, config.model.z_dim
    G, D = (network.to(device) for network in plain_networks(config))
    g_optimizer = torch.optim.Adam(G.parameters(), lr=optim.g_lr, betas=optim.betas)
    d_optimizer = torch.optim.Adam(D.parameters(), lr=optim.d_lr, betas=optim.betas)
    criterion = nn.BCELoss()
    images = ImageFolder(str(folder / "folder"), transform=normalize(3))
    loader = torch.utils.data.DataLoader(
        images, batch_size=optim.batch_size, shuffle=True, drop_last=True, num_workers=2
    )
    while True:
        for batch, _ in loader:
            real = batch.to(device)
            D.zero_grad()
            real_loss = criterion(opinion := D(real), torch.full((len(real),), 1.0, device=device))
            real_loss.backward()
            opinion.mean().item()
            fake = G(torch.randn(len(real), z_dim, device=device))
            fake_loss = criterion(opinion := D(fake.detach()), torch.full((len(real),), 0.0, device=device))
            fake_loss.backward()
            opinion.mean().item()
            d_optimizer.step()

            G.zero_grad()
            g_loss = criterion(opinion := D(fake), torch.full((len(real),), 1.0, device=device))
            g_loss.backward()
            opinion.mean().item()
            g_optimizer.step()
            (real_loss + fake_loss).item(), g_loss.item()
            yield


def ours(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    hardware.settle(config)
    state = trainers.State.create(config)
    batches = Batches(np.load(folder / "images.npy"), config.optim.batch_size, seed=0, device=device)
    while True:
        trainers.step(state, batches)
        yield


LOOPS = {loop.__name__: loop for loop in (documents, examples, ours)}


def main() -> None:
    name, config_path, folder = sys.argv[1:]
    config = configuration.parse(json.loads(Path(config_path).read_text()))
    device = torch.device(config.run.device)
    for step, _ in enumerate(LOOPS[name](config, Path(folder), device)):
        if device.type == "cuda" and step % 20 == 0:
            torch.cuda.synchronize()  # so that `step` tells of work done, not of work asked for
        if device.type != "cuda" or step % 20 == 0:
            print(f"step {step}", flush=True)


if __name__ == "__main__":
    main()
