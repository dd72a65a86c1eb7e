"""Reports beside each other: what is best, by how much, and which must not be compared at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.extractors import load_extractor
from evaluation.report.compare import compare
from evaluation.report.document import write_report
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.reports import Page, embedded, set_model_name
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.image_files import write_pictures
from tests.support.tiny_generator import write_tiny_generator


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports `a` and `b` of two generators, in one protocol."""
    root = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_CACHE", str(root / "cache"))
        patch.chdir(root)
        write_pictures(root / "pictures")
        write_tiny_extractor(root / "e.onnx")
        words = ("--reference", "folder:pictures@test", "--extractor", "e.onnx", "--num-images", 50)
        for name, seed in (("a", 0), ("b", 1)):
            write_tiny_generator(root / f"{name}.onnx", seed=seed)
            done = run("score", f"{name}.onnx", *words, "--metrics", "fid,recall", "--intervals", "--output", name)
            assert done.exit_code == 0, done.output
            set_model_name(root / name / "report.json", f"<{name}>")
        done = run("score", "a.onnx", *words[:-1], 40, "--output", "fewer.json")
        assert done.exit_code == 0, done.output
        write_tiny_extractor(root / "other.onnx", seed=9)
        done = run("score", "a.onnx", *words[:3], "other.onnx", *words[4:], "--output", "other.json")
        assert done.exit_code == 0, done.output
    return root


def load_report(workspace: Path, name: str) -> dict[str, Any]:
    return json.loads((workspace / name / "report.json").read_text(encoding="utf-8"))


def changed(workspace: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of `b` with something changed in each of its results, also where the report repeats it."""
    document = load_report(workspace, "b")
    del document["baseline"]
    for result in document["results"]:
        change(result)
    first = document["results"][0]
    document["extractor"]["resize"] = first["resize"]
    document["reference"]["n"] = first["n_reference"]
    document["reference"]["image_set"] |= {"name": first["reference"], "resolution": first["resolution"]}
    return written(folder, document)


def written(folder: Path, document: dict[str, Any]) -> Path:
    """A report with its digest and flat scores, in a folder."""
    document["scores"] = {result["name"]: result["value"] for result in document["results"]}
    folder.mkdir(exist_ok=True)
    write_report(folder / "report.json", document)
    return folder


@pytest.mark.slow
def test_compare_marks_the_best_and_shows_differences(workspace: Path, tmp_path: Path) -> None:
    done = run("report", workspace / "a", workspace / "b" / "report.json", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    compared = json.loads((tmp_path / "out/comparison.json").read_text(encoding="utf-8"))
    assert [one["label"] for one in compared["reports"]] == ["<a>", "<b>"]
    a, b = load_report(workspace, "a"), load_report(workspace, "b")
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


def test_compare_without_output_prints_only(workspace: Path) -> None:
    before = sorted(workspace.rglob("*"))
    assert run("report", workspace / "a", workspace / "b").exit_code == 0
    assert sorted(workspace.rglob("*")) == before


def test_compare_overlapping_intervals_are_marked(workspace: Path, tmp_path: Path) -> None:
    def near(result: dict[str, Any]) -> None:
        first = next(one for one in load_report(workspace, "a")["results"] if one["metric"] == result["metric"])
        result["value"] = first["value"] * 1.001
        if first["interval"]:
            result["interval"] = first["interval"] | {"mean": result["value"]}

    def far(result: dict[str, Any]) -> None:
        near(result)
        if result["interval"]:
            width = result["interval"]["high"] - result["interval"]["low"]
            shifted = {end: result["interval"][end] + 2 * width for end in ("low", "high", "mean")}
            result["interval"] = result["interval"] | shifted
            result["value"] = shifted["mean"]

    for change, open_order in ((near, True), (far, False)):
        other = changed(workspace, tmp_path / change.__name__, change)
        rows = {row.metric: row for row in compare([workspace / "a", other]).rows}
        assert rows["fid"].intervals_overlap is open_order
        assert rows["recall"].intervals_overlap is False, "recall has no interval, so nothing is known"
        assert ("≈" in run("report", workspace / "a", other).stdout) is open_order


def test_compare_missing_metric_is_a_dash_equal_values_no_best(workspace: Path, tmp_path: Path) -> None:
    document = load_report(workspace, "a")
    document["results"] = document["results"][:1]
    written(tmp_path, document)
    rows = {row.metric: row for row in compare([workspace / "a", tmp_path]).rows}
    assert rows["recall"].results[1] is None
    assert rows["recall"].best == rows["fid"].best == frozenset()
    done = run("report", workspace / "a", tmp_path, workspace / "b")
    assert done.exit_code == 0, "three, of which two are of one name"
    assert str(tmp_path) in done.stdout


@pytest.mark.parametrize(
    ("other", "words"),
    [("fewer.json", "their N is 50 and 40"), ("other.json", "their extractor is tiny")],
)
def test_compare_different_protocols_fails(workspace: Path, other: str, words: str) -> None:
    assert words in one_line(run("report", workspace / "a", workspace / other))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("resize", "clean", "their resize is none and clean"),
        ("n_reference", 41, "reference images is 40 and 41"),
        ("resolution", 64, "--resolution reference"),
        ("details", {"k": 7}, "the k of "),
    ],
)
def test_compare_different_settings_fails(workspace: Path, tmp_path: Path, key: str, value: Any, words: str) -> None:
    other = changed(workspace, tmp_path, lambda result: result.update({key: value}))
    assert words in one_line(run("report", workspace / "a", other))


def test_compare_one_report_twice_fails(workspace: Path) -> None:
    assert "given twice" in one_line(run("report", workspace / "a", workspace / "a/report.json"))


def scored(workspace: Path, patch: pytest.MonkeyPatch, *words: object) -> Path:
    """A report in `workspace` of the generator `a` against what the words say."""
    patch.setenv("ATELIER_CACHE", str(workspace / "cache"))
    patch.chdir(workspace)
    output = str(words[-1])
    done = run(
        "score", "a.onnx", "--extractor", "e.onnx", "--num-images", 50, "--no-baseline", *words[:-1], "-o", output
    )
    assert done.exit_code == 0, done.output
    return workspace / output


def test_compare_one_content_under_two_paths_is_compared(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(workspace / "pictures", workspace / "elsewhere")
    other = scored(workspace, monkeypatch, "--reference", "folder:elsewhere@test", "elsewhere.json")
    assert run("report", workspace / "a", other).exit_code == 0


def test_compare_two_contents_under_one_path_fails(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(workspace / "moving")
    before = scored(workspace, monkeypatch, "--reference", "folder:moving@test", "before.json")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(workspace / "moving/test/000.png")
    after = scored(workspace, monkeypatch, "--reference", "folder:moving@test", "after.json")
    assert "had other content" in one_line(run("report", before, after))


def test_compare_imported_statistics_uses_their_content(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    dim = load_extractor("e.onnx").dim
    for name, scale in (("one", 1.0), ("copy", 1.0), ("two", 2.0)):
        np.savez(f"{name}.npz", mu=np.zeros(dim), sigma=scale * np.eye(dim))
    for file, called, output in (("one", "a", "r1"), ("copy", "b", "r2"), ("two", "a", "r3")):
        words = ("--extractor", "e.onnx", "--import-as", called, "--resolution", 8, "--num-images", 40)
        assert run("reference", f"{file}.npz", *words, "--output", f"{output}.npz").exit_code == 0
    reports = [scored(workspace, monkeypatch, "--reference", f"r{i}.npz", f"imported{i}.json") for i in (1, 2, 3)]
    assert run("report", *reports[:2]).exit_code == 0, "one content under two names"
    assert "had other content" in one_line(run("report", reports[0], reports[2])), "two under one"
    assert "cannot be compared" in one_line(run("report", workspace / "a", reports[0]))


def test_compare_copy_of_a_report_fails(workspace: Path, tmp_path: Path) -> None:
    shutil.copy(workspace / "a/report.json", tmp_path / "again.json")
    assert "copies of one report" in one_line(run("report", workspace / "a", tmp_path / "again.json"))


def test_compare_report_of_an_earlier_version_works(workspace: Path, tmp_path: Path) -> None:
    document = load_report(workspace, "b")
    del document["report_digest"], document["reference"]["statistics_sha256"]
    (tmp_path / "report.json").write_text(json.dumps(document), encoding="utf-8")
    assert run("report", workspace / "a", tmp_path).exit_code == 0


def test_read_report_altered_fails(workspace: Path, tmp_path: Path) -> None:
    document = load_report(workspace, "b")
    document["results"][0]["value"] = 0.5
    (tmp_path / "report.json").write_text(json.dumps(document), encoding="utf-8")
    assert "altered" in one_line(run("report", tmp_path))
    (tmp_path / "report.json").write_text(
        json.dumps(load_report(workspace, "b"), indent=7, sort_keys=True), encoding="utf-8"
    )
    assert run("report", tmp_path).exit_code == 0, "another layout is no other content"


@pytest.mark.parametrize(
    ("at", "change", "words"),
    [
        (1, {"n": 40, "name": "recall_tiny40"}, "results.1: n is 40"),
        (1, {"n_reference": 39}, "results.1: n_reference is 39"),
        (1, {"extractor_digest": "0" * 64}, "results.1: extractor_digest"),
        (1, {"extractor": "other"}, "results.1: extractor is other"),
        (1, {"resize": "clean"}, "results.1: resize is clean"),
        (1, {"reference": "mnist@test"}, "results.1: reference is mnist@test"),
        (1, {"resolution": 16}, "results.1: resolution is 16"),
        (0, {"name": "fid50k"}, "results.0: it is called fid50k"),
        (0, {"name": "fd_tiny50k"}, "results.0: it is called fd_tiny50k"),
        (0, {"value": -1.0, "interval": None}, "results.0: fd_tiny50 is -1"),
        (1, {"value": 1.5}, "results.1: recall_tiny50 is 1.5"),
        (0, {"better": "higher"}, "higher is not better"),
        (0, {"value": 1e9}, "its interval is not that of 1e+09"),
        (1, {"std": -1.0}, "a spread of -1"),
        (1, {"metric": "nonsense"}, "the metric 'nonsense' is not known"),
        (1, {"metric": "fid", "name": "fd_tiny50", "better": "lower"}, "a second fid"),
    ],
)
def test_read_report_with_contradiction_fails(
    workspace: Path, tmp_path: Path, at: int, change: dict[str, Any], words: str
) -> None:
    document = load_report(workspace, "b")
    document["results"][at] |= change
    assert words in one_line(run("report", written(tmp_path, document)))
    assert words in one_line(run("report", workspace / "a", tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": {"fd_tiny50": 0.1}}, "scores are not those of results"),
        ({"threshold": {"name": "fd_tiny50", "fail_above": 1e-9, "passed": True}}, "does not pass"),
        ({"threshold": {"name": "fd_tiny50", "fail_above": -1.0, "passed": True}}, "does not pass"),
        ({"threshold": {"name": "fid50k", "fail_above": 1e9, "passed": True}}, "it is of fid50k"),
        ({"seeds": {"first": 0, "last": 48}}, "seeds: 0 to 48"),
        ({"n": 60}, "results.0: n is 50"),
    ],
)
def test_read_report_whose_parts_differ_fails(
    workspace: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    document = load_report(workspace, "b") | change
    write_report(tmp_path / "report.json", document)
    assert words in one_line(run("report", tmp_path))


def test_compare_extrapolations_of_other_sizes_fails(workspace: Path, tmp_path: Path) -> None:
    folders = []
    for name, sizes in (("a", [20, 50]), ("b", [20, 50]), ("b", [5, 50])):
        document = load_report(workspace, name)
        details = {"curve": {"n": sizes, "value": [0.3, 0.2]}}
        changes = {"metric": "fid_infinity", "name": "fd_tiny_infinity50", "better": "lower", "details": details}
        document["results"].append(document["results"][0] | changes | {"value": 0.1, "std": None, "interval": None})
        folders.append(written(tmp_path / str(len(folders)), document))
    done = run("report", folders[0], folders[1])
    assert done.exit_code == 0, done.output
    assert "extrapolated from other numbers of images" in one_line(run("report", folders[0], folders[2]))
