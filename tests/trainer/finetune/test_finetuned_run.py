"""Fine-tuned runs from start to export: through the command line and Python, resumed, recorded, with user code."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from typer.testing import CliRunner

import trainer
from tests.support.trainer.tiny_run import TINY, tensors
from trainer.cli import app
from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.finetune import initialize
from trainer.finetune.parent import read_parent
from trainer.training import checkpoint, loop
from trainer.training.state import TrainState

SHORT = ["--set", "run.total_kimg=0.08", "--set", "run.tick_kimg=0.04", "--set", "run.quality_ticks=0"]
CPU = ["--set", "run.device=cpu", "--set", "run.threads=1", "--set", "run.precision=fp32"]
GRAY = """
import numpy as np
from trainer.networks import Architecture, dcgan

NET = Architecture(dcgan.generator, dcgan.discriminator)


def images(split):
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)


def rgb(split):
    labels = np.arange(20) % 2
    return np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8), labels, ["1", "x"]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of images and a network, in the working directory, which also has runs/0001-tiny."""
    name = f"atelier_images_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(GRAY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, name, sys)
    monkeypatch.delitem(sys.modules, name)
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY), encoding="utf-8")
    return name


def run_cli(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done


def train_parent(module: str, *words: str) -> Path:
    run_cli("train", "--preset", "tiny.yaml", "--set", f"data.source={module}:images", *SHORT, *words)
    return Path("runs/0001-tiny")


def last(run_dir: Path) -> dict[str, Any]:
    return checkpoint.load_latest(run_dir)[1]


def test_finetuned_run_records_its_parent_everywhere(module: str) -> None:
    parent = train_parent(module, "--export", "tiny.onnx")
    words = ["--init-from", "1", "--set", f"data.source={module}:rgb", "--freeze-d", "1", *SHORT, *CPU]
    done = run_cli("train", *words, "--export", "child.onnx")
    assert "starts from tiny, 0.08 kimg of" in done.stdout
    assert "G: net.3.weight, net.3.bias: gray → RGB, repeated" in done.stdout
    assert "D: frozen: net.0.weight, net.0.bias" in done.stdout
    run_dir = Path("runs/0002-child")
    record = read_parent(parent).record
    assert record["digest"] == checkpoint.sha256(checkpoint.load_latest(parent)[0])
    assert json.loads((run_dir / "made_by.json").read_text("utf-8"))["parent"] == record
    assert last(run_dir)["parent"] == record
    page = (run_dir / "report.html").read_text("utf-8")
    assert f"sha256 {record['digest'][:12]}" in page
    assert "weights up to block 1" in page
    properties = {entry.key: entry.value for entry in onnx.load("child.onnx").metadata_props}
    public = json.loads(properties["parent"])
    assert public == record | {"path": f"0001-tiny/{Path(record['path']).name}"}
    assert str(Path.cwd()) not in properties["parent"]
    assert json.loads(properties["config"])["optim"]["d_freeze"] == 1
    assert "parent" not in {entry.key for entry in onnx.load("tiny.onnx").metadata_props}
    frozen = {name: tensor for name, tensor in last(run_dir)["D"].items() if name.startswith("net.0.")}
    for name, tensor in frozen.items():
        before = last(parent)["D"][name]
        expected = before.expand(-1, 3, -1, -1) / 3 if name.endswith("weight") else before
        assert torch.equal(tensor, expected), name


def test_finetuned_run_resumes_without_its_parent(module: str) -> None:
    parent = train_parent(module)
    words = ["train", "--init-from", str(parent), *SHORT, *CPU, "--freeze-d", "1", "--user-code", "--run-dir"]
    run_cli(*words, "whole")
    run_cli(*words, "paused", "--set", "run.total_kimg=0.04")
    shutil.rmtree(parent)
    run_cli("resume", "paused", "--kimg", "0.08", "--user-code")
    whole, paused = last(Path("whole")), last(Path("paused"))
    for part in ("G", "D", "G_ema"):
        assert all(torch.equal(tensor, paused[part][name]) for name, tensor in whole[part].items()), part
    assert paused["parent"] == whole["parent"]
    assert json.loads(Path("paused/made_by.json").read_text("utf-8"))["parent"] == whole["parent"]
    assert trainer.export("paused", "again.onnx").is_file()
    fields = ["--set", "optim.d_freeze=0", "--kimg", "0.2", "--user-code"]
    assert "cannot change when resuming: optim.d_freeze: 1 → 0" in run_cli("resume", "paused", *fields, code=2).stderr


def test_finetune_from_python_and_from_a_generator_file(module: str) -> None:
    parent = train_parent(module, "--export", "tiny.onnx")
    changes = {"data.source": f"{module}:rgb", "run.total_kimg": 0.04, "run.quality_ticks": 0, "run.device": "cpu"}
    for origin in (trainer.api.Run(parent, loading.parse(TINY)), "tiny.onnx"):
        config = trainer.finetune_config(origin, changes, name="mine")
        assert (config.model.z_dim, config.data.resolution) == (4, 8)
        run = trainer.train(config, init_from=origin, quiet=True)
        assert run.path.name.endswith("-mine")
        assert last(run.path)["parent"]["kind"] == ("generator" if origin == "tiny.onnx" else "checkpoint")
    with pytest.raises(trainer.TrainerError, match="not both"):
        trainer.train(init_from=parent, resume=parent)
    with pytest.raises(trainer.TrainerError, match=r"whose code runs only with --user-code \(in Python user_code=True"):
        trainer.train(init_from=parent, quiet=True)


def test_dry_run_lists_the_match_and_writes_nothing(module: str) -> None:
    parent = train_parent(module)
    before = sorted(Path().rglob("*"))
    done = run_cli("train", "--init-from", "0001-tiny", "--set", f"data.source={module}:rgb", "--dry-run")
    config = json.loads(done.stdout)
    assert (config["model"]["z_dim"], config["data"]["channels"], config["name"]) == (4, 3, "tiny-" + slug_of(module))
    assert "starts from tiny" in done.stderr
    assert "G: net.3.weight, net.3.bias: gray → RGB, repeated" in done.stderr
    words = ["train", "--init-from", str(parent), "--preset", "mnist-gan", "--set", f"data.source={module}:images"]
    for more in ([], ["--dry-run"]):
        refused = run_cli(*words, *more, code=2).stderr
        assert "nothing of G fits that of tiny" in refused
        assert "--set model.architecture=dcgan" in refused
    assert [
        path for path in sorted(Path().rglob("*")) if "__pycache__" not in path.parts and "cache" not in path.parts
    ] == [path for path in before if "__pycache__" not in path.parts and "cache" not in path.parts]


def slug_of(module: str) -> str:
    return f"{module}-rgb"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--freeze-d", "1"], "keeps weights of a parent; add --init-from RUN"),
        (["--freeze-d", "1", "--dry-run"], "keeps weights of a parent; add --init-from RUN"),
        (
            ["--init-from", "runs/0001-tiny", "--freeze-d", "2"],
            "optim.d_freeze=2 (--freeze-d) is too high: the maximum is 1",
        ),
        (
            ["--init-from", "runs/0001-tiny", "--freeze-d", "99"],
            "optim.d_freeze: Input should be less than or equal to 64",
        ),
        (["--init-from", "runs/0001-tiny", "--set", "model.conditional=true"], "has no labels to condition on"),
        (["--init-from", "tiny.yaml"], "tiny.yaml is truncated or not a checkpoint"),
    ],
)
def test_finetune_user_error_is_one_line_and_writes_nothing(words: list[str], message: str, module: str) -> None:
    train_parent(module)
    preset = ["--preset", "tiny.yaml", "--set", f"data.source={module}:images"]
    done = run_cli("train", *preset, *SHORT, *words, code=2)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert [path.name for path in Path("runs").iterdir()] == ["0001-tiny"]


def test_finetune_of_a_user_network_needs_the_flag(module: str) -> None:
    parent = train_parent(module, "--set", f"model.architecture={module}:NET", "--export", "tiny.onnx")
    source = ["--set", "data.source=digits", *SHORT, *CPU]
    for origin in (str(parent), "tiny.onnx"):
        sys.modules.pop(module)
        refused = run_cli("train", "--init-from", origin, *source, code=2)
        assert f"names model.architecture={module}:NET, whose code runs only with --user-code" in refused.stderr
        assert module not in sys.modules
        done = run_cli("train", "--init-from", origin, *source, "--user-code")
        assert "G: 7 of 7 tensors are the parent's" in done.stdout
        assert last(sorted(Path("runs").iterdir())[-1])["parent"]["name"] == "tiny"


def test_finetuned_state_is_saved_and_restored_bit_for_bit(
    tiny: Callable[..., Config], batches_of: Callable[[Config], Batches], tmp_path: Path
) -> None:
    parent_state = TrainState.create(tiny(model={"d_widths": [8, 8], "d_spectral_norm": True}))
    loop.train_iteration(parent_state, batches_of(parent_state.config))
    parent = read_parent(checkpoint.save(parent_state, tmp_path, keep=1))
    config = tiny(model={"d_widths": [8, 8], "d_spectral_norm": True}, optim={"d_freeze": 1, "g_lr": 1e-3})
    whole, paused = TrainState.create(config), TrainState.create(config)
    for state in (whole, paused):
        initialize.initialize(state, parent)
    for _ in range(6):
        loop.train_iteration(whole, batches_of(config))
    for _ in range(3):
        loop.train_iteration(paused, batches_of(config))
    (tmp_path / "child").mkdir()
    resumed = checkpoint.restore(checkpoint.read(checkpoint.save(paused, tmp_path / "child", keep=1)), config)
    for _ in range(3):
        loop.train_iteration(resumed, batches_of(config))
    ours, theirs = tensors(resumed), tensors(whole)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert resumed.parent == parent.record
