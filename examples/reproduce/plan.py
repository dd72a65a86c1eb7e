"""What is reproduced: each system of the five source documents, by its preset, beside what its document says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One training run. `kimg` is the document's own length; an epoch of its images is `epoch_kimg`."""

    preset: str
    documents: tuple[str, ...]  # that describe it; none: ours
    images: str  # the key of Images
    kimg: float
    epoch_kimg: float
    tick_kimg: float  # between two checkpoints of a run that is cut short
    said: str  # of its result, in the document
    said_epoch: str = "not said"  # seconds or minutes an epoch took, and on what
    averages: bool = False  # whether it keeps an average of G; the documents do not


@dataclass(frozen=True)
class Images:
    """What a table's systems are trained on and scored against, and how many images a score takes."""

    source: str
    num_images: int


INTEL = "Core i7-9850H"
MNIST, CIFAR10, CELEBA = 60.0, 50.0, 162.77

SYSTEMS = (
    System("mnist-gan", ("000", "004"), "mnist", 1500, MNIST, 10, "pictures of epoch 24", f"80 s ({INTEL})"),
    System("mnist-gan-2", ("000",), "mnist", 1020, MNIST, 10, "pictures of epoch 16", f"65 s ({INTEL})"),
    System("mnist-dcgan", ("000", "004"), "mnist", 1020, MNIST, 5, "pictures of epoch 16", f"about 11 min ({INTEL})"),
    System("mnist-dcgan-2g", ("000",), "mnist", 1020, MNIST, 5, "pictures of epoch 16", f"about 12 min ({INTEL})"),
    System("mnist-dcgan-64", ("002",), "mnist", 900, MNIST, 2, "losses and two animations", "223 s (K80)"),
    System("cifar10-dcgan", ("001",), "cifar10", 250, CIFAR10, 2, "FID 270.69"),
    # its notebook takes the critic's five steps on one batch of reals, the trainer on five: as many steps of G cost
    # five times as many images here
    System("cifar10-wgan", ("001",), "cifar10", 1250, 5 * CIFAR10, 4, "no FID"),
    System("celeba-dcgan", ("003",), "celeba", 1000, CELEBA, 50, "no result; thirty questions"),
    System("mnist-best", (), "mnist", 600, MNIST, 5, "", averages=True),
    System("cifar10-small", (), "cifar10", 200, CIFAR10, 5, "", averages=True),
    System("cifar10-best", (), "cifar10", 12_800, CIFAR10, 4, "", averages=True),
)

IMAGES = {
    "mnist": Images("mnist", 10_000),
    "cifar10": Images("cifar10", 5_000),
    "celeba": Images("celeba", 10_000),
}

NATIVE = {"mnist": 28, "cifar10": 32, "celeba": 64}  # the side that images are compared at

TITLES = {
    "000": "GAN against DCGAN on MNIST: four runs",
    "001": "DCGAN and WGAN on CIFAR-10, and the FID of 270.69",
    "002": "DCGAN on MNIST at 64 px, uniform z",
    "003": "DCGAN on CelebA",
    "004": "GAN against DCGAN at equal epochs",
}

WHERE = {  # the documents' code, or what they are called where they name none
    "000": "[Kunal627/kunal627.github.io](https://github.com/Kunal627/kunal627.github.io)",
    "001": "[Aiden-Ross-Dsouza/Generative-Models](https://github.com/Aiden-Ross-Dsouza/Generative-Models)",
    "002": "[divyam25/Oh-My-GAN](https://github.com/divyam25/Oh-My-GAN)",
    "003": "“Deep convolutional generative adversarial network”, thirty questions; names no code",
    "004": "“GAN-DCGAN Image Generation Project”; names no code",
}


def chosen(only: tuple[str, ...]) -> tuple[System, ...]:
    """The systems of these documents or presets (`best`: ours), all by default. ValueError: there is none such."""
    names = {*TITLES, "best", *(system.preset for system in SYSTEMS)}
    if strange := set(only) - names:
        raise ValueError(f"there is no {', '.join(sorted(strange))}; there are {', '.join(sorted(names))}")
    return tuple(
        system
        for system in SYSTEMS
        if not only
        or system.preset in only
        or set(system.documents) & set(only)
        or (not system.documents and "best" in only)
    )
