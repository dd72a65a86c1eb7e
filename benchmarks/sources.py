"""Where the code comes from that is measured beside ours; none of it is in this repository."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Repository:
    """On GitHub; `commit` is the one that was measured or read."""

    name: str
    commit: str
    folder: str
    scripts: tuple[str, ...] = ()  # that `--peer` runs, unmodified
    read: str = ""  # what was read to write a plain loop in its manner

    @property
    def commands(self) -> str:
        return (
            f"git clone https://github.com/{self.name} ../peers/{self.folder}\n"
            f"git -C ../peers/{self.folder} checkout --quiet \\\n    {self.commit}"
        )


REPOSITORIES = (
    Repository(
        "Kunal627/kunal627.github.io",
        "66699470c4680670d4caf084ead6c377ae38b850",
        "kunal627",
        ("code/gan/train_gan.py", "code/gan/train_dcgan.py"),
    ),
    Repository("pytorch/examples", "77f55b912142e11fcfdf5b530231fb9c52f181e8", "pytorch-examples", ("dcgan/main.py",)),
    Repository(
        "Aiden-Ross-Dsouza/Generative-Models",
        "4baeaac67168f099334c0ef2c471788585a2f9ea",
        "aiden-ross-dsouza",
        read="DCGAN.ipynb and WGAN.ipynb",
    ),
    Repository("divyam25/Oh-My-GAN", "4df7576e5969111a1993968d1bd488ee593e6959", "divyam25", read="DCGAN_MNIST.ipynb"),
)
INSTALLED = "pytorch-fid, torch-fidelity, FastAPI and BentoML"


def how_to_fetch() -> str:
    """Markdown: the commands that fetch what can be run beside, and what was read."""
    runnable = [one for one in REPOSITORIES if one.scripts]
    peers = "".join(f" \\\n    --peer ../peers/{one.folder}/{script}" for one in runnable for script in one.scripts)
    read = "; ".join(f"{one.name} at {one.commit[:8]} ({one.read})" for one in REPOSITORIES if one.read)
    fetched = "\n".join(one.commands for one in runnable)
    return (
        f"`make setup` installs {INSTALLED}. Fetch the authors' training scripts, which then run unmodified:\n\n"
        f"```\n{fetched}\nmake bench ARGS='training{peers}'\n```\n\n"
        f"Notebooks cannot be run; the plain loops were written after reading {read}."
    )
