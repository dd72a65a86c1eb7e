"""trackio, mlflow and wandb, at the boundary: a whole run through stand-ins with the signatures of the real ones."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from imagesets.types import ImageSet
from tests.support.trainer import runs
from tests.support.trainer.tracker_packages import Mlflow, Trackio, Wandb
from trainer.config import loading
from trainer.config.schema import Config
from trainer.trackers import TrackedRun
from trainer.trackers.base import flatten, parameters
from trainer.trackers.mlflow import tracking_uri
from trainer.trackers.wandb import is_logged_in
from trainer.training import checkpoint

STEPS = [40, 80, 120, 160]
KINDS = {"samples/fixed", "samples/random", "samples/real-beside-fake"}


class Life:
    """A run that trains to its end, and again to a later one; `printed` is what the user saw."""

    def __init__(self, run_dir: Path, noise: np.ndarray) -> None:
        self.run_dir = run_dir
        self.images = ImageSet("noise", noise, None, (), {"n": len(noise), "source": "folder:/home/me/cats"})
        self.output = io.StringIO()
        self.console = Console(file=self.output, soft_wrap=True, highlight=False)

    @property
    def printed(self) -> str:
        return self.output.getvalue()

    def train(self, config: Config) -> None:
        self.run_dir.mkdir(parents=True)
        (self.run_dir / "config.json").write_text(loading.to_json(config), encoding="utf-8")
        assert runs.start(config, self.images, self.run_dir, self.console)

    def resume(self, config: Config, from_images: int) -> None:
        contents = map(checkpoint.read, sorted(self.run_dir.glob("checkpoint-*.pt")))
        (content,) = [each for each in contents if each["counters"]["images_seen"] == from_images]
        assert runs.resume(self.run_dir, content, config, self.images, self.console)


@pytest.fixture
def life(tmp_path: Path, noise: np.ndarray) -> Life:
    return Life(tmp_path / "runs" / "0001-tiny", noise)


@pytest.fixture
def tracked(tiny: Callable[..., Config]) -> Callable[..., Config]:
    def make(name: str, total_kimg: float = 0.16) -> Config:
        return tiny(run={"track": [name], "quality_ticks": 0, "total_kimg": total_kimg})

    return make


def test_trackio_run_is_tracked_and_resumed(
    life: Life, tracked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trackio = Trackio(monkeypatch)
    life.train(tracked("trackio"))
    life.resume(tracked("trackio", 0.2), from_images=120)  # 160 is logged already
    first, second = trackio.inits
    assert first["name"].startswith("0001-tiny-")
    assert (first["name"], first["project"], first["space_id"]) == (second["name"], "gan-atelier", None)
    scalars = [(name, step) for name, step, row in trackio.rows if "loss/G" in row]
    assert scalars == [(first["name"], step) for step in [*STEPS, 200]]
    assert [step for _, step, row in trackio.rows if row.keys() == KINDS] == [*STEPS, 200]
    assert trackio.configs[0]["optim.batch_size"] == 8
    assert trackio.configs[0]["made_by.image_set.source"] == "folder:cats"
    assert trackio.configs[1]["run.total_kimg"] == 0.2
    assert trackio.finished == 2
    assert f"trackio: run {first['name']}; show it with: trackio show --project gan-atelier\n" in life.printed
    assert "Trackio" not in capsys.readouterr().out


def test_trackio_warning_turns_it_off(
    life: Life, tracked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    trackio = Trackio(monkeypatch)

    def full(value: Any, caption: str | None = None) -> None:
        warnings.warn("trackio.log() skipped metric 'x': No space left on device", stacklevel=2)

    monkeypatch.setattr("trackio.Image", full)
    life.train(tracked("trackio"))
    assert life.printed.count("warning: trackio is off for the rest of this run") == 1
    assert "No space left on device" in life.printed
    assert trackio.rows
    assert len((life.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 4


def test_mlflow_run_is_tracked_and_resumed(
    life: Life, tracked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mlflow = Mlflow(monkeypatch, tmp_path / "mlflow.db")
    (tmp_path / "mlflow.db").touch()
    life.train(tracked("mlflow"))
    assert mlflow.runs["run0"]["status"] == "FINISHED"
    mlflow.uri = "sqlite:////elsewhere/mlflow.db"  # another working folder
    life.resume(tracked("mlflow", 0.2), from_images=120)
    assert mlflow.opened == [f"sqlite:///{tmp_path / 'mlflow.db'}"] * 2
    (run,) = mlflow.runs.values()
    assert run["name"] == "0001-tiny"
    assert [metric.step for metric in run["metrics"] if metric.key == "loss/G"] == [*STEPS, 200]
    assert run["images"] == [(kind, step) for step in [*STEPS, 200] for kind in sorted(KINDS)]
    assert run["params"]["optim.batch_size"] == "8"
    assert run["params"]["made_by.image_set.source"] == "folder:cats"
    assert "made_by.data_root" not in run["params"]
    assert run["status"] == "FINISHED"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert mlflow.experiments == {"gan-atelier": "1"}


def test_mlflow_run_that_the_store_lost_begins_again_whole(
    life: Life, tracked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mlflow = Mlflow(monkeypatch, tmp_path / "mlflow.db")
    life.train(tracked("mlflow"))
    mlflow.runs = {"other": {}}
    life.resume(tracked("mlflow", 0.2), from_images=160)
    steps = [metric.step for metric in mlflow.runs["run1"]["metrics"] if metric.key == "loss/G"]
    assert steps == [*STEPS, 200]


def test_mlflow_store_is_the_users_then_the_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow = Mlflow(monkeypatch, tmp_path / "default.db")
    store = tmp_path / "first.db"
    store.touch()
    assert tracking_uri(f"sqlite:///{store}") == f"sqlite:///{store}"
    for recorded in (None, "sqlite:////gone.db", "https://example.org", "file://example.org/tmp"):
        assert tracking_uri(recorded) == mlflow.uri
    mlflow.is_set, mlflow.uri = True, "https://mlflow.example.org"
    assert tracking_uri(f"sqlite:///{store}") == "https://mlflow.example.org"


def test_wandb_run_is_offline_tracked_and_resumed(
    life: Life, tracked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb(monkeypatch)
    life.train(tracked("wandb"))
    life.resume(tracked("wandb", 0.2), from_images=120)
    first, second = wandb.inits
    assert (first["mode"], first["project"], first["name"]) == ("offline", "gan-atelier", "0001-tiny")
    assert (first["id"], first["resume"], second["id"], second["resume"]) == (None, None, "wandb1", "allow")
    assert first["settings"]["disable_git"]
    assert [(run, step) for run, step, _ in wandb.rows] == [("wandb1", step) for step in [*STEPS, 200]]
    assert all({"loss/G", *KINDS} <= row.keys() for _, _, row in wandb.rows)
    assert wandb.configs[1]["run"]["total_kimg"] == 0.2
    assert wandb.configs[0]["made_by"]["image_set"]["source"] == "folder:cats"
    assert wandb.exit_codes == [0, 0]
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert f"upload it with: wandb sync {life.run_dir}/wandb/offline-run-1-wandb1\n" in life.printed


@pytest.mark.parametrize(
    ("variable", "value"), [("WANDB_MODE", "online"), ("WANDB_API_KEY", "k" * 40), ("NETRC", "netrc")]
)
def test_wandb_is_online_only_for_whoever_set_it_up(
    variable: str, value: str, life: Life, tracked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    if variable == "NETRC":
        (tmp_path / value).write_text("machine api.wandb.ai login user password secret\n", encoding="utf-8")
        value = str(tmp_path / value)
    monkeypatch.setenv(variable, value)
    wandb = Wandb(monkeypatch)
    life.train(tracked("wandb"))
    assert wandb.inits[0]["mode"] is None
    assert "wandb: https://wandb.ai/me" in life.printed


def test_wandb_that_is_disabled_stays_disabled(
    life: Life, tracked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb(monkeypatch, mode="disabled")  # `wandb disabled` writes it into a settings file
    life.train(tracked("wandb"))
    assert wandb.inits[0]["mode"] is None


def test_is_logged_in_ignores_other_hosts_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    for text in ("machine example.org login a password b\n", "machine\n"):
        path.write_text(text, encoding="utf-8")
        assert not is_logged_in("https://api.wandb.ai")


def test_parameters_of_a_union_name_no_folders_of_this_machine(tiny: Callable[..., Config]) -> None:
    config = tiny(data={"source": "digits+folder:/home/me/Photos@train", "resolution": 8})
    images = {"notes": ["no classes: folder:/home/me/Photos@train has none"]}
    found = flatten(parameters(config, {"image_set": images}))
    assert found["data.source"] == "digits+folder:Photos@train"
    assert not [value for value in found.values() if "/home/me" in str(value)]


def test_parameters_hold_no_folder_of_this_machine(tiny: Callable[..., Config]) -> None:
    config = tiny(data={"source": "folder:/home/me/Photos@train", "resolution": 8})
    found = flatten(parameters(config, {"data_root": "/srv/data", "machine": {"cpu": "x", "gpu": None}}))
    assert found["data.source"] == "folder:Photos@train"
    assert (found["made_by.machine.cpu"], found["made_by.machine.gpu"]) == ("x", None)
    assert not [value for value in found.values() if isinstance(value, str) and "/" in value]


def test_group_of_a_sweeps_run_is_the_sweep(
    tmp_path: Path, noise: np.ndarray, tracked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb(monkeypatch)
    Life(tmp_path / "digits-z_dim" / "trials" / "0002" / "seed-0", noise).train(tracked("wandb"))
    assert (wandb.inits[0]["name"], wandb.inits[0]["group"]) == ("digits-z_dim-0002-seed-0", "digits-z_dim")
    assert TrackedRun(tmp_path / "trials").sweep is None
