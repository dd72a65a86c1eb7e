"""Train a DCGAN on handwritten digits from Python, look at its metrics, and export it.

    python examples/train_from_python.py [KIMG]

KIMG is the length in thousands of images; the default, 20, takes about a minute on one CPU core.
"""

from __future__ import annotations

import sys

import trainer


def main() -> None:
    kimg = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    config = trainer.load_config(
        "digits-dcgan",
        overrides={"run.total_kimg": kimg, "run.tick_kimg": kimg / 4, "run.quality_ticks": 2, "optim.g_lr": 2e-4},
    )
    run = trainer.train(config)

    for tick in run.metrics:
        print(f"{tick['images_seen']:>6} images: loss/D {tick['loss/D']:.3f}, loss/G {tick['loss/G']:.3f}")
    print(f"latest checkpoint: {run.checkpoints.latest}")
    print(f"best checkpoint:   {run.checkpoints.best}")

    # A run resumes where it stopped; only fields of its `run` section can change.
    longer = trainer.load_config("digits-dcgan", overrides={"run.total_kimg": 1.5 * kimg, "optim.g_lr": 2e-4})
    run = trainer.train(longer, resume=run)

    file = trainer.export(run, "models", name="digits-from-python", best=True)
    print(f"generator file:    {file}")


if __name__ == "__main__":
    main()
