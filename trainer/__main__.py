"""`python -m trainer`, and the console script: guarded against Ctrl-C before anything heavy is imported."""

from __future__ import annotations

import atexit
import gc

from trainer import interrupt


def main() -> None:
    interrupt.install()
    # at its end Python would look through every object of PyTorch's for garbage: half a second of every command
    atexit.register(gc.freeze)
    from trainer.cli import main as run

    run()


if __name__ == "__main__":
    main()
