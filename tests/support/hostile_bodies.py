"""Send bodies of 4 MiB that are slow to parse, and report what each costs the service.

    python -m tests.support.hostile_bodies [--folder models] [--bytes 4194304]

For each shape of body: the status, the longest that another client's /livez took meanwhile (the stall of the event
loop), the worker's processor time, and by how much its peak memory grew. Exit 1: a body cost more than 0.5 s of the
loop or 100 MB.
"""

import argparse
import http.client
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, at_least_one, describe_machine, file_to_write, write
from benchmarks.servers import atelier

MAX_STALL_S, MAX_MB = 0.5, 100.0
VALUES = 2**18 - 64  # just within the service's bound, where parsing costs the most
LISTED, KEYS = 2**16, 2**14 - 64

GENERATE, INTERPOLATE, MIX = "/v1/generate", "/v1/interpolate", "/v1/mix"
NATIVE = "/v1/native/generate"


def filled(start: bytes, item: bytes, end: bytes, size: int, most: int | None = None) -> bytes:
    """Repeat `item`, with commas between, until the body has `size` bytes; from `most` items on, fill with spaces."""
    count = (size - len(start) - len(end)) // (len(item) + 1)
    if most is not None:
        count = max(1, min(count, most))
    body = start + b",".join([item] * count) + end
    return body + b" " * (size - len(body))


def keyed(start: bytes, end: bytes, size: int, most: int | None = None) -> bytes:
    """Fill an object with distinct keys."""
    count = (size - len(start) - len(end)) // 12
    if most is not None:
        count = min(count, most)
    body = start + b",".join(b'"%07x":1' % i for i in range(count)) + end
    return body + b" " * (size - len(body))


LISTS: dict[str, tuple[str, bytes, bytes, bytes]] = {
    "seeds: empty texts": (GENERATE, b'{"seeds":[', b'""', b"]}"),
    "seeds: ones": (GENERATE, b'{"seeds":[', b"1", b"]}"),
    "seeds: whole floats": (GENERATE, b'{"seeds":[', b"1.0", b"]}"),
    "seeds: halves": (GENERATE, b'{"seeds":[', b"0.5", b"]}"),
    "seeds: null": (GENERATE, b'{"seeds":[', b"null", b"]}"),
    "seeds: lists": (GENERATE, b'{"seeds":[', b"[]", b"]}"),
    "seeds: objects": (GENERATE, b'{"seeds":[', b"{}", b"]}"),
    "seeds: objects with a key": (GENERATE, b'{"seeds":[', b'{"":0}', b"]}"),
    "seeds: 4000 digits each": (GENERATE, b'{"seeds":[', b"9" * 4000, b"]}"),
    "seeds: 150 lists deep": (GENERATE, b'{"seeds":[', b"[" * 150 + b"]" * 150, b"]}"),
    "latents: rows of one": (GENERATE, b'{"latents":[', b"[0]", b"]}"),
    "latents: empty rows": (GENERATE, b'{"latents":[', b"[]", b"]}"),
    "latents: one wide row": (GENERATE, b'{"latents":[[', b"0", b"]]}"),
    "latents: one wide row of 16 digits": (GENERATE, b'{"latents":[[', b"0.1234567890123456", b"]]}"),
    "latents: out of range": (GENERATE, b'{"latents":[[', b"1e9", b"]]}"),
    "latents: texts": (GENERATE, b'{"latents":[[', b'""', b"]]}"),
    "labels: empty texts": (GENERATE, b'{"labels":[', b'""', b"]}"),
    "keyframes: ones": (INTERPOLATE, b'{"keyframes":[', b"1", b"]}"),
    "keyframes: latents": (INTERPOLATE, b'{"keyframes":[', b"[1]", b"]}"),
    "keyframes: empty lists": (INTERPOLATE, b'{"keyframes":[', b"[]", b"]}"),
    "keyframes: objects": (INTERPOLATE, b'{"keyframes":[', b"{}", b"]}"),
    "keyframes: seeds": (INTERPOLATE, b'{"keyframes":[', b'{"seed":1}', b"]}"),
    "keyframes: unknown keys": (INTERPOLATE, b'{"keyframes":[', b'{"a":1}', b"]}"),
    "keyframes: a wide latent": (INTERPOLATE, b'{"keyframes":[1,{"latent":[', b"0", b"]}]}"),
    "terms: objects": (MIX, b'{"terms":[', b"{}", b"]}"),
    "terms: seeds": (MIX, b'{"terms":[', b'{"seed":1}', b"]}"),
    "the same key": (GENERATE, b"{", b'"seed":1', b"}"),
    "the same unknown key": (GENERATE, b"{", b'"a":1', b"}"),
    "native: empty texts": (NATIVE, b'{"seeds":[', b'""', b"]}"),
    "native: ones": (NATIVE, b'{"seeds":[', b"1", b"]}"),
    "native: one wide row": (NATIVE, b'{"latents":[[', b"0", b"]]}"),
}


def bodies(size: int) -> dict[str, tuple[str, bytes]]:
    """Return the route and the body of each shape; lists twice, as long as can be and just within the bounds."""
    made: dict[str, tuple[str, bytes]] = {}
    for name, (route, start, item, end) in LISTS.items():
        values = 1 + sum(item.count(sign) for sign in (b",", b"[", b"{"))
        most = VALUES // values
        for sign, limit in ((b"[", LISTED), (b":", KEYS)):
            most = min(most, limit // max(1, item.count(sign))) if sign in item else most
        made[name] = route, filled(start, item, end, size)
        made[f"{name}, within the bounds"] = route, filled(start, item, end, size, most)
    for name, route, start, end in (
        ("unknown keys", GENERATE, b"{", b"}"),
        ("unknown keys of a keyframe", INTERPOLATE, b'{"keyframes":[1,{', b"}]}"),
        ("unknown keys of a term", MIX, b'{"terms":[{', b"}]}"),
    ):
        made[name] = route, keyed(start, end, size)
        made[f"{name}, within the bounds"] = route, keyed(start, end, size, KEYS)
    wrong = b",".join([b'""'] * (VALUES // 4))
    whole = {
        "four lists wrong": b'{"seeds":[%b],"labels":[%b],"latents":[%b],"n":[%b]}' % (wrong, wrong, wrong, wrong),
        "lists without end": b'{"seeds":' + b"[" * (size - 9),
        "objects without end": b'{"a":' * (size // 5),
        "spaces": b'{"seed":' + b" " * (size - 10) + b"1}",
        "commas": b'{"seed":' + b"," * (size - 10) + b"1}",
        "an integer": b'{"seed":' + b"1" * (size - 9) + b"}",
        "a fraction": b'{"truncation":0.' + b"1" * (size - 17) + b"}",
        "an exponent": b'{"truncation":1e' + b"1" * (size - 17) + b"}",
        "a key": b'{"' + b"a" * (size - 6) + b'":1}',
        "a text": b'{"model":"' + b"a" * (size - 12) + b'"}',
        "a text of commas": b'{"model":"' + b"," * (size - 12) + b'"}',
        "a text of escapes": b'{"model":"' + b"\\u0061" * ((size - 12) // 6) + b'"}',
        "a text of surrogates": b'{"model":"' + b"\\ud83d\\ude00" * ((size - 12) // 12) + b'"}',
        "a text of 4-byte characters": b'{"model":"' + "\U0001f600".encode() * ((size - 12) // 4) + b'"}',
        "not UTF-8 at its end": b'{"model":"' + b"a" * (size - 13) + b'\xff"}',
    }
    return made | {name: (GENERATE, body) for name, body in whole.items()}


def _worker(pid: int) -> int:
    """The process with the most memory of a server's process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    family, todo = [], [pid]
    while todo:
        family.append(todo.pop())
        todo += children.get(family[-1], [])
    return max(family, key=lambda each: _memory_mb(each, "VmRSS"))


def _memory_mb(pid: int, what: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), 0.0)


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Probe:
    """Another client, which requests /livez again and again: `worst` is the longest that an answer took."""

    def __init__(self, port: int):
        self.worst = 0.0
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            began = time.perf_counter()
            self._connection.request("GET", "/livez")
            self._connection.getresponse().read()
            self.worst = max(self.worst, time.perf_counter() - began)

    def end(self) -> float:
        self._stop.set()
        self._thread.join()
        self._connection.close()
        return self.worst


def cost(pid: int, port: int, send: Callable[[http.client.HTTPConnection], int]) -> dict[str, Any]:
    """Send one request and measure what it costs the worker `pid`."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")  # the peak of memory starts again
    memory, processor = _memory_mb(pid, "VmRSS"), _processor_s(pid)
    probe = _Probe(port)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    began = time.perf_counter()
    try:
        status: int | str = send(connection)
    except OSError as error:
        status = type(error).__name__
    took = time.perf_counter() - began
    connection.close()
    return {
        "status": status,
        "took_s": took,
        "stall_s": probe.end(),
        "processor_s": _processor_s(pid) - processor,
        "peak_mb": _memory_mb(pid, "VmHWM") - memory,
    }


def measure(pid: int, port: int, size: int) -> list[dict[str, Any]]:
    """Send each body twice and keep the run with the shorter stall, as other processes may have caused the longer."""
    worker, costs = _worker(pid), []
    for name, (route, body) in bodies(size).items():

        def send(connection: http.client.HTTPConnection, route: str = route, body: bytes = body) -> int:
            connection.request("POST", route, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status

        found = min((cost(worker, port, send) for _ in range(2)), key=lambda each: float(each["stall_s"]))
        costs.append({"body": name, "route": route, **found})
        print(
            f"{name:52} {found['status']}  stall {found['stall_s']:6.3f} s  processor {found['processor_s']:6.2f} s  "
            f"peak {found['peak_mb']:7.1f} MB",
            flush=True,
        )
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder of generator files; default: the bundled one")
    parser.add_argument("--bytes", type=at_least_one, default=4 * 2**20, help="bytes of each body")
    parser.add_argument("--output", type=file_to_write, default=ROOT / "benchmarks" / "results" / "hostile_bodies.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((args.folder or ROOT / "service" / "bundled").glob("*.onnx")):
            shutil.copy(path, folder)
        with atelier(Path(folder), ATELIER_ACCESS_LOG="off") as (pid, port, _):
            costs = measure(pid, port, args.bytes)
    worst = {what: max(costs, key=lambda each: float(each[what])) for what in ("stall_s", "peak_mb")}
    for what, found in worst.items():
        print(f"worst {what}: {found[what]:.3g} ({found['body']})")
    write(args.output, {"machine": describe_machine(), "bytes": args.bytes, "bodies": costs})
    if worst["stall_s"]["stall_s"] > MAX_STALL_S or worst["peak_mb"]["peak_mb"] > MAX_MB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
