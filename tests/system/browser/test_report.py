"""The report's page in a real browser: it fits, its pictures load under its own policy, and it can be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluation.reports import NASTY, score_in

pytestmark = pytest.mark.slow

COLOURS = """selector => {
  const style = getComputedStyle(document.querySelector(selector));
  return [style.fill === "rgb(0, 0, 0)" ? style.color : style.fill, getComputedStyle(document.body).backgroundColor];
}"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `report/` of a job with everything that needs no labels, of a model with markup in its name."""
    root = tmp_path_factory.mktemp("report")
    score_in(root)
    return root


def luminance(colour: str) -> float:
    """Of `rgb(r, g, b)`, as WCAG 2 defines it."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_in_a_browser_fits_and_is_readable(
    browser: Any,
    workspace: Path,
    scheme: str,
    width: int,
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: request.url.startswith("data:") or complaints.append(request.url))
    page.goto((workspace / "report/report.html").as_uri())
    assert complaints == [(workspace / "report/report.html").as_uri()], "it asks for itself alone, and breaks no policy"
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing hangs over the edge"
    assert page.title() == f"{NASTY} · GAN Atelier"
    sizes = page.eval_on_selector_all("img", "found => found.map(one => [one.complete, one.naturalWidth])")
    assert len(sizes) == 10
    assert all(complete and across > 0 for complete, across in sizes)
    for selector in ("h1", "p", "figcaption", "dt", "td.value", ".tick", "th" if width > 500 else ".small"):
        text, ground = (luminance(colour) for colour in page.evaluate(COLOURS, selector))
        contrast = (max(text, ground) + 0.05) / (min(text, ground) + 0.05)
        assert contrast >= 4.5, (selector, contrast)
    lines = page.eval_on_selector_all(".tick", "found => found.map(one => one.getBoundingClientRect().height)")
    assert min(lines) > 9, "the charts' words are large enough"
    page.close()
