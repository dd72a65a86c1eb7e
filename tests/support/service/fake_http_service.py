"""An HTTP server that answers the Python client as a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
DIGEST = "d" * 64
MODELS = {"default": "tiny", "data": [{"name": "tiny", "digest": DIGEST}, {"name": "other", "digest": DIGEST}]}


@contextmanager
def service(
    answer: Callable[[str, Any], Answer | None], port: int = 0, seen: Callable[[Any], None] = lambda headers: None
) -> Iterator[str]:
    """A server whose POST answers are `answer(path, body)`; None hangs up. /v1/models answers as ours does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen(self.headers)
            self._send(
                answer("GET " + self.path, None)
                or (200, {"Content-Type": "application/json"}, json.dumps(MODELS).encode())
            )

        def do_POST(self) -> None:
            seen(self.headers)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reported = answer(self.path, body)
            if reported is None:
                self.close_connection = True
            else:
                self._send(reported)

        def _send(self, reported: Answer) -> None:
            status, headers, content = reported
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
