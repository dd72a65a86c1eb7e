"""`evaluation report`: the views of a report again, or several reports beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from artifacts.terminal import say
from evaluation.app import app, plain_errors
from evaluation.errors import EvaluationError


@app.command()
def report(
    paths: Annotated[list[Path], typer.Argument(help="Folders of `score --output`, or their report.json.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write to; default: of one report, its own.")
    ] = None,
) -> None:
    """One report: write its Markdown and page again. Several: compare them, if they are of one protocol."""
    with plain_errors():
        from evaluation.atomic import check_writable
        from evaluation.report.compare import compare
        from evaluation.report.reader import report_path
        from evaluation.report.render import comparison_lines, write_comparison, write_views

        if output is not None:
            if output.exists() and not output.is_dir():
                raise EvaluationError(f"cannot write {output}: it is a file; --output is a folder")
            check_writable(output / "report.html")
        if len(paths) == 1:
            written = write_views(report_path(paths[0]), output)
        else:
            comparison = compare(paths)
            for line in comparison_lines(comparison):
                say(line)
            written = [] if output is None else write_comparison(comparison, output)
        for path in written:
            say(path)
