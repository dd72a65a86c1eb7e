"""Run the command line in process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from evaluation.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def one_line(done: Result, code: int = 2) -> str:
    assert done.exit_code == code, done.output
    lines = done.stderr.splitlines()
    # A line of what a folder held is printed once per process, by whichever test is first.
    errors = [line for line in lines if not line.startswith("WARNING") and " are images" not in line]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.output
    return errors[0]


def score(source: str, *words: object, extractor: str = "e.onnx") -> tuple:
    return ("score", source, "--reference", "folder:pictures@test", "--extractor", extractor, "-o", "report", *words)
