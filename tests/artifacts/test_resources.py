"""The CPU quota of control groups, read from folders laid out as the kernel lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from artifacts import resources
from artifacts.resources import available_memory


def layout(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    proc, root = tmp_path / "proc_self_cgroup", tmp_path / "cgroup"
    proc.write_text(membership, encoding="utf-8")
    root.mkdir()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return proc, root


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 0.5),
        # the mount shows the container's own group as its root, the membership is the host's path
        ("0::/docker/abc\n", {"cpu.max": "300000 100000\n"}, 3.0),
        (
            "4:cpu,cpuacct:/docker/abc\n1:memory:/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        (
            "4:cpuacct,cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("garbage\n", {}, None),
    ],
)
def test_cpu_quota_of_a_layout(membership: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    proc, root = layout(tmp_path, membership, files)
    assert resources.cpu_quota(proc, root) == quota


def test_available_cpus_rounds_a_quota_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc, root = layout(tmp_path, "0::/\n", {"cpu.max": "120000 100000"})
    monkeypatch.setattr(resources, "PROC_CGROUP", proc)
    monkeypatch.setattr(resources, "CGROUP_ROOT", root)
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: set(range(8)))
    assert resources.available_cpus() == 2


def test_available_cpus_without_proc_is_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "PROC_CGROUP", tmp_path / "absent")
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert resources.available_cpus() == 3


def test_limit_thread_pools_without_quota_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in resources.POOLS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(resources, "cpu_quota", lambda: None)
    resources.limit_thread_pools()
    assert not set(resources.POOLS) & os.environ.keys()


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "7"}])
def test_limit_thread_pools_with_quota_keeps_the_users(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in resources.POOLS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(resources, "cpu_quota", lambda: 0.5)
    resources.limit_thread_pools()
    assert os.environ.get("OMP_NUM_THREADS") == given.get("OMP_NUM_THREADS", "1")
    assert os.environ.get("OPENBLAS_NUM_THREADS") == (None if given else "1")


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_available_memory_machine_only_returns_its_memory(tmp_path: Path) -> None:
    meminfo = written(tmp_path / "meminfo", "MemTotal:       1024 kB\nMemFree: 1 kB\n")
    assert available_memory(meminfo, tmp_path / "none", tmp_path) == 2**20


def test_available_memory_cgroup_v2_returns_the_smallest_limit(tmp_path: Path) -> None:
    meminfo = written(tmp_path / "meminfo", "MemTotal:       1024 kB\n")
    groups = written(tmp_path / "cgroup", "0::/a/b\n")
    written(tmp_path / "root" / "a" / "b" / "memory.max", "max\n")
    written(tmp_path / "root" / "a" / "memory.max", "4096\n")
    assert available_memory(meminfo, groups, tmp_path / "root") == 4096


def test_available_memory_cgroup_v1_returns_the_limit(tmp_path: Path) -> None:
    groups = written(tmp_path / "cgroup", "4:memory:/docker/1\n3:cpu:/x\n")
    written(tmp_path / "root" / "memory" / "memory.limit_in_bytes", "8192\n")
    assert available_memory(tmp_path / "none", groups, tmp_path / "root") == 8192


def test_available_memory_nothing_readable_returns_none(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "a", tmp_path / "b", tmp_path / "c") is None
