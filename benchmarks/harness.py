"""What all benchmarks share: argument types, the machine, alternating rounds, and what could not be measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from artifacts.resources import available_cpus, available_memory

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# The kernel's names of instruction sets that ratios depend on: training on bfloat16's, `--optimize int8` on int8's.
INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX INT8",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
    "asimddp": "dot product",
    "i8mm": "I8MM",
}
PACKAGES = (
    *("torch", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "scipy", "bentoml", "fastapi", "uvicorn"),
    *("pytorch-fid", "torch-fidelity"),
)


def make_parser(description: str | None, output: str) -> argparse.ArgumentParser:
    """Return a parser with `--output`, by default the result file of that name."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=file_to_write, default=RESULTS / f"{output}.json", help="the result file")
    return parser


def at_least_one(text: str) -> int:
    """Return a positive whole number, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


def existing_file(text: str) -> Path:
    """Return the path of a file, for argparse."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file at {text}")
    return Path(text)


def folder_to_write(text: str) -> Path:
    """Return a writable folder, for argparse; it is made where there is none."""
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a writable folder ({error.strerror or error})") from error
    return folder


def file_to_write(text: str) -> Path:
    """Return a writable file path, for argparse."""
    path = Path(text)
    folder_to_write(str(path.parent))
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{text} is not a writable file")
    return path


@contextmanager
def attempt(name: str, failed: dict[str, str]) -> Iterator[None]:
    """Record a failure in `failed`, print it in one line, and continue; an interruption is raised."""
    try:
        yield
    except (Exception, SystemExit) as error:
        failed[name] = one_line(error)
        print(f"{name}: not measured: {failed[name]}", flush=True)


def one_line(error: BaseException) -> str:
    """Return an error in one line: the first and the last line of a longer text (a program's output)."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " … ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else ""
    if isinstance(error, SystemExit):
        return text or "it stopped without a reason"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def alternate(functions: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run functions alternately, so that a machine whose speed drifts changes all alike.

    Returns:
        The seconds of each function in each round, and what each returned in the last round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    values = {}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            values[name] = function()
            seconds[name].append(time.perf_counter() - started)
    return seconds, values


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """Return {"median", "min", "max"} of the rounds' ratios."""
    found = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {name: round(value, 3) for name, value in found.items()}


def times_as_fast(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the spread of how many times as fast as theirs ours is, from the seconds of each round."""
    return spread([their / our for our, their in zip(ours, theirs, strict=True)])


def format_spread(ratio: Mapping[str, float]) -> str:
    """Return `2.56 (2.34–2.66)`, without the median where the rounds differ by a factor of two or more."""
    if ratio["max"] >= 2 * ratio["min"]:
        return f"too noisy: {ratio['min']:.2f}–{ratio['max']:.2f}"
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, its numbers rounded to five significant digits."""
    rounded = json.loads(json.dumps(result), parse_float=lambda number: float(f"{float(number):.5g}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Return the content of a result file, empty where there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def describe_machine() -> dict[str, Any]:
    """Return one flat mapping: processor, instruction sets, cores, memory, system, GPU, versions and load average.

    A package that is not installed is left out; a GPU that is missing is None.
    """
    info, versions = Path("/proc/cpuinfo"), {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        **read_cpuinfo(info.read_text(encoding="utf-8") if info.is_file() else ""),
        "cores": available_cpus(),
        "memory_gib": round((available_memory() or 0) / 2**30, 1) or None,
        "system": system(),
        "gpu": _gpu(),
        "python": platform.python_version(),
        **versions,
        "load_average_before": load_average(),
    }


def read_cpuinfo(text: str) -> dict[str, Any]:
    """Return {"cpu", "cpu_model", "instructions"} of /proc/cpuinfo, x86's or Arm's; or what Python knows."""

    def field(name: str) -> str | None:
        match = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
        return match[1].strip() if match else None

    flags = set((field("flags") or field("Features") or "").split())
    family, model = field("cpu family"), field("model")
    return {
        "cpu": field("model name") or platform.processor() or platform.machine(),
        # Cloud processors have one name for several generations.
        "cpu_model": f"family {family}, model {model}" if family and model else None,
        "instructions": [name for flag, name in INSTRUCTIONS.items() if flag in flags],
    }


def system() -> str:
    """Return distribution, kernel (major and minor only, as the rest identifies a host) and architecture."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"] + ", "
    except (OSError, KeyError):
        name = ""
    kernel = re.match(r"\d+\.\d+", platform.release())
    return f"{name}{platform.system()} {kernel[0] if kernel else platform.release()} {platform.machine()}"


def _gpu() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def load_average() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 1)
