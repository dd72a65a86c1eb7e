"""A loss of your own: LSGAN's game with |·| in place of (·)², so that no single score outweighs the rest.

    python examples/custom_loss.py [KIMG]

On the command line, run in the folder of this file:

    trainer train --set objective.name=custom_loss:LEAST_ABSOLUTE
    trainer resume runs/0001-digits-dcgan --user-code   # imports the module that the run names
"""

from __future__ import annotations

import sys

from torch import Tensor

import trainer
from trainer.training.losses import AdversarialLoss


def least_absolute_d(real: Tensor, fake: Tensor) -> Tensor:
    """Return |D(x) - 1| + |D(G(z))| on scores, float [N] each."""
    return (real - 1.0).abs().mean() + fake.abs().mean()


def least_absolute_g(fake: Tensor) -> Tensor:
    """Return |D(G(z)) - 1|."""
    return (fake - 1.0).abs().mean()


LEAST_ABSOLUTE = AdversarialLoss(least_absolute_d, least_absolute_g)


def main() -> None:
    kimg = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    overrides = {"objective.name": "custom_loss:LEAST_ABSOLUTE", "objective.r1_gamma": 0, "run.total_kimg": kimg}
    run = trainer.train(trainer.load_config("digits-dcgan", overrides, name="least-absolute"))
    print(f"{run.path}: loss/D {run.metrics[-1]['loss/D']:.3f}, loss/G {run.metrics[-1]['loss/G']:.3f}")


if __name__ == "__main__":
    main()
