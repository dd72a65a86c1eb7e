"""The cache: built once, never seen half-written, rebuilt when damaged."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from artifacts.arrays import RowWriter
from imagesets import ImageSetError, cache, load_image_set
from imagesets.cache import cache_key, content_fingerprint
from imagesets.types import BrokenImageError, DatasetSpec, OpenedDataset


def spec(decode=None, **changes: object) -> DatasetSpec:
    def one(i: int) -> np.ndarray:
        return np.full((4, 4, 1), i % 256, np.uint8)

    def open_dataset() -> OpenedDataset:
        return OpenedDataset(600, 4, 1, decode or one, lambda i: f"item {i}", np.arange(600) % 2, ("even", "odd"))

    fields: dict = {"source": "made", "split": "train", "crop": "none", "resize": "none", "resolution": 4}
    fields |= {"channels": 1, "content_hash": "a", "open": open_dataset}
    return DatasetSpec(**{**fields, **changes})


def entries(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def test_cache_second_load_decodes_nothing(tmp_path: Path) -> None:
    first = cache.load_or_build(spec(), "made@train", tmp_path, False)

    def refuse(i: int) -> np.ndarray:
        raise AssertionError("decoded again")

    second = cache.load_or_build(spec(refuse), "made@train", tmp_path, False)
    assert (first.images == second.images).all()
    assert second.images[:, 0, 0, 0].tolist() == [i % 256 for i in range(600)]
    assert second.info["fingerprint"] == content_fingerprint(np.array(first.images), first.labels)
    assert isinstance(second.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second.images[0] = 1


@pytest.mark.parametrize("field", ["source", "split", "crop", "resize", "resolution", "channels", "content_hash"])
def test_cache_key_covers_everything_that_decides_pixels(field: str) -> None:
    other = 3 if field in ("resolution", "channels") else "other"
    assert cache_key(spec(**{field: other})) != cache_key(spec())


@pytest.mark.parametrize("damage", ["cut", "flip", "json", "version", "labels"])
def test_cache_damaged_or_stale_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    cache.load_or_build(spec(), "made@train", tmp_path, False)
    (entry,) = entries(tmp_path)
    pixels = bytearray((entry / "images.npy").read_bytes())
    if damage == "cut":
        (entry / "images.npy").write_bytes(pixels[:-100])
    elif damage == "flip":
        pixels[-100] ^= 1
        (entry / "images.npy").write_bytes(pixels)
    elif damage == "json":
        (entry / "info.json").write_text("{", encoding="utf-8")
    elif damage == "version":
        info = json.loads((entry / "info.json").read_text(encoding="utf-8"))
        (entry / "info.json").write_text(json.dumps({**info, "format_version": 0}), encoding="utf-8")
    else:
        (entry / "labels.npy").unlink()
    found = cache.load_or_build(spec(), "made@train", tmp_path, False)
    assert found.images[:, 0, 0, 0].tolist() == [i % 256 for i in range(600)]
    assert entries(tmp_path) == [entry]


def test_cache_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(i: int) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.load_or_build(spec(interrupt), "made@train", tmp_path, False)
    assert entries(tmp_path) == []


def test_cache_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    left = tmp_path / f".{cache_key(spec())}.tmp-abc"
    left.mkdir()
    (left / "images.npy").write_bytes(b"half")
    cache.load_or_build(spec(), "made@train", tmp_path, False)
    assert not left.exists()


def test_cache_of_two_processes_at_once_is_built_once(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
import time
import numpy as np
from imagesets import cache
from imagesets.types import OpenedDataset, DatasetSpec
def decode(i):
    with open({str(tmp_path / "decoded")!r}, "a") as log: log.write("x")
    time.sleep(0.002)
    return np.full((4, 4, 1), i, np.uint8)
r = DatasetSpec("made", "train", "none", "none", 4, 1, "a", lambda: OpenedDataset(200, 4, 1, decode, str))
print(cache.load_or_build(r, "made", Path({str(tmp_path / "cache")!r}), False).info["fingerprint"])
"""
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=60)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(answers) == 1
    assert len((tmp_path / "decoded").read_text(encoding="utf-8")) == 200
    assert len(entries(tmp_path / "cache")) == 1


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_cache_that_cannot_be_written_is_one_line(tmp_path: Path, caplog, where: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ImageSetError, match="cannot write the image cache") as caught:
        load_image_set("digits", cache_root=tmp_path / where, progress=False)
    assert "\n" not in str(caught.value)
    assert not caplog.records  # no cache is not a damaged one


def test_cache_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ImageSetError, match="set ATELIER_CACHE to a folder that can be written"):
        load_image_set("digits", cache_root=tmp_path / "file", progress=False)


def test_cache_without_a_home_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ATELIER_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ImageSetError, match=r"set ATELIER_CACHE \(or HOME\)"):
        load_image_set("digits", progress=False)


def test_cache_in_a_read_only_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = spec(resolution=None, channels=None)
    built = cache.load_or_build(unknown, "made@train", tmp_path, False)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    next(tmp_path.glob("made-*.json")).unlink()
    for name in ("mkdir", "write_text"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(cache, "file_lock", refuse)
    assert cache.load_or_build(unknown, "made@train", tmp_path, False).fingerprint == built.fingerprint


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"own_resolution": 0, "channels": 1}', '{"own_resolution": 4}', '{"resolution": 3, "channels": 1}'],
)
def test_cache_damaged_native_format_is_found_again(tmp_path: Path, content: str) -> None:
    unknown = spec(resolution=None, channels=None)
    cache.load_or_build(unknown, "made@train", tmp_path, False)
    (kept,) = tmp_path.glob("made-*.json")
    kept.write_text(content, encoding="utf-8")
    assert cache.load_or_build(unknown, "made@train", tmp_path, False).images.shape == (600, 4, 4, 1)
    assert len(entries(tmp_path)) == 1


def test_cache_with_too_little_disk_fails_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ImageSetError, match=r"needs 1\.1 MiB in .* but 1\.0 MiB are free.*ATELIER_CACHE"):
        cache.load_or_build(spec(), "made", tmp_path, False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_cache_on_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    # A limit on the size of files stands for the disk: it stops the same writes with the same type.
    code = f"""
import resource
from pathlib import Path
import numpy as np
from imagesets import ImageSetError, cache
from imagesets.types import OpenedDataset, DatasetSpec
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
decode = lambda i: np.zeros((32, 32, 1), np.uint8)
r = DatasetSpec("made", "train", "none", "none", 32, 1, "a", lambda: OpenedDataset(600, 32, 1, decode, str))
try:
    cache.load_or_build(r, "made", Path({str(tmp_path)!r}), False)
except ImageSetError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot write the image cache")
    assert done.stdout.count("\n") == 1
    assert entries(tmp_path) == []


@pytest.mark.parametrize("n", [0, 1, 300])
def test_row_writer_writes_the_array_that_numpy_reads(tmp_path: Path, n: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (n, 3, 5, 1), dtype=np.uint8)
    with RowWriter(tmp_path / "rows.npy", (3, 5, 1)) as rows:
        for row in array:
            rows.append(row)
        rows.finish()
    found = np.load(tmp_path / "rows.npy")
    assert found.shape == array.shape
    assert (found == array).all()


def test_cache_of_broken_images_counts_them_on_every_load(tmp_path: Path, caplog) -> None:
    def decode(i: int) -> np.ndarray:
        if i % 200 == 7:
            raise BrokenImageError("torn")
        return np.full((4, 4, 1), i % 256, np.uint8)

    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = cache.load_or_build(spec(decode), "made@train", tmp_path, False)
        assert caplog.messages[-1] == "made@train: 3 of 600 images were broken and skipped"
    assert len(caplog.messages) == 1
    assert found.images[6:8, 0, 0, 0].tolist() == [6, 8]
    assert found.labels.tolist() == [i % 2 for i in range(600) if i % 200 != 7]
    (entry,) = entries(tmp_path)
    assert (entry / "images.npy").stat().st_size == 128 + 597 * 16
    assert sorted(path.name for path in entry.iterdir()) == ["images.npy", "info.json", "labels.npy"]


@pytest.mark.parametrize("where", ["open", "decode"])
def test_cache_does_not_blame_itself_for_an_unreadable_source(tmp_path: Path, where: str) -> None:
    def fail(*_: int) -> None:
        raise OSError("the source is\ngone")

    made = spec(open=fail) if where == "open" else spec(fail)
    with pytest.raises(ImageSetError, match="the source is") as caught:
        cache.load_or_build(made, "made@train", tmp_path, False)
    assert "cache" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert entries(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory of mapped files there")
def test_content_fingerprint_releases_mapped_memory(tmp_path: Path) -> None:
    def resident() -> float:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        return int(status["RssFile"].split()[0]) / 1024

    np.save(tmp_path / "images.npy", np.ones((16_384, 64, 64, 1), np.uint8))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    before = resident()
    assert content_fingerprint(images, None) == content_fingerprint(np.asarray(images).copy(), None)
    content_fingerprint(images, None)
    assert resident() < before + 8, "64 MiB were read"
