"""A run of a sweep: `python -m trainer.sweep.child PARENT train …`, a `trainer train …` that ends with PARENT."""

from __future__ import annotations

import os
import signal
import sys

from trainer.__main__ import main

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int) -> None:
    """On Linux the kernel sends us SIGTERM when the parent dies, by SIGKILL too. Elsewhere a run goes on to its end."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before that
        raise SystemExit(130)


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    main()
