from pathlib import Path

from artifacts.resources import available_memory


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
