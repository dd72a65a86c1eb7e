"""Every command of ours that a page shows is one that its program accepts."""

from __future__ import annotations

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
from service.cli import app as service
from tests.support.image_files import tree
from tests.support.paths import ROOT
from trainer.cli import app as trainer

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
APPS = {"trainer": trainer, "evaluation": evaluation}
LINE = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?((?:trainer|evaluation|make|pip install) .*)$")


def commands(text: str) -> list[str]:
    """Return the commands in a page's code blocks, continued lines joined, comments and pipes left out."""
    found = []
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        if language in ("", "sh", "bash", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if (match := LINE.match(line.strip())) and "…" not in line:
                    found.append(re.split(r" [|&>] ?| && |  # | +#", match[1])[0])
    return found


COMMANDS = sorted({(line) for page in PAGES for line in commands(page.read_text(encoding="utf-8"))})


NOT_HERE = ("--dry-run", "--init-from")


def test_pages_contain_commands() -> None:
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("line", COMMANDS)
def test_command_on_a_page_is_accepted(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "horses"):  # pages take them for the reader's folders
        tree(tmp_path / folder, [f"{number}.png" for number in range(20)])
    monkeypatch.setattr("trainer.own_images.estimate.MOST_STEPS", 1)
    words = shlex.split(line)
    match words:
        # A preset file and the parent of a fine-tuned run are the reader's.
        case ["trainer", "train", *options] if not any(o.endswith(".yaml") or o in NOT_HERE for o in options):
            result = CliRunner().invoke(trainer, ["train", *options, "--dry-run"])
            assert result.exit_code == 0, result.output
        case ["trainer" | "evaluation", *options]:
            command: Any = typer.main.get_command(APPS[words[0]])
            while options and options[0] in getattr(command, "commands", {}):
                command = command.commands[options.pop(0)]
            assert not hasattr(command, "commands") or options[:1] == ["--help"], line
            if "--help" not in options:
                command.make_context(words[0], options)  # raises for an unknown option
        case ["make", *_]:
            subprocess.run(["make", "--dry-run", "--directory", ROOT, *words[1:]], check=True, capture_output=True)
        case ["pip", "install", target, "-c", constraints]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            extras = set(target.removeprefix(".[").removesuffix("]").split(","))
            assert extras <= project["optional-dependencies"].keys()
            assert (ROOT / constraints).is_file()


@pytest.mark.parametrize("app", [trainer, evaluation, service], ids=["trainer", "evaluation", "service"])
def test_help_of_every_command_is_whole_at_80_columns(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    waiting: list[tuple[list[str], Any]] = [([], typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        below = getattr(command, "commands", {})
        waiting += [([*words, name], one) for name, one in below.items()]
        text = CliRunner().invoke(app, [*words, "--help"]).output
        assert max(map(len, text.splitlines())) <= 80, words
        summaries = text.partition("\nCommands:\n")[2].partition("\n\n")[0].splitlines()
        assert len(summaries) == len(below)
        assert not [line for line in summaries if line.endswith("...")]
        assert "<list[" not in text
