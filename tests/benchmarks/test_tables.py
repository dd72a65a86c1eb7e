"""Tables are made of results and put between markers; docs/results/performance.md has those of kept results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.attempts import attempt, in_a_line
from benchmarks.markdown import between, marked, table
from benchmarks.rounds import in_turns, spread, times_as_fast, told

ROOT = Path(__file__).resolve().parents[2]


def write(document: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tables", *words, "--write", str(document)])
    tables.main()


def test_the_documents_tables_are_those_that_the_results_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, copy = ROOT / "docs" / "results" / "performance.md", tmp_path / "performance.md"
    copy.write_text(document.read_text(encoding="utf-8"), encoding="utf-8")
    write(copy, monkeypatch=monkeypatch)
    assert copy.read_text(encoding="utf-8") == document.read_text(encoding="utf-8"), (
        "python -m benchmarks.tables --write docs/results/performance.md"
    )
    assert set(marked(document.read_text(encoding="utf-8"))) >= {
        "peers",
        "bench",
        "serving",
        "serving_peers",
        "train_step",
    }


def test_a_table_without_a_result_is_left_alone_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document, folder = tmp_path / "page.md", tmp_path / "results"
    folder.mkdir()
    soak = {"early_mb": 100.0, "late_mb": 101.0, "minutes": 1.0, "answers": {"a 200": 3, "b 200": 4}}
    (folder / "serving_soak.json").write_text(json.dumps(soak), encoding="utf-8")
    document.write_text(
        "<!-- serving_soak -->\nold\n<!-- /serving_soak -->\n<!-- bench -->\nnone\n<!-- /bench -->\n", encoding="utf-8"
    )
    write(document, "--results", str(folder), monkeypatch=monkeypatch)
    assert "7 requests in 1 minutes; 100.0 MB, then 101.0 MB: +1.00 %." in document.read_text(encoding="utf-8")
    assert "<!-- bench -->\nnone\n" in document.read_text(encoding="utf-8")
    assert "there is no result: bench" in capsys.readouterr().out


def test_a_place_for_no_table_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "page.md"
    document.write_text("<!-- something -->\n<!-- /something -->\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        write(document, monkeypatch=monkeypatch)
    assert document.read_text(encoding="utf-8") == "<!-- something -->\n<!-- /something -->\n"


def test_between_replaces_one_place_and_no_backslash_is_read_in_it() -> None:
    text = "a\n<!-- t -->\nold\n<!-- /t -->\nb\n"
    assert between(text, "t", r"new \1") == "a\n<!-- t -->\nnew \\1\n<!-- /t -->\nb\n"
    for wrong in ("nothing", text + text):
        with pytest.raises(ValueError, match="places for the table t"):
            between(wrong, "t", "new")


def test_a_row_that_does_not_fit_its_heads_is_refused() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    with pytest.raises(ValueError, match="does not fit"):
        table(["a", "b"], [["1"]])


def test_ratios_are_taken_round_by_round() -> None:
    assert times_as_fast([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]) == {"median": 1.0, "min": 0.5, "max": 2.0}
    assert told(spread([1.0, 2.0, 4.0])) == "2.00 (1.00–4.00)"
    order: list[str] = []
    seconds, values = in_turns({name: lambda name=name: order.append(name) or name for name in "ab"}, rounds=3)
    assert order == list("ababab")
    assert values == {"a": "a", "b": "b"}
    assert [len(taken) for taken in seconds.values()] == [3, 3]


def test_an_attempt_tells_a_failure_in_a_line_and_lets_an_interruption_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed: dict[str, str] = {}
    for name, error in (
        ("loop", SystemExit("python main.py ended by itself; its output:\n\nTraceback\nOSError: no data here\n")),
        ("peer", ModuleNotFoundError("No module named 'x.y'", name="x")),
        ("other", ValueError()),
    ):
        with attempt(name, failed):
            raise error
    assert failed == {
        "loop": "python main.py ended by itself; its output: … OSError: no data here",
        "peer": "x is not installed",
        "other": "ValueError",
    }
    assert len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(KeyboardInterrupt), attempt("interrupted", failed):
        raise KeyboardInterrupt
    assert "interrupted" not in failed
    assert in_a_line(SystemExit()) == "it gave up"
