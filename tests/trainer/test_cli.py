from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from tests.support import fork_server
from tests.support.paths import ROOT
from trainer.cli import app, one_line_errors
from trainer.config.schema import Config
from trainer.training import checkpoint
from trainer.training.state import TrainState

TINY_FIELDS = """
    name=tiny data.resolution=8 model.g_widths=[8] model.d_widths=[8] model.z_dim=4 model.conditional=false
    optim.batch_size=64 run.threads=1 run.device=cpu
"""
TINY = [word for field in TINY_FIELDS.split() for word in ("--set", field)]


def trainer(*arguments: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return fork_server.run("trainer", *arguments, cwd=cwd, timeout=timeout)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("DATA_ROOT", raising=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from trainer.cli import app; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "assert CliRunner().invoke(app, ['train', '--help']).exit_code == 0;"
        "print(sorted({'torch', 'numpy', 'yaml', 'onnx', 'PIL', 'trainer.config.schema'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["typer", "yaml", "torch"])
def test_trainer_interrupted_while_importing_is_one_line(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = "import os, signal; os.kill(os.getpid(), signal.SIGINT); import json; raise SystemExit('went on')"
    (tmp_path / f"{module}.py").write_text(stand_in, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    command = [sys.executable, "-m", "trainer", "train"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_train_dry_run_prints_the_config_and_writes_nothing(tmp_path: Path) -> None:
    result = trainer("train", "--dry-run", "--preset", "cifar10-wgan", "--set", "run.seed=5", cwd=tmp_path)
    config = json.loads(result.stdout)
    assert (config["objective"]["name"], config["objective"]["clip"]) == ("wasserstein", 0.01)
    assert config["run"]["seed"] == 5
    assert config["run"]["device"] != "auto"
    assert not list(tmp_path.iterdir())


def test_train_track_is_repeatable_and_recorded(tmp_path: Path) -> None:
    for given, recorded in (
        ([], ["tensorboard"]),
        (["--track", "none"], []),
        (["--track", "tensorboard,mlflow", "--track", "wandb"], ["tensorboard", "mlflow", "wandb"]),
        (["--set", "run.track=[wandb]", "--track", "trackio"], ["trackio"]),
    ):
        result = trainer("train", "--dry-run", *given, cwd=tmp_path)
        assert json.loads(result.stdout)["run"]["track"] == recorded, result.stderr


@pytest.mark.slow
def test_train_unwritable_export_fails_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/models", "file/x.onnx"):
        words = ("train", "--preset", "digits-dcgan", *TINY, "--export", place)
        done = trainer(*words, cwd=tmp_path)
        assert done.returncode == 2, done.stdout + done.stderr
        there = tmp_path / "file"
        assert done.stderr == f"error: could not write the export to {place}: {there} is not a writable folder\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_train_export_sample_and_resume_work(tmp_path: Path) -> None:
    result = trainer(
        *("train", *TINY, "--export", "models"),
        *("--set", "run.total_kimg=1", "--set", "run.tick_kimg=0.5"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "runs" / "0001-tiny"
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["images_seen"] for line in lines] == [512, 1024]
    assert {"step", "loss/G", "loss/D", "D/real", "D/fake", "images_per_second"} <= lines[0].keys()
    assert len(list((run_dir / "samples").glob("fixed-*.png"))) == 2
    assert list((run_dir / "tensorboard").glob("events*"))
    assert json.loads((run_dir / "config.json").read_text(encoding="utf-8"))["run"]["threads"] == 1
    assert json.loads((run_dir / "made_by.json").read_text(encoding="utf-8"))["image_set"]["fingerprint"]
    onnx.checker.check_model(onnx.load(tmp_path / "models" / "tiny.onnx"))

    again = trainer("resume", str(run_dir), "--kimg", "1.5", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["images_seen"] for line in lines] == [512, 1024, 1536]

    finished = trainer("resume", str(run_dir), cwd=tmp_path)
    assert finished.returncode == 0
    assert "is finished" in finished.stdout

    assert trainer("sample", str(run_dir), "--num-images", "9", cwd=tmp_path).returncode == 0
    assert (tmp_path / "samples.png").stat().st_size > 100
    assert trainer("export", str(run_dir), "--name", "other", cwd=tmp_path).returncode == 0
    assert (tmp_path / "models" / "other.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_train_interrupted_saves_and_says_how_to_resume(number: int, tmp_path: Path) -> None:
    long = [*TINY, "--set", "run.tick_kimg=0.5", "--set", "run.total_kimg=100000"]
    command = ["env", "--default-signal=HUP", sys.executable, "-m", "trainer", "train", *long]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # until it has ticked once
            if "loss/D" in line:
                break
        for _ in range(2 if number == signal.SIGHUP else 1):  # a shell and the kernel both send it
            os.kill(process.pid, number)
        rest = process.stdout.read()
        assert process.wait(60) == 130
    assert "trainer resume runs/0001-tiny" in rest
    run_dir = tmp_path / "runs" / "0001-tiny"
    (newest, *_) = sorted(run_dir.glob("checkpoint-*.pt"), reverse=True)
    steps = int(newest.stem.removeprefix("checkpoint-"))

    resumed = trainer("resume", str(run_dir), "--kimg", str((steps + 20) * 64 / 1000), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    seen = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert seen == sorted(set(seen))
    assert seen[-1] == steps + 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--preset", "nope"], "no preset is called 'nope'"),
        (["train", "--set", "optim.g_lr=-1"], "optim.g_lr"),
        (["train", "--set", "data.source=mnist"], "mnist"),
        (["train", "--set", "data.source=folder:/nowhere"], "/nowhere"),
        (["train", "--set", "data.source=photoz"], "there is no file, folder or dataset 'photoz'; datasets: digits,"),
        (["train", "--set", "optim.batch_size=4096"], "fewer than optim.batch_size"),
        (["resume", "nowhere"], "is it a run folder"),
        (["export", "nowhere"], "is it a run folder"),
        (["export", "nowhere.pt"], "no checkpoint at"),
        (["sample", "nowhere.pt"], "no checkpoint at"),
        (["sample", "nowhere.pt", "--seed", str(2**53 - 3)], "the last seed is"),
    ],
)
def test_train_user_error_is_one_line_and_exit_code_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    result = trainer(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert says in line
    assert "Traceback" not in result.stderr + result.stdout
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "models").exists()


def test_presets_and_datasets_are_listed(tmp_path: Path) -> None:
    presets = trainer("presets", cwd=tmp_path).stdout
    assert "1,911,681 / 659,905" in presets
    datasets = trainer("datasets", cwd=tmp_path).stdout
    assert "folder:PATH" in datasets
    assert "digits" in datasets
    assert "--set data.source=folder:photos --set model.conditional=false" in datasets


def test_train_conditional_without_labels_names_the_option(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(40):
        Image.new("L", (32, 32), index).save(photos / f"{index}.png")
    result = trainer("train", "--set", "data.source=folder:photos", cwd=tmp_path)
    assert result.returncode == 2
    assert "model.conditional=false" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_best_checkpoint_is_sampled_and_exported(tiny: Callable[..., Config], tmp_path: Path) -> None:
    state = TrainState.create(tiny())
    state.steps, state.best = 5, {"step": 5, "frechet": 1.0}
    checkpoint.save(state, tmp_path, keep=2)
    with torch.no_grad():
        for parameter in state.G_ema.parameters():
            parameter.zero_()
    state.steps = 10
    checkpoint.save(state, tmp_path, keep=2)

    def made(*arguments: str) -> bytes:
        (name,) = [argument for argument in arguments if argument.endswith((".png", ".onnx"))]
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 0, result.output
        return Path(name).read_bytes()

    for command, file in (("sample", "a.png"), ("export", "a.onnx")):
        output = str(tmp_path / file)
        best, newest, named = (
            made(command, str(source), *flags, "--output", output)
            for source, flags in (
                (tmp_path, ["--best"]),
                (tmp_path, []),
                (checkpoint.path_of(tmp_path, 5), []),
            )
        )
        assert best == named != newest
    refused = CliRunner().invoke(app, ["sample", str(checkpoint.path_of(tmp_path, 5)), "--best"])
    assert refused.exit_code == 2
    assert "--best needs a run folder" in refused.output


def test_resume_after_learning_rates_reached_0_fails(tiny: Callable[..., Config], tmp_path: Path) -> None:
    checkpoint.save(TrainState.create(tiny(optim={"decay_kimg": [0.1, 0.16]})), tmp_path, keep=1)
    result = CliRunner().invoke(app, ["resume", str(tmp_path), "--kimg", "0.2"])
    assert result.exit_code == 2
    assert "ends at 0.16 kimg, where its learning rates have fallen to 0" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("--set", "run.device=cpu"), ("--set", "data.source=digits")])
def test_resume_of_a_gpu_run_works_without_one(
    extra: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = tmp_path / "run"
    short = ("--preset", "digits-dcgan", *TINY, "--set", "objective.r1_gamma=0", "--set", "run.total_kimg=0.128")
    made = CliRunner().invoke(app, ["train", *short, "--run-dir", str(run)])
    assert made.exit_code == 0, made.output
    path = checkpoint.paths(run)[-1]
    payload = torch.load(path, weights_only=True)
    payload["config"]["run"] |= {"device": "cuda", "cuda_graphs": True}
    torch.save(payload, path)
    checkpoint.digest_path(path).write_text(f"{checkpoint.sha256(path)}  {path.name}\n", encoding="utf-8")
    (run / "config.json").write_text(json.dumps(payload["config"]), encoding="utf-8")
    resumed = CliRunner().invoke(app, ["resume", str(run), "--kimg", "0.256", *extra])
    assert resumed.exit_code == 0, resumed.output
    assert json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["images_seen"] >= 256


@pytest.mark.slow
@pytest.mark.parametrize("redirect", [">&-", "<&- >&- 2>&-", "| true", ">/dev/full"])
def test_presets_without_a_stdout_ends_without_traceback(redirect: str, tmp_path: Path) -> None:
    command = ["bash", "-c", f'set -o pipefail; "$@" {redirect}', "-", sys.executable, "-m", "trainer", "presets"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if redirect == ">/dev/full":
        assert done.returncode == 2
        assert done.stderr == "error: the output could not be written: No space left on device\n"
    else:
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "caf\udce9", "[red]a[/red]"])
def test_train_hostile_preset_name_is_one_printable_line(name: str, tmp_path: Path) -> None:
    done = trainer("train", "--preset", name, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.rstrip("\n").isprintable()


def test_train_unknown_option_is_one_line(tmp_path: Path) -> None:
    done = trainer("train", "--no-such\x1b[31m", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: No such option")
    assert done.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("Could not determine home directory."), "error: HOME is not set"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "error: the memory is full"),
        (MemoryError(), "error: the memory is full"),
        (ImportError("libtorch_cpu.so: failed to map segment"), "error: libtorch_cpu.so: failed to map segment"),
        (ModuleNotFoundError("No module named 'torch'"), "error: No module named 'torch'; pip install"),
    ],
)
def test_one_line_errors_surroundings_are_one_line(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, one_line_errors():
        raise error
    assert ended.value.exit_code == 2
    reported = capsys.readouterr().err
    assert reported.startswith(says)
    assert reported.count("\n") == 1


def test_internal_faults_have_plain_tracebacks() -> None:
    assert not app.pretty_exceptions_enable


def test_one_line_errors_internal_fault_is_raised() -> None:
    with pytest.raises(RuntimeError, match="ours"), one_line_errors():
        raise RuntimeError("ours")
