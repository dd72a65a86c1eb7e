"""Plain training loops in the manner of source 000's scripts and of PyTorch's examples: see train_loops.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer import networks
from trainer.config.schema import Config


def plain_networks(config: Config) -> tuple[nn.Module, nn.Module]:
    """The same networks from torch's own layers alone, D with a sigmoid."""
    G, D = networks.build(config)
    for network in (G, D):
        for module in network.modules():
            if isinstance(module, networks.DenseToFeatureMap):
                module.__class__ = AsConvTranspose2d
            elif isinstance(module, networks.FullConvHead):
                module.__class__ = AsConv2d
    return G, nn.Sequential(D, nn.Sigmoid())


class AsConvTranspose2d(networks.DenseToFeatureMap):
    def forward(self, z: Tensor, output_size: list[int] | None = None) -> Tensor:
        return nn.ConvTranspose2d.forward(self, z[:, :, None, None])


class AsConv2d(networks.FullConvHead):
    def forward(self, features: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, features)


def normalize(channels: int) -> object:
    from torchvision import transforms

    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.5,) * channels)])


def begun(
    config: Config, device: torch.device
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.optim.Optimizer, nn.Module]:
    """What every source's DCGAN begins with: G and D on the device, an unfused Adam for each, binary cross-entropy."""
    optim = config.optim
    G, D = (network.to(device) for network in plain_networks(config))
    g_optimizer = torch.optim.Adam(G.parameters(), lr=optim.g_lr, betas=optim.betas)
    d_optimizer = torch.optim.Adam(D.parameters(), lr=optim.d_lr, betas=optim.betas)
    return G, D, g_optimizer, d_optimizer, nn.BCELoss()


def documents(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    from torchvision.datasets import MNIST
    from tqdm import tqdm

    optim, z_dim = config.optim, config.model.z_dim
    G, D, g_optimizer, d_optimizer, criterion = begun(config, device)
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
    G, D, g_optimizer, d_optimizer, criterion = begun(config, device)
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
