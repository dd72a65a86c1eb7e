"""Plain training loops in the manner of sources 001's and 002's notebooks: see train_loops.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.train_plain import begun, normalize, plain_networks
from trainer.config.schema import Config


class Stored(torch.utils.data.Dataset):
    """What torchvision's MNIST and CIFAR10 are once they are read: an array of images, each made PIL's as it is asked
    for, enlarged, and a tensor."""

    def __init__(self, folder: Path, side: int) -> None:
        from torchvision import transforms

        self.images = np.load(folder / "stored.npy")
        channels = self.images.shape[-1]
        self.transform = transforms.Compose([transforms.Resize(side), normalize(channels)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        return self.transform(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)), 0


def enlarging_loader(config: Config, folder: Path) -> torch.utils.data.DataLoader:
    images = Stored(folder, config.data.resolution)
    return torch.utils.data.DataLoader(images, batch_size=config.optim.batch_size, shuffle=True, drop_last=True)


def dcgan_notebook(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    z_dim = config.model.z_dim
    G, D, g_optimizer, d_optimizer, criterion = begun(config, device)
    loader = enlarging_loader(config, folder)
    history: list[tuple[float, float]] = []
    while True:
        for batch, _ in loader:
            real = batch.to(device)
            fake = G(torch.randn(len(real), z_dim, device=device))
            on_real, on_fake = D(real), D(fake)
            real_loss = criterion(on_real, torch.ones_like(on_real))
            d_loss = (real_loss + criterion(on_fake, torch.zeros_like(on_fake))) / 2
            D.zero_grad()
            d_loss.backward(retain_graph=True)
            d_optimizer.step()

            opinion = D(fake)
            g_loss = criterion(opinion, torch.ones_like(opinion))
            G.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            history.append((g_loss.item(), d_loss.item()))
            yield


def wgan_notebook(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    optim, z_dim, bound = config.optim, config.model.z_dim, config.objective.clip
    assert bound is not None
    G, with_sigmoid = plain_networks(config)
    G, critic = G.to(device), with_sigmoid[0].to(device)  # type: ignore[index]
    g_optimizer = torch.optim.RMSprop(G.parameters(), lr=optim.g_lr)
    critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=optim.d_lr)
    loader = enlarging_loader(config, folder)
    while True:
        for batch, _ in loader:
            real = batch.to(device)
            for _ in range(optim.n_critic):
                fake = G(torch.randn(len(real), z_dim, device=device))
                loss = critic(fake).mean() - critic(real).mean()
                critic.zero_grad()
                loss.backward(retain_graph=True)
                critic_optimizer.step()
                for weights in critic.parameters():
                    weights.data.clamp_(-bound, bound)

            g_loss = -critic(fake).mean()
            G.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            yield


def digits_notebook(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    z_dim = config.model.z_dim
    G, D, g_optimizer, d_optimizer, criterion = begun(config, device)
    loader = enlarging_loader(config, folder)
    history: list[float] = []
    while True:
        for batch, _ in loader:
            real = batch.to(device)
            ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)
            z = torch.randn(len(real), z_dim, device=device)
            d_loss = criterion(D(real), ones) + criterion(D(G(z)), zeros)
            history.append(d_loss.item())
            D.zero_grad()
            d_loss.backward()
            d_optimizer.step()

            g_loss = criterion(D(G(z)), ones)
            history.append(g_loss.item())
            G.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            yield
