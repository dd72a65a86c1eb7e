"""A job killed at any moment and run again gives the identical number; whatever stops it, its work is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from evaluation.features.extraction import extract_features
from evaluation.features.store import count_images
from evaluation.sources import ImageBatch, SeedRange, open_source
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.fake_service import fake_service, noise
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.image_files import write_pictures
from tests.support.tiny_generator import write_tiny_generator

METRICS = "fid,precision,is"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures", n_train=60, n_test=40)
    write_tiny_extractor(tmp_path / "e.onnx")
    assert run("reference", "folder:pictures@test", "--extractor", "e.onnx", "--output", "r.npz").exit_code == 0
    return tmp_path


def slowed(make: Callable[[int], np.ndarray], seconds: float) -> Callable[[int], np.ndarray]:
    """A service's images, so slow that a job over them can be caught in the middle."""

    def slow(seed: int) -> np.ndarray:
        time.sleep(seconds)
        return make(seed)

    return slow


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def seen(folder: Path) -> int:
    return sum(count_images(state.parent) for state in folder.rglob("state.npz"))


@pytest.mark.slow
def test_score_killed_repeatedly_gives_the_identical_numbers(workspace: Path) -> None:
    words = ("--reference", "r.npz", "--num-images", "700", "--metrics", METRICS, "--no-baseline")
    kills, resumed = 0, False
    with fake_service(noise) as url:
        assert run("score", url, *words, "--output", "whole").exit_code == 0
    with fake_service(slowed(noise, 0.03)) as url:  # so that it has saved thrice before it is through
        command = [sys.executable, "-m", "evaluation", "score", url, *words, "--output", "killed"]
        for _ in range(3):
            before = seen(workspace / "killed")
            job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
            until(lambda: seen(workspace / "killed") > before or job.poll() is not None)  # noqa: B023
            time.sleep(0.05 * kills)  # not always in the same place between two saves
            job.send_signal(signal.SIGKILL)
            kills += job.wait() == -signal.SIGKILL
            assert job.stderr is not None
            resumed |= "resuming: " in job.stderr.read()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kills == 3
    assert resumed
    assert "resuming: " in done.stderr
    whole, killed = (
        json.loads((workspace / name / "report.json").read_text(encoding="utf-8")) for name in ("whole", "killed")
    )
    assert whole["scores"] == killed["scores"], "to the last bit"
    assert [result["std"] for result in whole["results"]] == [result["std"] for result in killed["results"]]
    assert not (workspace / "killed" / ".partial").exists()
    for name in ("samples", "reals"):
        assert (workspace / "killed/images" / f"{name}.npy").read_bytes() == (
            workspace / "whole/images" / f"{name}.npy"
        ).read_bytes()


def test_extract_features_stopped_after_any_batch_is_identical(tmp_path: Path) -> None:
    source = open_source(str(write_tiny_generator(tmp_path / "g.onnx", num_classes=3)))
    extractor = load_extractor(write_tiny_extractor(tmp_path / "e.onnx"))
    keep = frozenset({"features", "logits", "labels", "samples"})
    whole = extract_features(source, extractor, SeedRange(5, 200), tmp_path / "whole", keep=keep)

    class Stopping:
        def __init__(self, after: int) -> None:
            self.after = after
            self.description, self.shape = source.description, source.shape

        def batches(self, *arguments: Any) -> Any:
            for index, batch in enumerate(source.batches(*arguments)):
                if index == self.after:
                    raise EvaluationError("stopped")
                yield batch

    for after in (0, 1, 3):
        folder = tmp_path / f"after-{after}"
        with pytest.raises(EvaluationError, match="stopped"):
            extract_features(Stopping(after), extractor, SeedRange(5, 200), folder, keep=keep)  # type: ignore[arg-type]
        assert count_images(folder) == 64 * after
        again = extract_features(source, extractor, SeedRange(5, 200), folder, keep=keep)
        assert (again.statistics.mu == whole.statistics.mu).all()
        assert (again.statistics.sigma == whole.statistics.sigma).all()
        for what in keep:
            assert (again.rows(what) == whole.rows(what)).all(), what


def test_workdir_of_other_arguments_is_neither_used_nor_removed(workspace: Path) -> None:
    write_tiny_generator(workspace / "g.onnx")
    with fake_service(noise, fail_after=9) as url:
        words = ("score", url, "--reference", "r.npz", "--output", "report")
        line = one_line(run(*words, "--num-images", 1000))
    assert "it broke (" in line
    assert "of 1000 images are kept in report/.partial/" in line
    (kept,) = (workspace / "report" / ".partial").glob("*/partial.json")
    partial = json.loads(kept.read_text(encoding="utf-8"))
    assert partial["n"] >= 64
    assert list(partial["scores"]) == [f"fd_tiny{partial['n']}"]
    assert "it broke" in partial["stopped"]
    done = run("score", "g.onnx", "--reference", "r.npz", "--output", "report", "--num-images", 70, "--no-baseline")
    assert done.exit_code == 0
    assert "holds unfinished work with other arguments" in done.stderr
    assert "num_images 1000, not 70" in done.stderr
    assert kept.exists()


def test_score_of_a_model_replaced_midway_fails_and_keeps_work(workspace: Path) -> None:
    with fake_service(noise, change_after=9) as url:
        line = one_line(run("score", url, "--reference", "r.npz", "--num-images", 1000, "--output", "report"))
    assert "changed" in line or "replaced" in line
    (kept,) = (workspace / "report" / ".partial").glob("*/partial.json")
    assert 0 < json.loads(kept.read_text(encoding="utf-8"))["n"] < 1000


def test_score_resumed_on_another_model_fails(tmp_path: Path) -> None:
    extractor = load_extractor(write_tiny_extractor(tmp_path / "e.onnx"))
    draws = np.random.default_rng(0).integers(0, 256, (128, 8, 8, 1), dtype=np.uint8)

    class Model:
        description: ClassVar[dict[str, Any]] = {}
        shape = (8, 8, 1)
        digest = "a" * 64

        def batches(self, draw: SeedRange, start: int, stop: int, batch: int) -> Any:
            for first in range(start, stop, batch):
                if first == 64 and self.digest[0] == "a":
                    raise EvaluationError("stopped")
                yield ImageBatch(draws[first : min(first + batch, stop)], self.digest)

    model: Any = Model()
    with pytest.raises(EvaluationError, match="stopped"):
        extract_features(model, extractor, SeedRange(0, 128), tmp_path / "work")
    model.digest = "b" * 64
    with pytest.raises(EvaluationError, match="a score is of one model"):
        extract_features(model, extractor, SeedRange(0, 128), tmp_path / "work")
    assert count_images(tmp_path / "work") == 64


def test_score_twice_at_once_in_one_workdir_fails(workspace: Path) -> None:
    with fake_service(slowed(noise, 0.01)) as url:
        words = ("score", url, "--reference", "r.npz", "--num-images", 400, "--output", "report", "--no-baseline")
        command = [sys.executable, "-m", "evaluation", *map(str, words)]
        first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
        until(lambda: list((workspace / "report").glob(".partial/*/arguments.json")) or first.poll() is not None)
        line = one_line(run(*words))
        first.kill()
        first.wait()
    assert "another process is already scoring" in line


@pytest.mark.slow
def test_score_while_the_service_restarts_continues(workspace: Path) -> None:
    """The port is silent for a while in the middle, then answers 503, then is there again."""
    words = ("--reference", "r.npz", "--num-images", "600", "--no-baseline")
    with fake_service(noise) as url:
        assert run("score", url, *words, "--output", "calm.json").exit_code == 0
    with fake_service(noise, away_after=3, away_s=3.0) as url:
        done: list[Any] = []
        job = threading.Thread(target=lambda: done.append(run("score", url, *words, "--output", "rough.json")))
        job.start()
        job.join(60)
    assert done[0].exit_code == 0, done[0].output
    calm, rough = (json.loads((workspace / name).read_text(encoding="utf-8")) for name in ("calm.json", "rough.json"))
    assert calm["scores"] == rough["scores"]
    assert rough["timing"]["seconds"] > 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_score_ended_by_a_signal_leaves_no_temporary_files(number: int, workspace: Path) -> None:
    temporary = workspace / "tmp"
    temporary.mkdir()
    words = ("--reference", "r.npz", "--num-images", "700", "--metrics", "fid", "--no-baseline")
    with fake_service(slowed(noise, 0.05)) as url:
        command = ["env", "--default-signal=HUP", sys.executable, "-m", "evaluation", "score", url, *words]
        environment = {**os.environ, "TMPDIR": str(temporary)}
        job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        until(lambda: seen(temporary) or job.poll() is not None)
        job.send_signal(number)
        job.send_signal(signal.SIGHUP)
        assert job.stderr is not None
        reported = job.stderr.read()
        assert job.wait() == 130
    assert "Traceback" not in reported
    assert list(temporary.iterdir()) == []
