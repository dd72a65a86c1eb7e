"""The views of a report document: Markdown and one self-contained page beside the JSON, and reports compared."""

from __future__ import annotations

from pathlib import Path

from evaluation.atomic import written_whole
from evaluation.report.compare import Comparison
from evaluation.report.comparison import as_html, as_json, as_markdown
from evaluation.report.html import page
from evaluation.report.images import read_pictures, write_sheets
from evaluation.report.markdown import markdown
from evaluation.report.reader import read
from evaluation.report.schema import write_json

__all__ = ["write_comparison", "write_views"]


def write_views(path: Path, folder: Path | None = None) -> list[Path]:
    """`report.md`, `report.html` and the sheets of pictures of `report.json`, beside it or in `folder`; their paths.

    The JSON stays as it is. Raises EvaluationError for what is no report, or a folder that cannot be written.
    """
    document = read(path)
    folder = path.parent if folder is None else folder
    pictures = read_pictures(path.parent, document.pictures or {})
    sheets = write_sheets(folder, pictures)
    texts = {".md": markdown(document, sheets), ".html": page(document, pictures)}
    return [*_write(folder / path.name, texts), *sheets.values()]


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """`comparison.json`, `.md` and `.html` in the folder; their paths."""
    path = folder / "comparison.json"
    write_json(path, as_json(comparison))
    texts = {".md": as_markdown(comparison), ".html": as_html(comparison)}
    return [path, *_write(path, texts)]


def _write(path: Path, texts: dict[str, str]) -> list[Path]:
    """Each text whole, under the path with that suffix."""
    for suffix, text in texts.items():
        with written_whole(path.with_suffix(suffix)) as handle:
            handle.write(text.encode())
    return [path.with_suffix(suffix) for suffix in texts]
