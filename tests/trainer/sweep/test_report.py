"""The report of a sweep: ranks, pictures and charts."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support.trainer.sweep_plans import ended, plan_of
from trainer.reports import image_grids
from trainer.sweep import report
from trainer.sweep.plan import Plan
from trainer.sweep.study import Study
from trainer.training import logger


@pytest.fixture
def shown(tmp_path: Path) -> Study:
    """A grid of 2 x 3 with its sheets: the image of seed s of trial t is filled with 30 t + s."""
    import numpy as np

    plan = plan_of("model.z_dim=4,8", "model.g_widths=[8],[16],[24]", **{"data.resolution": 8, "model.d_widths": [8]})
    study = Study(tmp_path, plan)
    while (trial := study.ask()) is not None:
        folder = f"{trial.folder}/seed-0"
        images = np.full((64, 8, 8, 1), 30 * trial.number, np.uint8)
        images += np.arange(64, dtype=np.uint8)[:, None, None, None]
        sheet = tmp_path / folder / "samples" / "fixed-000001000.png"
        image_grids.write_png(image_grids.grid(images), sheet)
        failed = {"seed": 0, "reason": "<b>loss</b>"}
        study.tell(trial, [failed if trial.number == 4 else ended(frechet=10.0 - trial.number, folder=folder)])
    return study


@pytest.mark.slow
def test_report_page_ranks_trials_and_embeds_all_pictures(shown: Study, tmp_path: Path) -> None:
    page = report.write(tmp_path, shown).read_text(encoding="utf-8")
    document = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert document["best"] == 5
    assert document["trials"][5]["frechet"] == {"mean": 5.0, "std": None, "n": 1}
    assert document["trials"][4]["reason"] == "<b>loss</b>"
    assert not re.search(r'(src|href|srcset)="(?!data:)', page)
    assert "<b>loss" not in page
    assert "&lt;b&gt;loss" in page
    ranks = re.findall(r"<td>(\d|–)</td><td>(\d{4})</td>", page)
    assert ranks == [("1", "0005"), ("2", "0003"), ("3", "0002"), ("4", "0001"), ("5", "0000"), ("–", "0004")]
    assert page.count('src="data:image/png') == 5 + 1 + 2  # a picture each, the best again, two charts
    assert "--best --output models" in page  # the checkpoint that was scored


def test_read_picture_is_the_top_left_quarter_at_the_best_tick(shown: Study, tmp_path: Path) -> None:
    picture = report.read_picture(tmp_path, shown.plan, shown.trials()[1])
    assert picture is not None
    step = picture.width // 42  # 4 images of 8 and 5 gaps of 2: 42 pixels, enlarged
    assert picture.width == picture.height == 42 * step
    places = [step * (3 + 10 * i) for i in range(4)]  # inside each image
    seen = [picture.getpixel((x, y)) for y in places for x in places]
    assert [value[0] - 30 for value in seen] == [8 * j + i for j in range(4) for i in range(4)]
    assert len(logger.GRID_SEEDS) == 64


def test_picture_matrix_places_trials_by_their_values(shown: Study) -> None:
    trials = shown.trials()
    table = report.picture_matrix(shown.plan, trials)
    assert table is not None
    assert table["across"].field == "model.g_widths"
    found = [[cell and cell.number for cell in cells] for _, cells in table["lines"]]
    assert found == [[0, 1, 2], [3, 4, 5]]
    assert report.picture_matrix(plan_of("optim.g_lr=1e-5..1e-3", sampler="tpe"), trials) is None


@pytest.mark.slow
def test_draw_scores_of_ranges_and_single_seeds(begin: Callable[[Plan], Study]) -> None:
    study = begin(plan_of("optim.g_lr=1e-5..1e-3:log", "model.init=normal,xavier", sampler="tpe", trials=3))
    while (trial := study.ask()) is not None:
        study.tell(trial, [ended(frechet=1.0 + trial.number)])
        for measure in report.MEASURES:
            with Image.open(io.BytesIO(report.draw_scores(study.plan, study.trials(), measure))) as picture:
                assert picture.width > 300


def test_shared_settings_leave_out_varied_fields() -> None:
    assert (
        report.shared_settings(plan_of("model.z_dim=4,8"))
        == "100 kimg, digits at 32 px, dcgan, non-saturating, batch 32"
    )
    assert (
        report.shared_settings(plan_of("optim.batch_size=8,16", "run.total_kimg=1,2"))
        == "digits at 32 px, dcgan, non-saturating"
    )


def test_report_page_of_runs_without_recall_has_no_chart_of_it(begin: Callable[[Plan], Study], tmp_path: Path) -> None:
    study = begin(plan_of("model.z_dim=4,8"))
    while (trial := study.ask()) is not None:
        study.tell(trial, [{name: value for name, value in ended().items() if name != "recall"}])
    page = report.write(tmp_path, study).read_text(encoding="utf-8")
    assert page.count("against each field") == 1
