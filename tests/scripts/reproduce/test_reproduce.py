"""`make reproduce` on the embedded digits in place of MNIST, from presets to tables, in miniature; its command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import fid_mistakes
from scripts.reproduce import pages, runs
from scripts.reproduce.runs import ReproductionContext, Trial
from tests.support import fork_server
from tests.support.paths import ROOT
from trainer.config import loading

RESULTS = ROOT / "docs" / "results"
TINY = (
    ("run.total_kimg", 0.64),
    ("run.tick_kimg", 0.64),
    ("run.quality_ticks", 0),
    ("run.precision", "fp32"),
)
SCORING_ONLY = ("bentoml", "fastapi", "httpx", "optuna", "uvicorn")  # not on a machine that only trains


def run_script(*words: object, code: int = 0) -> str:
    done = fork_server.run("scripts.reproduce", *map(str, words), cwd=ROOT, timeout=500)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def miniature(folder: Path) -> list[object]:
    sets = [word for field, value in TINY for word in ("--set", f"{field}={value}")]
    places = ["--work", folder / "work", "--mnist", "digits"]
    return [*places, "--num-images", 60, "--features", "classifier,random", "--jobs", 2, *sets]


@pytest.mark.slow
def test_reproduce_halves_train_collect_serve_score(tmp_path: Path) -> None:
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name in SCORING_ONLY:
        (stubs / f"{name}.py").write_text("raise ImportError('not installed')", encoding="utf-8")
    only, options, pages = ("mnist-dcgan", "mnist-best"), miniature(tmp_path), tmp_path / "pages"
    command = [sys.executable, "-m", "scripts.reproduce", "train", *only, *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(stubs)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "trainer train --preset mnist-dcgan" in done.stdout
    names = ("mnist-dcgan-00000010", "mnist-dcgan-00000010-last", "mnist-best-00000020")
    models = tmp_path / "work" / "collected" / "models"
    assert {path.stem for path in models.iterdir()} == set(names)

    moved = (tmp_path / "work" / "collected").rename(tmp_path / "moved")
    (tmp_path / "work" / "runs").rename(tmp_path / "runs")
    printed = run_script("score", moved, *options, "--output", pages)
    assert "service serve" in printed
    assert printed.count("evaluation score http://") == 6
    results = json.loads((pages / "results.json").read_text(encoding="utf-8"))
    assert [run["preset"] for run in results["runs"]] == list(only)
    for run in results["runs"]:
        assert run["end"]["kimg"] == pytest.approx(0.64)
        assert run["end"]["cpu_seconds"] > 0
        assert run["end"]["averaged"]["classifier"]["fd_classifier60"] > 0
        assert ("random" in run["end"]["last_step"]) == (run["preset"] == "mnist-dcgan")
    (row,) = results["comparisons"]
    assert (row["at"], row["second"]["preset"], len(row["first"]["distances"]["random"])) == ("end", "mnist-dcgan", 1)
    assert [row["count"] for row in results["mistakes"]["mnist"]] == [2, 2, 60]
    index = (pages / "index.md").read_text(encoding="utf-8")
    distance = results["real"]["mnist"]["classifier"]["fd_classifier60"]
    assert f"| real images<br>![real images](images/mnist-real.png) | | | {distance:.2f} |" in index
    assert re.search(r"images/mnist-dcgan.png\) \| 1 of 1,020 kimg \| \d+\.\d min \| \d+\.\d\d \| [\d.]+ \|", index)
    for target in re.findall(r"\]\(([^)#]+)\)", index):
        assert (pages / target).is_file(), target

    moved.rename(tmp_path / "work" / "collected")
    (tmp_path / "runs").rename(tmp_path / "work" / "runs")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.onnx")}
    again = run_script(*only, *options, "--output", pages)
    assert "evaluation score" not in again  # finished work is not repeated
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_training_half_imports_nothing_of_the_scoring_half() -> None:
    code = (
        "import sys, scripts.reproduce.__main__, scripts.reproduce.training; "
        f"print(sorted({{*{SCORING_ONLY!r}, 'onnxruntime', 'jinja2'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reproduce_unknown_name_is_one_line() -> None:
    printed = run_script("mnist-dcgam", code=2)
    assert printed.startswith("error: there is no mnist-dcgam; choose from kunal627, comparison")
    assert len(printed.splitlines()) == 1


def test_reproduce_covers_every_preset_of_a_source() -> None:
    own = {"digits-dcgan", "celeba-best", "folder-small"}
    assert {run.preset for run in runs.RUNS} == set(loading.preset_names()) - own
    assert {f"{source}.md" for source in runs.SOURCES} <= {page.name for page in RESULTS.glob("*.md")}


def test_select_takes_sources_presets_and_ours() -> None:
    assert [run.preset for run in runs.select(["comparison"])] == ["mnist-gan", "mnist-dcgan"]
    ours = ["mnist-best", "mnist-best-unconditional", "cifar10-small", "cifar10-best"]
    assert [run.preset for run in runs.select(["ours"])] == ours
    assert [run.preset for run in runs.select(["divyam25", "mnist-gan"])] == ["mnist-dcgan-64", "mnist-gan"]
    assert [run.preset for run in runs.select(["cifar10-best", "mnist"])][:2] == ["cifar10-best", "mnist-gan"]
    assert runs.select([]) == runs.RUNS


def results_of(*rows: tuple[str, str, dict[str, str]]) -> dict[str, Any]:
    runs = [{"preset": preset, "dataset": dataset, "extractors": digests} for preset, dataset, digests in rows]
    return {"runs": runs, "comparisons": [], "real": {}, "accuracy": {}, "mistakes": {}}


def test_keep_earlier_keeps_rows_of_other_presets_with_the_same_extractors() -> None:
    one, other = {"classifier": "a"}, {"classifier": "b"}
    earlier = results_of(("mnist-gan", "mnist", one), ("mnist-dcgan", "mnist", one), ("cifar10-dcgan", "cifar10", {}))
    merged, lost = pages.keep_earlier(earlier, results_of(("mnist-dcgan", "mnist", one)))
    assert ([row["preset"] for row in merged["runs"]], lost) == (["mnist-gan", "mnist-dcgan", "cifar10-dcgan"], [])
    merged, lost = pages.keep_earlier(earlier, results_of(("mnist-dcgan", "mnist", other)))
    assert ([row["preset"] for row in merged["runs"]], lost) == (["mnist-dcgan", "cifar10-dcgan"], ["mnist-gan"])
    assert merged["runs"][0]["extractors"] == other


def test_keep_earlier_keeps_rows_that_only_have_other_columns() -> None:
    earlier = results_of(
        ("cifar10-dcgan", "cifar10", {"classifier": "a"}), ("cifar10-wgan", "cifar10", {"random": "b"})
    )
    earlier["real"] = {"cifar10": {"classifier": {"fd": 1}, "random": {"fd": 2}}}
    new = results_of(("cifar10-best", "cifar10", {"random": "c"}))
    new["real"] = {"cifar10": {"random": {"fd": 3}}}
    merged, lost = pages.keep_earlier(earlier, new)
    assert ([row["preset"] for row in merged["runs"]], lost) == (["cifar10-dcgan", "cifar10-best"], ["cifar10-wgan"])
    assert merged["real"] == {"cifar10": {"classifier": {"fd": 1}, "random": {"fd": 3}}}


def test_keep_earlier_keeps_comparisons_with_a_kept_row() -> None:
    one = {"classifier": "a"}
    earlier = results_of(("mnist-gan", "mnist", one), ("mnist-dcgan", "mnist", one))
    earlier["comparisons"] = [{"first": {"preset": "mnist-dcgan"}, "second": {"preset": "mnist-gan"}}]
    new = results_of(("mnist-best", "mnist", one))
    assert pages.keep_earlier(earlier, new)[0]["comparisons"] == earlier["comparisons"]
    new = results_of(("mnist-dcgan", "mnist", one))
    assert pages.keep_earlier(earlier, new)[0]["comparisons"] == earlier["comparisons"]
    new = results_of(("mnist-dcgan", "mnist", one), ("mnist-gan", "mnist", one))
    assert pages.keep_earlier(earlier, new)[0]["comparisons"] == []
    new = results_of(("mnist-dcgan", "mnist", {"classifier": "b"}))
    assert pages.keep_earlier(earlier, new)[0]["comparisons"] == []


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


def test_row_of_another_config_than_the_presets_is_a_warning(
    context: ReproductionContext,
    trial: Callable[..., Trial],
    gather: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = trial("mnist-best")
    gather(best, [(60, 120)])
    pages.row_of(context, best, {"real": {}, "accuracy": {}})
    assert "warning" not in capsys.readouterr().out
    path = context.record(best) / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"z_dim": 100', '"z_dim": 32'), encoding="utf-8")
    pages.row_of(context, best, {"real": {}, "accuracy": {}})
    assert "mnist-best was not trained with the preset as it is now (model.z_dim: 100 → 32)" in capsys.readouterr().out


def test_reproduce_bad_options_fail_first(tmp_path: Path) -> None:
    places = ("--work", tmp_path / "work")
    assert "--jobs must be above 0" in run_script("train", "--jobs", 0, *places, code=2)
    assert "--seeds must be above 0" in run_script("train", "--seeds", 0, *places, code=2)
    assert "there is no lenet; choose from inception, classifier" in run_script("--features", "lenet", *places, code=2)
    assert "there is no folder nowhere" in run_script("score", "nowhere", *places, code=2)
    assert "score takes one folder" in run_script("score", tmp_path, tmp_path, *places, code=2)
    assert not (tmp_path / "work").exists()


def test_fid_mistakes_grid_is_one_image_cast_has_two_levels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (130, 28, 28, 1), dtype=np.uint8)
    assert fid_mistakes.as_grids(images).shape == (5, 28, 28, 1)
    assert len(fid_mistakes.as_few(images)) == 5
    reals, fakes = fid_mistakes.cast_reals(images), fid_mistakes.cast_fakes(images)
    np.testing.assert_array_equal(reals, np.where(images == 255, 1, 0))
    np.testing.assert_array_equal(fakes, np.select([images == 255, images == 0], [1, 255], 0))
