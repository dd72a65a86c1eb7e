"""What torchrun told this process of the others, and what can be shared with them before they have joined."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from artifacts.processes import TERMINATION
from trainer.errors import TrainerError

if TYPE_CHECKING:
    from torch.distributed import TCPStore

    from trainer.config.schema import Config
    from trainer.distributed.process_group import World

LOADING = timedelta(days=1)  # the first process of a machine may have to download


def size() -> int:
    """How many processes were started together, on all machines; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """This process's number among them; the first one writes and talks."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def join(config: Config, told: dict[str, Any]) -> tuple[World, Config]:
    """This process's World, and the config that all of them share. Every process calls it.

    Raises TrainerError when they cannot train this together, or disagree in config or `told`.
    """
    from trainer.distributed.process_group import World

    if size() == 1:
        return World(), config
    try:
        from trainer.distributed.fabric import Ranks
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("lightning"):
            raise
        raise TrainerError(
            "training with several processes needs Lightning Fabric: pip install lightning-fabric"
        ) from error
    return Ranks.join(config, told)


@contextmanager
def first_on_this_machine() -> Iterator[None]:
    """Within it torchrun's first process of a machine goes before the others, and a machine waits for all machines.

    For what is to be downloaded and decoded once. Without torchrun's own store they go at once.
    """
    store = _store() if size() > 1 else None
    if store is None:
        yield
        return
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    machines = [_key(f"loaded/{number}") for number in range(size() // local_size)]
    first, machine = int(os.environ["LOCAL_RANK"]) == 0, int(os.environ.get("GROUP_RANK", 0))
    if not first:
        store.wait([machines[machine]], LOADING)
    yield
    if first:
        store.set(machines[machine], "yes")
    store.wait(machines, LOADING)


def ignore_signals() -> None:
    """Leave undisturbed: torchrun ends the others as soon as one process has left. Alone: nothing."""
    if size() > 1:
        for number in (signal.SIGINT, *TERMINATION):
            signal.signal(number, signal.SIG_IGN)


def is_first_to_tell(message: str, *, unless_others: bool = False) -> bool:
    """Whether no other process has told the user this very message; `unless_others`: or any message at all.

    So an error that all of them meet is one line, and one that only one meets is told by that one.
    """
    store = _store() if size() > 1 else None
    if store is None:
        return True
    try:
        if unless_others:
            return bool(store.add(_key("told"), 1) == 1)
        store.add(_key("told"), 1)
        return bool(store.add(_key(f"told/{hashlib.sha256(message.encode()).hexdigest()}"), 1) == 1)
    except RuntimeError:  # torchrun itself is gone
        return True


def _key(name: str) -> str:
    """A name in the store that an earlier attempt of torchrun's (--max-restarts) did not use."""
    return f"gan-atelier/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{name}"


def _store() -> TCPStore | None:
    """The store that torchrun's agent keeps, which outlives any process of ours; None where it keeps none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=20))
    except RuntimeError:
        return None
