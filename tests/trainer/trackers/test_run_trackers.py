"""Several trackers together: each is off when it fails, and no tick is logged twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer import api
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.trackers import RunTrackers, TrackedRun, require_installed, run_trackers
from trainer.trackers import trackio as trackio_module
from trainer.trackers import wandb as wandb_module

IMAGES = {"samples/fixed": np.zeros((4, 4, 1), np.uint8)}


class Recorder:
    """A tracker that keeps what it is given, and fails where `fails` names the call."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, run: TrackedRun) -> Recorder:
        self.run = run
        self._call("begin", run.identity.get("id"))
        self.identity, self.logged_until, self.location = {"id": "abc"}, run.logged_until, "run abc"
        return self

    def _call(self, name: str, *values: Any) -> None:
        self.calls.append((name, *values))
        if self.fails == name:
            raise OSError(28, "No space\nleft on device")

    def log_config(self, config: Config, made_by: Mapping[str, Any]) -> None:
        self._call("config", config.name, dict(made_by))

    def log_images(self, images_seen: int, images: Mapping[str, np.ndarray]) -> None:
        self._call("images", images_seen, list(images))

    def log_scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        self._call("scalars", images_seen, dict(values))

    def finish(self, outcome: str, images_seen: int, final: Mapping[str, float]) -> None:
        self._call("finish", outcome, images_seen, dict(final))

    def steps(self, name: str = "scalars") -> list[int]:
        return [call[1] for call in self.calls if call[0] == name]


@pytest.fixture
def begin(
    tmp_path: Path, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[RunTrackers, list[str]]]:
    """begin(images_seen, history, wandb=…, trackio=…) → the trackers and the lines that they printed."""

    def make(
        images_seen: int = 0, history: list[dict[str, float]] = [], **trackers: Recorder  # noqa: B006
    ) -> tuple[RunTrackers, list[str]]:  # fmt: skip
        monkeypatch.setattr(wandb_module, "WandbTracker", trackers.get("wandb"))
        monkeypatch.setattr(trackio_module, "TrackioTracker", trackers.get("trackio"))
        lines: list[str] = []
        config = tiny(run={"track": list(trackers)})
        made = RunTrackers(
            config, tmp_path, images_seen=images_seen, made_by={"a": 1}, history=history, report=lines.append
        )
        return made, lines

    return make


def test_trackers_get_config_ticks_and_end(begin: Callable[..., Any]) -> None:
    recorder = Recorder()
    trackers, lines = begin(wandb=recorder)
    trackers.log_tick(40, {"loss/G": 1.0}, IMAGES)
    trackers.finish("finished", 40, {"loss/G": 1.0})
    assert recorder.calls == [
        ("begin", None),
        ("config", "tiny", {"a": 1}),
        ("images", 40, ["samples/fixed"]),
        ("scalars", 40, {"loss/G": 1.0}),
        ("finish", "finished", 40, {"loss/G": 1.0}),
    ]
    assert lines == ["wandb: run abc"]


@pytest.mark.parametrize("call", ["begin", "config", "images", "scalars", "finish"])
def test_tracker_that_fails_warns_once_and_others_continue(call: str, begin: Callable[..., Any]) -> None:
    broken, whole = Recorder(fails=call), Recorder()
    trackers, lines = begin(wandb=broken, trackio=whole)
    for images_seen in (40, 80):
        trackers.log_tick(images_seen, {"loss/G": 1.0}, IMAGES)
    trackers.finish("stopped", 80, {})
    (warning,) = [line for line in lines if line.startswith("warning")]
    assert warning == "warning: wandb is off for the rest of this run: [Errno 28] No space left on device"
    assert sum(name == call for name, *_ in broken.calls) == 1
    assert whole.steps() == whole.steps("images") == [40, 80]


def test_tracker_that_failed_is_closed(begin: Callable[..., Any]) -> None:
    broken = Recorder(fails="scalars")
    trackers, _ = begin(wandb=broken)
    trackers.log_tick(40, {}, {})
    assert broken.calls[-1] == ("finish", "failed", 0, {})


def test_tracker_interrupt_is_not_swallowed(begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    trackers, _ = begin(wandb=recorder)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recorder, "log_scalars", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trackers.log_tick(40, {}, {})


def test_resume_continues_and_logs_no_tick_twice(begin: Callable[..., Any]) -> None:
    first, again = Recorder(), Recorder()
    trackers, _ = begin(wandb=first)
    for images_seen in (40, 80):
        trackers.log_tick(images_seen, {"loss/G": 1.0}, IMAGES)

    trackers, _ = begin(40, [{"step": 5, "images_seen": 40, "loss/G": 1.0}], wandb=again)  # killed after tick 80
    for images_seen in (80, 120):
        trackers.log_tick(images_seen, {"loss/G": 1.0}, IMAGES)
    assert again.run.identity == {"id": "abc"}
    assert again.steps() == again.steps("images") == [120]


def test_killed_while_logging_leaves_the_tick_out(
    begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder = Recorder()
    trackers, _ = begin(wandb=recorder)
    seen = []
    monkeypatch.setattr(
        recorder, "log_scalars", lambda *_: seen.append(json.loads((tmp_path / "trackers.json").read_text("utf-8")))
    )
    trackers.log_tick(40, {}, {})
    assert seen == [{"wandb": {"id": "abc", "images_seen": 40}}]


def test_resume_adds_missed_ticks_of_metrics(begin: Callable[..., Any]) -> None:
    history = [
        {"step": 5, "images_seen": 40, "loss/G": 1.0, "seconds": 2.0},
        {"step": 10, "images_seen": 80, "loss/G": 2.0, "seconds": 4.0},
    ]
    broken, again = Recorder(), Recorder()
    trackers, _ = begin(wandb=broken)
    trackers.log_tick(40, {"loss/G": 1.0}, {})
    broken.fails = "scalars"
    trackers.log_tick(80, {"loss/G": 2.0}, {})
    trackers, _ = begin(80, history, wandb=again)
    assert [call for call in again.calls if call[0] == "scalars"] == [("scalars", 80, {"loss/G": 2.0})]


def test_tracker_that_cannot_begin_keeps_its_last_tick(begin: Callable[..., Any]) -> None:
    history = [{"images_seen": 40, "loss/G": 1.0}]
    trackers, _ = begin(wandb=Recorder(), trackio=Recorder())
    trackers.log_tick(40, {"loss/G": 1.0}, {})
    trackers, _ = begin(40, history, wandb=Recorder(fails="begin"), trackio=Recorder())
    trackers.log_tick(80, {"loss/G": 1.0}, {})
    again = Recorder()
    begin(80, [*history, {"images_seen": 80, "loss/G": 1.0}], wandb=again)
    assert (again.run.identity, again.steps()) == ({"id": "abc"}, [80])


def test_run_that_starts_again_forgets_its_record(begin: Callable[..., Any], tmp_path: Path) -> None:
    trackers, _ = begin(wandb=Recorder())
    trackers.log_tick(40, {}, {})
    again = Recorder()
    trackers, _ = begin(0, wandb=again)
    trackers.log_tick(40, {}, {})
    assert (again.run.identity, again.steps()) == ({}, [40])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"wandb": 1}', '{"wandb": {"id": 3, "images_seen": "x"}}'])
def test_damaged_record_begins_a_new_tracker_run(text: str, begin: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "trackers.json").write_text(text, encoding="utf-8")
    recorder = Recorder()
    trackers, lines = begin(40, wandb=recorder)
    trackers.log_tick(80, {}, {})
    assert (recorder.run.identity, recorder.steps()) == ({}, [80])
    assert lines == ["wandb: run abc"]


def test_require_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_trackers.importlib.util, "find_spec", lambda _: None)
    expected = r"tracker trackio needs .*pip install 'gan-atelier\[trackio\]', or .* --track \(none"
    with pytest.raises(TrainerError, match=expected):
        require_installed(["trackio"])
    require_installed([])


def test_require_installed_takes_no_folder_for_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trackio").mkdir()  # as `wandb/` in the folder of a user
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(TrainerError, match="needs the package trackio"):
        require_installed(["trackio"])


def test_absent_package_fails_before_anything_is_written(
    tmp_path: Path, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(TrainerError, match="pip install"):
        api.start_run(tiny(run={"track": ["wandb"]}), tmp_path / "runs", data_root=tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_name_of_a_sweeps_run_names_sweep_and_trial(tmp_path: Path) -> None:
    run = TrackedRun(tmp_path / "sweeps" / "digits-z_dim" / "trials" / "0003" / "seed-1")
    assert (run.name, run.sweep) == ("digits-z_dim-0003-seed-1", "digits-z_dim")
    run = TrackedRun(tmp_path / "runs" / "0001-tiny")
    assert (run.name, run.sweep) == ("0001-tiny", None)
