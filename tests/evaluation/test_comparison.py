"""Reports beside each other: what is best, by how much, and which must not be compared at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.report.compare import compare
from tests.evaluation.helpers import write_pictures, write_tiny_extractor
from tests.evaluation.test_cli import one_line, run
from tests.evaluation.test_report import Page, embedded
from tests.tiny_generator import write_tiny_generator


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports `a` and `b` of two generators, in one protocol."""
    root = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_CACHE", str(root / "cache"))
        patch.chdir(root)
        write_pictures(root / "pictures")
        write_tiny_extractor(root / "e.onnx")
        words = ("--reference", "folder:pictures@test", "--extractor", "e.onnx", "--num-images", 50)
        for name, seed in (("a", 0), ("b", 1)):
            write_tiny_generator(root / f"{name}.onnx", name=f"<{name}>", seed=seed)
            done = run("score", f"{name}.onnx", *words, "--metrics", "fid,recall", "--intervals", "--output", name)
            assert done.exit_code == 0, done.output
        done = run("score", "a.onnx", *words[:-1], 40, "--output", "fewer.json")
        assert done.exit_code == 0, done.output
        write_tiny_extractor(root / "other.onnx", seed=9)
        done = run("score", "a.onnx", *words[:3], "other.onnx", *words[4:], "--output", "other.json")
        assert done.exit_code == 0, done.output
    return root


def told(place: Path, name: str) -> dict[str, Any]:
    return json.loads((place / name / "report.json").read_text(encoding="utf-8"))


def changed(place: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of `b` with something changed in each of its results."""
    document = copy.deepcopy(told(place, "b"))
    for result in document["results"]:
        change(result)
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_the_best_is_marked_and_differences_are_from_the_first(place: Path, tmp_path: Path) -> None:
    done = run("report", place / "a", place / "b" / "report.json", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    compared = json.loads((tmp_path / "out/comparison.json").read_text(encoding="utf-8"))
    assert [one["label"] for one in compared["reports"]] == ["<a>", "<b>"]
    a, b = told(place, "a"), told(place, "b")
    page = Page((tmp_path / "out/comparison.html").read_text(encoding="utf-8"))
    marked = [attributes for attributes in page.of("td") if "best" in str(attributes.get("class"))]
    assert len(marked) == len(compared["results"]) == 2
    for i, row in enumerate(compared["results"]):
        values = [document["results"][i]["value"] for document in (a, b)]
        assert row["values"] == values
        assert row["differences"] == [None, values[1] - values[0]]
        wanted = min(values) if row["metric"] == "fid" else max(values)
        assert [values[j] for j in row["best"]] == [wanted]
        line = next(line for line in done.stdout.splitlines() if line.startswith(row["name"]))
        assert line.count("*") == 1
        assert f"| `{row['name']}`" in (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
    assert len(embedded(page)) == 2
    assert a["digest"][:16] in page.words, "what differs between them"
    assert "<a>" not in (tmp_path / "out/comparison.md").read_text(encoding="utf-8")


def test_without_an_output_it_is_only_told(place: Path) -> None:
    before = sorted(place.rglob("*"))
    assert run("report", place / "a", place / "b").exit_code == 0
    assert sorted(place.rglob("*")) == before


def test_intervals_that_overlap_leave_the_order_open(place: Path, tmp_path: Path) -> None:
    def near(result: dict[str, Any]) -> None:
        first = next(one for one in told(place, "a")["results"] if one["metric"] == result["metric"])
        result["value"] = first["value"] * 1.001
        result["interval"] = first["interval"]

    def far(result: dict[str, Any]) -> None:
        near(result)
        if result["interval"]:
            width = result["interval"]["high"] - result["interval"]["low"]
            shifted = {end: result["interval"][end] + 2 * width for end in ("low", "high", "mean")}
            result["interval"] = result["interval"] | shifted

    for change, open_order in ((near, True), (far, False)):
        other = changed(place, tmp_path / change.__name__, change)
        rows = {row.metric: row for row in compare([place / "a", other]).rows}
        assert rows["fid"].unclear is open_order
        assert rows["recall"].unclear is False, "recall has no interval, so nothing is known"
        assert ("≈" in run("report", place / "a", other).stdout) is open_order


def test_a_metric_that_one_lacks_is_a_dash_and_equal_values_have_no_best(place: Path, tmp_path: Path) -> None:
    document = told(place, "a")
    document["results"] = document["results"][:1]
    (tmp_path / "report.json").write_text(json.dumps(document), encoding="utf-8")
    rows = {row.metric: row for row in compare([place / "a", tmp_path]).rows}
    assert rows["recall"].results[1] is None
    assert rows["recall"].best == rows["fid"].best == frozenset()
    done = run("report", place / "a", tmp_path, place / "b")
    assert done.exit_code == 0, "three, of which two are of one name"
    assert str(tmp_path) in done.stdout


@pytest.mark.parametrize(
    ("other", "words"),
    [("fewer.json", "their N is 50 and 40"), ("other.json", "their extractor is tiny")],
)
def test_unlike_reports_are_refused(place: Path, other: str, words: str) -> None:
    assert words in one_line(run("report", place / "a", place / other))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("resize", "clean", "their resize is none and clean"),
        ("reference", "mnist@train", "their reference is"),
        ("n_reference", 41, "reference images is 40 and 41"),
        ("resolution", 64, "--resolution reference"),
        ("details", {"k": 7}, "the k of "),
    ],
)
def test_whatever_else_a_figure_depends_on_is_refused_too(
    place: Path, tmp_path: Path, key: str, value: Any, words: str
) -> None:
    other = changed(place, tmp_path, lambda result: result.update({key: value}))
    assert words in one_line(run("report", place / "a", other))


def test_one_report_is_not_compared_with_itself(place: Path) -> None:
    assert "given twice" in one_line(run("report", place / "a", place / "a/report.json"))
