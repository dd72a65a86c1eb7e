"""Servers, the load generator wrk and process statistics for the serving benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil

from artifacts.resources import available_cpus
from benchmarks.harness import ROOT

PRESETS = ("cifar10-dcgan", "mnist-dcgan")
NPY, JSON = "application/x-npy", "application/json"
WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "%(accept)s"
local seed = 0
function request()
  seed = seed + %(n)d
  return wrk.format(nil, nil, nil, string.format('%(body)s', %(values)s))
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%%d,"seconds":%%f,"refused":%%d', summary.requests,
    summary.duration / 1e6, e.status))
  io.write(string.format(',"broken":%%d,"closed":%%d,"timed_out":%%d', e.connect + e.write, e.read, e.timeout))
  io.write(string.format(',"p50_ms":%%f,"p99_ms":%%f}\\n',
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def make_generator(preset: str, folder: Path) -> Path:
    """Write the generator file of an untrained preset, which is as fast as a trained one."""
    import torch

    from trainer.config.loading import resolve
    from trainer.networks import build
    from trainer.onnx_export import exporter

    torch.manual_seed(0)
    config = resolve(preset)
    model = exporter.to_onnx(build(config)[0].eval())
    payload = {"counters": {"images_seen": 0}, "created": "2026-01-01T00:00:00+00:00"}
    exporter.set_metadata(model, exporter.build_metadata(config, payload, preset))
    path = folder / f"{preset}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@contextmanager
def server(command: list[str], ready: str, **environment: str) -> Iterator[tuple[int, int, float]]:
    """Start a server on a free port ({port} in `command`).

    Yields:
        Its process id, the port, and the seconds until the path `ready` returned 200.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *(part.format(port=port) for part in command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=1):
                    break
            except (OSError, urllib.error.URLError):
                if process.poll() is not None or time.perf_counter() - began > 90:
                    raise SystemExit(f"{command[-1]}: did not become ready") from None
                time.sleep(0.02)
        yield process.pid, port, time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def atelier(folder: Path, **environment: str) -> Any:
    """Start the service on a folder of generator files."""
    command = ["bentoml", "serve", "service.service:GanAtelier", "--port", "{port}"]
    return server(command, "/readyz", ATELIER_MODEL_DIR=str(folder), **environment)


def wrk(
    port: int,
    clients: int,
    n: int,
    seconds: float,
    accept: str = NPY,
    seeds: bool = False,
) -> dict[str, float]:
    """Request n images per request in a loop, and return wrk's figures.

    Args:
        port: The server's port.
        clients: Connections.
        n: Images per request.
        seconds: Length of the load.
        accept: The requested media type.
        seeds: List the seeds in the body.
    """
    body, values = ('{"seed":%d,"n":' + str(n) + "}", "seed")
    if seeds:
        body, values = '{"seeds":[' + ",".join(["%d"] * n) + "]}", ",".join(f"seed+{i}" for i in range(n))
    fields = {"n": n, "accept": accept, "body": body, "values": values}
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".lua") as script:
        script.write(WRK_SCRIPT % fields)
        script.flush()
        url = f"http://127.0.0.1:{port}/v1/generate"
        options = ["-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "-s", script.name]
        text = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True).stdout
    found = json.loads(text.partition("RESULT ")[2].splitlines()[0])
    return {**found, "images_per_s": (found["requests"] - found["refused"]) * n / found["seconds"]}


def require_wrk() -> None:
    """Exit with code 2 when wrk is missing."""
    if not shutil.which("wrk"):
        print("the load generator wrk is missing; Debian: apt-get install wrk", file=sys.stderr)
        raise SystemExit(2)


def bare_session(path: Path, spinning: bool = False) -> ort.InferenceSession:
    """Return a session with all cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bare_times(session: ort.InferenceSession, batch: int, seconds: float) -> list[float]:
    """Return the seconds of each run of a loop that only runs the session, on random inputs."""
    latents = np.random.default_rng(0).standard_normal((batch, session.get_inputs()[0].shape[1]), np.float32)
    feed = {"latents": latents, "labels": np.zeros(batch, np.int64)}
    feed = {one.name: feed[one.name] for one in session.get_inputs()}
    session.run(None, feed)
    times, end = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        session.run(None, feed)
        times.append(time.perf_counter() - began)
    return times


def bare_rate(session: ort.InferenceSession, batch: int, seconds: float) -> float:
    """Return the images/s of that loop."""
    times = bare_times(session, batch, seconds)
    return len(times) * batch / sum(times)


def tree(root: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    process = psutil.Process(root)
    return [process, *process.children(recursive=True)]


def tree_pss_mb(root: int) -> float:
    """Return the proportional set size of a process and its descendants, MB (10^6 bytes)."""
    return sum(one.memory_full_info().pss for one in tree(root)) / 1e6


def tree_cpu_s(root: int) -> float:
    """Return the processor seconds, user and system, of a process and its descendants."""
    return sum(sum(one.cpu_times()[:2]) for one in tree(root))
