"""When what a page shows is what its commands print and draw now, though no two runs are alike.

Times, speeds, sizes and digests are elided already in the page. What training computed differs with the machine: there
decimals are compared by size, everywhere else they must agree, and words and whole numbers must always.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image

VOLATILE = (
    (r"[\d,.]+ img/s", "… img/s"),
    (r"\b\d+(\.\d+)? s\b", "… s"),
    (r"[\d,.]+ kB", "… kB"),
    (r"sha256 [0-9a-f]{8,}…?", "sha256 …"),
    (r"by at most \d+ levels?, in [\d,]+ of", "by at most … level, in … of"),  # rounding
    (r"(BatchNorm2d\(\d+), [^)]*\)", r"\1, …)"),  # what else it tells of itself depends on torch's version
    (r"(?m)^\d+ of \d+ trials done; .*\n", ""),  # how far a sweep is, every half minute
    (re.escape(f"{Path(sys.executable).parent}/"), ""),  # hints of an environment that is not activated
    (r"(?m)[ \t]+$", ""),
)
DECIMAL = re.compile(r"-?\d[\d,]*\.\d+(?:e[+-]?\d+)?")
EXACT = 1e-6, 1e-3  # an amount, and a share of the larger one
TRAINED = 0.15, 0.35
DARK = 40  # mean difference, in levels, from which a picture is another one


def elided(text: str) -> str:
    """What a command printed, without what differs from run to run."""
    for pattern, steady in VOLATILE:
        text = re.sub(pattern, steady, text)
    return text


def alike(shown: str, now: str, *, trained: bool) -> bool:
    """Whether two blocks of a page, a command and its output, say the same; `trained`: decimals by size.

    Which of two settings is the best after a moment's training is not the page's claim; runs at the same time tell of
    themselves in any order.
    """
    theirs, ours = (re.sub(r"(?m)^best: .*$", "best: …", text).splitlines() for text in (shown, now))
    if "--jobs" in shown:
        theirs, ours = (sorted(lines, key=words) for lines in (theirs, ours))
    if [words(line) for line in theirs] != [words(line) for line in ours]:
        return False
    amount, share = TRAINED if trained else EXACT
    pairs = zip(numbers(theirs), numbers(ours), strict=True)
    return all(abs(a - b) <= amount + share * max(abs(a), abs(b)) for a, b in pairs)


def words(line: str) -> str:
    return DECIMAL.sub("#", line)


def numbers(lines: list[str]) -> list[float]:
    return [float(number.replace(",", "")) for line in lines for number in DECIMAL.findall(line)]


def unlike(made: Path, shown: Path) -> str | None:
    """Why a page's copy of a picture is not the one that was drawn now; None if it is, as near as training repeats."""
    if not made.is_file():
        return f"no command drew {made.name}"
    now, before = (np.asarray(Image.open(path).convert("L"), dtype=float) for path in (made, shown))
    if now.shape != before.shape:
        return f"{made.name} is {now.shape}, {shown.name} {before.shape}"
    off = float(np.abs(now - before).mean())
    return f"{made.name} is off by {off:.0f} levels from {shown.name}" if off > DARK else None
