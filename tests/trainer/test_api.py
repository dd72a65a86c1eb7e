"""trainer.load_config, train and export from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import trainer
from tests.support.trainer.tiny_run import TINY
from trainer.training import checkpoint


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny preset in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY), encoding="utf-8")
    return "tiny.yaml"


def test_import_trainer_is_light() -> None:
    code = (
        "import sys, trainer; assert {'train', 'export', 'load_config'} <= set(dir(trainer)), dir(trainer);"
        "print(sorted({'torch', 'numpy', 'pydantic', 'yaml', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_of_the_package_exist() -> None:
    assert all(getattr(trainer, name) is not None for name in trainer.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = trainer.nothing


def test_load_config_overrides_may_be_values() -> None:
    config = trainer.load_config(
        "digits-dcgan",
        {
            "optim.g_lr": 2e-4,
            "model.g_widths": (8, 8, 8),
            "data.flip": True,
            "objective.clip": None,
            "name": "x: y"[:1],
        },
    )
    assert (config.optim.g_lr, config.model.g_widths, config.data.flip, config.name) == (2e-4, (8, 8, 8), True, "x")
    assert trainer.load_config("digits-dcgan", ["run.seed=3"], name="mine").run.seed == 3
    with pytest.raises(trainer.TrainerError, match=r"did you mean optim\.batch_size"):
        trainer.load_config("digits-dcgan", {"optim.bach_size": 3})


def test_load_config_overrides_may_be_numpy_values() -> None:
    config = trainer.load_config(
        "digits-dcgan",
        {
            "optim.g_lr": np.float32(0.25),
            "optim.d_lr": np.array(2e-5),
            "optim.batch_size": np.int64(32),
            "model.g_widths": np.array([8, 8, 8]),
            "optim.decay_kimg": [np.int32(50), np.float64(100)],
            "data.flip": np.bool_(True),
        },
    )
    assert (config.optim.g_lr, config.optim.d_lr, config.optim.batch_size) == (0.25, 2e-5, 32)
    assert (config.model.g_widths, config.optim.decay_kimg, config.data.flip) == ((8, 8, 8), (50, 100), True)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("optim.g_lr", object(), "optim.g_lr: a config cannot hold a value of type object"),
        ("optim.g_lr", 1j, "optim.g_lr: a config cannot hold a value of type complex"),
        ("optim.g_lr", np.array([object()]), "optim.g_lr: a config cannot hold a value of type ndarray"),
        ("data.source", None, "data.source is a text, not NoneType"),
        ("name", 3, "name is a text, not int"),
    ],
)
def test_load_config_other_values_are_one_line(field: str, value: object, reason: str) -> None:
    with pytest.raises(trainer.TrainerError, match=reason) as caught:
        trainer.load_config("digits-dcgan", {field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "preset"),
    [("cifar10-small", "cifar10-small"), (Path("mine.yaml"), "mine.yaml"), ({"name": "x"}, "digits-dcgan")],
)
def test_train_without_a_config_shows_the_call(config: object, preset: str) -> None:
    for resume in (None, "runs/0001-x"):
        with pytest.raises(trainer.TrainerError) as caught:
            trainer.train(config, resume=resume)  # type: ignore[arg-type]
        assert str(caught.value).endswith(f': trainer.train(trainer.load_config("{preset}"))')


def test_load_config_source_may_be_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {source: photos}\n", encoding="utf-8")
    assert trainer.load_config("mine.yaml").data.source == "folder:photos"
    for source in ("photos", Path("photos"), "folder:photos"):
        config = trainer.load_config("digits-dcgan", {"data.source": source})
        assert config == trainer.load_config("digits-dcgan", ["data.source=folder:photos"])
        assert (config.data.source, config.name) == ("folder:photos", "photos")


@pytest.mark.slow
def test_train_resume_and_export_from_python(preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = trainer.load_config(preset, {"run.quality_ticks": 1, "run.quality_images": 16})
    run = trainer.train(config, quiet=True)
    assert capsys.readouterr().out == ""
    assert run.finished
    assert run.path == Path("runs/0001-tiny")
    assert run.config.run.device == "cpu"
    assert [tick["images_seen"] for tick in run.metrics] == [40, 80, 120, 160]
    assert run.checkpoints.latest == checkpoint.paths(run.path)[-1]
    assert run.checkpoints.best is not None
    assert run.checkpoints.best.is_file()

    longer = trainer.load_config(preset, {"run.total_kimg": 0.2, "run.quality_ticks": 0})
    again = trainer.train(longer, resume=run, quiet=True)
    assert again.metrics[-1]["images_seen"] == 200
    assert trainer.train(resume=run.path, quiet=True).metrics == again.metrics

    path = trainer.export(again, tmp_path / "mine.onnx")
    assert path == tmp_path / "mine.onnx"
    names = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert names["name"] == "mine"
    assert trainer.export(str(again.checkpoints.best), name="best") == Path("models/best.onnx")


def test_train_resume_with_other_networks_is_rejected(preset: str) -> None:
    run = trainer.train(trainer.load_config(preset), quiet=True)
    with pytest.raises(trainer.TrainerError, match=r"cannot change when resuming: model\.z_dim: 4 → 5"):
        trainer.train(trainer.load_config(preset, {"model.z_dim": 5}), resume=run)
    with pytest.raises(trainer.TrainerError, match="needs a config"):
        trainer.train()


def test_train_of_a_missing_device_is_rejected(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(trainer.TrainerError, match="no such device"):
        trainer.train(trainer.load_config(preset), device="cuda")
    assert not Path("runs").exists()
