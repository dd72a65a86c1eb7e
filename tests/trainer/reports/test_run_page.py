from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from imagesets.types import ImageSet
from tests.support.trainer import runs as runs_support
from tests.support.trainer.killed_training import images
from trainer.cli import app
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.reports import pages, plots
from trainer.training import checkpoint, run_folder

Tiny = Callable[..., Config]


@pytest.fixture
def trained(tiny: Tiny, tmp_path: Path) -> Path:
    return train(tiny(run={"quality_ticks": 2, "quality_images": 20}), images(), tmp_path)


def train(config: Config, image_set: ImageSet, runs: Path, console: Console | None = None) -> Path:
    run_dir = run_folder.create(runs, config)
    assert runs_support.start(config, image_set, run_dir, console or Console(file=io.StringIO()))
    return run_dir


def test_finished_run_has_animations_curves_and_sheets(trained: Path) -> None:
    for name in ("fixed.gif", "fixed.webp", "random.gif", "random.webp"):
        with Image.open(trained / name) as animation:
            assert animation.n_frames == 4 or (
                name.endswith("webp") and animation.n_frames > 1
            )  # WebP joins equal ones
    with Image.open(trained / "curves.png") as picture:
        assert picture.width > 500
    for kind in ("fixed", "random", "real-beside-fake"):
        assert len(pages.sheet_paths(trained, kind)) == 4


def test_report_page_embeds_all_pictures(trained: Path) -> None:
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/') == 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "dcgan; G" in page
    assert "quality/frechet" in page
    assert "Fréchet distance" in page


def test_report_page_escapes_markup_in_a_source(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    config["data"]["source"] = "<script>alert(1)</script>"
    (trained / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "<script>" not in pages.write_page(trained).read_text(encoding="utf-8")


def test_thin_keeps_the_first_and_last_of_60_frames() -> None:
    paths = [Path(f"fixed-{i}.png") for i in range(1000)]
    chosen = pages.thin(paths)
    assert len(chosen) == pages.MAX_FRAMES
    assert (chosen[0], chosen[-1]) == (paths[0], paths[-1])
    assert pages.thin(paths[:5]) == paths[:5]


def test_report_of_another_folder_raises_one_line(tmp_path: Path) -> None:
    for work in (pages.write_report, lambda path: pages.animate(path, "fixed"), pages.write_page):
        with pytest.raises(TrainerError, match="is it a run folder"):
            work(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(TrainerError, match="damaged"):
        plots.write_curves(tmp_path)


def test_draw_curves_of_two_runs_is_a_png() -> None:
    lines = [{"images_seen": 1000 * i, "loss/D": i, "images_per_second": 9} for i in range(3)]
    with Image.open(io.BytesIO(plots.draw_curves({"a": lines, "b": lines}))) as picture:
        assert picture.format == "PNG"


def test_training_keeps_the_best_and_the_newest_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(run={"quality_ticks": 1, "quality_images": 20, "keep_checkpoints": 1})
    run_dir = train(config, images(), tmp_path)
    lines = plots.read_metrics(run_dir / "metrics.jsonl")
    lowest = min(lines, key=lambda line: line["quality/frechet"])
    best = checkpoint.best_path(run_dir)
    assert best.name == f"checkpoint-{lowest['step']:08d}.pt"
    newest = checkpoint.load_latest(run_dir)[0]
    assert sorted({best, newest}) == checkpoint.paths(run_dir)
    assert {path.name for path in run_dir.glob("*.sha256")} == {f"{path.name}.sha256" for path in (best, newest)}


@pytest.mark.slow
def test_training_terminal_shows_the_last_tick(tiny: Tiny, tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200)
    train(tiny(run={"quality_ticks": 2, "quality_images": 20}), images(), tmp_path, console)
    for word in ("loss/G", "D/real", "gradient/D", "quality/recall", "memory", "img/s", "left"):
        assert word in screen.getvalue(), word


def test_training_without_a_terminal_prints_plain_lines(tiny: Tiny, tmp_path: Path) -> None:
    text = io.StringIO()
    train(tiny(), images(), tmp_path, Console(file=text, width=200))
    assert "\x1b" not in text.getvalue()
    assert text.getvalue().count("img/s") == 4


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("animate", {"fixed.gif", "fixed.webp", "random.gif", "random.webp"}),
        ("report", {"curves.png", "fixed.gif", "fixed.webp", "random.gif", "random.webp", "report.html"}),
    ],
)
def test_output_of_a_run_is_another_folder(command: str, names: set[str], trained: Path, tmp_path: Path) -> None:
    for name in names:
        (trained / name).unlink()
    done = CliRunner().invoke(app, [command, str(trained), "-o", str(tmp_path / "new/folder")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "new/folder").iterdir()} == names
    assert not any((trained / name).exists() for name in names)


@pytest.mark.parametrize(("command", "name"), [("animate", "fixed.gif"), ("report", "report.html")])
def test_output_of_a_run_that_is_a_file_is_rejected(command: str, name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [command, str(tmp_path), "-o", name])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {name} is not a folder, and several files are written; give ")
