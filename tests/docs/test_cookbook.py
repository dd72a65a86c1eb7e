"""docs/cookbook.md answers the thirty questions with today's code, and its commands print what it says they do."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evaluation.cli import app as evaluation
from tests.docs import excerpts, likeness
from tests.docs.cookbook import PAGE, RUN, CommandFailed, Session, differences, pictures, shrink
from tests.docs.excerpts import ROOT
from trainer.cli import app as trainer

TEXT = PAGE.read_text(encoding="utf-8")
QUESTIONS = (
    Path(__file__).with_name("questions.txt").read_text(encoding="utf-8")
)  # the document's own words, under its chapters
HEADINGS = re.compile(r"^###? .+$", re.MULTILINE)
SECTIONS = dict(re.findall(r"^### (Q\d+): .+?\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
NOT_RUN = [
    line
    for match in RUN.finditer(TEXT)
    if match[1] or match[2] == "console"
    for line in match[3].replace("\\\n", "").splitlines()
]
OURS = ("trainer ", "evaluation ", "make ")


def test_the_questions_are_the_documents_thirty_in_its_order_and_words() -> None:
    assert HEADINGS.findall(TEXT) == QUESTIONS.splitlines()
    assert list(SECTIONS) == [f"Q{number}" for number in range(1, 31)]


def test_the_code_in_the_page_is_the_code_of_today() -> None:
    assert excerpts.refreshed(TEXT) == TEXT, "python -m tests.docs.cookbook --write --code"


@pytest.mark.parametrize("question", SECTIONS)
def test_an_answer_is_words_code_a_command_of_ours_and_what_came_of_it(question: str) -> None:
    section = SECTIONS[question]
    assert section.strip()[0].isalpha() or section.strip()[0] == "`"
    code = re.findall(r"^<!-- code: .+ -->\n\[`[^\n]+:\n\n```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert code
    assert all(3 <= excerpt.count("\n") <= 20 for excerpt in code)
    runs = list(RUN.finditer(section))
    lines = [line for run in runs if run[2] != "pycon" for line in run[3].splitlines()]
    assert any(line.startswith(OURS) for line in lines)
    printed = [run for run in runs if run[4] or (run[2] == "pycon" and re.search(r"(?m)^(?!>>> |\.\.\. ).+$", run[3]))]
    assert printed or pictures(section)


def test_the_pictures_are_there_and_small() -> None:
    shown = [picture.shown for picture in pictures(TEXT)]
    assert shown
    assert sum(path.stat().st_size for path in shown) < 400_000
    linked = {PAGE.parent / path for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)}
    assert {path for path in linked if not path.is_file()} == set()
    assert set((PAGE.parent / "cookbook").iterdir()) == set(shown), "a picture that no command draws"


def test_links_inside_the_page_lead_to_a_heading() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-") for heading in HEADINGS.findall(TEXT)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


@pytest.mark.parametrize("line", NOT_RUN)
def test_a_command_that_takes_longer_than_the_page_may_is_one_that_we_take(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    match words:
        case ["trainer", "train" | "sweep", *_]:
            result = CliRunner().invoke(trainer, [*words[1:], "--dry-run"])
            assert result.exit_code == 0, result.output
        case ["trainer" | "evaluation", command, *options]:
            parsed: Any = typer.main.get_command(trainer if words[0] == "trainer" else evaluation)
            parsed.commands[command].make_context(command, options)  # raises for an option there is not
        case ["make", *_]:
            subprocess.run(
                ["make", "--dry-run", "--directory", ROOT, *words[1:]], check=True, stdout=subprocess.DEVNULL
            )
        case ["pip", "install", target, "-c", constraints]:
            known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
                "optional-dependencies"
            ]
            assert set(target.removeprefix(".[").removesuffix("]").split(",")) <= known.keys()
            assert (ROOT / constraints).is_file()
        case ["tensorboard", *_]:
            assert importlib.util.find_spec("tensorboard")
        case _:
            pytest.fail(f"nothing checks {line!r}")


def test_a_changed_line_of_code_is_noticed() -> None:
    stale = TEXT.replace("loss.backward()", "loss.backward(retain_graph=True)", 1)
    assert stale != TEXT
    assert excerpts.refreshed(stale) == TEXT


@pytest.mark.parametrize(
    "directive",
    [
        "trainer/training/losses.py no_such_loss",
        'trainer/training/losses.py cross_entropy_d from "no such line" to "return"',
        'trainer/training/losses.py cross_entropy_d from "loss_real" to "no such line"',
        "trainer/training/losses.py cross_entropy_d to end",
    ],
)
def test_code_that_is_no_more_is_an_error_not_an_empty_excerpt(directive: str) -> None:
    with pytest.raises(LookupError):
        excerpts.refreshed(f"<!-- code: {directive} -->\n")


def test_a_changed_output_is_noticed() -> None:
    assert differences(TEXT, TEXT) == []
    assert len(differences(TEXT, TEXT.replace("92,961 / 167,905", "92,960 / 167,905"))) == 1
    assert len(differences(TEXT, TEXT.replace("tensor(1.2314)", "tensor(1.2414)"))) == 1


def test_what_training_computed_is_compared_by_size_and_words_to_the_letter() -> None:
    told = "loss/D 0.339  recall 0.000\nbest: 0001 x=2"
    assert likeness.alike(told, told.replace("0.339", "0.361").replace("best: 0001", "best: 0000"), trained=True)
    assert not likeness.alike(told, told.replace("0.339", "0.361"), trained=False)
    assert not likeness.alike(told, told.replace("0.339", "1.339"), trained=True)
    assert not likeness.alike(told, told.replace("loss/D", "loss/G"), trained=True)
    assert likeness.alike("sweep --jobs 2\na 1.0\nb 2.0", "sweep --jobs 2\nb 2.0\na 1.0", trained=True)
    assert not likeness.alike("a 1.0\nb 2.0", "b 2.0\na 1.0", trained=True)


def test_times_and_digests_are_not_shown() -> None:
    told = "64 images in 3.2 s, 379 img/s, 1,234 kB, sha256 0123456789ab…  \n0 of 2 trials done; 50% of the images\n"
    assert likeness.elided(told) == "64 images in … s, … img/s, … kB, sha256 …\n"


def test_a_picture_of_something_else_is_noticed(tmp_path: Path) -> None:
    shown = pictures(TEXT)[0].shown
    shrink(shown, tmp_path / shown.name)
    assert likeness.unlike(tmp_path / shown.name, shown) is None
    assert "off by" in (likeness.unlike(tmp_path / shown.name, _inverted(shown, tmp_path)) or "")
    assert likeness.unlike(tmp_path / "no.png", shown) == "no command drew no.png"


def _inverted(shown: Path, folder: Path) -> Path:
    from PIL import Image, ImageOps

    with Image.open(shown) as image:
        ImageOps.invert(image.convert("L")).save(folder / "inverted.png")
    return folder / "inverted.png"


@pytest.mark.parametrize("block", ["```sh\nfalse\n```\n", "```sh\nfalse | cat\n```\n", "```pycon\n>>> 1 / 0\n```\n"])
def test_a_command_that_fails_is_not_passed_over(block: str, tmp_path: Path) -> None:
    with Session(tmp_path) as session, pytest.raises(CommandFailed):
        session.replay(block)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_run_in_order_and_print_and_draw_what_the_page_shows(tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        now = session.replay(TEXT)
        assert differences(TEXT, now) == []
        for picture in pictures(TEXT):
            if not picture.long:
                assert likeness.unlike(session.work / picture.made, picture.shown) is None
