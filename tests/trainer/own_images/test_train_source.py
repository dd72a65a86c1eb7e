"""`trainer train SOURCE` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.support.image_files import write_noise
from tests.support.trainer.own_images import TINY
from trainer import api
from trainer.cli import app
from trainer.config import loading
from trainer.own_images import inspection
from trainer.training import checkpoint, run_folder
from trainer.training.state import TrainState

SHORT = [*TINY, "run.total_kimg=0.128", "run.tick_kimg=0.064", "optim.decay_kimg=[0.06,0.128]", "run.quality_ticks=0"]
SETTINGS = [word for setting in SHORT for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.own_images.estimate.MOST_STEPS", 4)


def test_train_source_exports_and_prints_commands() -> None:
    write_noise(Path("photos"), 40)
    result = CliRunner().invoke(app, ["train", "photos/", *SETTINGS])
    assert result.exit_code == 0, result.output
    assert Path("models/photos.onnx").is_file()
    assert Path("runs/0001-photos/config.json").is_file()
    for start in (
        "found in folder:photos",
        "chosen (change",
        "exported: models/photos.onnx",
        "serve:  MODEL_DIR=models",
    ):
        assert any(line.startswith(start) for line in result.stdout.splitlines()), start
    assert "score models/photos.onnx --reference folder:photos --metrics kid" in result.stdout


def test_dry_run_prints_a_config_that_is_a_preset() -> None:
    write_noise(Path("photos"), 40)
    result = CliRunner().invoke(app, ["train", "photos", "--dry-run", *SETTINGS])
    assert result.exit_code == 0, result.output
    Path("config.json").write_text(result.stdout, encoding="utf-8")
    config = loading.load_config("config.json")
    assert config.data.source == "folder:photos"
    assert "found in folder:photos" in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["cache", "config.json", "photos"]


def test_train_source_equals_a_run_of_its_config() -> None:
    write_noise(Path("photos"), 40)
    result = CliRunner().invoke(app, ["train", "photos", *SETTINGS])
    assert result.exit_code == 0, result.output
    config = loading.parse(json.loads(Path("runs/0001-photos/config.json").read_text(encoding="utf-8")))
    again = api.start_run(config, Path("again"), quiet=True)
    first, second = (checkpoint.load_latest(folder)[1] for folder in (Path("runs/0001-photos"), again.path))
    assert first["G_ema"].keys() == second["G_ema"].keys()
    assert all(torch.equal(first["G_ema"][name], second["G_ema"][name]) for name in first["G_ema"])


def test_train_source_from_a_parent_keeps_its_networks() -> None:
    write_noise(Path("photos"), 40)
    write_noise(Path("others"), 40, seed=1)
    assert CliRunner().invoke(app, ["train", "photos", *SETTINGS]).exit_code == 0
    short = ["--set", "run.total_kimg=0.128", "--set", "run.threads=1", "--set", "run.quality_ticks=0"]
    result = CliRunner().invoke(app, ["train", "others", "--init-from", "1", *short])
    assert result.exit_code == 0, result.output
    config = json.loads(Path("runs/0002-others/config.json").read_text(encoding="utf-8"))
    assert config["model"]["g_widths"] == [8, 8, 8]
    assert "the parent's" in result.stdout


def test_inspect_from_python_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import trainer

    write_noise(Path("photos"), 40)
    found = trainer.inspect(Path("photos"), {"run.threads": 1, "run.device": "cpu"}, estimate=False)
    assert found.config.data.source == "folder:photos"
    assert str(found).startswith("found in folder:photos")


def test_stopped_run_prints_how_to_export_it(monkeypatch: pytest.MonkeyPatch) -> None:
    write_noise(Path("photos"), 40)
    monkeypatch.setattr(
        api, "start_run", lambda config, *_, **__: api.Run(Path("runs/0001-photos"), config, False, True)
    )
    result = CliRunner().invoke(app, ["train", "photos", *SETTINGS])
    assert result.exit_code == 130
    assert "trainer export runs/0001-photos -o models" in result.stdout.splitlines()[-1]
    assert not Path("models").exists()


class Clock:
    """A clock that only `pass_seconds` moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("seconds", "steps", "is_late"), [(61, 1, True), (1, 8, False)])
def test_minutes_include_the_look(seconds: float, steps: int, is_late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    write_noise(Path("photos"), 40)
    clock = Clock()
    monkeypatch.setattr(run_folder, "time", clock)
    monkeypatch.setattr(inspection, "measure", lambda config, images: clock.pass_seconds(seconds))
    result = CliRunner().invoke(app, ["train", "photos", "--minutes", "1", *SETTINGS])
    assert result.exit_code == 0, result.output
    assert checkpoint.load_latest(Path("runs/0001-photos"))[1]["counters"]["steps"] == steps
    assert ("note: the look used up all --minutes: the training takes one step" in result.stdout) is is_late
    assert Path("models/photos.onnx").is_file()


def test_parent_that_does_not_fit_is_reported_before_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    write_noise(Path("photos"), 40)
    small = ["model.g_widths=[8]", "model.d_widths=[8]", "run.device=cpu"]
    parent = TrainState.create(loading.load_config("mnist-gan", small))
    monkeypatch.setattr(inspection, "_load", lambda *_: pytest.fail("images are decoded before the parent is checked"))
    Path("run").mkdir()
    checkpoint.save(parent, Path("run"), keep=1)
    words = ["train", "photos", "--init-from", "run", "--preset", "cifar10-small", *SETTINGS]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: nothing of G fits that of mnist-gan (model.architecture: mlp → ")
