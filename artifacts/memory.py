"""How much memory this process may use: the machine's, or less where a control group limits it."""

from __future__ import annotations

from pathlib import Path

from artifacts.cpus import CGROUP_ROOT, PROC_CGROUP, _folders, _read

PROC_MEMINFO = Path("/proc/meminfo")


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
    limits = []
    for line in _read(meminfo or PROC_MEMINFO).splitlines():
        if line.startswith("MemTotal:"):
            limits.append(1024 * int(line.split()[1]))
    root = root or CGROUP_ROOT
    for line in _read(proc_cgroup or PROC_CGROUP).splitlines():
        _, controllers, group = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controllers == "":
            limits += [_bytes(folder / "memory.max") for folder in _folders(root, group)]
        elif "memory" in controllers.split(","):
            limits += [_bytes(folder / "memory.limit_in_bytes") for folder in _folders(root / "memory", group)]
    return min((limit for limit in limits if limit), default=None)


def _bytes(path: Path) -> int:
    """The limit in a file; 0 where there is none."""
    text = _read(path)
    return int(text) if text.isdecimal() else 0
