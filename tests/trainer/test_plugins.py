"""Losses and networks from a user module: trained, resumed and exported by name, never imported silently."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.paths import ROOT
from tests.support.trainer.tiny_run import TINY
from trainer.cli import app
from trainer.config import loading
from trainer.errors import TrainerError
from trainer.networks import build
from trainer.training import checkpoint
from trainer.training.losses import get_loss

MODULE = """
from trainer.networks import Architecture, dcgan
from trainer.training.losses import LOSSES, AdversarialLoss, hinge_d, wasserstein_g

LOSS = AdversarialLoss(hinge_d, wasserstein_g)


def check(model, resolution):
    if model.z_dim > 4:
        raise ValueError(f"model.z_dim is at most 4, not {model.z_dim}")


ARCHITECTURE = Architecture(dcgan.generator, dcgan.discriminator, check)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the working directory, forgotten after the test."""
    name = f"atelier_user_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, name, sys)
    monkeypatch.delitem(sys.modules, name)
    return name


def tiny(**sections: dict[str, Any]) -> dict[str, Any]:
    return {name: {**fields, **sections.get(name, {})} if isinstance(fields, dict) else fields
            for name, fields in {"objective": {}, **TINY}.items()}  # fmt: skip


def test_config_names_a_plugin_without_importing_it(module: str) -> None:
    config = loading.parse(tiny(objective={"name": f"{module}:LOSS"}, model={"architecture": f"{module}:ARCHITECTURE"}))
    assert [name for _, name in config.plugins()] == [f"{module}:ARCHITECTURE", f"{module}:LOSS"]
    assert module not in sys.modules


@pytest.mark.parametrize("name", ["hing", "my-module:LOSS", "module:", ":LOSS", "a:b:c"])
def test_config_other_name_is_rejected_with_the_choices(name: str) -> None:
    with pytest.raises(TrainerError, match=r"objective.name: Input should be 'non-saturating', .* or 'module:NAME'"):
        loading.parse(tiny(objective={"name": name}))


@pytest.mark.slow
def test_train_resume_and_export_use_the_user_module(module: str, tmp_path: Path) -> None:
    names = {"objective.name": f"{module}:LOSS", "model.architecture": f"{module}:ARCHITECTURE"}
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny()), encoding="utf-8")
    sets = [word for field, name in names.items() for word in ("--set", f"{field}={name}")]
    runner = CliRunner()
    trained = runner.invoke(app, ["train", "--preset", "tiny.yaml", *sets, "--run-dir", "r"])
    assert trained.exit_code == 0, trained.output
    assert trained.stderr.count("note: importing") == 1
    for words in (["resume", "r", "--kimg", "0.2"], ["export", "r", "--output", "tiny.onnx"]):
        del sys.modules[module]
        done = runner.invoke(app, words)
        assert done.exit_code == 0, done.output
        assert f"note: importing {module}, which " in done.stderr

    del sys.modules[module]
    (tmp_path / f"{module}.py").unlink()
    for words in (["resume", "r", "--kimg", "0.3"], ["export", "r", "--output", "tiny.onnx"]):
        done = runner.invoke(app, words)
        assert done.exit_code == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert f"there is no module {module}" in line


def test_reading_a_checkpoint_imports_no_user_module(module: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny()), encoding="utf-8")
    words = ["train", "--preset", "tiny.yaml", "--set", f"model.architecture={module}:ARCHITECTURE", "--run-dir", "r"]
    assert CliRunner().invoke(app, words).exit_code == 0
    del sys.modules[module]
    path, content, _ = checkpoint.load_latest(tmp_path / "r")
    assert checkpoint.config_of(content).model.architecture == f"{module}:ARCHITECTURE"
    refused = CliRunner().invoke(app, ["export", str(path), "--no-user-code", "--output", "x.onnx"])
    assert refused.exit_code == 2
    assert "user code is not allowed here" in refused.stderr
    assert module not in sys.modules


def test_build_architecture_check_is_one_line(module: str) -> None:
    config = loading.parse(tiny(model={"architecture": f"{module}:ARCHITECTURE", "z_dim": 5}))
    with pytest.raises(TrainerError, match="at most 4, not 5"):
        build(config)


def test_plugin_of_another_kind_is_rejected(module: str) -> None:
    with pytest.raises(TrainerError, match="is a Architecture, not a AdversarialLoss"):
        get_loss(f"{module}:ARCHITECTURE")
    with pytest.raises(TrainerError, match="has no NOTHING"):
        get_loss(f"{module}:NOTHING")


def test_get_loss_plugin_without_targets_rejects_smoothing(module: str) -> None:
    with pytest.raises(TrainerError, match="does not take them"):
        get_loss(f"{module}:LOSS", real_label=0.9)


@pytest.mark.slow
def test_plugin_is_found_in_the_working_directory_of_a_process(module: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny()), encoding="utf-8")
    code = "from trainer.__main__ import main; main()"
    words = ["train", "--preset", "tiny.yaml", "--set", f"objective.name={module}:LOSS", "--run-dir", "r"]
    root = str(ROOT)
    start = f"import sys; sys.path[:0] = [{root!r}]; {code}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", start, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r" / "config.json").read_text("utf-8"))["objective"]["name"] == f"{module}:LOSS"


def test_train_on_images_of_a_user_function(module: str, tmp_path: Path) -> None:
    images = "\n\nimport numpy as np\n\n\ndef images(split):\n    return np.zeros((20, 8, 8), np.uint8)\n"
    (tmp_path / f"{module}.py").write_text(MODULE + images, encoding="utf-8")
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny()), encoding="utf-8")
    words = ["train", "--preset", "tiny.yaml", "--set", f"data.source={module}:images", "--run-dir", "r"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert f"note: importing {module}, which data.source=" in done.stderr
