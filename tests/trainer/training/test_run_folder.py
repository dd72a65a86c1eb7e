from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainer.config import loading
from trainer.config.schema import Config
from trainer.data import load_images
from trainer.errors import TrainerError
from trainer.sweep import plan, runner
from trainer.training import run_folder


def test_exclusive_second_process_fails(tmp_path: Path) -> None:
    with (
        run_folder.exclusive(tmp_path),
        pytest.raises(TrainerError, match="another process"),
        run_folder.exclusive(tmp_path),
    ):
        pass
    with run_folder.exclusive(tmp_path):
        pass


def test_exclusive_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-00000001.pt.abc.partial").write_text("half", encoding="utf-8")
    with run_folder.exclusive(tmp_path):
        assert not list(tmp_path.glob(".*.partial"))


def test_create_numbers_runs(tiny: Callable[..., Config], tmp_path: Path) -> None:
    assert run_folder.create(tmp_path / "runs", tiny()).name == "0001-tiny"
    (tmp_path / "runs" / "0041-other").mkdir()
    assert run_folder.create(tmp_path / "runs", tiny()).name == "0042-tiny"
    assert (tmp_path / "runs" / "0042-tiny" / "config.json").is_file()


def test_create_at_an_existing_run_fails(tiny: Callable[..., Config], tmp_path: Path) -> None:
    at = tmp_path / "here" / "mine"
    assert run_folder.create_at(at, tiny()) == at
    assert loading.parse(json.loads((at / "config.json").read_text(encoding="utf-8"))) == tiny()
    (at / "checkpoint-00000005.pt").write_bytes(b"any")
    with pytest.raises(TrainerError, match="exists already; continue with: trainer resume"):
        run_folder.create_at(at, tiny())
    with pytest.raises(TrainerError, match="could not make the run folder"):
        run_folder.create_at(at / "config.json" / "below", tiny())


def test_create_at_a_run_without_checkpoint_starts_again(tiny: Callable[..., Config], tmp_path: Path) -> None:
    at = run_folder.create_at(tmp_path / "mine", tiny())
    (at / "samples").mkdir()
    (at / "samples" / "fixed-000000000040.png").write_bytes(b"any")
    with run_folder.exclusive(at), pytest.raises(TrainerError, match="another process is training"):
        run_folder.create_at(at, tiny())
    longer = tiny(run={"total_kimg": 0.32})
    assert run_folder.create_at(at, longer) == at
    assert loading.parse(json.loads((at / "config.json").read_text(encoding="utf-8"))) == longer
    assert not list((at / "samples").iterdir())


def test_create_at_a_folder_of_other_files_fails(tiny: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"any")
    with pytest.raises(TrainerError, match="is not a run folder"):
        run_folder.create_at(tmp_path, tiny())
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_load_images_without_channels_takes_those_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, channels: int
) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for number in range(70):
        Image.new(mode, (8, 8)).save(tmp_path / f"photos/{number}.png")
    sets = [f"data.source=folder:{tmp_path / 'photos'}", "model.conditional=false"]
    images, config = load_images(loading.resolve("digits-dcgan", sets), tmp_path)
    assert config.data.channels == images.images.shape[3] == channels
    again, unchanged = load_images(loading.override(config, []), tmp_path)  # as a resumed run has it
    assert unchanged == config
    assert again.fingerprint == images.fingerprint
    planned = plan.make_plan("digits-dcgan", sets, ["model.z_dim=8,16"], sampler="grid", trials=None, seeds=1)
    assert runner.with_channels(planned, tmp_path).config.data.channels == channels


def test_graceful_stop_hangup_never_interrupts_at_once() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with run_folder.graceful_stop() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked()
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_graceful_stop_under_nohup_trains_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with run_folder.graceful_stop() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_create_at_hint_quotes_the_path(tiny: Callable[..., Config], tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    folder.mkdir()
    (folder / "checkpoint-00000001.pt").touch()
    with pytest.raises(TrainerError, match=f"trainer resume '{folder}'"):
        run_folder.create_at(folder, tiny())
