"""docs/cookbook.md kept true: `python -m tests.docs.cookbook --write` (or `--check`).

The page itself says what is in it. Its code is taken from the code (excerpts.py). Its commands are run from top to
bottom in one new folder, the shell's (`sh`) each as a reader types it, Python's (`pycon`) in one interpreter beside
them, and what they print and draw is put behind them. Blocks marked `long` are run by `--all` alone, `console` ones
but for those never; what they ask for is checked without doing it (test_cookbook.py).
"""

from __future__ import annotations

import argparse
import doctest
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

from tests import warm
from tests.docs import excerpts
from tests.docs.excerpts import ROOT
from tests.docs.likeness import alike, elided, unlike
from tests.ending import end_with_parent

PAGE = ROOT / "docs" / "cookbook.md"
RUN = re.compile(
    r"^(<!-- long -->\n)?```(sh|pycon|console)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
PICTURE = re.compile(r"^<!-- (long )?picture: (\S+) -->\n!\[[^\]]+\]\((\S+)\)", re.MULTILINE)
TRAINING = "## Training the DCGAN"  # from here on, decimals are a training's

INTERPRETER = """
import contextlib, io, json, sys, traceback
names, answers = {"__name__": "__main__"}, sys.stdout
for line in sys.stdin:
    told, failed = io.StringIO(), False
    with contextlib.redirect_stdout(told):
        try:
            exec(compile(json.loads(line), "<cookbook>", "single"), names)
        except Exception:
            failed = True
            traceback.print_exc(file=told)
    print(json.dumps([told.getvalue(), failed]), file=answers, flush=True)
"""


class CommandFailed(Exception):
    """A command of the page ended with another exit code than 0, or a line of Python raised."""


class Session:
    """A reader's shell and Python prompt, in a new folder `work` inside `folder`."""

    def __init__(self, folder: Path, everything: bool = False) -> None:
        """everything: also what is marked `long`."""
        self.everything = everything
        self.work, commands = folder / "work", folder / "bin"
        self.work.mkdir()
        commands.mkdir()
        python = commands / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        for name in ("trainer", "evaluation"):
            warm.command(commands / name, name)
        self.env = {name: value for name, value in os.environ.items() if name != "DATA_ROOT"} | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "ATELIER_CACHE": str(folder / "cache"),
            "ATELIER_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",  # the page is of a machine without a GPU
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "110",
            "NO_COLOR": "1",
        }
        words = [sys.executable, "-c", INTERPRETER]
        piped = subprocess.PIPE
        self.python = subprocess.Popen(
            words, cwd=self.work, env=self.env, stdin=piped, stdout=piped, text=True, preexec_fn=end_with_parent
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.python.communicate()

    def replay(self, page: str) -> str:
        """The page with the commands' output as it is now. Raises CommandFailed."""
        return RUN.sub(self._block, page)

    def _block(self, match: re.Match[str]) -> str:
        long, language, body = match[1] or "", match[2], match[3]
        if (long and not self.everything) or (language == "console" and not long):
            return match[0]
        if language == "pycon":
            examples = doctest.DocTestParser().get_examples(body)
            return f"```pycon\n{''.join(self._line(example) for example in examples)}```\n"
        told = elided(self._shell(body))
        shown = told and language == "sh"
        return f"{long}```{language}\n{body}```\n" + (f"\n```text\n{told}```\n" if shown else "")

    def _shell(self, script: str) -> str:
        words = ["bash", "-euo", "pipefail", "-c", script]
        piped, merged = subprocess.PIPE, subprocess.STDOUT
        done = subprocess.run(words, cwd=self.work, env=self.env, stdout=piped, stderr=merged, text=True, check=False)
        if done.returncode:
            raise CommandFailed(f"exit code {done.returncode} of\n{script}\n{done.stdout}")
        return done.stdout

    def _line(self, example: doctest.Example) -> str:
        assert self.python.stdin
        assert self.python.stdout
        self.python.stdin.write(json.dumps(example.source) + "\n")
        self.python.stdin.flush()
        answer = self.python.stdout.readline()
        told, failed = json.loads(answer) if answer else ("the interpreter is gone", True)
        if failed:
            raise CommandFailed(f"{example.source}{told}")
        first, *rest = example.source.splitlines()
        prompts = [f">>> {first}", *(f"... {line}".rstrip() for line in rest)]
        return "".join(line + "\n" for line in prompts) + elided(told)


@dataclass(frozen=True)
class Picture:
    """Where in the working folder the commands (the long ones, or those always run) leave it, and the page's copy."""

    long: bool
    made: str
    shown: Path


def pictures(page: str) -> list[Picture]:
    return [Picture(bool(long), made, PAGE.parent / shown) for long, made, shown in PICTURE.findall(page)]


def shrink(made: Path, shown: Path) -> None:
    """A picture as the page has it: the same, in few colours, so that a repository can hold it."""
    shown.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(made) as image:
        frames = [(frame.convert("RGB"), frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(image)]
    sheet = frames[0][0]
    grey = sheet.convert("L").convert("RGB").tobytes() == sheet.tobytes()
    first, *rest = [frame.quantize(16 if grey else 64, dither=Image.Dither.NONE) for frame, _ in frames]
    durations = [duration for _, duration in frames]
    options = {"save_all": True, "append_images": rest, "duration": durations, "loop": 0} if rest else {}
    first.save(shown, optimize=True, **options)


def differences(shown: str, now: str) -> list[str]:
    """Where the blocks of two versions of the page tell different things: a line each, none where they agree."""
    found = []
    for before, after in zip(RUN.finditer(shown), RUN.finditer(now), strict=True):
        if not alike(before[0], after[0], trained=before.start() > shown.index(TRAINING)):
            found.append(f"the page has\n{before[0]}and now it is\n{after[0]}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.docs.cookbook", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="exit 1 where the page differs from what is true now")
    mode.add_argument("--write", action="store_true", help="bring the page and its pictures up to date")
    parser.add_argument("--code", action="store_true", help="the code alone; run nothing")
    parser.add_argument("--all", action="store_true", help="run what is marked long, too (many minutes)")
    asked = parser.parse_args()
    shown = PAGE.read_text(encoding="utf-8")
    now = excerpts.refreshed(shown)
    problems = [] if now == shown else ["the code in the page is not the code of today: --write --code"]
    if not asked.code:
        with tempfile.TemporaryDirectory() as name, Session(Path(name), asked.all) as session:
            now = session.replay(now)
            problems += differences(shown, now)
            for picture in pictures(now):
                if picture.long and not asked.all:
                    continue
                if asked.write:
                    shrink(session.work / picture.made, picture.shown)
                elif wrong := unlike(session.work / picture.made, picture.shown):
                    problems.append(wrong)
    if asked.write:
        PAGE.write_text(now, encoding="utf-8")
        return 0
    print("\n".join(problems) or f"{PAGE.name} is true")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
