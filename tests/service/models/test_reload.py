"""The folder changes while it is served; `look` is called by hand. tests/system/serving has real processes."""

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from starlette.testclient import TestClient

from service.errors import ApiError
from service.inference.batcher import Batcher
from service.models.repository import Repository
from service.models.served_model import ServedModel
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.support.polling import wait_until
from tests.support.service.onnx_fixtures import plain, write_plain
from tests.support.tiny_generator import write_tiny_generator

Z = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


def opened(folder: Path | None, **settings: object) -> Repository:
    repository = Repository(Settings(model_dir=folder, **settings), Metrics())  # type: ignore[arg-type]
    repository.load_all()
    return repository


def look_twice(repository: Repository) -> None:
    """Once sees a change, once more sees that it is over."""
    repository.scan()
    repository.scan()


def names(repository: Repository) -> list[str]:
    return [g.metadata.name for g in repository.all()]


def value(repository: Repository, series: str, **labels: str) -> float:
    return repository._metrics.registry.get_sample_value(series, labels) or 0.0


def test_reload_notices_new_replaced_and_removed_files(tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "a.onnx", name="a", seed=1)
    repository = opened(tmp_path)
    first = repository.get("a")
    write_tiny_generator(tmp_path / "b.onnx", name="b")
    look_twice(repository)
    assert names(repository) == ["a", "b"]
    assert repository.get("a") is first
    write_tiny_generator(tmp_path / "a.onnx", name="a", seed=2)
    look_twice(repository)
    second = repository.get("a")
    assert second.metadata.digest != first.metadata.digest
    assert first.replaced
    assert not second.replaced
    assert (second.run(Z, None) != first.run(Z, None)).any(), "a request that began on the old one ends on it"
    (tmp_path / "a.onnx").unlink()
    look_twice(repository)
    assert names(repository) == ["b"]
    with pytest.raises(ApiError) as error:
        repository.get("a")
    assert error.value.status == 404


def test_reload_failing_file_keeps_the_old_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx", name="a")
    repository = opened(tmp_path)
    before = repository.get("a")
    path.write_bytes(b"garbage")
    look_twice(repository)
    assert repository.get("a") is before
    assert not before.replaced
    failed = repository.failed["a.onnx"]
    assert failed.reason == "not an ONNX file"
    assert failed.serving == ("a", before.metadata.digest)
    assert "a.onnx is not served: not an ONNX file" in caplog.text
    assert value(repository, "atelier_model_load_failures_total", file="a.onnx") == 1
    assert value(repository, "atelier_models_failed") == 1
    for _ in range(3):
        repository.scan()
    assert value(repository, "atelier_model_load_failures_total", file="a.onnx") == 1, "tried once, not at each look"
    path.write_bytes(b"other garbage")
    look_twice(repository)
    assert repository.failed["a.onnx"].since == failed.since, "it has failed since the first"
    write_tiny_generator(path, name="a", seed=5)
    look_twice(repository)
    assert repository.failed == {}
    assert repository.get("a") is not before
    assert value(repository, "atelier_models_failed") == 0


def test_reload_waits_until_a_file_stops_changing(tmp_path: Path) -> None:
    whole = write_tiny_generator(tmp_path / "x", name="a", size=16).read_bytes()
    repository = opened(tmp_path)
    with (tmp_path / "a.onnx").open("wb") as file:
        for first in range(0, len(whole), 100):
            file.write(whole[first : first + 100])
            file.flush()
            repository.scan()
            assert names(repository) == []
            assert repository.failed == {}
    look_twice(repository)
    assert names(repository) == ["a"]


def test_reload_paused_copy_fails_then_loads(tmp_path: Path) -> None:
    whole = write_tiny_generator(tmp_path / "x", name="a", size=16).read_bytes()
    repository = opened(tmp_path)
    (tmp_path / "a.onnx").write_bytes(whole[: len(whole) // 2])
    look_twice(repository)
    assert "a.onnx" in repository.failed
    with (tmp_path / "a.onnx").open("ab") as file:
        file.write(whole[len(whole) // 2 :])
    look_twice(repository)
    assert names(repository) == ["a"]
    assert repository.failed == {}


def test_reload_file_replaced_during_the_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.models import repository as models

    write_tiny_generator(tmp_path / "a.onnx", name="a", seed=1)
    repository = opened(tmp_path)
    write_tiny_generator(tmp_path / "a.onnx", name="a", seed=2)
    repository.scan()
    straight, torn = models.read_model_bytes, iter([True])

    def read(path: Path, max_bytes: int) -> bytes:
        content = straight(path, max_bytes)
        if next(torn, False):
            write_tiny_generator(path, name="a", seed=3)
            return content[:50]
        return content

    monkeypatch.setattr(models, "read_model_bytes", read)
    repository.scan()
    assert repository.failed == {}, "half of one and half of the other is neither"
    look_twice(repository)
    wanted = write_tiny_generator(tmp_path / "wanted", name="a", seed=3)
    assert wanted.read_bytes() == (tmp_path / "a.onnx").read_bytes()
    assert repository.get("a").metadata.digest == opened_digest(tmp_path)


def test_reload_small_files_wait_for_no_large_or_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.models import repository as models

    repository = opened(tmp_path, max_model_bytes=2**20)
    with (tmp_path / "a.onnx").open("wb") as file:
        file.truncate(3 * 2**30)  # sparse: it takes no room
    write_tiny_generator(tmp_path / "b.onnx", name="large", size=64)
    write_tiny_generator(tmp_path / "c.onnx", name="small", size=4)
    straight, order = models.read_model_bytes, []

    def read(path: Path, max_bytes: int) -> bytes:
        order.append(path.name)
        return straight(path, max_bytes)

    monkeypatch.setattr(models, "read_model_bytes", read)
    look_twice(repository)
    assert order == ["c.onnx", "b.onnx"]
    assert names(repository) == ["large", "small"]
    assert "larger than ATELIER_MAX_MODEL_BYTES" in repository.failed["a.onnx"].reason


def test_reload_notices_changed_external_weights(tmp_path: Path) -> None:
    """The model comes first, then its weights; then other weights; then they make way and come back."""
    size = split(tmp_path / "made" / "a.onnx", seed=1)
    repository = opened(tmp_path, max_loaded_bytes=size + 10)
    (tmp_path / "made" / "a.onnx").rename(tmp_path / "a.onnx")
    look_twice(repository)
    assert "put a.onnx.data next to it" in repository.failed["a.onnx"].reason
    (tmp_path / "made" / "a.onnx.data").rename(tmp_path / "a.onnx.data")
    look_twice(repository)
    assert repository.failed == {}
    first = repository.get("a")
    split(tmp_path / "made" / "a.onnx", seed=2)
    (tmp_path / "made" / "a.onnx.data").rename(tmp_path / "a.onnx.data")
    look_twice(repository)
    second = repository.get("a")
    assert second.metadata.digest != first.metadata.digest
    for generator, seed in ((first, 1), (second, 2)):
        whole = write_plain(tmp_path / "whole" / "a.onnx", seed=seed)
        np.testing.assert_array_equal(generator.run(Z, None), opened(whole.parent).get("a").run(Z, None))
    images = second.run(Z, None)
    write_plain(tmp_path / "b.onnx", seed=3)
    look_twice(repository)
    assert not second.loaded
    np.testing.assert_array_equal(second.run(Z, None), images)


def split(path: Path, seed: int) -> int:
    """A plain generator with its weights beside it; the bytes of both."""
    path.parent.mkdir(exist_ok=True)
    onnx.save(plain(seed=seed), path, save_as_external_data=True, location=path.name + ".data", size_threshold=0)
    return path.stat().st_size + path.with_name(path.name + ".data").stat().st_size


def opened_digest(folder: Path) -> str:
    return opened(folder).get("a").metadata.digest


def test_reload_follows_swapped_kubernetes_links(tmp_path: Path) -> None:
    """MODEL_DIR/a.onnx → ..data/a.onnx, ..data → ..1; then ..data is renamed over to point at ..2."""
    write_tiny_generator(tmp_path / "..1" / "a.onnx", name="a", seed=1)
    write_tiny_generator(tmp_path / "..2" / "a.onnx", name="a", seed=2)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.onnx").symlink_to("..data/a.onnx")
    repository = opened(tmp_path)
    before = repository.get("a").metadata.digest
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    look_twice(repository)
    assert repository.get("a").metadata.digest != before
    assert repository.failed == {}


def test_reload_dangling_link_keeps_the_old_model(tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "1", name="a", seed=1)
    (tmp_path / "a.onnx").symlink_to("1")
    repository = opened(tmp_path)
    before = repository.get("a")
    (tmp_path / "1").rename(tmp_path / "2")
    look_twice(repository)
    assert repository.get("a") is before
    assert "cannot be read: No such file" in repository.failed["a.onnx"].reason
    repository.scan()
    assert value(repository, "atelier_model_load_failures_total", file="a.onnx") == 1
    (tmp_path / "2").rename(tmp_path / "1")
    look_twice(repository)
    assert repository.get("a") is before, "the same content is the same generator"
    assert repository.failed == {}


def test_reload_renamed_or_stamped_file_keeps_its_session(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx", name="a")
    repository = opened(tmp_path)
    before = repository.get("a")
    path.rename(tmp_path / "b.onnx")
    repository.scan()
    assert names(repository) == ["a"], "not missed for a moment"
    repository.scan()
    os.utime(tmp_path / "b.onnx", (1, 1))
    look_twice(repository)
    write_tiny_generator(tmp_path / "b.onnx", name="a", **{"evaluation.fid10k": "12.5"})
    look_twice(repository)
    assert repository.get("a") is before
    assert (before.describe()["evaluation"], before.describe()["file"]) == ({"fid10k": 12.5}, "b.onnx")
    assert repository.failed == {}
    assert value(repository, "atelier_model_loads_total", model="a", why="start") == 1
    assert value(repository, "atelier_model_loads_total", model="a", why="changed") == 0


def test_reload_file_missing_for_one_scan_stays_available(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx", name="a", seed=1)
    repository = opened(tmp_path)
    path.unlink()
    repository.scan()
    assert names(repository) == ["a"]
    write_tiny_generator(path, name="a", seed=2)
    repository.scan()
    assert names(repository) == ["a"]
    look_twice(repository)
    assert names(repository) == ["a"]
    assert value(repository, "atelier_model_loads_total", model="a", why="changed") == 1


def test_reload_ignores_partial_copies(tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / ".a.onnx", name="hidden")
    write_tiny_generator(tmp_path / "a.onnx.partial", name="partial")
    repository = opened(tmp_path)
    assert (names(repository), repository.failed) == ([], {})


def test_reload_empty_folder_becomes_ready_with_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    repository = opened(folder)
    assert "does not exist" in str(repository.not_ready)
    folder.mkdir()
    look_twice(repository)
    assert "holds no generator file" in str(repository.not_ready)
    path = write_plain(folder / "theirs.onnx")
    look_twice(repository)
    assert repository.not_ready is None
    assert repository.get(None).metadata.name == "theirs"
    path.unlink()
    look_twice(repository)
    assert "holds no generator file" in str(repository.not_ready)


def test_reload_unreachable_folder_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.models import repository as models

    write_tiny_generator(tmp_path / "a.onnx", name="a")
    repository = opened(tmp_path)

    def stale(folder: Path) -> list[Path]:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(models, "list_generator_files", stale)
    for _ in range(3):
        repository.scan()
    assert names(repository) == ["a"]
    assert repository.not_ready is None


def test_reload_serves_the_bundled_until_a_file_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_DIR", raising=False)
    repository = opened(None)
    bundled = names(repository)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.onnx").write_bytes(b"junk")
    for _ in range(3):
        repository.scan()
    assert names(repository) == bundled
    assert "x.onnx" in repository.failed
    write_tiny_generator(tmp_path / "models" / "x.onnx", name="mine")
    look_twice(repository)
    assert names(repository) == ["mine"]
    assert repository.failed == {}


def test_reload_frees_a_replaced_generator(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx", name="a", seed=1)
    retired: list[str] = []
    repository = Repository(Settings(model_dir=tmp_path), Metrics(), lambda g: retired.append(g.metadata.digest))
    repository.load_all()
    before = weakref.ref(repository.get("a"))
    digest = repository.get("a").metadata.digest
    write_tiny_generator(path, name="a", seed=2)
    look_twice(repository)
    assert retired == [digest]
    assert before() is None


# memory: what has no room makes way


def three(folder: Path, room: int) -> tuple[Repository, list[ServedModel]]:
    size = 0
    for seed, name in enumerate("abc"):
        size = write_tiny_generator(folder / f"{name}.onnx", name=name, seed=seed).stat().st_size
    repository = opened(folder, max_loaded_bytes=room * size + 10)
    return repository, repository.all()


def test_session_cache_evicts_the_least_recently_used(tmp_path: Path) -> None:
    everything = [g.run(Z, None) for g in three(tmp_path / "all", 3)[1]]
    repository, (a, b, c) = three(tmp_path / "two", 2)
    assert value(repository, "atelier_models_loaded") == 2
    assert a.loaded, "the default is in memory, wherever it comes in the folder"
    assert [g.loaded for g in (a, b, c)].count(True) == 2
    for _ in range(2):
        for g, images in zip((a, b, c), everything, strict=True):
            np.testing.assert_array_equal(g.run(Z, None), images)
            assert g.loaded
            assert sum(other.loaded for other in (a, b, c)) == 2
    a.run(Z, None)
    c.run(Z, None)
    a.run(Z, None)
    b.run(Z, None)
    assert [g.loaded for g in (a, b, c)] == [True, True, False]
    assert value(repository, "atelier_model_loads_total", model="c", why="recalled") >= 2
    assert repository.describe()["data"][2]["loaded"] is False
    assert repository.describe()["data"][2]["z_dim"] == 8, "its metadata stays"


def test_session_cache_reloads_though_its_file_is_gone(tmp_path: Path) -> None:
    repository, (a, b, c) = three(tmp_path, 1)
    wanted = [g.run(Z, None) for g in (a, b, c)]
    (tmp_path / "a.onnx").write_bytes(b"garbage")
    (tmp_path / "b.onnx").unlink()
    np.testing.assert_array_equal(a.run(Z, None), wanted[0])
    np.testing.assert_array_equal(b.run(Z, None), wanted[1])
    look_twice(repository)
    assert names(repository) == ["a", "c"]
    np.testing.assert_array_equal(a.run(Z, None), wanted[0])
    folder = repository._cache._folder
    assert folder is not None
    assert folder.is_dir()
    repository.close()
    assert not folder.exists()


def test_session_cache_keeps_what_cannot_be_copied(tmp_path: Path) -> None:
    size = write_tiny_generator(tmp_path / "a.onnx", name="a").stat().st_size
    repository = opened(tmp_path, max_loaded_bytes=size + 10)
    a = repository.get("a")
    (tmp_path / "a.onnx").write_bytes(b"garbage")
    write_tiny_generator(tmp_path / "b.onnx", name="b")
    look_twice(repository)
    assert a.loaded
    assert repository.get("b").loaded
    assert a.run(Z, None).shape == (3, 8, 8, 1)


def test_session_cache_reloads_a_third_party_generator(tmp_path: Path) -> None:
    size = max(write_plain(tmp_path / f"{n}.onnx", seed=i, batch=2).stat().st_size for i, n in enumerate("ab"))
    repository = opened(tmp_path, max_loaded_bytes=size + 10)
    a, b = repository.all()
    first = a.run(Z, None)
    b.run(Z, None)
    assert not a.loaded
    np.testing.assert_array_equal(a.run(Z, None), first)


def test_session_cache_concurrent_requests_load_once(tmp_path: Path) -> None:
    repository, (a, b, c) = three(tmp_path, 1)
    b.run(Z, None)
    c.run(Z, None)
    assert not a.loaded
    before = value(repository, "atelier_model_loads_total", model="a", why="recalled")
    start = threading.Barrier(16)

    def ask(_: int) -> np.ndarray:
        start.wait()
        return a.run(Z, None)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    assert all((answer == answers[0]).all() for answer in answers)
    assert value(repository, "atelier_model_loads_total", model="a", why="recalled") == before + 1


def test_session_cache_request_reloads_an_evicted_model(tmp_path: Path, serve: Callable[..., TestClient]) -> None:
    for seed, name in enumerate("abc"):
        write_tiny_generator(tmp_path / f"{name}.onnx", name=name, seed=seed)
    client = serve(tmp_path, max_loaded_bytes=1)

    def ask(i: int) -> str:
        answer = client.post("/v1/generate", json={"model": "abc"[i % 3], "seed": 1}, headers={"Accept": "image/png"})
        assert answer.status_code == 200, answer.text
        return answer.headers["Atelier-Model"]

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(24))) == sorted("abc" * 8)
    body = client.get("/v1/models").json()["data"]
    assert [m["name"] for m in body] == ["a", "b", "c"]
    assert sum(m["loaded"] for m in body) == 1
    text = client.get("/metrics").text
    assert "atelier_models_loaded 1.0" in text
    assert 'why="recalled"' in text


def test_session_cache_loading_counts_toward_the_deadline(
    tmp_path: Path, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of numbers, too, which are encoded without a thread."""
    for seed, name in enumerate("ab"):
        write_tiny_generator(tmp_path / f"{name}.onnx", name=name, seed=seed)
    client = serve(tmp_path, max_loaded_bytes=1, deadline_s=0.5)
    repository = client.app.state.worker.engine.repository  # type: ignore[attr-defined]
    wait_until(lambda: repository.get("a").loaded and not repository.get("b").loaded)
    submit = Batcher.submit

    async def slow_recall(generator: ServedModel) -> None:
        await asyncio.sleep(0.3)

    async def slow_submit(*arguments: Any) -> Any:
        await asyncio.sleep(0.3)
        return await submit(*arguments)

    monkeypatch.setattr(repository, "reload", slow_recall)
    monkeypatch.setattr(Batcher, "submit", slow_submit)
    headers = {"Accept": "application/x-npy"}
    answer = client.post("/v1/generate", json={"model": "b", "seed": 1}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "deadline_exceeded")
