"""How much of a bare ONNX Runtime loop is left behind HTTP, on the same cores in the same run.

    python benchmarks/serving.py [models/mnist-dcgan.onnx]

Starts a real `bentoml serve` on one generator file; measures its time to readiness and its memory; then takes turns,
round by round, between a bare loop at its best batch size and spinning and clients that ask for raw uint8 images. The
medians' ratio goes to benchmarks/results/serving.json with the machine's description. wrk drives the load where it
is installed (Debian: `apt-get install wrk`), else a small client in this file, which is slower and says so.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

ROOT = Path(__file__).resolve().parent.parent
GENERATORS = (ROOT / "models" / "mnist-dcgan.onnx", *sorted((ROOT / "service" / "bundled").glob("*.onnx")))
CORES = len(os.sched_getaffinity(0))
WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/x-npy"
local seed = 0
request = function()
  seed = seed + %(n)d
  return wrk.format(nil, nil, nil, string.format('{"seed":%%d,"n":%(n)d}', seed))
end
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(folder: Path, port: int) -> tuple[subprocess.Popen[bytes], float]:
    """A served folder of generator files, and the seconds until /readyz said yes."""
    command = [sys.executable, "-m", "bentoml", "serve", "service.service:GanAtelier", "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "ATELIER_MODEL_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while time.perf_counter() - began < 60:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return process, time.perf_counter() - began
        except (OSError, urllib.error.URLError):
            time.sleep(0.02)
    raise SystemExit("the service did not become ready within 60 s")


def tree(root: int) -> set[int]:
    """A process and all its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def tree_pss_mb(root: int) -> float:
    """Proportional set size of a process and all its descendants, MB (10^6 bytes)."""
    total = 0
    for pid in tree(root):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE).group(1))  # type: ignore[union-attr]
    return total * 1024 / 1e6


def tree_cpu_s(root: int) -> float:
    """Processor seconds, user and system, that a process and its descendants have used."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in tree(root)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


def bare_session(path: Path, spinning: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = CORES
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bare_rate(session: ort.InferenceSession, props: dict[str, str], batch: int, seconds: float) -> float:
    """Images a second of a loop that does nothing but run."""
    rng = np.random.default_rng(0)
    feed = {"latents": rng.standard_normal((batch, int(props["z_dim"]))).astype(np.float32)}
    if classes := len(json.loads(props["class_names"])):
        feed["labels"] = rng.integers(0, classes, batch)
    session.run(None, feed)
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        session.run(None, feed)
        runs += 1
    return runs * batch / (time.perf_counter() - began)


def wrk_load(url: str, clients: int, n: int, seconds: float) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT % {"n": n})
        script.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--latency", "-s", script.name, url]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"the load met errors:\n{text}")
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))  # type: ignore[union-attr]
    found = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+(?:us|ms|s))$", text, re.MULTILINE))
    times = {q: float(v.rstrip("usm")) * units[v.lstrip("0123456789.")] for q, v in found.items()}
    return {"images_per_s": rate * n, "p50_ms": times["50"], "p99_ms": times["99"]}


async def own_load(port: int, clients: int, n: int, seconds: float) -> dict[str, float]:
    """Clients on raw sockets in one event loop: light, but in Python and on the service's cores."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client(seed: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            body = json.dumps({"seed": seed, "n": n}).encode()
            seed += n
            began = time.perf_counter()
            writer.write(
                b"POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Accept: application/x-npy\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE).group(1))  # type: ignore[union-attr]
            await reader.readexactly(length)
            if b" 200 " not in head[:20]:
                raise SystemExit(f"the load met an error: {head!r}")
            times.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client(10**6 * i) for i in range(clients)))
    rate = len(times) * n / (time.perf_counter() - began)
    q = np.quantile(times, (0.5, 0.99)) * 1e3
    return {"images_per_s": rate, "p50_ms": float(q[0]), "p99_ms": float(q[1])}


def load(port: int, clients: int, n: int, seconds: float) -> dict[str, float]:
    if shutil.which("wrk"):
        return wrk_load(f"http://127.0.0.1:{port}/v1/generate", clients, n, seconds)
    return asyncio.run(own_load(port, clients, n, seconds))


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {
        "cpu": model.group(1) if model else platform.processor(),
        "cores": CORES,
        "python": platform.python_version(),
        **{name: version(name) for name in ("onnxruntime", "bentoml", "fastapi", "uvicorn", "numpy")},
        "load_average_before": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path, nargs="?", help="generator file (.onnx); default: the digits")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--n", type=int, default=8, help="images a request")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "serving.json")
    args = parser.parse_args()

    generator = args.generator or next((path for path in GENERATORS if path.is_file()), GENERATORS[0])
    if not generator.is_file():
        print(f"there is no generator file at {generator}; train one, or name another", file=sys.stderr)
        raise SystemExit(2)
    props = {p.key: p.value for p in onnx.load(generator).metadata_props}
    facts = machine()
    sessions = {spinning: bare_session(generator, spinning) for spinning in (False, True)}
    sweep = {
        (spinning, batch): bare_rate(session, props, batch, args.seconds / 5)
        for spinning, session in sessions.items()
        for batch in (8, 16, 32, 64, 128)
    }
    spinning, best = max(sweep, key=lambda key: sweep[key])
    session = sessions.pop(spinning)
    sessions.clear()  # the other's threads

    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(generator, folder)
        port = free_port()
        process, ready_s = start(Path(folder), port)
        try:
            pss_ready = tree_pss_mb(process.pid)
            load(port, args.clients, args.n, 1.0)
            bare, served, bare_cpu, served_cpu = [], [], [], []
            for i in range(args.rounds):
                used = time.process_time()
                bare.append(bare_rate(session, props, best, args.seconds))
                bare_cpu.append((time.process_time() - used) / args.seconds / bare[-1])
                used = tree_cpu_s(process.pid)
                served.append(load(port, args.clients, args.n, args.seconds))
                served_cpu.append((tree_cpu_s(process.pid) - used) / args.seconds / served[-1]["images_per_s"])
                print(f"round {i + 1}: bare {bare[-1]:.0f}, served {served[-1]['images_per_s']:.0f} images/s")
            alone = load(port, 1, args.n, args.seconds)
            bare_ms = 1e3 * args.n / bare_rate(session, props, args.n, args.seconds)
            pss_loaded = tree_pss_mb(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)

    rate = statistics.median(s["images_per_s"] for s in served)
    result = {
        "generator": {k: props[k] for k in ("name", "architecture", "z_dim", "height", "width", "channels")},
        "clients": args.clients,
        "images_per_request": args.n,
        "load_generator": "wrk" if shutil.which("wrk") else "benchmarks/serving.py",
        "bare_best_batch": best,
        "bare_spinning": spinning,
        "bare_images_per_s": statistics.median(bare),
        "served_images_per_s": rate,
        "ratio": statistics.median(s["images_per_s"] / b for s, b in zip(served, bare, strict=True)),
        # what the machine's other work cannot flatter: processor time of an image, without the load generator's
        "bare_cpu_ms_per_image": 1e3 * statistics.median(bare_cpu),
        "served_cpu_ms_per_image": 1e3 * statistics.median(served_cpu),
        "served_p50_ms": statistics.median(s["p50_ms"] for s in served),
        "served_p99_ms": statistics.median(s["p99_ms"] for s in served),
        "one_client_p50_ms": alone["p50_ms"],
        "one_bare_batch_ms": bare_ms,
        "ready_s": ready_s,
        "pss_ready_mb": pss_ready,
        "pss_after_load_mb": pss_loaded,
        "rounds": [{"bare": b, **s} for b, s in zip(bare, served, strict=True)],
        "bare_sweep": {
            "spinning" if spin else "not_spinning": {b: rate for (s, b), rate in sweep.items() if s is spin}
            for spin in (False, True)
        },
        "machine": facts,
    }
    result = json.loads(json.dumps(result), parse_float=lambda x: round(float(x), 3))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k not in ("rounds", "bare_sweep")}, indent=2))


if __name__ == "__main__":
    main()
