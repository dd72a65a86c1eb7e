from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from scripts.reproduce.tables import rendered
from tests.support.paths import ROOT

RESULTS = ROOT / "docs" / "results"


def row(preset: str, seed: int = 0, kimg: float = 5.0, **distances: float) -> dict[str, Any]:
    """Return a row of results.json with a distance and a recall of 0.5 per extractor."""
    averaged = {
        key: {f"fd_{key}": value, f"precision_{key}": 0.9, f"recall_{key}": 0.5} for key, value in distances.items()
    }
    return {
        "preset": preset,
        "seed": seed,
        "dataset": "mnist",
        "conditional": False,
        "full_kimg": 10,
        "machine": {"processor": "a CPU", "torch": "2", "device": "cpu", "precision": "fp32", "threads": 1},
        "end": {"kimg": kimg, "seconds": 120.0, "cpu_seconds": 60.0, "averaged": averaged},
    }


def table(name: str, *runs: dict[str, Any], **results: Any) -> str:
    """Return the lines of a table of results."""
    found = {"runs": list(runs), "real": {}, "accuracy": {}, "comparisons": [], "mistakes": {}} | results
    return rendered(f"<!-- table: {name} -->\n<!-- /table -->", found)


@pytest.mark.parametrize("page", sorted(RESULTS.glob("*.md")), ids=lambda path: path.stem)
def test_pages_of_results_have_the_figures_of_results_json(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    results = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    assert rendered(text, results) == text, "python -m scripts.reproduce --pages"
    for run in results["runs"]:
        for networks in re.findall(rf"`{run['preset']}`[^|]*\| ([\d,]+ / [\d,]+) \|", text):
            assert networks == f"{run['parameters']['G']:,} / {run['parameters']['D']:,}", run["preset"]


def test_table_has_a_column_per_extractor_the_leading_one_first() -> None:
    text = table("mnist", row("p", classifier=9.0, random=0.0123), row("q", efficientnet=80.0))
    assert "| time | classifier | EfficientNet | random convolutions | precision | recall |" in text
    assert "| `p`<br>![samples of p](images/p.png) | 5 of 10 kimg | 1.0 min | 9.00 | – | 0.012 | 0.90 | 0.50 |" in text
    assert "| `q`<br>![samples of q](images/q.png) | 5 of 10 kimg | 1.0 min | – | 80.00 | – | – | – |" in text


def test_table_of_several_seeds_has_median_and_range() -> None:
    text = table("mnist", *(row("p", seed, classifier=value) for seed, value in enumerate((9.0, 7.0, 11.5))))
    assert "| `p`, 3 seeds<br>![samples of p](images/p.png) | 5 of 10 kimg | 1.0 min | 9.00 (7.00–11.50) |" in text
    assert "| 0.90 (0.90–0.90) |" in text


def test_table_names_a_run_collapsed_that_no_extractor_finds_diverse() -> None:
    run = row("p", classifier=9.0, efficientnet=80.0)
    run["end"]["averaged"]["classifier"]["recall_classifier"] = 0.009
    assert "collapsed" not in table("mnist", run)
    run["end"]["averaged"]["efficientnet"]["recall_efficientnet"] = 0.0
    assert "| 9.00 | 80.00 | 0.90 | 0.01, collapsed |" in table("mnist", run)


def test_status_separates_full_lengths_from_stopped_runs() -> None:
    text = table("status", row("mnist-gan", kimg=10.03), row("mnist-best", 0, kimg=10), row("mnist-best", 1, kimg=4))
    assert "**Full length:** `mnist-gan`.\n" in text
    assert "**Stopped early:** `mnist-best` (4 of 10 kimg). " in text
    assert "`mnist-dcgan`, " in text.partition("**Not trained:** ")[2]


def test_comparison_divides_the_medians() -> None:
    sides = {
        "first": {"preset": "p", "kimg": 60, "seconds": 60, "distances": {"random": [1.0, 3.0, 2.0]}},
        "second": {"preset": "q", "kimg": 61, "seconds": 90, "distances": {"random": [4.0]}},
    }
    text = table("comparison-p", comparisons=[{"at": "images", "clock": "seconds", **sides}])
    assert "| `q` | equal images | 60 / 61 kimg | 1.0 / 1.5 min | **0.50** (2.00 (1.00–3.00) / 4.00) |" in text
    assert "`q` has not been compared yet." in table("comparison-q")


def test_machines_state_whose_time_a_row_has() -> None:
    first, second = row("p"), row("q")
    del second["end"]["cpu_seconds"]
    text = table("machines", first, second)
    assert "- `p`: a CPU, fp32, 1 thread, torch 2; CPU time of the training\n" in text
    assert "- `q`: a CPU, fp32, 1 thread, torch 2; wall-clock time, " in text


def test_table_of_a_clean_fid_has_its_distance() -> None:
    scored = row("mnist-gan")
    scored["end"]["averaged"] = {"inception": {"clean_fid10k": 12.5, "precision_inception10k": 0.9, "recall_x": 0.5}}
    assert "| 12.50 | 0.90 | 0.50 |" in table("mnist", scored)
    assert "`clean_fid10k`, in the features of Inception" in table("protocol-mnist", scored)
