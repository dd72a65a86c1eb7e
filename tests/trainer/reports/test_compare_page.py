from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.support.trainer import runs as runs_support
from tests.support.trainer.killed_training import images
from trainer.cli import app
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.reports import comparison, pages
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
        assert runs_support.start(config, images(), folder, Console(file=io.StringIO()))
        folders.append(folder)
    return folders


@pytest.mark.slow
def test_compare_uses_the_images_seen_by_the_shortest_run(two: list[Path], tmp_path: Path) -> None:
    page = comparison.compare(two, tmp_path / "out").read_text(encoding="utf-8")
    document = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert document["images_seen"] == 80
    assert document["rows"]["kimg"] == ["0.08", "0.08"]
    assert document["rows"]["networks"] == ["mlp", "dcgan"]
    assert document["rows"]["recall"][0] == "not measured"
    assert float(document["rows"]["Fréchet distance"][1]) > 0
    line = [json.loads(line) for line in (two[0] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()][1]
    assert document["rows"]["loss G"][0] == f"{line['loss/G']:.3f}"
    assert page.count('src="data:image/') == 4
    with Image.open(tmp_path / "out" / "fixed.gif") as animation:
        assert animation.n_frames == 2
    with (
        Image.open(tmp_path / "out" / "fixed.png") as sheet,
        Image.open(pages.sheet_paths(two[0], "fixed")[1]) as one,
    ):
        assert sheet.width == 2 * one.width + 12
        assert sheet.crop((0, 0, one.width, one.height)).tobytes() == one.convert("RGB").tobytes()


@pytest.mark.slow
def test_compare_curves_end_with_the_shortest_run(
    two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = pages.plots.draw_curves

    def record(runs: dict[str, list[dict[str, float]]]) -> bytes:
        drawn.extend(max(line["images_seen"] for line in lines) for lines in runs.values())
        return draw(runs)

    monkeypatch.setattr(pages.plots, "draw_curves", record)
    comparison.compare(two, tmp_path / "out")
    assert drawn == [80, 80]


@pytest.mark.slow
def test_compare_command_prints_the_table(two: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["compare", *map(str, two), "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "0001-tiny" in result.output
    assert "at 0.08 kimg" in result.output


@pytest.mark.slow
def test_compare_invalid_runs_raise_one_line(two: list[Path], tmp_path: Path) -> None:
    for runs, says in (
        ([two[0]], "two runs or more"),
        ([two[0], two[0]], "each once"),
        ([two[0], tmp_path], "run folder"),
    ):
        with pytest.raises(TrainerError, match=says):
            comparison.compare(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_run_labels_of_equal_names_have_the_parent() -> None:
    assert pages.run_labels([Path("a/0001-x"), Path("b/0001-x"), Path("b/0002-y")]) == [
        "a/0001-x",
        "b/0001-x",
        "0002-y",
    ]


@pytest.mark.slow
def test_compare_differing_settings_have_a_row(two: list[Path], tmp_path: Path) -> None:
    comparison.compare(two, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))["rows"]
    assert rows["run.total_kimg"] == ["0.16", "0.08"]
    assert rows["run.quality_ticks"] == ["0", "1"]
    assert rows["model.g_widths"] == ["[16]", "[8]"]
    assert not {"name", "optim.g_lr", "model.architecture"} & rows.keys()
