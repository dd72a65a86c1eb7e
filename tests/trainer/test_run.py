from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer import config as configuration
from trainer import run
from trainer.config import Config
from trainer.errors import TrainerError


def test_one_process_trains_in_a_run_at_a_time(tmp_path: Path) -> None:
    with run.exclusive(tmp_path), pytest.raises(TrainerError, match="another process"), run.exclusive(tmp_path):
        pass
    with run.exclusive(tmp_path):
        pass


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-00000001.pt.abc.partial").write_text("half")
    with run.exclusive(tmp_path):
        assert not list(tmp_path.glob(".*.partial"))


def test_runs_are_numbered_on(tiny: Callable[..., Config], tmp_path: Path) -> None:
    assert run.create(tmp_path / "runs", tiny()).name == "0001-tiny"
    (tmp_path / "runs" / "0041-other").mkdir()
    assert run.create(tmp_path / "runs", tiny()).name == "0042-tiny"
    assert (tmp_path / "runs" / "0042-tiny" / "config.json").is_file()


def test_a_run_folder_of_ones_own_name_is_made_once(tiny: Callable[..., Config], tmp_path: Path) -> None:
    at = tmp_path / "here" / "mine"
    assert run.create_at(at, tiny()) == at
    assert configuration.parse(json.loads((at / "config.json").read_text())) == tiny()
    with pytest.raises(TrainerError, match="is there already; go on with: trainer resume"):
        run.create_at(at, tiny())
    with pytest.raises(TrainerError, match="could not make the run folder"):
        run.create_at(at / "config.json" / "below", tiny())
