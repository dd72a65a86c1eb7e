"""Commands of this repository, shown before they run, and a service started for as long as an example needs it."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from artifacts.processes import child_environment, python_module

START_S = 600  # many generators are measured one after another as they are loaded


def run(module: str, *words: object) -> None:
    """Show a command and run it. Raises SystemExit with its exit code when it fails."""
    print(f"\n$ {shlex.join([module, *map(str, words)])}", flush=True)
    command = [*python_module(module), *map(str, words)]
    if code := subprocess.run(command, env=child_environment(), check=False).returncode:
        raise SystemExit(code)


@contextlib.contextmanager
def service(models: Path, log: Path) -> Iterator[str]:
    """The address of a running service of the generators in `models`, on a free port; stopped at the end.

    Raises SystemExit with the end of its log when it does not become ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = ["serve", "--host", "127.0.0.1", "--port", str(port)]
    print(f"\n$ MODEL_DIR={shlex.quote(str(models))} {shlex.join(['python', '-m', 'service', *words])} &", flush=True)
    environment = child_environment() | {"MODEL_DIR": str(models)}
    command, started = [*python_module("service"), *words], time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not is_ready(url):
                if process.poll() is not None or time.monotonic() - started > START_S:
                    tail = log.read_text(encoding="utf-8")[-2000:]
                    raise SystemExit(f"the service did not start; its log is {log}:\n{tail}")
                time.sleep(0.1)
            print(f"ready after {time.monotonic() - started:.1f} s: {url}", flush=True)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
