"""Images a second of the trainer's loop beside a plain one, at the same networks, batch and machine.

The plain loop is written as the source documents describe it: a DataLoader over PIL images with ToTensor and
Normalize, a sigmoid at the end of D and binary cross-entropy on it, one forward of G for D's step and a fresh one for
G's, D's gradients computed in G's step too, fp32, `.item()` after each loss.

The two take turns, a few seconds each, so that a machine whose speed drifts changes both alike; the ratio is taken
round by round.

    python benchmarks/train_step.py --data-root data
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from imagesets import ImageSetError, load_image_set
from trainer import config as configuration
from trainer import hardware, loop, networks
from trainer.batches import Batches
from trainer.config import Config

RESULTS = Path(__file__).with_name("results") / "train_step.json"


class PilImages(torch.utils.data.Dataset[Tensor]):
    """What torchvision's datasets do for each image: array → PIL → ToTensor → Normalize(0.5, 0.5)."""

    def __init__(self, images: np.ndarray) -> None:
        from torchvision import transforms

        self.images = images
        channels = images.shape[3]
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize([0.5] * channels, [0.5] * channels)]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        array = self.images[index]
        return self.transform(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array))


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


def plain_steps(config: Config, images: np.ndarray, device: torch.device) -> Iterator[int]:
    """The documents' loop; yields the images of each step."""
    G, D = (network.to(device) for network in plain_networks(config))
    optim = config.optim
    g_optimizer = torch.optim.Adam(G.parameters(), lr=optim.g_lr, betas=optim.betas)
    d_optimizer = torch.optim.Adam(D.parameters(), lr=optim.d_lr, betas=optim.betas)
    criterion = nn.BCELoss()
    loader = torch.utils.data.DataLoader(PilImages(images), batch_size=optim.batch_size, shuffle=True, drop_last=True)
    while True:
        for batch in loader:
            real = batch.to(device)
            ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)

            d_loss_real = criterion(D(real), ones)
            fake = G(torch.randn(len(real), config.model.z_dim, device=device))
            d_loss = d_loss_real + criterion(D(fake.detach()), zeros)
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()
            d_loss.item()

            fake = G(torch.randn(len(real), config.model.z_dim, device=device))
            g_loss = criterion(D(fake), ones)
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            g_loss.item()
            yield len(real)


def our_steps(config: Config, images: np.ndarray, device: torch.device) -> Iterator[int]:
    """The trainer's loop, as `trainer train` runs it."""
    state = loop.State.create(config)
    batches = Batches(images, config.optim.batch_size, seed=0, device=device)
    while True:
        before = state.images_seen
        loop.step(state, batches)
        yield state.images_seen - before


def images_per_second(steps: Iterator[int], seconds: float, synchronize: Callable[[], None]) -> float:
    synchronize()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        count += next(steps)
    synchronize()
    return count / (time.perf_counter() - started)


def compare(preset: str, data_root: Path, rounds: int, seconds: float) -> dict[str, object]:
    config = hardware.choose(configuration.resolve(preset))
    data = config.data
    try:
        images = load_image_set(
            data.source, resolution=data.resolution, channels=data.channels, data_root=data_root
        ).images
        shown = data.source
    except ImageSetError:
        images = load_image_set("digits", resolution=data.resolution, channels=data.channels).images
        shown = f"digits (no {data.source} in {data_root})"
    device = torch.device(config.run.device)
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    plain, ours = plain_steps(config, images, device), our_steps(config, images, device)
    for steps in (plain, ours):
        images_per_second(steps, min(seconds, 2.0), synchronize)
    pairs = [tuple(images_per_second(steps, seconds, synchronize) for steps in (plain, ours)) for _ in range(rounds)]
    ratios = sorted(ours / plain for plain, ours in pairs)
    result = {
        "preset": preset,
        "images": shown,
        "batch_size": config.optim.batch_size,
        "device": config.run.device,
        "precision": config.run.precision,
        "threads": config.run.threads,
        "plain_images_per_second": round(statistics.median(plain for plain, _ in pairs), 1),
        "trainer_images_per_second": round(statistics.median(ours for _, ours in pairs), 1),
        "ratio": {
            "median": round(statistics.median(ratios), 2),
            "min": round(ratios[0], 2),
            "max": round(ratios[-1], 2),
        },
        "rounds": rounds,
        "seconds_a_round": seconds,
    }
    print(
        f"{preset}: plain {result['plain_images_per_second']:.0f} img/s, trainer "
        f"{result['trainer_images_per_second']:.0f} img/s, ratio {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}; {shown}, batch {config.optim.batch_size}, {config.run.precision})",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["mnist-dcgan", "mnist-gan"])
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each loop, each round")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = [compare(preset, arguments.data_root, arguments.rounds, arguments.seconds) for preset in arguments.preset]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"machine": hardware.describe(), "results": results}, indent=2) + "\n")
    print(f"→ {arguments.output}")


if __name__ == "__main__":
    main()
