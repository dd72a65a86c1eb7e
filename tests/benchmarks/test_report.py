"""Tables are made from results and put between markers; pages have those of benchmarks/results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.report import between, marked, table
from tests.support.paths import ROOT


def write(document: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["report", *words, "--write", str(document)])
    report.main()


@pytest.mark.parametrize(
    ("page", "tables"),
    [
        ("docs/results/performance.md", {"serving", "serving_peers"}),
        ("benchmarks/results/training.md", {"train_step", "train_step_bf16", "train_step_one_core_fp32"}),
        ("docs/operations/scaling.md", {"scaling"}),
    ],
)
def test_documents_tables_match_the_results(
    page: str, tables: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, copy = ROOT / page, tmp_path / "page.md"
    copy.write_text(document.read_text(encoding="utf-8"), encoding="utf-8")
    write(copy, monkeypatch=monkeypatch)
    assert copy.read_text(encoding="utf-8") == document.read_text(encoding="utf-8"), (
        f"python -m benchmarks.report --write {page}"
    )
    assert set(marked(document.read_text(encoding="utf-8"))) >= tables


def test_scaling_page_has_the_figures_of_the_formulas() -> None:
    page = (ROOT / "docs" / "operations" / "scaling.md").read_text(encoding="utf-8")
    kept = json.loads((ROOT / "benchmarks" / "results" / "scaling.json").read_text(encoding="utf-8"))
    generator = kept["generators"]["mnist-dcgan"]
    rate = report.core_rate(generator)
    assert f"makes {rate:.0f} images/s per core" in page
    assert f"need {report.replicas(10_000, rate)} replicas" in page


def test_report_keeps_tables_without_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document, folder = tmp_path / "page.md", tmp_path / "results"
    folder.mkdir()
    run = {"npy": [{"images_per_s": 7.0, "p50_ms": 1.0, "p99_ms": 2.0}], "pss_mb": 3.0}
    ways = dict.fromkeys(report.SCALING_WAYS, run)
    (folder / "scaling.json").write_text(json.dumps({"generators": {"mine": ways}}), encoding="utf-8")
    document.write_text(
        "<!-- scaling -->\nold\n<!-- /scaling -->\n<!-- bench -->\nnone\n<!-- /bench -->\n",
        encoding="utf-8",
    )
    write(document, "--results", str(folder), monkeypatch=monkeypatch)
    assert "| `mine` | 1 worker, 1 core | 7.00 | 1 / 2 ms | 3 MB |" in document.read_text(encoding="utf-8")
    assert "<!-- bench -->\nnone\n" in document.read_text(encoding="utf-8")
    assert "without a result: bench" in capsys.readouterr().out


def test_report_unknown_marker_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "page.md"
    document.write_text("<!-- something -->\n<!-- /something -->\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        write(document, monkeypatch=monkeypatch)
    assert document.read_text(encoding="utf-8") == "<!-- something -->\n<!-- /something -->\n"


def test_between_replaces_one_place_literally() -> None:
    text = "a\n<!-- t -->\nold\n<!-- /t -->\nb\n"
    assert between(text, "t", r"new \1") == "a\n<!-- t -->\nnew \\1\n<!-- /t -->\nb\n"
    for wrong in ("nothing", text + text):
        with pytest.raises(ValueError, match="places for the table t"):
            between(wrong, "t", "new")


def test_table_with_a_row_of_another_width_raises() -> None:
    assert table("a | b", "{x} | 2", [{"x": "1"}]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    with pytest.raises(ValueError, match="does not fit"):
        table("a | b", "{x}", [{"x": "1"}])


def test_replicas_of_measured_rates_are_enough_and_at_least_two() -> None:
    rate = report.core_rate({"one_worker_one_core": {"npy": [{"images_per_s": 100.0}]}})
    assert rate == 100.0
    assert report.replicas(1, rate) == 2
    assert report.replicas(14_000, rate) == 100
    assert report.replicas(14_001, rate) == 101


def test_training_rows_have_the_share_of_matrix_products_with_its_target() -> None:
    spread = {"median": 0.7, "min": 0.6, "max": 0.8}
    result = {
        "case": "mnist-gan",
        "preset": "mnist-gan",
        "plain_loop": "documents",
        "peer": None,
        "images": "mnist",
        "batch_size": 64,
        "precision": "fp32",
        "threads": 1,
        "images_per_second": {"plain": 10.0, "trainer": 30.0, "products": 50.0},
        "ratio_to_plain": spread,
        "share_of_products": spread,
        "gflop_per_second": {"trainer": 60.0, "products": 100.0},
        "load_average": [0.1, 0.1],
    }
    plain, products = report.training_rows({"results": [result]})
    assert (plain["unit"], plain["target"]) == ("images/s", "at least 1")  # its target of 3.5 is of two cores
    assert (products["ours"], products["theirs"], products["unit"]) == (60.0, 100.0, "GFLOP/s")
    assert (products["ratio"], products["target"], products["met"]) == (spread, "at least 0.6", True)
