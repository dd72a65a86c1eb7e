"""A stand-in for the service, whose images are computed by a function."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


@contextmanager
def fake_service(
    make: Any,
    *,
    shape: tuple[int, int, int] = (8, 8, 1),
    fail_after: int | None = None,
    change_after: int | None = None,
    away_after: int | None = None,
    away_s: float = 0.0,
    result: dict[str, Any] | None = None,
    models: bytes | None = None,
    key: str | None = None,
) -> Iterator[str]:
    """A service whose image of a seed is make(seed); after so many answers it dies, changes its model, or is away:
    for half of `away_s` it hangs up on everyone, for the other half it answers 503. `result` are further fields of its
    model, or others; `models` is all of its answer about them, `key` what it asks for."""
    answered = {"n": 0}
    left: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def _answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def _known(self) -> bool:
            if key is None or self.headers["Authorization"] == f"Bearer {key}":
                return True
            error = {"type": "authentication_error", "code": "missing_key", "message": "a key is needed", "param": None}
            self._answer(401, "application/json", json.dumps({"error": error}).encode())
            return False

        def do_GET(self) -> None:
            if not self._known():
                return
            entry = {"name": "tiny", "digest": "a" * 64} | dict(
                zip(("height", "width", "channels"), shape, strict=True)
            )
            listing = json.dumps({"default": "tiny", "data": [entry | (result or {})]}).encode()
            self._answer(200, "application/json", listing if models is None else models)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._known():
                return
            seeds = asked.get("seeds") or list(range(asked["seed"], asked["seed"] + asked["n"]))
            answered["n"] += 1
            if away_after is not None and answered["n"] > away_after:
                left.append(time.monotonic())
                if left[-1] - left[0] < away_s / 2:
                    self.close_connection = True
                    return
                if left[-1] - left[0] < away_s:
                    error = {"type": "server_error", "code": "not_ready", "message": "loading", "param": None}
                    self._answer(503, "application/json", json.dumps({"error": error}).encode())
                    return
            if fail_after is not None and answered["n"] > fail_after:
                error = {"type": "server_error", "code": "internal", "message": "it broke", "param": None}
                self._answer(500, "application/json", json.dumps({"error": error}).encode())
                return
            buffer = io.BytesIO()
            np.save(buffer, np.stack([make(seed) for seed in seeds]))
            changed = change_after is not None and answered["n"] > change_after
            self._answer(
                200,
                "application/x-npy",
                buffer.getvalue(),
                Atelier_Model="tiny",
                Atelier_Digest=("b" if changed else "a") * 64,
                Atelier_Seeds=f"{seeds[0]}-{seeds[-1]}",
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 1), dtype=np.uint8)
