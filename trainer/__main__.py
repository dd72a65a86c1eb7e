"""`python -m trainer`, and the console script: guarded against Ctrl-C before anything heavy is imported."""

from __future__ import annotations

from trainer import interrupt


def main() -> None:
    interrupt.install()
    from artifacts.cpus import limit_thread_pools
    from artifacts.terminal import prepare_streams

    prepare_streams()
    limit_thread_pools()
    from trainer.cli import main as run

    run()


if __name__ == "__main__":
    main()
