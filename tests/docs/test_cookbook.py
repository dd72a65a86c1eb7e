"""docs/guides/cookbook.md answers the thirty questions, and its commands and Python lines print what it shows."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import fork_server
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "guides" / "cookbook.md"
TEXT = PAGE.read_text(encoding="utf-8")
QUESTIONS = Path(__file__).with_name("questions.txt").read_text(encoding="utf-8")  # in the source's own words
ANSWERS = re.findall(r"^### (Q\d+): .+?\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(sh|pycon)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def matches(shown: str, printed: str) -> bool:
    """Whether a command printed what is shown; `…` is the rest of a line, or alone on a line any lines."""
    pattern = [
        "(.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n" for line in shown.splitlines()
    ]
    return re.fullmatch("".join(pattern), re.sub(r"[ \t]+$", "", printed, flags=re.MULTILINE)) is not None


def test_headings_are_the_thirty_questions_in_order() -> None:
    assert re.findall(r"^###? .+$", TEXT, re.MULTILINE) == QUESTIONS.splitlines()
    assert [name for name, _ in ANSWERS] == [f"Q{number}" for number in range(1, 31)]


def test_cookbook_has_at_most_2500_words() -> None:
    assert len(TEXT.split()) <= 2500


@pytest.mark.parametrize(("name", "answer"), ANSWERS)
def test_answer_is_a_sentence_then_a_command(name: str, answer: str) -> None:
    assert re.match(r"\n[A-Z][^\n]+", answer), name
    assert re.search(r"^```(sh|console|pycon)$|`(trainer|evaluation) |report\.html", answer, re.MULTILINE), name


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 1\n", "a 1  \n", True),
        ("a 1\n", "a 2\n", False),
        ("a …\nb\n", "a 1 2\nb\n", True),
        ("a …\nb\n", "a 1\n2\nb\n", False),
        ("…\nb\n", "x\ny\nb\n", True),
        ("a\n…\nb\n", "a\nb\n", True),
        ("a\n…\nb\n", "a\nc\n", False),
        ("a (b: …)  …\n", "a (b: 1)  2\n", True),
    ],
)
def test_matches_only_an_ellipsis_matches_other_text(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_and_python_lines_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, commands = tmp_path / "work", tmp_path / "bin"
    work.mkdir()
    commands.mkdir()
    for name in ("trainer", "evaluation"):
        fork_server.command(commands / name, name)
    settings = {"PYTHONPATH": str(ROOT), "ATELIER_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    settings |= {"OMP_NUM_THREADS": "1", "COLUMNS": "110", "NO_COLOR": "1"}
    env = os.environ | settings | {"PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    monkeypatch.chdir(work)
    monkeypatch.setenv("ATELIER_CACHE", settings["ATELIER_CACHE"])
    names: dict[str, object] = {}
    runner = doctest.DocTestRunner(verbose=False)
    for language, body, shown in BLOCK.findall(TEXT):
        if language == "pycon":
            examples = doctest.DocTestParser().get_doctest(body, names, PAGE.name, str(PAGE), 0)
            names = examples.globs
            failures: list[str] = []
            runner.run(examples, out=failures.append, clear_globs=False)
            assert failures == []
            continue
        script = ["bash", "-euo", "pipefail", "-c", body]
        merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(script, env=env, text=True, check=False, **merged)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{body}\n{done.stdout}"
        assert matches(shown, done.stdout), f"{body}\n{done.stdout}"
