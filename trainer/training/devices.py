"""What the machine offers: the device, the precision it is fast in, the threads."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

import torch

from artifacts.resources import available_cpus
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.training import cuda_graph


def choose(config: Config) -> Config:
    """The config with `auto` replaced by what this machine has, so that the run records what it ran on.

    Raises TrainerError when a device or precision was asked for that is not here.
    """
    device, precision = config.run.device, config.run.precision
    if device == "auto":
        device = "cuda" if is_here("cuda") else "mps" if is_here("mps") else "cpu"
    elif not is_here(device):
        raise TrainerError(f"run.device={device}, but PyTorch sees no such device here; use run.device=auto or cpu")
    if precision == "auto":
        precision = "bf16" if has_native_bf16(device) else "fp32"
    threads = config.run.threads or default_threads()
    run = config.run.model_copy(update={"device": device, "precision": precision, "threads": threads})
    config = config.model_copy(update={"run": run})
    why_not = cuda_graph.obstacle(config)
    if run.cuda_graphs is True and why_not:
        raise TrainerError(f"run.cuda_graphs=true, but {why_not}; use run.cuda_graphs=auto")
    chosen = why_not is None and run.cuda_graphs is not False
    return config.model_copy(update={"run": run.model_copy(update={"cuda_graphs": chosen})})


def settle(config: Config) -> None:
    """Set this process up for a run: its number of threads, and memory that stays with it."""
    torch.set_num_threads(config.run.threads or default_threads())
    keep_freed_memory()
    torch.backends.cudnn.benchmark = config.run.device == "cuda"  # shapes never change within a run,
    if config.run.device == "cuda":
        torch.backends.cudnn.benchmark_limit = 0  # so that every algorithm is worth a try


def default_threads() -> int:
    """Return PyTorch's own number of threads, or fewer where a quota or an affinity mask allows fewer CPUs.

    The user's OMP_NUM_THREADS or MKL_NUM_THREADS, which PyTorch follows, is kept.
    """
    if os.environ.get("OMP_NUM_THREADS") or os.environ.get("MKL_NUM_THREADS"):
        return torch.get_num_threads()
    return max(1, min(torch.get_num_threads(), available_cpus()))


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next step to take; False where it cannot be told to (not glibc).

    By default glibc gives every freed tensor of more than some 100 KB back to the system, which hands out the same
    pages again a millisecond later, each by a page fault and filled with zeros: a tenth of a DCGAN's step.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
    largest = 32 * 2**20  # that glibc lets the latter be
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.gnu_get_libc_version  # noqa: B018  (musl has no such name)
        return bool(libc.mallopt(M_MMAP_THRESHOLD, largest) and libc.mallopt(M_TRIM_THRESHOLD, -1))
    except (OSError, AttributeError):
        return False


def is_here(device: str) -> bool:
    """Whether PyTorch can use the device on this machine; `auto` always is."""
    if device == "cuda":
        return torch.cuda.is_available()
    return device != "mps" or torch.backends.mps.is_available()


def has_native_bf16(device: str) -> bool:
    """Whether bfloat16 arithmetic is in the hardware (emulated, it would be slower than float32)."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


def describe() -> dict[str, Any]:
    """Machine and versions, for the artefacts to say what made them."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform().replace(platform.release(), ".".join(platform.release().split(".")[:2])),
        "cpu": cpu_name(),
        "gpu": cuda,
    }


def cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
