"""Plain training loops in the manner of what people start from, and ours, one per process.

    python -m benchmarks.training_loops LOOP CONFIG FOLDER

All train the same networks at the same batch, and print `step N` after each step. FOLDER holds the images as
training.py wrote them. The notebooks are those of commits 4baeaac6 (Aiden-Ross-Dsouza) and 4df7576e (divyam25).

ours             The trainer's loop.
documents        Kunal627's scripts (and the GAN-DCGAN comparison project's): a DataLoader over PIL images with ToTensor
                 and Normalize, a sigmoid at the end of D and binary cross-entropy on it, one backward for D, a new
                 forward of G for each of its updates, D's gradients computed in them too, `.item()` after each loss,
                 and a progress bar that shows both.
examples         PyTorch's examples/dcgan: two loader processes that decode image files, D's two halves backward one by
                 one, G's update on the same fakes, five `.item()` per step.
dcgan_notebook   Aiden-Ross-Dsouza's DCGAN: images enlarged to 64 px by the loader; one forward of G from which D's loss
                 is not detached, so that its backward runs through G too and keeps the graph; two `.item()`.
wgan_notebook    Aiden-Ross-Dsouza's WGAN: five updates of the critic on the same reals, each with a forward of G and a
                 backward through it, RMSprop, every weight clamped by itself; then G's update on the last fakes.
digits_notebook  divyam25's DCGAN: images enlarged to 64 px by the loader; D's loss not detached from G; a second
                 forward of G from the same latents for its update; `.item()` of either loss before its backward.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from trainer import devices, networks
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.training import loop as trainers
from trainer.training.state import TrainState


def plain_networks(config: Config) -> tuple[nn.Module, nn.Module]:
    """Build the same networks from torch's own layers, D with a sigmoid."""
    G, D = networks.build(config)
    for network in (G, D):
        for module in network.modules():
            if isinstance(module, networks.DenseToFeatureMap):
                module.__class__ = AsConvTranspose2d
            elif isinstance(module, networks.FullConvHead):
                module.__class__ = AsConv2d
            elif isinstance(module, networks.TransposedConv):
                module.__class__ = nn.ConvTranspose2d
    return G, nn.Sequential(D, nn.Sigmoid())


class AsConvTranspose2d(networks.DenseToFeatureMap):
    def forward(self, z: Tensor, output_size: list[int] | None = None) -> Tensor:
        return nn.ConvTranspose2d.forward(self, z[:, :, None, None])


class AsConv2d(networks.FullConvHead):
    def forward(self, features: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, features)


def normalize(channels: int) -> object:
    """Return the transform to a tensor in [-1, 1]."""
    from torchvision import transforms

    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.5,) * channels)])


def make_training(
    config: Config, device: torch.device
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.optim.Optimizer, nn.Module]:
    """Return G and D on the device, an unfused Adam for each, and binary cross-entropy, as every source has them."""
    optim = config.optim
    G, D = (network.to(device) for network in plain_networks(config))
    g_optimizer = torch.optim.Adam(G.parameters(), lr=optim.g_lr, betas=optim.betas)
    d_optimizer = torch.optim.Adam(D.parameters(), lr=optim.d_lr, betas=optim.betas)
    return G, D, g_optimizer, d_optimizer, nn.BCELoss()


def documents(config: Config, folder: Path, device: torch.device) -> Iterator[None]:
    from torchvision.datasets import MNIST
    from tqdm import tqdm

    optim, z_dim = config.optim, config.model.z_dim
    G, D, g_optimizer, d_optimizer, criterion = make_training(config, device)
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
    G, D, g_optimizer, d_optimizer, criterion = make_training(config, device)
    images = ImageFolder(str(folder / "folder"), transform=normalize(3))
    loader = torch.utils.data.DataLoader(
        images, batch_size=optim.batch_size, shuffle=True, drop_last=True, num_workers=2
    )
    while True:
        for batch, _ in loader:
            real = batch.to(device)
            D.zero_grad()
            real_loss = criterion(scores := D(real), torch.full((len(real),), 1.0, device=device))
            real_loss.backward()
            scores.mean().item()
            fake = G(torch.randn(len(real), z_dim, device=device))
            fake_loss = criterion(scores := D(fake.detach()), torch.full((len(real),), 0.0, device=device))
            fake_loss.backward()
            scores.mean().item()
            d_optimizer.step()

            G.zero_grad()
            g_loss = criterion(scores := D(fake), torch.full((len(real),), 1.0, device=device))
            g_loss.backward()
            scores.mean().item()
            g_optimizer.step()
            (real_loss + fake_loss).item(), g_loss.item()
            yield


class Stored(torch.utils.data.Dataset):
    """An array of images, each enlarged by PIL when it is read, as torchvision's MNIST and CIFAR10 are."""

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
    G, D, g_optimizer, d_optimizer, criterion = make_training(config, device)
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

            scores = D(fake)
            g_loss = criterion(scores, torch.ones_like(scores))
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
    G, D, g_optimizer, d_optimizer, criterion = make_training(config, device)
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
            torch.cuda.synchronize()  # so that `step N` is printed when the work is done
        if device.type != "cuda" or step % 20 == 0:
            print(f"step {step}", flush=True)


if __name__ == "__main__":
    main()
