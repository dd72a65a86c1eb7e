"""What a score's report shows: parsed from the files that real, small jobs leave."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt

from evaluation.report.charts import Series, line_chart, strip, ticks
from evaluation.report.document import write_report
from evaluation.report.formatting import escape_markdown, number, percent
from evaluation.report.images import GAP, MIN_TILE, draw_grid, draw_neighbors, tile
from evaluation.report.render import write_views
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.reports import NASTY, Page, embedded, score_in


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `report/` of a job with everything that needs no labels, of a model with markup in its name."""
    root = tmp_path_factory.mktemp("report")
    score_in(root)
    return root


@pytest.fixture
def document(workspace: Path) -> dict[str, Any]:
    return json.loads((workspace / "report/report.json").read_text(encoding="utf-8"))


@pytest.fixture
def page(workspace: Path) -> Page:
    return Page((workspace / "report/report.html").read_text(encoding="utf-8"))


def write(folder: Path, document: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    write_report(folder / "report.json", {key: value for key, value in document.items() if key != "scores"})
    return folder / "report.json"


def test_score_writes_all_views(workspace: Path) -> None:
    left = {path.name for path in (workspace / "report").iterdir()}
    assert left == {"report.json", "report.md", "report.html", "samples.png", "reals.png", "neighbours.png", "images"}


def test_page_shows_each_score_with_spread_and_real_value(document: dict[str, Any], page: Page) -> None:
    reals = {result["metric"]: result["value"] for result in document["baseline"]["results"]}
    reals["memorization"] = next(r for r in document["results"] if r["metric"] == "memorization")["details"][
        "held_out_share"
    ]
    for result in document["results"]:
        (row,) = (row for row in page.rows if f"is better {result['name']} " in row)
        assert f"{result['name']} {number(result['value'])} " in row
        assert row.endswith(f" {number(reals[result['metric']])}"), "real images' own is its last cell"
        if result["interval"]:
            low, high = (number(result["interval"][end]) for end in ("low", "high"))
            assert f"95% interval {low} to {high} " in row
        if result["std"] is not None:
            assert f"± {number(result['std'])} " in row
    assert sum(bool(result["interval"]) for result in document["results"]) == 2
    assert len([svg for svg in page.of("svg") if svg["class"] == "strip"]) == 2
    real = document["reference"]["image_set"]["name"]
    assert f"50 images against 40 of {real}, 8 px; extractor tiny, resize none" in page.words


def test_page_embeds_its_images_and_requests_nothing(workspace: Path, document: dict[str, Any], page: Page) -> None:
    pictures = embedded(page)
    pairs = next(pair for pair in document["results"] if pair["metric"] == "memorization")["details"]["nearest"][:8]
    assert len(pictures) == 2 + len(pairs)
    samples = np.load(workspace / "report/images/samples.npy")
    factor = MIN_TILE // 8
    first = np.asarray(pictures[0].convert("L"))[: factor * 8, : factor * 8]
    np.testing.assert_array_equal(first[::factor, ::factor], samples[0, ..., 0])
    np.testing.assert_array_equal(first, np.kron(samples[0, ..., 0], np.ones((factor, factor), np.uint8)))
    raw = (workspace / "report/report.html").read_text(encoding="utf-8")
    assert not page.of("script")
    assert not page.of("link")
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)\w+:", raw), "an address outside of the page"
    assert "default-src 'none'" in raw


def test_page_name_with_markup_is_text(page: Page, workspace: Path) -> None:
    assert NASTY in page.words
    assert "<script" not in (workspace / "report/report.html").read_text(encoding="utf-8")
    markdown = (workspace / "report/report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    heading = markdown.splitlines()[0]
    assert heading == '# &lt;script&gt;alert("1")&lt;/script&gt; &amp; \\| \\*b\\*'


@pytest.mark.parametrize("text", ["a|b", "[x](y)", "`c`", "_i_", "<b>", "&lt;", "a\nb", "~~s~~", "![p](q)"])
def test_escape_markdown_markup_is_rendered_as_text(text: str) -> None:
    """Rendered by a reader of Markdown, what comes out is what went in."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    html = Page(reader.render(f"| h |\n| --- |\n| {escape_markdown(text)} |\n"))
    assert html.words == f"h {' '.join(text.split())}"
    assert {tag for tag, _ in html.elements} == {"table", "thead", "tbody", "tr", "th", "td"}


def test_page_shows_nearest_training_images_by_seed(document: dict[str, Any], page: Page, workspace: Path) -> None:
    result = next(one for one in document["results"] if one["metric"] == "memorization")
    for pair in result["details"]["nearest"][:8]:
        assert f"seed {7 + pair['sample']}, distance {number(pair['distance'])}" in page.words
    assert f"{100 * result['value']:.2f}%" in page.words or f"{100 * result['value']:.1f}%" in page.words
    rows = np.load(workspace / "report/images/neighbours.npy")
    shown = np.asarray(embedded(page)[2].convert("L"))
    side = MIN_TILE
    for i in range(rows.shape[1]):  # the sample, a gap, then its neighbours
        left = round((i + (i > 0) * 0.25) * (side + GAP))
        np.testing.assert_array_equal(shown[:side:7, left : left + side : 7], rows[0, i, ..., 0])


def test_page_curve_against_n_has_each_point_and_limit(document: dict[str, Any], page: Page, workspace: Path) -> None:
    result = next(one for one in document["results"] if one["metric"] == "fid_infinity")
    curve = result["details"]["curve"]
    assert "Fréchet distance against N" in page.headings
    for n, value in zip(curve["n"], curve["value"], strict=True):
        assert f"{number(n)}: {number(value)}" in page.words
        assert f"| {n} | {number(value)} |" in (workspace / "report/report.md").read_text(encoding="utf-8")
    assert f"N → ∞: {number(result['details']['first_range'])}" in page.words, "the limit of the curve that is drawn"


def test_page_shows_how_the_score_was_made(document: dict[str, Any], page: Page, workspace: Path) -> None:
    markdown = (workspace / "report/report.md").read_text(encoding="utf-8")
    for text in (
        document["digest"],
        document["reference"]["sha256"],
        document["extractor"]["digest"],
        "7 to 256",
        "onnxruntime",
    ):
        assert text in page.words
        assert text in markdown


def test_page_warnings_and_missed_threshold_come_first(document: dict[str, Any], tmp_path: Path) -> None:
    name = document["results"][0]["name"]
    document |= {
        "warnings": ["no more images <than> features"],
        "threshold": {"fail_above": 0.5, "name": name, "passed": False},
    }
    write_views(write(tmp_path, document))
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert words.index("above the limit of 0.5: failed") < words.index("Scores")
    assert words.index("no more images <than> features") < words.index("Scores")
    assert "**Warning:** no more images &lt;than&gt; features" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_page_without_images_omits_their_sections(document: dict[str, Any], tmp_path: Path) -> None:
    """Nor baseline, memorization, curve: each part stands only where its figures are."""
    document |= {"results": document["results"][:1], "baseline": None}
    write_views(write(tmp_path, document))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.headings == ["Scores", "How it was made"]
    assert page.of("img") == []


def test_page_former_name_of_memorization_is_read(document: dict[str, Any], tmp_path: Path) -> None:
    """Reports of earlier versions say `memorisation`."""
    for result in document["results"]:
        result["metric"] = result["metric"].replace("memorization", "memorisation")
    write_views(write(tmp_path, document))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Nearest training images" in page.headings
    share = next(one["value"] for one in document["results"] if one["metric"] == "memorisation")
    assert f"{percent(share)} of the images are near-copies" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_page_checkpoints_are_a_curve_against_images_seen(document: dict[str, Any], tmp_path: Path) -> None:
    values = {30_000: 9.0, 10_000: 40.0, 20_000: 8.0}
    document["checkpoints"] = [
        {
            "checkpoint": f"checkpoint-{seen:08}.pt",
            "step": seen // 64,
            "images_seen": seen,
            "results": [document["results"][i] | {"value": value / (1, 100)[i], "interval": None} for i in range(2)],
            "warnings": [],
        }
        for seen, value in values.items()
    ]
    write_views(write(tmp_path, document))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Score against images seen" in page.headings
    assert "best 8 at 20,000" in page.words, "a distance is best where it is lowest"
    assert "best 0.4 at 10,000" in page.words, "precision where it is highest"
    order = [page.words.index(f"checkpoint-{seen:08}.pt") for seen in sorted(values)]
    assert order == sorted(order)
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| 10,000 | 40 | **0.4** |\n| 20,000 | **8** | 0.08 |\n| 30,000 | 9 | 0.09 |" in markdown
    for entry in document["checkpoints"]:  # others' files tell steps alone; and nothing is best where all are alike
        entry |= {"images_seen": None, "results": [entry["results"][0] | {"value": 3.0}]}
    write_views(write(tmp_path, document))
    alike = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert f"checkpoint-00010000.pt {number(10_000 // 64)} 3" in alike.rows
    assert "best" not in alike.words[alike.words.index("Score against images seen") :].split("checkpoint", 1)[0]


def test_page_classes_are_a_table_with_real_values(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(workspace / "cache"))
    monkeypatch.chdir(workspace)
    words = ("score", "digits@train", "--reference", "digits@test", "--extractor", "e.onnx", "--num-images", 300)
    done = run(*words, "--metrics", "per_class", "--output", "classes")
    assert done.exit_code == 0, done.output
    document = json.loads((workspace / "classes/report.json").read_text(encoding="utf-8"))
    page = Page((workspace / "classes/report.html").read_text(encoding="utf-8"))
    (result,) = document["results"]
    (real,) = document["baseline"]["results"]
    for one, beside in zip(result["details"]["classes"], real["details"]["classes"], strict=True):
        row = f"{one['class']} {number(one['value'])} {number(beside['value'])} {one['n']} {one['n_reference']}"
        assert row in page.rows


def test_merge_writes_the_views_of_a_whole_job(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(workspace / "cache"))
    monkeypatch.chdir(workspace)
    words = ("score", "g.onnx", "--reference", "folder:pictures@test", "--extractor", "e.onnx", "--num-images", 50)
    for index in range(2):
        assert run(*words, "--output", "parts", "--shard", f"{index}/2").exit_code == 0
    done = run("merge", "parts", "--output", "merged")
    assert done.exit_code == 0, done.output
    page = Page((workspace / "merged/report.html").read_text(encoding="utf-8"))
    assert len(embedded(page)) == 2
    assert "shards took" in page.words


def test_report_command_renders_in_place_or_elsewhere(workspace: Path, tmp_path: Path) -> None:
    before = (workspace / "report/report.html").read_bytes()
    (workspace / "report/report.html").unlink()
    assert run("report", workspace / "report").exit_code == 0
    assert (workspace / "report/report.html").read_bytes() == before
    done = run("report", workspace / "report/report.json", "--output", tmp_path / "there")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "there/report.html").read_bytes() == before
    assert (tmp_path / "there/samples.png").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "partial"}, "stopped"),
        ({"kind": "shard"}, "but a shard"),
        ({"format_version": 1}, "format version 1"),
        ({"results": []}, "results"),
        ({"results": [{"name": "fid10k"}]}, "results.0.metric"),
        ({"warnings": 3}, "warnings"),
        ({"pictures": {"samples": "../elsewhere.npy"}}, "outside"),
        ({"pictures": {"samples": "damaged.npy"}}, "damaged"),
        ({"pictures": {"samples": "floats.npy"}}, "not images"),
    ],
)
def test_report_command_invalid_report_is_a_one_line_error(
    document: dict[str, Any], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "r", document | change)
    np.save(tmp_path / "elsewhere.npy", np.zeros((1, 8, 8, 1), np.uint8))
    np.save(tmp_path / "r/floats.npy", np.zeros((1, 8, 8, 1)))
    (tmp_path / "r/damaged.npy").write_bytes(b"no")
    assert words in one_line(run("report", path.parent))


def test_report_command_missing_report_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    assert "no report.json" in one_line(run("report", tmp_path / "r"))
    assert "no report" in one_line(run("report", tmp_path / "x.json"))
    (tmp_path / "r/report.json").write_text("<html>", encoding="utf-8")
    assert "not JSON" in one_line(run("report", tmp_path / "r"))


def test_tile_is_enlarged_by_whole_factors_or_reduced() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
    assert tile(small).size == (56, 56)
    np.testing.assert_array_equal(np.asarray(tile(small))[1::2, ::2], small)
    assert tile(np.zeros((64, 64, 1), np.uint8)).size == (64, 64)
    assert tile(np.zeros((256, 512, 3), np.uint8)).size == (128, 64)
    assert draw_grid(np.zeros((9, 64, 64, 3), np.uint8)).size == (8 * 64 + 7 * GAP, 2 * 64 + GAP)
    assert draw_neighbors(np.zeros((1, 64, 64, 1), np.uint8)).size == (64, 64)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 17), (1e-5, 3e-5), (0.9999, 1.0001), (-5e6, 2e9), (-2, -1)])
def test_ticks_of_any_range_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low <= tick <= high for tick in found)
    assert np.allclose(np.diff(found), found[1] - found[0])
    assert f"{found[1] - found[0]:.0e}"[0] in "125"


def test_line_chart_points_are_to_scale() -> None:
    svg = Page(line_chart([Series([(0, 0), (10, 5), (20, 10)])], title="<t>", x_title="x", levels=[("<l>", 5)]))
    dots = [(float(str(dot["cx"])), float(str(dot["cy"]))) for dot in svg.of("circle")]
    (x0, y0), (x1, y1), (x2, y2) = dots
    assert x0 < x1 < x2
    assert y0 > y1 > y2, "upwards on the page"
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    level = next(line for line in svg.of("line") if line["class"] == "level")
    assert float(str(level["y1"])) == y1
    assert "<t>" in svg.words
    assert "<l>" in svg.words
    for points in ([], [(0.0, float("nan"))]):
        with pytest.raises(ValueError, match="points"):
            line_chart([Series(points)], title="", x_title="")
    assert Page(line_chart([Series([(3, 3)])], title="", x_title="")).of("circle"), "one point has no extent"


def test_strip_interval_is_to_scale() -> None:
    drawn = Page(strip([1.0, 2.0, 3.0], 1.5, 2.5, 2.0))
    (bar,) = drawn.of("rect")
    centres = sorted(float(str(dot["cx"])) for dot in drawn.of("circle"))
    assert float(str(bar["width"])) == pytest.approx((centres[2] - centres[0]) / 2, abs=0.2)
    assert float(str(bar["x"])) == pytest.approx((centres[0] + centres[1]) / 2, abs=0.2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.65358, "9.654"), (0.57, "0.57"), (-0.7406, "−0.7406"), (12345.6, "12,346"), (0.0, "0"), (1e-6, "1e-06")],
)
def test_number_has_four_significant_digits(value: float, text: str) -> None:
    assert number(value) == text
