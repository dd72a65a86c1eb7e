from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.trainer.crashes import images
from trainer.cli import app
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.reports import compare_page
from trainer.training import run_folder

Tiny = Callable[..., Config]


@pytest.fixture
def two(tiny: Tiny, tmp_path: Path) -> list[Path]:
    """An MLP of four ticks, and a DCGAN of two that measures its quality."""
    configs = [
        tiny(model={"architecture": "mlp", "g_widths": [16], "d_widths": [16]}, run={"quality_ticks": 0}),
        tiny(run={"total_kimg": 0.08, "quality_ticks": 1, "quality_images": 20}),
    ]
    folders = []
    for config in configs:
        folder = run_folder.create(tmp_path / "runs", config)
        assert run_folder.start(config, images(), folder, Console(file=io.StringIO()))
        folders.append(folder)
    return folders


def test_runs_are_compared_at_the_images_of_the_shortest(two: list[Path], tmp_path: Path) -> None:
    page = compare_page.compare(two, tmp_path / "out").read_text(encoding="utf-8")
    told = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert told["images_seen"] == 80
    assert told["rows"]["kimg"] == ["0.08", "0.08"]
    assert told["rows"]["networks"] == ["mlp", "dcgan"]
    assert told["rows"]["recall"][0] == "not measured"
    assert float(told["rows"]["Fréchet distance"][1]) > 0
    line = [json.loads(line) for line in (two[0] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()][1]
    assert told["rows"]["loss G"][0] == f"{line['loss/G']:.3f}"
    assert page.count('src="data:image/') == 4
    with Image.open(tmp_path / "out" / "fixed.gif") as animation:
        assert animation.n_frames == 2
    with (
        Image.open(tmp_path / "out" / "fixed.png") as sheet,
        Image.open(compare_page.run_page.sheets(two[0], "fixed")[1]) as one,
    ):
        assert sheet.width == 2 * one.width + compare_page.GAP
        assert sheet.crop((0, 0, one.width, one.height)).tobytes() == one.convert("RGB").tobytes()


def test_curves_end_where_the_shortest_run_does(
    two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = compare_page.plots.draw

    def noted(runs: dict[str, list[dict[str, float]]]) -> bytes:
        drawn.extend(max(line["images_seen"] for line in lines) for lines in runs.values())
        return draw(runs)

    monkeypatch.setattr(compare_page.plots, "draw", noted)
    compare_page.compare(two, tmp_path / "out")
    assert drawn == [80, 80]


def test_one_command_does_it(two: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["compare", *map(str, two), "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "0001-tiny" in result.output
    assert "at 0.08 kimg" in result.output


def test_what_cannot_be_compared_is_one_line(two: list[Path], tmp_path: Path) -> None:
    for runs, says in (
        ([two[0]], "two runs or more"),
        ([two[0], two[0]], "each once"),
        ([two[0], tmp_path], "run folder"),
    ):
        with pytest.raises(TrainerError, match=says):
            compare_page.compare(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_one_name_are_told_apart() -> None:
    assert compare_page.labels([Path("a/0001-x"), Path("b/0001-x"), Path("b/0002-y")]) == [
        "a/0001-x",
        "b/0001-x",
        "0002-y",
    ]


def test_compare_settings_that_differ_have_a_row(two: list[Path], tmp_path: Path) -> None:
    compare_page.compare(two, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))["rows"]
    assert rows["run.total_kimg"] == ["0.16", "0.08"]
    assert rows["run.quality_ticks"] == ["0", "1"]
    assert rows["model.g_widths"] == ["[16]", "[8]"]
    assert not {"name", "optim.g_lr", "model.architecture"} & rows.keys()
