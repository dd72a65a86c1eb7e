"""Read torchrun's environment: rank, number of processes, and the store that its agent keeps. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from artifacts.processes import TERMINATION

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # not in its __all__

LOADING_TIMEOUT = timedelta(days=1)  # the first process of a machine may have to download


def world_size() -> int:
    """Return how many processes were started together, on all machines; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Return this process's rank; rank 0 writes the run folder and prints."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


@contextmanager
def first_on_this_machine() -> Iterator[None]:
    """Run the block first in one process per machine, then in the others; leave it when all machines have run it.

    This is for downloading and decoding, once per machine. Without torchrun's own store all processes run at once.
    """
    store = _store() if world_size() > 1 else None
    if store is None:
        yield
        return
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    machines = [_key(f"loaded/{number}") for number in range(world_size() // local_size)]
    first, machine = int(os.environ["LOCAL_RANK"]) == 0, int(os.environ.get("GROUP_RANK", 0))
    if not first:
        store.wait([machines[machine]], LOADING_TIMEOUT)
    yield
    if first:
        store.set(machines[machine], "yes")
    store.wait(machines, LOADING_TIMEOUT)


def ignore_signals() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP, with several processes: torchrun ends the others when one has exited."""
    if world_size() > 1:
        for number in (signal.SIGINT, *TERMINATION):
            signal.signal(number, signal.SIG_IGN)


def is_first_to_report(message: str, *, unless_others: bool = False) -> bool:
    """Return whether no other process has printed this message, so that an error of all processes is one line.

    Args:
        message: The message.
        unless_others: Return False if another process has printed any message.
    """
    store = _store() if world_size() > 1 else None
    if store is None:
        return True
    try:
        if unless_others:
            return bool(store.add(_key("reported"), 1) == 1)
        store.add(_key("reported"), 1)
        return bool(store.add(_key(f"reported/{hashlib.sha256(message.encode()).hexdigest()}"), 1) == 1)
    except RuntimeError:  # torchrun itself has ended
        return True


def _key(name: str) -> str:
    """Return a name in the store that an earlier attempt of torchrun's (--max-restarts) did not use."""
    return f"gan-atelier/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{name}"


def _store() -> TCPStore | None:
    """Return the store of torchrun's agent, which outlives our processes; None where it keeps none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # not in its __all__

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=20))
    except RuntimeError:
        return None
