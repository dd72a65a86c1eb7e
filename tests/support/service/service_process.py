"""A real `bentoml serve`, for claims that no client within the process can test."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.paths import ROOT
from tests.support.process_cleanup import end_with_parent

SERVICE = "service.service:GanAtelier"


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def workers(self) -> list[int]:
        """The workers' process ids."""

        def works(child: psutil.Process) -> bool:
            try:
                return child.status() != psutil.STATUS_ZOMBIE and "--fd" in child.cmdline()
            except psutil.NoSuchProcess:  # it ended since the list was made
                return False

        return [child.pid for child in psutil.Process(self.process.pid).children() if works(child)]

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address)
        connection.settimeout(20)
        return connection

    def ask(self, raw: bytes) -> bytes:
        """Return what the service answers to these bytes until it closes the connection; TimeoutError after 20 s."""
        with self.connect() as connection:
            connection.sendall(raw)
            return everything(connection)


def everything(connection: socket.socket) -> bytes:
    body = b""
    try:
        while part := connection.recv(65536):
            body += part
    except ConnectionError:
        pass
    return body


def listening_hosts(pid: int) -> set[str]:
    """The addresses on which a process accepts connections."""
    opened = psutil.Process(pid).net_connections("tcp")
    return {connection.laddr.ip for connection in opened if connection.status == psutil.CONN_LISTEN}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def served(models: Path, log: Path | None = None, files: int | None = None, **settings: Any) -> Iterator[Server]:
    """`bentoml serve` on `models`, its log in the file `log`. `files`: the most file descriptors a process may have."""
    log = log or models / "serve.log"
    env = {**os.environ, "ATELIER_MODEL_DIR": str(models), **{k: str(v) for k, v in settings.items()}}
    with running(SERVICE, free_port(), log, env, files=files) as server:
        yield server


@contextmanager
def running(
    what: str, port: int, log: Path, env: dict[str, str], cwd: Path = ROOT, files: int | None = None
) -> Iterator[Server]:
    """`bentoml serve WHAT`, ready, until the block ends; its log goes on where that file ends."""
    command = [sys.executable, "-P", "-m", "bentoml", "serve", what, "--port", str(port)]
    if files is not None:
        command = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "-", *command]
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=out, preexec_fn=end_with_parent)
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            until_ready(server)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def until_ready(server: Server, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        assert server.process.poll() is None, server.log
        assert time.monotonic() < end, server.log
        try:
            if httpx.get(f"{server.url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
