"""`make reproduce` on the embedded digits in place of MNIST: the whole way from presets to pages, in miniature."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples.reproduce import __main__ as main
from examples.reproduce import mistakes, pages, plan, tables, work
from examples.reproduce.work import Workshop, folder_of, unscored
from tests import warm
from trainer.config import loading

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    ("run.total_kimg", 1.92),
    ("run.tick_kimg", 0.64),
    ("run.quality_ticks", 0),
    ("run.threads", 1),
    ("run.precision", "fp32"),
)


def reproduce(*words: object, code: int = 0) -> str:
    done = warm.run("examples.reproduce", *map(str, words), cwd=ROOT, timeout=500)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def miniature(folder: Path, *only: str) -> list[object]:
    sets = [word for field, value in TINY for word in ("--set", f"{field}={value}")]
    places = ["--work", folder / "work", "--output", folder / "pages", "--mnist", "digits", "--num-images", 60]
    return [*only, *places, *sets]


@pytest.mark.slow
def test_it_trains_scores_what_is_served_and_writes_the_pages(tmp_path: Path) -> None:
    told = reproduce(*miniature(tmp_path, "mnist-gan", "mnist-best"))
    for command in ("trainer train --preset mnist-gan", "trainer export", "service serve", "evaluation score http://"):
        assert command in told
    found = json.loads((tmp_path / "pages" / "results.json").read_text(encoding="utf-8"))["runs"]
    assert [run["preset"] for run in found] == ["mnist-gan", "mnist-best"]
    for run in found:
        assert run["end"]["kimg"] == pytest.approx(1.92)
        assert run["end"]["G_ema"]["fd_classifier60"] > 0
        assert ("fd_classifier60" in run["end"]["G"]) == (run["preset"] == "mnist-gan")
    index = (tmp_path / "pages" / "index.md").read_text(encoding="utf-8")
    assert f"{found[0]['end']['G_ema']['fd_classifier60']:.2f}" in index
    assert re.search(r"\| `celeba-dcgan` .*not run", index)
    for page in (tmp_path / "pages").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("../", "https://")):
                assert (page.parent / target).is_file(), f"{page.name} → {target}"

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.onnx")}
    again = reproduce(*miniature(tmp_path, "mnist-gan", "mnist-best"))
    assert "evaluation score" not in again  # what was done is not done twice
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_name_that_is_none_is_one_line() -> None:
    told = reproduce("mnist-dcgam", code=2)
    assert told.startswith("error: there is no mnist-dcgam; there are 000, 001")
    assert len(told.splitlines()) == 1


def test_every_preset_of_the_documents_is_reproduced() -> None:
    from trainer.config.loading import preset_names

    ours_alone = {"digits-dcgan", "celeba-best"}
    assert {system.preset for system in plan.SYSTEMS} == set(preset_names()) - ours_alone
    assert {source for system in plan.SYSTEMS for source in system.documents} == set(plan.TITLES)


def test_an_extractor_that_comes_later_scores_what_another_has_scored(tmp_path: Path) -> None:
    later = tmp_path / "inception.onnx"
    shop = Workshop(tmp_path, tmp_path, {"mnist": "mnist"}, inception=later)
    for path in (shop.extractor("mnist"), later, folder_of(shop, "mnist", "g") / "report.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert unscored(shop, "mnist", "g") == [(later, folder_of(shop, "mnist", "g") / "inception")]
    (folder_of(shop, "mnist", "g") / "inception").mkdir()
    (folder_of(shop, "mnist", "g") / "inception" / "report.json").touch()
    assert unscored(shop, "mnist", "g") == []


def test_what_is_held_out_for_the_score_is_not_trained_on(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, tmp_path, {"mnist": "mnist", "cifar10": "folder:pictures"})
    assert shop.training_source("mnist") == "mnist"  # the train split, by its name alone
    assert shop.training_source("cifar10") == "folder:pictures@train"


def test_pages_that_tell_of_other_runs_are_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop(tmp_path / "work", tmp_path, {})
    monkeypatch.setattr(main, "RESULTS", tmp_path / "pages")
    assert main.place(shop) == tmp_path / "pages"
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "results.json").write_text(json.dumps({"runs": [{"preset": "mnist-gan"}]}), encoding="utf-8")
    assert main.place(shop) == tmp_path / "work" / "results"


def test_what_is_not_ours_in_the_folder_of_the_pages_stays(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("mine.png", "mnist-best.png", "mnist-gan-fixed.png", "004-curves.png"):
        (tmp_path / "pictures" / name).touch()
    assert sorted(path.name for path in pages.taken(tmp_path / "pictures")) == ["004-curves.png", "mnist-gan-fixed.png"]
    assert not pages.strange(tmp_path)
    (tmp_path / "index.md").write_text("# My project", encoding="utf-8")
    assert pages.strange(tmp_path)
    told = reproduce("mnist-gan", "--mnist", "digits", "--work", tmp_path / "work", "--output", tmp_path, code=2)
    assert told.startswith(f"error: {tmp_path}/index.md is no page of this command")
    assert (tmp_path / "index.md").read_text(encoding="utf-8") == "# My project"
    assert not (tmp_path / "work").exists()


def test_a_split_or_an_extractor_that_cannot_be_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    assert "leave out @test" in reproduce("--mnist", "digits@test", "--work", tmp_path / "work", code=2)
    (tmp_path / "no.onnx").write_text("no network", encoding="utf-8")
    assert "--inception: " in reproduce("--inception", tmp_path / "no.onnx", "--work", tmp_path / "work", code=2)
    assert not (tmp_path / "work").exists()


def test_a_run_does_not_go_on_with_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (system,) = plan.chosen(("mnist-gan",))
    shop = Workshop(tmp_path, tmp_path, {"mnist": "digits"}, sets=("optim.g_lr=1e-3",))
    run = shop.run_of(system)
    run.mkdir(parents=True)
    begun = loading.resolve(
        system.preset, ("data.source=digits", "optim.g_lr=1e-3", "run.device=cpu", "run.precision=fp32")
    )
    (run / "config.json").write_text(loading.to_json(begun), encoding="utf-8")
    for same in (shop, replace(shop, sets=(*shop.sets, "run.device=auto", "run.precision=auto"))):
        work.begun_otherwise(same, system)
    for other in (replace(shop, sets=("optim.g_lr=2e-3",)), replace(shop, sources={"mnist": "mnist"})):
        with pytest.raises(SystemExit, match="2"):
            work.begun_otherwise(other, system)
        assert "was begun otherwise" in capsys.readouterr().err


def test_a_run_without_rivals_is_shown_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (system,) = plan.chosen(("mnist-best",))
    shop = Workshop(tmp_path, tmp_path, {"mnist": "digits"})
    end = tables.Mark(system, 60, 1920, 1.0, {"fd_classifier10k": 5.0}, {})
    monkeypatch.setattr(pages, "end_of", lambda shop, system: end)
    told = pages.best(shop, [system], {"mnist-best": {"fixed": "mnist-best-fixed.png"}})
    assert "No document's run of these images is long enough to be held against: 5.00 after 1.92 kimg." in told
    assert "pictures/mnist-best-fixed.png" in told


def test_a_grid_is_one_item_and_the_cast_leaves_two_levels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (130, 28, 28, 1), dtype=np.uint8)
    assert mistakes.as_grids(images).shape == (5, 28, 28, 1)
    assert len(mistakes.as_few(images)) == 5
    reals, fakes = mistakes.as_cast_reals(images), mistakes.as_cast_fakes(images)
    np.testing.assert_array_equal(reals, np.where(images == 255, 1, 0))
    np.testing.assert_array_equal(fakes, np.select([images == 255, images == 0], [1, 255], 0))
