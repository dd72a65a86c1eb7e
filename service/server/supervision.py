"""The supervisor of the workers: it replaces a dead worker at once, and obeys every request to stop.

`bentoml serve` supervises with circus, which checks its workers every 10 s, and in a container (where BentoML leaves
restarts to the orchestrator) never replaces one of several. The kernel reports a child's death by SIGCHLD, so the
workers are checked then. Circus also rejects a command while another one runs, so it would lose a SIGTERM that arrives
while workers are started or replaced; here the command is repeated until it is accepted.
"""

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import bentoml

from artifacts.processes import end_with, is_alive
from service.server.private_symbols import is_supported
from service.server.shutdown import EXIT_S
from service.settings import settings

log = logging.getLogger("bentoml.atelier")

SYMBOLS = (
    *(f"circus.sighandler:SysHandler.{name}" for name in ("controller", "handle_hup", "handle_term", "quit")),
    *(f"circus.controller:Controller.{name}" for name in ("arbiter", "dispatch", "loop")),
    *(f"circus.arbiter:Arbiter.{name}" for name in ("_stopping", "iter_watchers", "loop", "manage_watchers")),
    *(f"circus.watcher:Watcher.{name}" for name in ("is_stopped", "is_stopping", "processes", "respawn")),
    "circus.client:make_json",
    "circus.exc:ConflictError",
)
# what a signal that ended a worker usually means, and what to do
SIGNAL_HINTS = {
    signal.SIGKILL: "if the memory limit did that, raise it or lower ATELIER_MAX_LOADED_BYTES, ATELIER_MAX_BATCH or "
    "ATELIER_WORKERS",
    signal.SIGILL: "this processor lacks an instruction that the packages were built for",
}
TRIES, RETRY_S = 5, 0.2  # to replace a worker
QUIT_AGAIN_S = 0.05
SUPERVISOR = "ATELIER_SUPERVISOR"  # not a setting: the supervisor's process id, for its workers
PARENT_CHECK_S = 1.0
KILL_S, END_S = 1.0, 10.0  # after a worker should have ended: it is killed; the supervisor ends


def watch_workers() -> None:
    """Have the circus arbiter of this process replace dead workers at once, and obey every stop.

    Nothing is done in a worker, or where another handler is installed. Where circus lacks what this needs, it
    supervises in its own way.
    """
    in_main = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    if not in_main or _is_worker() or signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL:
        return
    os.environ[SUPERVISOR] = str(os.getpid())
    # workers leave the working directory off the module path, so that they do not import a user's random.py
    os.environ["PYTHONSAFEPATH"] = "1"
    if not is_supported("replacing dead workers at once", SYMBOLS):
        return
    from circus.sighandler import SysHandler  # a tenth of a second, which workers do not need

    signal.signal(signal.SIGCHLD, _on_child_death)
    SysHandler.quit = lambda handler: handler.controller.loop.add_callback_from_signal(_stop, handler.controller)
    # circus reloads on SIGHUP, which a closed terminal sends: that is a stop, unless `nohup` ignores it
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    SysHandler.handle_hup = (lambda _handler: None) if ignored else SysHandler.handle_term


def end_with_supervisor() -> None:
    """Have this worker end when its supervisor ends: it would keep the port, and never be replaced or stopped."""
    supervisor = os.environ.get(SUPERVISOR, "")
    if not _is_worker() or not supervisor.isdecimal() or int(supervisor) == os.getpid():
        return
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        end_with(parent, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), name="supervisor", daemon=True).start()
    if not is_alive(int(supervisor)):  # it ended before this was in place
        os._exit(1)


def _is_worker() -> bool:
    return bentoml.server_context.worker_index is not None


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def _stop(controller: Any) -> None:
    """Stop, on the supervisor's loop.

    A worker that cannot end (because of SIGSTOP, or a device that hangs) is killed after the time for the whole stop.
    Should this process hang meanwhile, the kernel ends it a moment later, and its workers with it.
    """
    if getattr(controller, "atelier_stopping", False):
        return
    controller.atelier_stopping = True
    bound = settings().grace_s + EXIT_S
    controller.loop.call_later(bound + KILL_S, _kill_remaining, controller.arbiter, bound)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, bound + END_S)
    _quit(controller)


def _kill_remaining(arbiter: Any, bound: float) -> None:
    for watcher in arbiter.iter_watchers():
        for pid in list(watcher.processes):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                log.error("worker %d did not end within %g s and is killed", pid, bound)


def _quit(controller: Any) -> None:
    """Give the command to quit, on the supervisor's loop, until circus is stopping: it does not report a rejection."""
    from circus.client import make_json

    controller.dispatch((None, make_json("quit")))
    if not controller.arbiter._stopping:
        controller.loop.call_later(QUIT_AGAIN_S, _quit, controller)


def _on_child_death(_number: int, _frame: Any) -> None:
    # circus handles SIGTERM with a method of an object that has its controller
    controller = getattr(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), "controller", None)
    if controller is not None:
        controller.loop.add_callback_from_signal(_replace, controller.arbiter, TRIES)


def _replace(arbiter: Any, tries: int) -> None:
    """Replace dead workers, on the supervisor's loop; again in a moment while circus runs another command."""
    from circus.exc import ConflictError

    if arbiter._stopping or all(watcher.is_stopping() or watcher.is_stopped() for watcher in arbiter.iter_watchers()):
        return
    for watcher in arbiter.iter_watchers():
        watcher.respawn = True
        for pid in watcher.processes if tries == TRIES else ():
            _log_death(pid)
    try:
        arbiter.manage_watchers()
    except ConflictError:
        if tries:
            arbiter.loop.call_later(RETRY_S, _replace, arbiter, tries - 1)


def _log_death(pid: int) -> None:
    """Log how a worker ended if a signal ended it; circus collects the exit status, so it is left in place."""
    if not hasattr(os, "waitid"):  # macOS
        return
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    if found is not None and found.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
        number = signal.Signals(found.si_status)
        hint = f"; {SIGNAL_HINTS[number]}" if number in SIGNAL_HINTS else ""
        log.error("worker %d was ended by %s and is replaced%s", pid, number.name, hint)
