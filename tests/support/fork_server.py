"""Run commands in processes that are forked from one that has imported torch.

The imports of a training and an export take ten seconds of a core, and tests of the command line start the trainer
often. `python tests/support/fork_server.py` is the server, given its socket, and a client, given the module. A command
has its own process, arguments, environment, folder and streams, and imports our modules itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

IMPORTED = (
    "torch", "torch._dynamo", "torch.onnx", "torch.utils.tensorboard", "lightning_fabric",
    "matplotlib.figure", "onnx", "scipy.stats", "sklearn.datasets",
)  # fmt: skip
# Not onnxruntime: it starts a thread, which a fork does not have, and waits for it at the end.


def run(module: str, *arguments: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `python -m module arguments` in `cwd`, with this process's environment; subprocess.TimeoutExpired."""
    command = [*client(module), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def command(path: Path, module: str) -> None:
    """Write an executable file that runs `python -m module`."""
    path.write_text(f'#!/bin/sh\nexec {shlex.join(client(module))} "$@"\n', encoding="utf-8")
    path.chmod(0o755)


def client(module: str) -> list[str]:
    return [sys.executable, "-IS", __file__, str(_server()), module]


@functools.cache
def _server() -> Path:
    """Start a server that ends with this process; return its socket."""
    # Imported here because the server and its clients run this file without the repository in their path.
    from tests.support.process_cleanup import end_with_parent

    folder = Path(tempfile.mkdtemp(prefix="fork-"))  # short: the path of a socket has at most 107 bytes
    place = folder / "socket"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # which OpenMP reads when torch is imported
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with socket.socket(socket.AF_UNIX) as listening:  # clients may connect before everything is imported
        listening.bind(str(place))
        listening.listen()
        words = [sys.executable, "-P", __file__, str(listening.fileno())]
        process = subprocess.Popen(words, env=environment, pass_fds=[listening.fileno()], preexec_fn=end_with_parent)
    atexit.register(process.kill)
    return place


def _ask(place: str, words: list[str]) -> int:
    """Have the command run on this process's streams, in the client; return its exit code."""
    with socket.socket(socket.AF_UNIX) as to:
        to.connect(place)
        wanted = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109  no pathlib here
        socket.send_fds(to, [json.dumps(wanted).encode() + b"\n"], [0, 1, 2])
        return int(to.makefile().readline())


def _serve(listening: int) -> list[str]:
    """Fork a process for every command, and another that waits for it; return, in the former, the command's words."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes the processes that wait
    with socket.socket(fileno=listening) as server:
        while True:
            asked, _ = server.accept()
            with asked:
                if os.fork():
                    continue
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                message, streams, *_ = socket.recv_fds(asked, 1 << 20, 3)
                while not message.endswith(b"\n"):
                    message += asked.recv(1 << 20)
                worker = os.fork()
                if not worker:
                    asked.close()
                    return _become(json.loads(message), streams)
                _wait(asked, worker)
                os._exit(0)


def _wait(asked: socket.socket, worker: int) -> None:
    """Send the worker's exit code to the client; end the worker if the client is gone."""
    ended = os.pidfd_open(worker)
    ready, _, _ = select.select([asked, ended], [], [])
    if ended not in ready:
        os.kill(worker, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        asked.sendall(f"{code}\n".encode())


def _become(wanted: dict[str, Any], streams: list[int]) -> list[str]:
    """Take the place of the client; return the command's words."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (  # the server's own are other files
        open(number, mode, buffering=1, closefd=False, errors=errors)  # noqa: SIM115
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    paths = os.environ.get("PYTHONPATH", "")
    sys.path[:0] = [wanted["folder"], *filter(None, paths.split(os.pathsep))]
    return list(wanted["words"])


def main() -> None:
    place, *words = sys.argv[1:]
    if words:
        raise SystemExit(_ask(place, words))
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy the pages that it touches
    sys.argv = _serve(int(place))
    code: object = 0
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # tearing down torch takes as long as some commands


if __name__ == "__main__":
    main()
