"""`make reproduce` on the embedded digits in place of MNIST, from presets to tables, in miniature."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scripts import fid_mistakes, reproduce
from scripts.reproduce import ReproductionContext
from tests.support import fork_server
from tests.support.paths import ROOT
from trainer.config import loading

RESULTS = ROOT / "docs" / "results"
TINY = (
    ("run.total_kimg", 0.64),
    ("run.tick_kimg", 0.64),
    ("run.quality_ticks", 0),
    ("run.threads", 1),
    ("run.precision", "fp32"),
)


def run_script(*words: object, code: int = 0) -> str:
    done = fork_server.run("scripts.reproduce", *map(str, words), cwd=ROOT, timeout=500)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def miniature(folder: Path, *only: str) -> list[object]:
    sets = [word for field, value in TINY for word in ("--set", f"{field}={value}")]
    places = ["--work", folder / "work", "--output", folder / "pages", "--mnist", "digits", "--num-images", 60]
    return [*only, *places, *sets]


@pytest.mark.slow
def test_reproduce_trains_serves_scores_and_resumes(tmp_path: Path) -> None:
    printed = run_script(*miniature(tmp_path, "mnist-gan", "mnist-best"))
    for command in ("trainer train --preset mnist-gan", "trainer export", "service serve", "evaluation score http://"):
        assert command in printed
    results = json.loads((tmp_path / "pages" / "results.json").read_text(encoding="utf-8"))
    assert [run["preset"] for run in results["runs"]] == ["mnist-gan", "mnist-best"]
    for run in results["runs"]:
        assert run["end"]["kimg"] == pytest.approx(0.64)
        assert run["end"]["averaged"]["fd_classifier60"] > 0
        assert ("fd_classifier60" in run["end"]["last_step"]) == (run["preset"] == "mnist-gan")
    assert results["real"]["mnist"]["fd_classifier60"] > 0
    assert [row["count"] for row in results["mistakes"]["mnist"]] == [2, 2, 60]
    index = (tmp_path / "pages" / "index.md").read_text(encoding="utf-8")
    assert f"| real images | | | | {results['real']['mnist']['fd_classifier60']:.2f} |" in index
    assert re.search(r"\| `mnist-gan` \| no \| 1 of 1,500 kimg \| \d+\.\d min \| (collapsed|\d+\.\d\d) \|", index)
    for target in re.findall(r"\]\(([^)#]+)\)", index):
        assert (tmp_path / "pages" / target).is_file(), target

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.onnx")}
    again = run_script(*miniature(tmp_path, "mnist-gan", "mnist-best"))
    assert "evaluation score" not in again  # finished work is not repeated
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("page", sorted(RESULTS.glob("*.md")), ids=lambda path: path.stem)
def test_pages_of_results_have_the_figures_of_results_json(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    results = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    assert reproduce.rendered(text, results) == text, "python -m scripts.reproduce --pages"
    for run in results["runs"]:
        for networks in re.findall(rf"`{run['preset']}`[^|]*\| ([\d,]+ / [\d,]+) \|", text):
            assert networks == f"{run['parameters']['G']:,} / {run['parameters']['D']:,}", run["preset"]


def test_index_names_the_extractors_accuracies_and_finished_runs() -> None:
    text = " ".join((RESULTS / "index.md").read_text(encoding="utf-8").split())
    results = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    for real in results["real"].values():
        assert f"names {real['extractor_accuracy']:.1%}".replace("%", " %") in text
    finished = [run["preset"] for run in results["runs"] if run["end"]["kimg"] >= run["full_kimg"]]
    assert finished == ["cifar10-small"]
    assert "Only `cifar10-small` has been scored at its full length." in text


def test_page_of_a_collapsed_run_shows_no_distance() -> None:
    end = {"kimg": 5.0, "seconds": 60.0, "averaged": {"fd_x": 9.0, "precision_x": 0.9, "recall_x": 0.009}}
    run = {"preset": "p", "dataset": "mnist", "conditional": False, "full_kimg": 10, "end": end}
    results = {"runs": [run], "real": {"mnist": {}}, "mistakes": {}}
    table = reproduce.rendered("<!-- table: mnist -->\n<!-- /table -->", results)
    assert "| `p` | no | 5 of 10 kimg | 1.0 min | collapsed | | |" in table
    end["averaged"]["recall_x"] = 0.01  # type: ignore[index]
    table = reproduce.rendered(table, results)
    assert "| `p` | no | 5 of 10 kimg | 1.0 min | 9.00 | 0.90 | 0.01 |" in table


def test_reproduce_unknown_name_is_one_line() -> None:
    printed = run_script("mnist-dcgam", code=2)
    assert printed.startswith("error: there is no mnist-dcgam; choose from kunal627, comparison")
    assert len(printed.splitlines()) == 1


def test_reproduce_covers_every_preset_of_a_source() -> None:
    own = {"digits-dcgan", "celeba-best"}
    assert {run.preset for run in reproduce.RUNS} == set(loading.preset_names()) - own
    assert {f"{source}.md" for source in reproduce.SOURCES} <= {page.name for page in RESULTS.glob("*.md")}


def test_select_takes_sources_presets_and_ours() -> None:
    assert [run.preset for run in reproduce.select(["comparison"])] == ["mnist-gan", "mnist-dcgan"]
    assert [run.preset for run in reproduce.select(["ours"])] == ["mnist-best", "cifar10-small", "cifar10-best"]
    assert [run.preset for run in reproduce.select(["divyam25", "mnist-gan"])] == ["mnist-gan", "mnist-dcgan-64"]
    assert reproduce.select([]) == reproduce.RUNS


def test_unscored_with_a_new_extractor_lists_it(tmp_path: Path) -> None:
    later = tmp_path / "inception.onnx"
    context = ReproductionContext(tmp_path, tmp_path, {"mnist": "mnist"}, inception=later)
    folder = context.scores_dir("mnist", "g")
    for path in (context.extractor("mnist"), later, folder / "report.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert reproduce.unscored(context, "mnist", "g") == [(later, folder / "inception")]
    (folder / "inception").mkdir()
    (folder / "inception" / "report.json").touch()
    assert reproduce.unscored(context, "mnist", "g") == []


def test_training_images_are_the_train_split(tmp_path: Path) -> None:
    context = ReproductionContext(tmp_path, tmp_path, {"mnist": "mnist", "cifar10": "folder:photos"})
    assert context.training_images("mnist") == "mnist"  # the train split
    assert context.training_images("cifar10") == "folder:photos@train"


def test_reproduce_keeps_results_of_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ReproductionContext(tmp_path / "work", tmp_path, {})
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "pages")
    assert reproduce.results_folder(context) == tmp_path / "pages"
    (tmp_path / "pages").mkdir()
    results = {"runs": [{"preset": "mnist-gan"}]}
    (tmp_path / "pages" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert reproduce.results_folder(context) == tmp_path / "work" / "results"


def test_reproduce_page_without_tables_fails_before_training(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# My project", encoding="utf-8")
    printed = run_script("mnist-gan", "--mnist", "digits", "--work", tmp_path / "work", "--output", tmp_path, code=2)
    assert printed.startswith(f"error: {tmp_path}/index.md has no place for the tables")
    assert (tmp_path / "index.md").read_text(encoding="utf-8") == "# My project"
    assert not (tmp_path / "work").exists()


def test_reproduce_split_or_broken_extractor_fails_first(tmp_path: Path) -> None:
    assert "leave out @test" in run_script("--mnist", "digits@test", "--work", tmp_path / "work", code=2)
    (tmp_path / "no.onnx").write_text("no network", encoding="utf-8")
    assert "--inception: " in run_script("--inception", tmp_path / "no.onnx", "--work", tmp_path / "work", code=2)
    assert not (tmp_path / "work").exists()


def test_reproduce_never_resumes_with_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = reproduce.select(["mnist-gan-2"])
    context = ReproductionContext(tmp_path, tmp_path, {"mnist": "digits"}, sets=("optim.g_lr=1e-3",))
    folder = context.run_dir(run)
    folder.mkdir(parents=True)
    sets = ("data.source=digits", "optim.g_lr=1e-3", "run.device=cpu", "run.precision=fp32")
    (folder / "config.json").write_text(loading.to_json(loading.resolve(run.preset, sets)), encoding="utf-8")
    for same in (context, replace(context, sets=(*context.sets, "run.device=auto", "run.precision=auto"))):
        reproduce.check_settings(same, run)
    for other in (replace(context, sets=("optim.g_lr=2e-3",)), replace(context, images={"mnist": "mnist"})):
        with pytest.raises(SystemExit, match="2"):
            reproduce.check_settings(other, run)
        assert "was started with other settings" in capsys.readouterr().err


def test_fid_mistakes_grid_is_one_image_cast_has_two_levels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (130, 28, 28, 1), dtype=np.uint8)
    assert fid_mistakes.as_grids(images).shape == (5, 28, 28, 1)
    assert len(fid_mistakes.as_few(images)) == 5
    reals, fakes = fid_mistakes.cast_reals(images), fid_mistakes.cast_fakes(images)
    np.testing.assert_array_equal(reals, np.where(images == 255, 1, 0))
    np.testing.assert_array_equal(fakes, np.select([images == 255, images == 0], [1, 255], 0))
