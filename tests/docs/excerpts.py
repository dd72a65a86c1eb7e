"""The lines of our code that a page shows, taken anew from the code itself.

A comment in the page says which: `<!-- code: trainer/training/losses.py cross_entropy_d -->` is that function as it
stands today, `<!-- code: trainer/training/loop.py updates from "fakes, labels" to "update_generator" -->` those of its
lines. What follows the comment (a link to the file, then the fenced lines) is written by `refreshed`, never by hand.
"""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"^<!-- code: (.+?) -->\n(?:\[`.*?\n\n```\w+\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}


def refreshed(page: str) -> str:
    """The page with every excerpt as the code has it now. Raises LookupError for one that the code has no more."""
    return CODE.sub(lambda match: f"{match[0].splitlines()[0]}\n{excerpt(match[1])}", page)


def excerpt(directive: str) -> str:
    """The link and the fenced lines of what a comment asks for: `PATH [NAME] [from TEXT to TEXT]`."""
    path, *words = shlex.split(directive)
    name = words.pop(0) if words and words[0] != "from" else None
    lines = named(path, name)
    if words:
        match words:
            case ["from", first, "to", last]:
                lines = between(lines, first, last, path)
            case _:
                raise LookupError(f"{directive!r} is not PATH [NAME] [from TEXT to TEXT]")
    code = textwrap.dedent("\n".join(lines)).rstrip()
    what = f", `{name}`" if name else ""
    return f"[`{path}`](../{path}){what}:\n\n```{LANGUAGES[Path(path).suffix]}\n{code}\n```\n"


def named(path: str, name: str | None) -> list[str]:
    """The lines of a function, class or method (`Class.method`) with its decorators; without a name, the file's."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if name is None:
        return text.splitlines()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        inside = [child for child in getattr(node, "body", []) if getattr(child, "name", None) == part]
        if not inside:
            raise LookupError(f"{path} has no {name}")
        node = inside[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return text.splitlines()[first - 1 : node.end_lineno]


def between(lines: list[str], first: str, last: str, path: str) -> list[str]:
    """From the first line that holds `first` to the next that holds `last`, both with it."""
    begin = next((index for index, line in enumerate(lines) if first in line), None)
    if begin is None:
        raise LookupError(f"{path} has no line with {first!r} there")
    end = next((index for index in range(begin + 1, len(lines)) if last in lines[index]), None)
    if end is None:
        raise LookupError(f"{path} has no line with {last!r} after {first!r}")
    return lines[begin : end + 1]
