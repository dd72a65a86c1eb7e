"""A run of a sweep: `python -m trainer.sweep.worker_main PARENT train …`, a `trainer train …` that ends with PARENT."""

from __future__ import annotations

import sys

from artifacts.processes import end_with
from trainer.__main__ import main

if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    main()
