"""What a benchmark ran on: one description for all of them, in every result."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# What the kernel calls the instructions that a ratio may hang on: those of bfloat16 decide what training gains, those
# of int8 what `--optimize int8` does.
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


def describe() -> dict[str, Any]:
    """The processor and its instruction sets, cores that may be used, memory, system, GPU, versions, and the load.

    One flat mapping of JSON values; a package that is not installed is left out, a GPU that is not there is None.
    """
    info = Path("/proc/cpuinfo")
    return {
        **processor(info.read_text(encoding="utf-8") if info.is_file() else ""),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "system": system(),
        "gpu": gpu(),
        "python": platform.python_version(),
        **versions(),
        "load_average_before": load_average(),
    }


def processor(cpuinfo: str) -> dict[str, Any]:
    """{"cpu", "cpu_model", "instructions"} of the text of /proc/cpuinfo, x86's or Arm's; or what Python knows."""

    def field(name: str) -> str | None:
        match = re.search(rf"^{name}\s*: (.*)$", cpuinfo, re.MULTILINE)
        return match[1].strip() if match else None

    flags = set((field("flags") or field("Features") or "").split())
    family, model = field("cpu family"), field("model")
    return {
        "cpu": field("model name") or platform.processor() or platform.machine(),
        # a cloud's processors have one name for several generations
        "cpu_model": f"family {family}, model {model}" if family and model else None,
        "instructions": [name for flag, name in INSTRUCTIONS.items() if flag in flags],
    }


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"] + ", "
    except (OSError, KeyError):
        name = ""
    return f"{name}{platform.system()} {kernel()} {platform.machine()}"


def kernel() -> str:
    """Major and minor of its version: what a host's owner put behind them is nobody's business, and no figure's."""
    number = re.match(r"\d+\.\d+", platform.release())
    return number[0] if number else platform.release()


def gpu() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load_average() -> float:
    """Of the last minute, to a tenth."""
    return round(os.getloadavg()[0], 1)


def in_words(machine: dict[str, Any]) -> str:
    """A description of `describe` as two lines of Markdown."""
    model = f" ({machine['cpu_model']})" if machine.get("cpu_model") else ""
    sets = ", ".join(machine.get("instructions") or ()) or "no vector instructions that are known here"
    memory = f", {machine['memory_gib']} GiB" if machine.get("memory_gib") else ""
    packages = ", ".join(f"{name} {machine[name]}" for name in ("python", *PACKAGES) if name in machine)
    return (
        f"{machine['cpu']}{model}, {machine['cores']} cores{memory}; {sets}; GPU: {machine.get('gpu') or 'none'}; "
        f"{machine.get('system', '')}.\n{packages}."
    )
