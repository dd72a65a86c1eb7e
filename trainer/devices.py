"""Chooses device, precision and threads for a machine, and configures the process for them."""

from __future__ import annotations

import contextlib
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


def resolve_auto(config: Config) -> Config:
    """Return the config with `auto` replaced by what this machine has, so that the run records what it ran on.

    Raises:
        TrainerError: If the config names a device, or CUDA graphs, that cannot be used here.
    """
    device, precision = config.run.device, config.run.precision
    if device == "auto":
        device = "cuda" if is_available("cuda") else "mps" if is_available("mps") else "cpu"
    elif not is_available(device):
        raise TrainerError(f"run.device={device}, but PyTorch finds no such device; use run.device=auto or cpu")
    if precision == "auto":
        precision = "bf16" if has_native_bf16(device) else "fp32"
    threads = config.run.threads or default_threads()
    run = config.run.model_copy(update={"device": device, "precision": precision, "threads": threads})
    config = config.model_copy(update={"run": run})
    why_not = cuda_graph.unsupported_reason(config)
    if run.cuda_graphs is True and why_not:
        raise TrainerError(f"run.cuda_graphs=true, but {why_not}; use run.cuda_graphs=auto")
    chosen = why_not is None and run.cuda_graphs is not False
    return config.model_copy(update={"run": run.model_copy(update={"cuda_graphs": chosen})})


def configure_process(config: Config) -> None:
    """Set the number of threads, the allocator and cuDNN for a run."""
    torch.set_num_threads(config.run.threads or default_threads())
    keep_freed_memory()
    torch.backends.cudnn.benchmark = config.run.device == "cuda"  # shapes never change within a run
    if config.run.device == "cuda":
        torch.backends.cudnn.benchmark_limit = 0  # try every algorithm


def default_threads() -> int:
    """Return PyTorch's own number of threads, or fewer where a quota or an affinity mask allows fewer CPUs.

    The user's OMP_NUM_THREADS or MKL_NUM_THREADS, which PyTorch follows, is kept.
    """
    if os.environ.get("OMP_NUM_THREADS") or os.environ.get("MKL_NUM_THREADS"):
        return torch.get_num_threads()
    return max(1, min(torch.get_num_threads(), available_cpus()))


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for the next step; return False where it cannot (not glibc).

    By default glibc returns every freed tensor above about 100 KB to the system, and gets the same pages back a
    millisecond later, each by a page fault and filled with zeros: a tenth of a DCGAN's step.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
    largest = 32 * 2**20  # the maximum of M_MMAP_THRESHOLD
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.gnu_get_libc_version  # noqa: B018  (musl has no such name)
        return bool(libc.mallopt(M_MMAP_THRESHOLD, largest) and libc.mallopt(M_TRIM_THRESHOLD, -1))
    except (OSError, AttributeError):
        return False


def is_available(device: str) -> bool:
    """Return whether PyTorch can use a device on this machine; `auto` is always available."""
    if device == "cuda":
        return torch.cuda.is_available()
    return device != "mps" or torch.backends.mps.is_available()


def has_native_bf16(device: str) -> bool:
    """Return whether the hardware computes in bfloat16 (emulated, it is slower than float32)."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


def describe() -> dict[str, Any]:
    """Return the machine and versions, for a run's record."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform().replace(platform.release(), ".".join(platform.release().split(".")[:2])),
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": cuda,
    }


def resident_memory() -> int:
    """Return the memory of this process in bytes: at present on Linux, elsewhere the most it has had."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open(encoding="utf-8") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else 1024 * most


def cpu_name() -> str:
    """Return the model of the CPU."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
