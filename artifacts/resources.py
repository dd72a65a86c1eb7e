"""The CPUs and the memory that this process may use, where affinity or a control group limits them."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC_CGROUP = Path("/proc/self/cgroup")
PROC_MEMINFO = Path("/proc/meminfo")
# What the pools of OpenMP, MKL and OpenBLAS read when their libraries are loaded
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def available_cpus() -> int:
    """Return the number of CPUs to use, at least 1.

    It is the number of CPUs in the process's affinity mask, or less where a control group (version 1 or 2) of the
    process or of one of its parents has a CPU quota; a quota of 1.5 CPUs counts as 2. Kubernetes' `limits.cpu` and
    Docker's `--cpus` are such quotas.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cpu_quota(proc_cgroup: Path | None = None, root: Path | None = None) -> float | None:
    """Return the smallest CPU quota of the process's control groups, in CPUs, or None without one.

    Args:
        proc_cgroup: `/proc/self/cgroup`, which lists the groups.
        root: Where the control groups are mounted.
    """
    proc_cgroup, root = proc_cgroup or PROC_CGROUP, root or CGROUP_ROOT
    try:
        lines = proc_cgroup.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, group = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controllers == "":
            quotas += [quota for folder in _folders(root, group) if (quota := _quota_v2(folder)) is not None]
        elif "cpu" in controllers.split(","):
            for mount in dict.fromkeys((root / controllers, root / "cpu", root / "cpu,cpuacct")):
                quotas += [quota for folder in _folders(mount, group) if (quota := _quota_v1(folder)) is not None]
    return min(quotas, default=None)


def _folders(mount: Path, group: str) -> list[Path]:
    """The group's folder and its parents' up to the mount.

    Inside a container the mount often shows the group itself as its root, while `group` is the host's path.
    """
    parts = [part for part in group.split("/") if part not in ("", ".", "..")]
    return [mount.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]


def _quota_v2(folder: Path) -> float | None:
    return _ratio(*[*_read(folder / "cpu.max").split(), "", ""][:2])


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def limit_thread_pools() -> None:
    """Give the thread pools of numerical libraries the quota's CPUs, through the environment; call it before imports.

    OpenMP (torch, scikit-learn), OpenBLAS (NumPy, SciPy) and MKL count the CPUs of the machine or of the affinity mask,
    and know nothing of quotas. Without a quota, and for a variable that the user has set, nothing changes.
    """
    quota = cpu_quota()
    if quota is None or any(os.environ.get(variable) for variable in POOLS):
        return
    cpus = available_cpus()
    for variable in POOLS:
        os.environ[variable] = str(cpus)


def available_memory(
    meminfo: Path | None = None, proc_cgroup: Path | None = None, root: Path | None = None
) -> int | None:
    """Return the smallest memory limit of the machine and the process's control groups, in bytes.

    Args:
        meminfo: `/proc/meminfo`, which holds the machine's memory.
        proc_cgroup: `/proc/self/cgroup`, which lists the groups.
        root: Where the control groups are mounted.

    Returns:
        Bytes, or None where neither can be read (not on Linux).
    """
    lines = _read(meminfo or PROC_MEMINFO).splitlines()
    limits = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemTotal:")]
    root = root or CGROUP_ROOT
    for line in _read(proc_cgroup or PROC_CGROUP).splitlines():
        _, controllers, group = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controllers == "":
            limits += [_memory_limit(folder / "memory.max") for folder in _folders(root, group)]
        elif "memory" in controllers.split(","):
            limits += [_memory_limit(folder / "memory.limit_in_bytes") for folder in _folders(root / "memory", group)]
    return min((limit for limit in limits if limit), default=None)


def _memory_limit(path: Path) -> int:
    text = _read(path)
    return int(text) if text.isdecimal() else 0
