"""Entry point of `python -m service`."""

from service.cli import main

main()
