"""Losses and networks from a user module: trained, resumed and exported by name, never imported silently."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from evaluation.errors import EvaluationError
from evaluation.sources.checkpoint import CheckpointSource
from tests.support.paths import ROOT
from tests.support.trainer.tiny_run import TINY
from trainer import api
from trainer.cli import app
from trainer.config import loading
from trainer.errors import TrainerError
from trainer.networks import build
from trainer.reports import comparison, pages
from trainer.sweep.study import Trial
from trainer.sweep.workers import Job, Worker
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


def train_tiny(folder: Path, **names: str) -> Path:
    """Train a run whose config names objects of the user's module, forget the module, and return the run folder."""
    (folder / "tiny.yaml").write_text(json.dumps(tiny()), encoding="utf-8")
    sets = [word for field, name in names.items() for word in ("--set", f"{field.replace('__', '.')}={name}")]
    done = CliRunner().invoke(app, ["train", "--preset", "tiny.yaml", *sets, "--run-dir", "r"])
    assert done.exit_code == 0, done.output
    for name in names.values():
        sys.modules.pop(name.partition(":")[0], None)
    return folder / "r"


REFUSAL = "whose code runs only with --user-code (in Python user_code=True)"


@pytest.mark.parametrize(
    "words",
    [
        ["export", "CHECKPOINT"],
        ["export", "RUN", "--no-user-code"],
        ["export", "RUN", "--optimize", "int8"],
        ["sample", "CHECKPOINT"],
        ["sample", "RUN"],
        ["resume", "RUN", "--kimg", "0.2"],
    ],
)
def test_user_code_of_a_checkpoint_is_rejected_by_default(words: list[str], module: str, tmp_path: Path) -> None:
    run_dir = train_tiny(tmp_path, model__architecture=f"{module}:ARCHITECTURE")
    paths = {"RUN": str(run_dir), "CHECKPOINT": str(checkpoint.load_latest(run_dir)[0])}
    done = CliRunner().invoke(app, [paths.get(word, word) for word in words])
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert f"names model.architecture={module}:ARCHITECTURE, {REFUSAL}" in line
    assert module not in sys.modules


def test_user_code_in_python_is_rejected_by_default(module: str, tmp_path: Path) -> None:
    run_dir = train_tiny(tmp_path, model__architecture=f"{module}:ARCHITECTURE", objective__name=f"{module}:LOSS")
    for call in (lambda: api.export(run_dir), lambda: api.train(resume=run_dir, quiet=True, config=longer(run_dir))):
        with pytest.raises(TrainerError, match="user_code=True"):
            call()
    assert module not in sys.modules
    run = api.train(resume=run_dir, quiet=True, config=longer(run_dir), user_code=True)
    assert api.export(run, tmp_path / "x.onnx", user_code=True).is_file()


def longer(run_dir: Path) -> Any:
    """The config of a run with twice its length."""
    config = pages.read_config(run_dir)
    return config.model_copy(update={"run": config.run.model_copy(update={"total_kimg": 0.32})})


def test_resume_of_a_user_loss_or_image_function_needs_the_flag(module: str, tmp_path: Path) -> None:
    images = "\n\nimport numpy as np\n\n\ndef images(split):\n    return np.zeros((20, 8, 8), np.uint8)\n"
    (tmp_path / f"{module}.py").write_text(MODULE + images, encoding="utf-8")
    run_dir = train_tiny(tmp_path, data__source=f"{module}:images")
    words = ["resume", str(run_dir), "--kimg", "0.2"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert f"names data.source={module}:images, {REFUSAL}" in refused.stderr
    assert module not in sys.modules
    assert CliRunner().invoke(app, [*words, "--user-code"]).exit_code == 0


def test_user_loss_needs_no_flag_to_export_or_sample(module: str, tmp_path: Path) -> None:
    run_dir = train_tiny(tmp_path, objective__name=f"{module}:LOSS")
    for words in (["export", "r", "--no-user-code", "--output", "x.onnx"], ["sample", "r"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    assert module not in sys.modules
    assert CheckpointSource(run_dir).shape == (8, 8, 1)
    refused = CliRunner().invoke(app, ["resume", str(run_dir), "--kimg", "0.2"])
    assert f"names objective.name={module}:LOSS, {REFUSAL}" in refused.stderr


def test_score_of_a_user_architecture_says_to_export_it(module: str, tmp_path: Path) -> None:
    run_dir = train_tiny(tmp_path, model__architecture=f"{module}:ARCHITECTURE")
    with pytest.raises(EvaluationError, match=r"--user-code .*: export it with trainer export --user-code"):
        CheckpointSource(run_dir)


def test_report_and_compare_import_no_user_module(module: str, tmp_path: Path) -> None:
    run_dir = train_tiny(tmp_path, model__architecture=f"{module}:ARCHITECTURE")
    assert "G ? parameters" not in (run_dir / "report.html").read_text(encoding="utf-8")
    assert "G ? parameters" in pages.write_report(run_dir).read_text(encoding="utf-8")
    comparison.compare([run_dir, shutil.copytree(run_dir, tmp_path / "other")], tmp_path / "compare")
    assert module not in sys.modules


def test_train_and_export_in_one_command_needs_no_flag(module: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny()), encoding="utf-8")
    words = ["train", "--preset", "tiny.yaml", "--set", f"model.architecture={module}:ARCHITECTURE"]
    done = CliRunner().invoke(app, [*words, "--export", "x.onnx"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x.onnx").is_file()


@pytest.mark.parametrize("planned", [True, False])
def test_sweep_resumes_a_run_of_the_modules_in_its_plan_only(planned: bool, module: str, tmp_path: Path) -> None:
    run_dir = train_tiny(tmp_path, objective__name=f"{module}:LOSS")
    config = longer(run_dir)
    path, content, _ = checkpoint.load_latest(run_dir)
    torch.save(content | {"config": config.model_dump(mode="json")}, path)  # as of a run that was stopped halfway
    checkpoint.digest_path(path).unlink()
    if not planned:
        config = config.model_copy(update={"objective": config.objective.model_copy(update={"name": "evil:LOSS"})})
    job = Job(Trial(0, "running", {}), 0, config, run_dir)
    worker = Worker(job, Path("data"), threads=1)
    try:
        code = worker._process.wait(timeout=120)
    finally:
        worker.end(timeout=0)
    log = job.log.read_text(encoding="utf-8")
    assert code == (0 if planned else 2), log
    assert (f"resume {run_dir} --user-code" in log) == planned
    assert (REFUSAL in log) != planned


@pytest.mark.slow
def test_train_resume_and_export_use_the_user_module(module: str, tmp_path: Path) -> None:
    names = {"objective.name": f"{module}:LOSS", "model.architecture": f"{module}:ARCHITECTURE"}
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny()), encoding="utf-8")
    sets = [word for field, name in names.items() for word in ("--set", f"{field}={name}")]
    runner = CliRunner()
    trained = runner.invoke(app, ["train", "--preset", "tiny.yaml", *sets, "--run-dir", "r"])
    assert trained.exit_code == 0, trained.output
    assert trained.stderr.count("note: importing") == 1
    for words in (["resume", "r", "--kimg", "0.2", "--user-code"], ["export", "r", "--user-code", "-o", "tiny.onnx"]):
        del sys.modules[module]
        done = runner.invoke(app, words)
        assert done.exit_code == 0, done.output
        assert f"note: importing {module}, which " in done.stderr

    del sys.modules[module]
    (tmp_path / f"{module}.py").unlink()
    for words in (["resume", "r", "--kimg", "0.3", "--user-code"], ["export", "r", "--user-code", "-o", "tiny.onnx"]):
        done = runner.invoke(app, words)
        assert done.exit_code == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert f"there is no module {module}" in line


def test_reading_a_checkpoint_imports_no_user_module(module: str, tmp_path: Path) -> None:
    run_dir = train_tiny(tmp_path, model__architecture=f"{module}:ARCHITECTURE")
    _, content, _ = checkpoint.load_latest(run_dir)
    assert checkpoint.config_of(content).model.architecture == f"{module}:ARCHITECTURE"
    with pytest.raises(TrainerError, match="--user-code"):
        checkpoint.generator_of(content)
    assert module not in sys.modules


def test_build_rectangles_with_an_architecture_of_squares_is_one_line(module: str) -> None:
    fields = {"data": {"resolution": "8x16"}, "model": {"architecture": f"{module}:ARCHITECTURE"}}
    with pytest.raises(TrainerError, match=r":ARCHITECTURE makes square images only: set data\.resolution .*as 8$"):
        build(loading.parse(tiny(**fields)))


def test_build_architecture_check_is_one_line(module: str) -> None:
    config = loading.parse(tiny(model={"architecture": f"{module}:ARCHITECTURE", "z_dim": 5}))
    with pytest.raises(TrainerError, match="at most 4, not 5"):
        build(config)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ("crash, dcgan.discriminator", "failed: ZeroDivisionError: division by zero"),
        ("dcgan.generator, leave", "failed: SystemExit: usage: two lines"),
        ("dcgan.discriminator, dcgan.discriminator", "failed: its generator is of type Discriminator, not Generator"),
        ("dcgan.generator, nothing", "failed: its discriminator is of type NoneType, not Discriminator"),
        ("dcgan.generator, dcgan.discriminator, crash", "failed: ZeroDivisionError: division by zero"),
        ("dcgan.generator, 7", "failed: TypeError: 'int' object is not callable"),
    ],
)
def test_build_architecture_that_fails_is_one_line(functions: str, message: str, module: str, tmp_path: Path) -> None:
    more = f"""

def crash(*arguments):
    1 / 0


def leave(*arguments):
    raise SystemExit("usage:\\n two lines")


def nothing(*arguments):
    pass


BROKEN = Architecture({functions})
"""
    (tmp_path / f"{module}.py").write_text(MODULE + more, encoding="utf-8")
    with pytest.raises(TrainerError) as raised:
        build(loading.parse(tiny(model={"architecture": f"{module}:BROKEN"})))
    assert str(raised.value) == f"{module}:BROKEN {message}"


def test_loss_that_returns_no_scalar_is_one_line(module: str, tmp_path: Path) -> None:
    more = """
VECTOR = AdversarialLoss(lambda real, fake: real, wasserstein_g)
NUMBER = AdversarialLoss(hinge_d, lambda fake: 0.0)
"""
    (tmp_path / f"{module}.py").write_text(MODULE + more, encoding="utf-8")
    with pytest.raises(TrainerError, match=r":VECTOR's d must return a scalar tensor, .* a tensor of shape \[2\]$"):
        get_loss(f"{module}:VECTOR").d(torch.zeros(2), torch.zeros(2))
    with pytest.raises(TrainerError, match=r":NUMBER's g must return a scalar tensor, .* of type float$"):
        get_loss(f"{module}:NUMBER").g(torch.zeros(2))
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny()), encoding="utf-8")
    words = ["train", "--preset", "tiny.yaml", "--set", f"objective.name={module}:VECTOR", "--run-dir", "r"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert done.stderr.count("must return a scalar tensor") == 1


def test_plugin_of_another_kind_is_rejected(module: str) -> None:
    with pytest.raises(TrainerError, match="is an Architecture, not an AdversarialLoss"):
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
