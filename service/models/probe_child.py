"""Tries model files before a worker loads them, as a process: `python -P probe_child.py`.

It reads one request per line from its standard input and forks a child for each, which reads, checks and runs the
file. Whatever a file does there (crash, loop, take all memory) becomes a verdict, one line of JSON on the standard
output. The process ends with its standard input, so it never outlives the worker.
"""

import importlib
import json
import os
import resource
import selectors
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

PARALLEL_TRIALS = 2  # without the slow ones
SLOW_S = 5.0  # after which the others no longer wait for a trial; slow ones continue one at a time
MEASURE_S = 5.0  # for measuring larger batches
REPLY_BYTES = 2**20


class Trial:
    """One forked child: its process, the pipe of its verdict, and the time by which it has to end."""

    def __init__(self, request: dict[str, Any]):
        self.request, self.began, self.reply = request, time.monotonic(), b""
        self.slow = self.late = self.retry = False
        self.pipe, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            _run_child(request, writing)
        os.close(writing)

    @property
    def end(self) -> float:
        """The time by which the trial has to end."""
        return self.began + float(self.request["timeout_s"])

    def verdict(self, status: int) -> dict[str, Any]:
        """Return the verdict of a child that ended with this wait status."""
        if self.late:
            seconds = self.request["timeout_s"]
            return rejection(f"it was not loaded and run within {seconds:g} s (ATELIER_LOAD_TIMEOUT_S)")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU:
                return rejection("it was not loaded and run within its processor time (ATELIER_LOAD_TIMEOUT_S)")
            name = signal.Signals(number).name
            hint = ", as when memory runs out" if number in (signal.SIGKILL, signal.SIGABRT) else ""
            return rejection(f"loading it ends the process with {name}{hint}; it is not loaded again until it changes")
        try:
            found = json.loads(self.reply)
            return found if isinstance(found, dict) else rejection("loading it ends the process")
        except ValueError:
            return rejection(f"loading it ends the process with exit code {os.waitstatus_to_exitcode(status)}")


def rejection(reason: str) -> dict[str, Any]:
    """Return the verdict on a file that cannot be loaded."""
    return {"ok": False, "reason": reason}


def main() -> None:
    """Try files until the standard input ends."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    # forked children find everything imported; nothing here starts a thread (see `environment` in probe.py)
    for name in ("onnx.compose", "onnx.version_converter", "service.models.served_model", "onnxruntime"):
        importlib.import_module(name)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C at a terminal is for the supervisor
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    waiting: deque[dict[str, Any]] = deque()
    slow: deque[dict[str, Any]] = deque()  # not finished within SLOW_S, to be tried again
    trials: dict[int, Trial] = {}
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    unread = b""
    try:
        while True:
            for key, _ in selector.select(0.1 if trials else None):
                if key.fd == woken:
                    with suppress(BlockingIOError):
                        os.read(woken, 4096)
                elif key.fd == 0:
                    if not (part := os.read(0, 65536)):
                        return
                    *lines, unread = (unread + part).split(b"\n")
                    waiting.extend(json.loads(line) for line in lines)
                elif len(key.data.reply) < REPLY_BYTES:
                    key.data.reply += os.read(key.fd, 65536)
            for trial in list(trials.values()):
                _watch(trial, selector, trials, slow)
            running_slow = sum(trial.slow for trial in trials.values())
            while waiting and len(trials) - running_slow < PARALLEL_TRIALS:
                _start(waiting.popleft(), selector, trials)
            if slow and not running_slow:
                _start(slow.popleft(), selector, trials).slow = True
    finally:
        for pid in trials:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def send(message: dict[str, Any], descriptor: int = 1) -> None:
    """Write one line of JSON, by default to the worker."""
    content = json.dumps(message).encode() + b"\n"
    while content:
        content = content[os.write(descriptor, content) :]


def _start(request: dict[str, Any], selector: selectors.BaseSelector, trials: dict[int, Trial]) -> Trial:
    trial = Trial(request)
    trials[trial.pid] = trial
    selector.register(trial.pipe, selectors.EVENT_READ, trial)
    return trial


def _watch(
    trial: Trial, selector: selectors.BaseSelector, trials: dict[int, Trial], slow: deque[dict[str, Any]]
) -> None:
    """Send the verdict of a trial that has ended, end one whose time is over, or mark one as slow."""
    now = time.monotonic()
    pid, status = os.waitpid(trial.pid, os.WNOHANG)
    if pid:
        os.set_blocking(trial.pipe, False)
        with suppress(BlockingIOError):
            while len(trial.reply) < REPLY_BYTES and (part := os.read(trial.pipe, 65536)):
                trial.reply += part
        selector.unregister(trial.pipe)
        os.close(trial.pipe)
        del trials[trial.pid]
        if trial.retry and os.WIFSIGNALED(status):
            slow.append(trial.request)
        else:
            send({"id": trial.request["id"], "verdict": trial.verdict(status)})
    elif now > trial.end:
        trial.late = True
        os.kill(trial.pid, signal.SIGKILL)
    elif not trial.slow and not trial.retry and now > trial.began + SLOW_S:
        send({"id": trial.request["id"], "slow": True})
        if any(other.slow for other in trials.values()):
            trial.retry = True
            os.kill(trial.pid, signal.SIGKILL)
        else:
            trial.slow = True
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, trial.pid, 10)


def _run_child(request: dict[str, Any], writing: int) -> None:
    """Try the file in the forked child; never return."""
    try:
        signal.set_wakeup_fd(-1)
        _limit(request)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # ONNX Runtime prints; the worker reads verdicts there
            os.dup2(nothing, descriptor)
        try:
            verdict = try_file(request)
        except MemoryError:
            verdict = rejection(out_of_memory(request))
        send(verdict, writing)
    finally:
        os._exit(0)


def _limit(request: dict[str, Any]) -> None:
    """Have the kernel limit memory and processor time, forbid writing files, and end this process with its parent."""
    from artifacts.processes import be_killed_first, end_with

    end_with(os.getppid(), signal.SIGKILL)
    be_killed_first()
    seconds = int(request["timeout_s"] * max(1, request["threads"])) + 5
    bounds = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, seconds),
        # of what is written only: address space that is reserved and never used (threads' stacks, arenas) is free
        (resource.RLIMIT_DATA, written_memory() + int(request["memory_bytes"])),
    ]
    for what, bound in bounds:
        with suppress(OSError, ValueError):
            hard = resource.getrlimit(what)[1]
            bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
            resource.setrlimit(what, (bound, bound))


def written_memory() -> int:
    """Return the bytes of writable private memory that count against RLIMIT_DATA now."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmData:"):
                return 1024 * int(line.split()[1])
    return 0


def resident_memory() -> int:
    """Return the bytes of physical memory that this process uses."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except (OSError, ValueError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def out_of_memory(request: dict[str, Any]) -> str:
    """Return the reason for rejecting a file that needs too much memory."""
    megabytes = int(request["memory_bytes"]) >> 20
    return f"loading and running it takes more than {megabytes} MiB of memory (ATELIER_MAX_LOAD_BYTES)"


def try_file(request: dict[str, Any]) -> dict[str, Any]:
    """Read, check and run a file as a worker will, and return the verdict."""
    from artifacts.generator_file import ContractError
    from artifacts.onnx_metadata import onnx_error_message
    from service.models.model_files import UnreadableFileError, file_signature, read_model_bytes, validate_model
    from service.models.session import Runtime, Session

    path = Path(os.fsdecode(bytes.fromhex(request["path"])))
    wanted = tuple(request["signature"])
    try:
        if file_signature(path) != wanted:
            return {"ok": False, "changed": True}
        content = read_model_bytes(path, request["max_bytes"])
        if file_signature(path) != wanted:
            return {"ok": False, "changed": True}
        model = validate_model(path, content)
        del content
        runtime = Runtime(request["threads"], request["max_batch"])
        session = Session(model.content, runtime, model.batch)
        rows, heavy = largest_batch(session, model.metadata, request["max_batch"], request["batch_bytes"])
    except UnreadableFileError as error:
        return {"ok": False, "reason": str(error), "unreadable": True}
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, ContractError) else onnx_error_message(error)
        if memory_is_short(reason):
            return rejection(out_of_memory(request))
        if not isinstance(error, ContractError):
            reason = f"ONNX Runtime does not run it: {reason}"
        return rejection(reason.encode("utf-8", "backslashreplace").decode())
    height, width, channels = model.metadata.image_shape
    return {"ok": True, "shape": [channels, height, width], "rows": rows, "heavy": heavy}


def memory_is_short(reason: str) -> bool:
    """Return whether an error's message reports that memory could not be allocated."""
    return any(
        words in reason
        for words in ("bad_alloc", "allocate memory", "llocation failed", "able to allocate", "Cannot allocate")
    )


def largest_batch(session: Any, metadata: Any, max_batch: int, batch_bytes: int) -> tuple[int, bool]:
    """Find how many rows one batch may have, by running them.

    Args:
        session: The model's session.
        metadata: The metadata that its images have to match.
        max_batch: The most rows to allow.
        batch_bytes: The memory that a batch may take.

    Returns:
        The rows, at least 1, and whether even one row takes more than `batch_bytes`.

    Raises:
        ContractError: If the images are not those that the metadata promises.
    """
    from service.models.served_model import check_run

    before, began = resident_memory(), time.perf_counter()
    check_run(session, metadata, 1, 0)
    seconds = time.perf_counter() - began
    check_run(session, metadata, 1, max(0, metadata.num_classes - 1))
    pixels = metadata.height * metadata.width * metadata.channels
    # the output exists as floats and as bytes, however little of it the system counts as resident
    each = max(resident_memory() - before, 5 * pixels)
    if session.sizes:  # a graph of one batch size: larger batches run in parts, and only their images add up
        return min(max_batch, max(1, batch_bytes // pixels)), each > batch_bytes
    heavy, tested, most = each > batch_bytes, 1, max_batch
    for _ in range(3):
        rows = min(most, max(1, batch_bytes // each))
        trying = min(rows, max(1, int(MEASURE_S / max(seconds, 1e-6))))
        if trying <= tested:
            break
        try:
            began = time.perf_counter()
            check_run(session, metadata, trying, 0)
            seconds = (time.perf_counter() - began) / trying
        except Exception as error:
            if not (isinstance(error, MemoryError) or memory_is_short(str(error))):
                raise
            most = max(1, trying // 2)
            continue
        tested = trying
        each = max((resident_memory() - before) // trying, 5 * pixels)
    return min(most, max(1, batch_bytes // each)), heavy


if __name__ == "__main__":
    main()
