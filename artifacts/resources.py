"""The CPUs and the memory that this process may use, where affinity or a control group limits them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
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
    quotas = [
        _ratio(*[*_read(folder / "cpu.max").split(), "", ""][:2])
        if unified
        else _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
        for unified, folder in _control_groups("cpu", proc_cgroup, root)
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def _control_groups(controller: str, proc_cgroup: Path | None, root: Path | None) -> Iterator[tuple[bool, Path]]:
    """Yield whether the hierarchy is version 2, and the folder, of each group of the process and of its parents.

    Inside a container the mount often shows the group itself as its root, while /proc names the host's path.
    """
    root = root or CGROUP_ROOT
    for line in _read(proc_cgroup or PROC_CGROUP).splitlines():
        _, controllers, group = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        parts = [part for part in group.split("/") if part not in ("", ".", "..")]
        if controllers == "":
            mounts = [root]
        elif controller in controllers.split(","):
            mounts = list(dict.fromkeys(root / name for name in (controllers, controller, "cpu,cpuacct")))
        else:
            continue
        for mount in mounts:
            yield from ((controllers == "", mount.joinpath(*parts[:n])) for n in range(len(parts), -1, -1))


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
    for unified, folder in _control_groups("memory", proc_cgroup, root):
        text = _read(folder / ("memory.max" if unified else "memory.limit_in_bytes"))
        limits.append(int(text) if text.isdecimal() else 0)
    return min((limit for limit in limits if limit), default=None)
