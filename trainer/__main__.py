"""`python -m trainer`, and the console script: guarded against Ctrl-C before anything heavy is imported."""

from __future__ import annotations

from trainer import interrupt


def main() -> None:
    interrupt.install()
    from trainer.cli import main as run

    run()


if __name__ == "__main__":
    main()
