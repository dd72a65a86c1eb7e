"""Tables in Markdown, made from result files, and put between a document's markers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
Tables = Mapping[str, Callable[[dict[str, Any]], str]]  # by the result file's name, without .json


def table(heads: list[str], rows: Iterable[list[str]]) -> str:
    """Lines of Markdown. Raises ValueError for a row of another width."""
    lines = [heads, ["---"] * len(heads), *rows]
    if any(len(cells) != len(heads) for cells in lines):
        raise ValueError(f"a row does not fit the heads {heads}")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value == 0 or math.isnan(value):
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits):,.{min(digits, 3)}f}"


def between(text: str, name: str, made: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- /name -->` replaced; ValueError unless they are there
    once."""
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)"
    text, count = re.subn(pattern, lambda match: f"{match[1]}{made}\n{match[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"there are {count} places for the table {name}")
    return text


def marked(text: str) -> list[str]:
    """The names of the tables that a document has places for, in its order."""
    return re.findall(r"^<!-- (\w+) -->$", text, flags=re.MULTILINE)


def made(tables: Tables, results: Path = RESULTS) -> dict[str, str]:
    """The tables whose result file is there."""
    files = {name: results / f"{name}.json" for name in tables}
    return {
        name: tables[name](json.loads(path.read_text(encoding="utf-8")))
        for name, path in files.items()
        if path.is_file()
    }


def show(tables: Tables, results: Path = RESULTS) -> None:
    for name, text in made(tables, results).items():
        print(f"{name}:\n\n{text}\n")


def conditions(document: dict[str, Any]) -> str:
    """A sentence on what a result was measured on, and how: of whatever it tells of that."""
    machine = document["machine"]
    cpu = machine["cpu"] + (f" ({', '.join(sets)})" if (sets := machine.get("instructions")) else "")
    parts = [cpu, *([f"{machine['cores']} cores"] if "cores" in machine else [])]
    if "seconds" in document:
        parts.append(f"windows of {document['seconds']:g} s, {document['rounds']} rounds")
    if "load_average_before" in machine:
        parts.append(f"load average {machine['load_average_before']:.1f} before")
    return "; ".join(parts) + "."
