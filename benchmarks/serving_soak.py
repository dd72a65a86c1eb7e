"""Ten minutes of everything at once on a real `bentoml serve`, and whether its memory grows.

    python -m benchmarks.serving_soak [--minutes 10] [--clients 8]

Clients generate (npy, JSON, zip), interpolate (JSON, GIF, WebP), mix, read the image resource, make mistakes of every
kind and hang up in the middle. The processes' anonymous memory is taken every five seconds: growth is the last
fifth's median over that of the fifth after the first. Exit 1: it grew by 2 % or more, or there was a 5xx but 503.
"""

import argparse
import collections
import http.client
import json
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.arguments import file_to_write
from benchmarks.machine import describe
from benchmarks.serving_tools import ROOT, atelier, make_generator, tree_anonymous_mb, write

LIMIT = 1.02


class Client:
    """One connection, opened again when it breaks; counts the answers by kind and status."""

    def __init__(self, port: int, seed: int, counts: collections.Counter[str]):
        self.port, self.random, self.counts = port, random.Random(seed), counts
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, kind: str, method: str, path: str, body: Any = None, accept: str = "*/*") -> None:
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        headers = {"Accept": accept, "Content-Type": "application/json"}
        try:
            self.connection.request(method, path, content, headers)
            answer = self.connection.getresponse()
            answer.read()
            self.counts[f"{kind} {answer.status}"] += 1
        except (OSError, http.client.HTTPException) as error:
            self.counts[f"{kind} {type(error).__name__}"] += 1
            self.connection.close()

    def seed(self) -> int:
        return self.random.randrange(2**53 - 1000)

    def generate(self) -> None:
        accept = self.random.choice(["application/x-npy", "application/json", "application/zip", "image/png"])
        self.ask("generate", "POST", "/v1/generate", {"seed": self.seed(), "n": self.random.randint(1, 32)}, accept)

    def interpolate(self) -> None:
        accept = self.random.choice(["application/json", "image/gif", "image/webp", "image/png"])
        keys = [self.seed() for _ in range(self.random.randint(2, 4))]
        body = {"keyframes": keys, "steps": self.random.randint(2, 12), "loop": self.random.random() < 0.5}
        self.ask("interpolate", "POST", "/v1/interpolate", body, accept)

    def mix(self) -> None:
        terms = [{"seed": self.seed(), "weight": self.random.uniform(-1, 2)} for _ in range(self.random.randint(1, 5))]
        self.ask("mix", "POST", "/v1/mix", {"terms": terms})

    def image(self) -> None:
        form = self.random.choice(["png", "webp"])
        self.ask("image", "GET", f"/v1/models/mnist-dcgan/images/{self.seed()}.{form}")

    def mistake(self) -> None:
        body: Any = self.random.choice(
            [{"n": 10**6}, {"nothing": 1}, {"model": f"no-{self.seed()}"}, {"latents": [[1.0]]}, b"{", b"\xff", []]
        )
        self.ask("mistake", "POST", "/v1/generate", body)
        self.ask("mistake", "GET", f"/nowhere/{self.seed()}")

    def hang_up(self) -> None:
        body = json.dumps({"seed": self.seed(), "n": 64}).encode()
        head = b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=60) as s:
                s.sendall((head % len(body) + body)[: self.random.choice([20, 150, 10**6])])
                time.sleep(self.random.uniform(0, 0.2))
            self.counts["hang up"] += 1
        except OSError as error:
            self.counts[f"hang up {type(error).__name__}"] += 1

    def run(self, over: Callable[[], bool]) -> None:
        kinds = [self.generate, self.interpolate, self.mix, self.image, self.mistake, self.hang_up]
        while not over():
            self.random.choices(kinds, [6, 1, 1, 4, 2, 1])[0]()
        self.connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--output", type=file_to_write, default=ROOT / "benchmarks" / "results" / "serving_soak.json")
    args = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    memory: list[tuple[float, float]] = []
    facts = describe()
    with tempfile.TemporaryDirectory() as folder:
        make_generator("mnist-dcgan", Path(folder))
        with atelier(Path(folder)) as (pid, port, _):
            began = time.monotonic()
            end = began + 60 * args.minutes
            clients = [Client(port, i, counts) for i in range(args.clients)]
            threads = [threading.Thread(target=c.run, args=(lambda: time.monotonic() > end,)) for c in clients]
            for thread in threads:
                thread.start()
            while time.monotonic() < end:
                time.sleep(min(5.0, 60 * args.minutes / 20))
                memory.append((time.monotonic() - began, tree_anonymous_mb(pid)))
                if len(memory) % 12 == 0:
                    print(f"{memory[-1][0]:.0f} s: {memory[-1][1]:.1f} MB, {counts.total()} requests", flush=True)
            for thread in threads:
                thread.join()
    fifth = len(memory) // 5
    early = statistics.median(mb for _, mb in memory[fifth : 2 * fifth])
    late = statistics.median(mb for _, mb in memory[-fifth:])
    broken = {kind: n for kind, n in counts.items() if " 5" in kind and not kind.endswith(" 503")}
    result = {
        "machine": facts,
        "minutes": args.minutes,
        "clients": args.clients,
        "answers": dict(sorted(counts.items())),
        "early_mb": early,
        "late_mb": late,
        "growth": late / early - 1,
        "memory_mb": [[round(t), round(mb, 1)] for t, mb in memory],
    }
    write(args.output, result)
    print(f"{counts.total()} requests; {early:.1f} MB, then {late:.1f} MB: {100 * (late / early - 1):+.2f} %")
    raise SystemExit(1 if late / early >= LIMIT or broken else 0)


if __name__ == "__main__":
    main()
