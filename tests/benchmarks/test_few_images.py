"""Presets on few images: their networks at each resolution, and a whole short run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import few_images
from trainer.config import loading


@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
@pytest.mark.parametrize("preset", ["folder-small", "cifar10-small"])
def test_widths_fit_the_preset_to_a_resolution(preset: str, resolution: int) -> None:
    config = loading.resolve(preset, few_images.widths(preset, resolution))
    assert config.data.resolution == resolution


@pytest.mark.parametrize("arm", few_images.ARMS)
def test_settings_of_every_arm_are_valid(arm: str) -> None:
    chosen = few_images.ARMS[arm]
    config = loading.resolve(chosen.preset, [*few_images.widths(chosen.preset, 32), *chosen.settings])
    assert not config.model.conditional
    assert config.optim.decay_kimg is None


def test_write_class_keeps_the_first_images_of_one_class(tmp_path: Path) -> None:
    path = tmp_path / "three.npz"
    assert few_images.write_class("3", "digits@train", 20, tmp_path, path) == 20
    images = np.load(path)["images"]
    assert images.shape == (20, 32, 32, 1)


def test_write_class_without_the_class_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="digits@train has no class horse"):
        few_images.write_class("horse", "digits@train", 20, tmp_path, tmp_path / "x.npz")


def test_train_measures_the_speed_and_fills_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 CPU seconds took the first kimg, so 10 s are 2.5 kimg."""
    commands: list[tuple[str, ...]] = []
    metrics = [{"images_seen": 1000, "cpu_seconds": 4.0}, {"images_seen": 2504, "cpu_seconds": 10.1}]

    def stand_in(*words: object) -> str:
        commands.append(tuple(map(str, words)))
        return ""

    monkeypatch.setattr(few_images, "run", stand_in)
    monkeypatch.setattr(few_images, "read_metrics", lambda _: metrics[: len(commands)])
    found = few_images.train(few_images.ARMS["folder-small"], tmp_path / "run", tmp_path / "x.npz", 32, 10)
    assert [words[2] for words in commands] == ["train", "resume"]
    assert commands[1][-2:] == ("--kimg", "2.5")
    assert found == {"kimg": 2.504, "cpu_seconds": 10.1}


def test_cost_is_cpu_time_per_image() -> None:
    assert 0 < few_images.cost(few_images.ARMS["folder-small"], 16, 1) < 10_000


def test_few_images_without_a_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["few_images", "--output", str(tmp_path / "few.json")])
    with pytest.raises(SystemExit) as ended:
        few_images.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: --work FOLDER or --cost is required")
