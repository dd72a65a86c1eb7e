"""The process above the workers: it learns of a worker's death at once.

`bentoml serve` supervises by circus, which looks after its workers every 10 s, and in a container (where BentoML
leaves restarts to the orchestrator) never replaces one of several that died. The kernel tells of a child's death
by SIGCHLD, so that is when to look.

Circus also refuses one command while another runs, and so drops a SIGTERM that comes while it replaces a worker or
starts them: here it is given again until it is taken.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import bentoml

from artifacts.processes import is_alive
from service.server.shutdown import LAST_S
from service.settings import settings

log = logging.getLogger("bentoml.atelier")

# what a signal that ended a worker most often means, and what to do
MEANS = {
    signal.SIGKILL: "if the memory limit did that, raise it or lower ATELIER_MAX_LOADED_BYTES, ATELIER_MAX_BATCH or "
    "ATELIER_WORKERS",
    signal.SIGILL: "this processor lacks an instruction that the packages were built for",
}
TRIES = 5
AGAIN_S = 0.05
SUPERVISOR = "ATELIER_SUPERVISOR"  # not a setting: the supervisor's process id, for its workers
PR_SET_PDEATHSIG = 1
LOOK_S = 1.0
KILL_S, END_S = 1.0, 10.0  # after a worker should have ended: it is killed; the supervisor ends, and with it all


def watch_workers() -> None:
    """Have whatever circus arbiter comes to run in this process replace dead workers at once, and heed every stop.

    Harmless in a process that supervises nothing, or where another handler is in place; nothing is done in a worker.
    """
    ours = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    if ours and bentoml.server_context.worker_index is None and signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL:
        from circus.sighandler import SysHandler  # a tenth of a second that a worker does without

        os.environ[SUPERVISOR] = str(os.getpid())
        signal.signal(signal.SIGCHLD, _child_died)
        SysHandler.quit = lambda handler: handler.controller.loop.add_callback_from_signal(_stop, handler.controller)
        # circus reloads on SIGHUP, which a lost terminal or connection sends: that is a stop, unless `nohup` ignores it
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        SysHandler.handle_hup = (lambda handler: None) if ignored else SysHandler.handle_term
        # workers leave the working directory off the module path: a user's random.py in it is not theirs
        os.environ["PYTHONSAFEPATH"] = "1"


def end_with_supervisor() -> None:
    """Have the kernel end this worker when its supervisor ends: without one it would hold the port, and never be
    replaced or stopped. Nothing is done in the supervisor itself.
    """
    told = os.environ.get(SUPERVISOR, "")
    if bentoml.server_context.worker_index is None or not told.isdecimal() or int(told) == os.getpid():
        return
    supervisor, parent = int(told), os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), name="supervisor", daemon=True).start()
    if os.getppid() != parent or not is_alive(supervisor):  # it ended before this was in place
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


def _stop(controller: Any) -> None:
    """On the supervisor's loop, at a signal to stop. A worker that cannot end by itself (it is stopped by SIGSTOP, or
    waits for a device) is killed after the time for the whole stop; and should this process hang meanwhile, the kernel
    ends it a moment later, and its workers with it.
    """
    if getattr(controller, "atelier_stopping", False):
        return
    controller.atelier_stopping = True
    bound = settings().grace_s + LAST_S
    controller.loop.call_later(bound + KILL_S, _kill_left, controller.arbiter, bound)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, bound + END_S)
    _quit(controller)


def _kill_left(arbiter: Any, bound: float) -> None:
    for watcher in arbiter.iter_watchers():
        for pid in list(watcher.processes):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                log.error("worker %d did not end within %g s and is killed", pid, bound)


def _quit(controller: Any) -> None:
    """On the supervisor's loop. Circus says to nobody that it refused: it is asked whether it is stopping."""
    from circus.client import make_json

    controller.dispatch((None, make_json("quit")))
    if not controller.arbiter._stopping:
        controller.loop.call_later(AGAIN_S, _quit, controller)


def _child_died(number: int, frame: Any) -> None:
    # circus handles SIGTERM by a method of an object that knows its controller
    controller = getattr(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), "controller", None)
    if controller is not None:
        controller.loop.add_callback_from_signal(_replace, controller.arbiter, TRIES)


def _replace(arbiter: Any, tries: int) -> None:
    """On the supervisor's loop. Circus refuses while another of its commands runs: then a moment later."""
    from circus.exc import ConflictError

    if arbiter._stopping or all(watcher.is_stopping() or watcher.is_stopped() for watcher in arbiter.iter_watchers()):
        return  # they were told to end
    for watcher in arbiter.iter_watchers():
        watcher.respawn = True
        for pid in watcher.processes if tries == TRIES else ():
            _tell(pid)
    try:
        arbiter.manage_watchers()
    except ConflictError:
        if tries:
            arbiter.loop.call_later(0.2, _replace, arbiter, tries - 1)


def _tell(pid: int) -> None:
    """Log how a worker ended, if by a signal. Circus reaps it: here it is only looked at."""
    if not hasattr(os, "waitid"):  # macOS
        return
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    if found is not None and found.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
        number = signal.Signals(found.si_status)
        means = f"; {MEANS[number]}" if number in MEANS else ""
        log.error("worker %d was ended by %s and is replaced%s", pid, number.name, means)
