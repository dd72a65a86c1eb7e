"""Files that break, loop or take all memory: each is refused for itself, and the others are served."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from starlette.testclient import TestClient

from service.models import probe
from service.models.model_files import display_name, file_signature, list_ignored_files
from service.models.probe import Prober, TrialRequest, Verdict
from service.models.probe_child import Trial
from service.models.repository import PROBING, Repository
from service.settings import Settings
from tests.support.polling import wait_until
from tests.support.service.hostile_models import WIDTH, drawing, endless, exponential, memory_bomb, write
from tests.support.tiny_generator import tiny_generator, write_tiny_generator

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n"


def trial(path: Path) -> TrialRequest:
    found = file_signature(path)
    assert found is not None
    return TrialRequest(path, found, 2**30, 2**31, 60.0, 1, 64, 2**29)


def loaded(folder: Path, **settings: Any) -> Repository:
    repository = Repository(Settings(model_dir=folder, **settings))
    repository.load_all()
    return repository


def reason(folder: Path, file: str = "bad.onnx", **settings: Any) -> str:
    """Why a file is refused, next to a sound one, which is served."""
    write_tiny_generator(folder / "good.onnx", name="good")
    repository = loaded(folder, watch_s=0, **settings)
    assert [g.metadata.name for g in repository.all()] == ["good"]
    assert repository.not_ready is None
    return repository.failed[file].reason


@pytest.fixture
def no_process() -> Iterator[None]:
    """End the process that tries files, which may be busy with one."""
    yield
    probe.prober().close()


def test_probe_metadata_with_a_flipped_bit_fails_only_that_file(tmp_path: Path) -> None:
    created = b"2024-01-01T00:00:00"
    write(tmp_path / "bad.onnx", tiny_generator(), (created, b"2\xb024-01-01T00:00:00"))
    assert "not UTF-8" in reason(tmp_path)


@pytest.mark.parametrize(
    ("file", "body"),
    [
        (lambda p: write(p, tiny_generator(), (b"images_seen", b"\xffmages_seen")), "images_seen"),
        (lambda p: write(p, drawing(), (b"Tanh", b"\xff\xfe\xfdh")), "not UTF-8"),
        (lambda p: write(p, drawing(ir_version=99)), "IR version: 99"),
        (lambda p: p.write_bytes(POINTER), "Git LFS pointer, not the file itself; run `git lfs pull`"),
    ],
)
def test_probe_damaged_or_other_file_reports_the_reason(
    tmp_path: Path, file: Callable[[Path], object], body: str
) -> None:
    file(tmp_path / "bad.onnx")
    assert body in reason(tmp_path)


def test_probe_weights_as_git_lfs_pointer_are_named(tmp_path: Path) -> None:
    onnx.save(drawing(), tmp_path / "bad.onnx", save_as_external_data=True, location="bad.onnx.data", size_threshold=0)
    (tmp_path / "bad.onnx.data").write_bytes(POINTER)
    assert "'bad.onnx.data', with its weights, is a Git LFS pointer" in reason(tmp_path)


@pytest.mark.parametrize("model", [endless, exponential])
def test_probe_endless_model_fails_at_its_deadline(tmp_path: Path, model: Callable[[], onnx.ModelProto]) -> None:
    write(tmp_path / "bad.onnx", model())
    assert reason(tmp_path, load_timeout_s=1) == "it was not loaded and run within 1 s (ATELIER_LOAD_TIMEOUT_S)"


def test_probe_memory_bomb_fails(tmp_path: Path) -> None:
    write(tmp_path / "bad.onnx", memory_bomb())
    assert reason(tmp_path, max_load_bytes=2**28).endswith("256 MiB of memory (ATELIER_MAX_LOAD_BYTES)")


@pytest.mark.slow
def test_probe_slow_file_delays_no_other(tmp_path: Path, no_process: None) -> None:
    write(tmp_path / "bad.onnx", endless())
    write_tiny_generator(tmp_path / "good.onnx", name="good")
    repository = loaded(tmp_path)
    assert repository.get(None).metadata.name == "good"
    assert repository.failed["bad.onnx"].reason == PROBING
    write_tiny_generator(tmp_path / "new.onnx", name="new")
    repository.scan()
    repository.scan()
    assert repository.get("new").metadata.name == "new"


def test_repository_serves_each_model_once_it_is_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_generator(tmp_path / "a.onnx", name="small", size=4)
    write_tiny_generator(tmp_path / "b.onnx", name="large", size=64)
    repository = Repository(Settings(model_dir=tmp_path))
    go_on, made = threading.Event(), repository._make

    def slow(path: Path, *rest: Any) -> Any:
        if path.name == "b.onnx":
            go_on.wait(60)
        return made(path, *rest)

    monkeypatch.setattr(repository, "_make", slow)
    thread = threading.Thread(target=repository.load_all)
    thread.start()
    try:
        wait_until(lambda: repository.all(), 60)
        assert repository.get("small").metadata.name == "small"
        assert repository.default is None, "which is the newest shows when all are loaded"
        assert repository.not_ready == "models are still being loaded"
    finally:
        go_on.set()
        thread.join()
    assert repository.not_ready is None
    assert [g.metadata.name for g in repository.all()] == ["large", "small"]


def test_probe_batches_are_bounded_by_memory(tmp_path: Path) -> None:
    write(tmp_path / "large.onnx", drawing(256))
    wide, narrow = loaded(tmp_path), loaded(tmp_path, max_batch_bytes=2**23)
    latents = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    assert 1 <= narrow.get("large").batch_rows < 8
    np.testing.assert_array_equal(wide.get("large").run(latents, None), narrow.get("large").run(latents, None))


def test_probe_image_larger_than_a_batch_runs_exclusively(tmp_path: Path) -> None:
    write(tmp_path / "large.onnx", drawing(512))
    generator = loaded(tmp_path, max_batch_bytes=2**20).get("large")
    assert (generator.batch_rows, generator._runtime.heavy) == (1, True)
    assert generator.run(np.zeros((2, WIDTH), np.float32), None).shape == (2, 512, 512, 3)


def test_repository_names_not_utf8_are_listed_and_counted(tmp_path: Path, serve: Callable[..., TestClient]) -> None:
    write_tiny_generator(tmp_path / "good.onnx", name="good")
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.onnx"))
    write(strange, drawing())
    write(tmp_path / "data.onnx", _with_dataset("ZZZZ"), (b"ZZZZ", b"\xff\xfe\xfd\xfc"))
    write_tiny_generator(Path(os.fsdecode(os.fsencode(tmp_path) + b"/own\xe9.onnx")), name="own")
    client = serve(tmp_path)
    listing = client.get("/v1/models").json()
    assert {failed["file"] for failed in listing["failed"]} == {"\\xff\\xfe.onnx", "data.onnx"}
    assert {model["file"] for model in listing["data"]} == {"good.onnx", "own\\xe9.onnx"}
    metrics = client.get("/metrics")
    assert metrics.status_code == 200
    assert "xff" in metrics.text


def _with_dataset(text: str) -> onnx.ModelProto:
    model = drawing()
    onnx.helper.set_model_props(model, {"dataset": text})
    return model


def test_repository_reads_capital_suffixes_and_lists_ignored(tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "UP.ONNX", name="up")
    for name in (
        "a.onnx.bak",
        "b.onnx ",
        "c.pth",
        "d.onnx.zip",
        "readme.txt",
        "UP.ONNX.data",
        ".e.onnx",
        "f.onnx.part",
    ):
        (tmp_path / name).write_bytes(b"")
    repository = loaded(tmp_path)
    assert [g.metadata.name for g in repository.all()] == ["up"]
    assert [entry["file"] for entry in repository.describe()["left_out"]] == [
        "a.onnx.bak",
        "b.onnx ",
        "c.pth",
        "d.onnx.zip",
    ]
    assert list_ignored_files(tmp_path)["b.onnx "] == "its name has to end in .onnx, with nothing after it"
    assert display_name(tmp_path / "é.onnx") == "é.onnx"
    assert display_name(tmp_path / "a\n\x1b[31m.onnx") == "a\\n\\x1b[31m.onnx"


def asked(prober: Prober, path: Path) -> Verdict:
    verdict = prober.verdict(trial(path), threading.Event())
    assert verdict is not None
    return verdict


def test_probe_verdict_is_shared_by_the_workers(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "models" / "a.onnx")
    first, second = Prober(tmp_path), Prober(tmp_path)
    verdict = asked(first, path)
    assert verdict.ok
    assert asked(second, path) == verdict
    assert second._process is None, "the other one has tried it"
    first.close()


def test_probe_crashing_file_is_tried_at_most_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    child.write_text(f"import sys\nsys.stdin.readline()\nopen({str(tmp_path / 'starts')!r}, 'a').write('.')\n")
    monkeypatch.setattr(probe, "CHILD", child)
    path = write_tiny_generator(tmp_path / "a.onnx")
    (tmp_path / "shared").mkdir()
    assert asked(Prober(tmp_path / "shared"), path).reason == "the process that tries it ends"
    assert asked(Prober(tmp_path / "shared"), path).reason == "the process that tries it ends"
    assert (tmp_path / "starts").read_text(encoding="utf-8") == ".."


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_probe_crash_names_the_signal(number: signal.Signals) -> None:
    ended = Trial.__new__(Trial)
    ended.late, ended.reply = False, b""
    verdict = ended.verdict(int(number))
    assert not verdict["ok"]
    assert number.name in verdict["reason"]


def test_probe_file_that_ends_workers_is_not_loaded_again(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx")
    (tmp_path / "verdicts").mkdir()
    for _ in range(3):
        assert Prober(tmp_path).begin_loading(trial(path))
    assert not Prober(tmp_path).begin_loading(trial(path))
    write_tiny_generator(path, seed=2)
    assert Prober(tmp_path).begin_loading(trial(path))


def test_probe_process_has_no_secret_and_ends_with_its_worker(tmp_path: Path) -> None:
    write(tmp_path / "a.onnx", endless())
    code = (
        "import threading; from pathlib import Path; from service.models.model_files import file_signature;"
        "from service.models.probe import Prober, TrialRequest;"
        f"prober = Prober(Path({str(tmp_path)!r})); path = Path({str(tmp_path / 'a.onnx')!r});"
        "prober.request(TrialRequest(path, file_signature(path), 2**30, 2**31, 60.0, 1, 64, 2**29));"
        "print(prober._process.pid, flush=True); threading.Event().wait()"
    )
    environment = {**os.environ, "ATELIER_API_KEYS": "s3cret", "AWS_SECRET_ACCESS_KEY": "s3cret"}
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    assert worker.stdout is not None
    process = psutil.Process(int(worker.stdout.readline()))
    wait_until(process.children, 60)
    family = [process, *process.children()]
    assert "s3cret" not in json.dumps([member.environ() for member in family])
    worker.kill()
    worker.wait()
    wait_until(lambda: not any(member.is_running() and member.status() != "zombie" for member in family), 10)


@pytest.mark.slow
def test_probe_running_leaves_requests_answered(tmp_path: Path, serve: Callable[..., TestClient]) -> None:
    write_tiny_generator(tmp_path / "good.onnx", name="good")
    client = serve(tmp_path, load_timeout_s=2, watch_s=0.05)
    write(tmp_path / "bad.onnx", endless())
    end = time.monotonic() + 60
    while not client.get("/v1/models").json()["failed"]:
        assert client.post("/v1/generate", json={"n": 1}, headers={"Accept": "image/png"}).status_code == 200
        assert time.monotonic() < end


def test_session_run_endless_for_some_latents_is_terminated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents with a large sum take 2**62 rounds; the trial's do not."""
    monkeypatch.setattr("service.models.repository.RUN_GRACE_S", 0.0)
    write(tmp_path / "a.onnx", endless(beyond=100.0))
    generator = loaded(tmp_path, deadline_s=1.0, threads=1).get("a")
    assert generator.run(np.zeros((2, WIDTH), np.float32), None).shape == (2, 16, 16, 3)
    began = time.monotonic()
    with pytest.raises(Exception, match="terminate"):
        generator.run(np.full((2, WIDTH), 100, np.float32), None)
    assert time.monotonic() - began < 30
