"""The documentation site: it builds, every link in it leads somewhere, and it fetches nothing from elsewhere."""

from __future__ import annotations

import json
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
import yaml

from tests.support import html_parsing
from tests.support.html_parsing import Page
from tests.support.paths import ROOT
from tests.support.service.browser import chromium

SECTIONS = ("Start", "Guides", "Concepts", "Reference", "Results", "Project")

pytestmark = pytest.mark.slow


class Loader(yaml.SafeLoader):
    """mkdocs.yml without its Python objects."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once as `make docs` does, with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # settings of this machine must not appear as the service's defaults
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_") and name != "PORT"}
    done = subprocess.run(words, cwd=ROOT, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def built(site: Path) -> dict[str, Page]:
    """Every page by its address in the site."""
    found = {path.relative_to(site).as_posix(): html_parsing.read(path) for path in sorted(site.rglob("*.html"))}
    assert len(found) > 25
    return found


def test_site_internal_links_anchors_and_images_resolve(site: Path, built: dict[str, Page]) -> None:
    broken, seen = [], 0
    for address, page in built.items():
        for target in (*page.links, *page.fetched):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or not target:
                continue
            seen += 1
            # the page of 404 is answered at any address, so its links begin at the root
            at = posixpath.normpath(posixpath.join("/" + posixpath.dirname(address), unquote(parts.path)))[1:]
            at = address if not parts.path else posixpath.join(at, "index.html") if (site / at).is_dir() else at
            if not (site / at).is_file():
                broken.append(f"{address}: {target}")
            elif parts.fragment and at in built and unquote(parts.fragment) not in built[at].ids:
                broken.append(f"{address}: {target} (no such anchor)")
    assert broken == []
    assert seen > 1000


def test_site_pages_fetch_nothing_from_elsewhere(site: Path, built: dict[str, Page]) -> None:
    for address, page in built.items():
        assert [target for target in page.fetched if urlsplit(target).netloc] == [], address
        for text in page.inline:
            assert not html_parsing.CSS_URL.search(text), address
            assert not re.search(r"\b(import|fetch)\b[^;\n]*https?:", text), address
    for path in site.rglob("*.css"):
        assert not html_parsing.CSS_URL.search(path.read_text(encoding="utf-8")), path


# What does not fit: tables and code wider than the column, cells that hide their content, identifiers in two lines.
# On a phone, code and tables may scroll within their boxes.
MISFITS = """phone => {
  const column = phone ? innerWidth : document.querySelector("article").getBoundingClientRect().right + 1;
  const found = document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways"] : [];
  const name = element => element.textContent.trim().replace(/\\s+/g, " ").slice(0, 60);
  for (const table of document.querySelectorAll("article table")) {
    const box = phone ? table.closest(".md-typeset__scrollwrap") ?? table : table;
    if (box.getBoundingClientRect().right > column) found.push(`table: ${name(table)}`);
    for (const cell of table.querySelectorAll("th, td"))
      if (cell.scrollWidth > cell.clientWidth + 1) found.push(`cell: ${name(cell)}`);
  }
  for (const code of document.querySelectorAll("article pre > code"))
    if (!phone && code.scrollWidth > code.clientWidth) found.push(`code: ${name(code)}`);
  for (const code of document.querySelectorAll("article table code"))
    if (!phone && !code.textContent.includes(" ") && code.getClientRects().length > 1)
      found.push(`broken: ${name(code)}`);
  return found;
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_a_laptop_and_a_phone(site: Path, built: dict[str, Page], width: int) -> None:
    misfits = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 800})
        for address in built:
            page.goto((site / address).as_uri())
            misfits += [f"{address}: {found}" for found in page.evaluate(MISFITS, width < 600)]
    assert misfits == []


def test_tutorial_formulas_are_drawn_without_a_script(built: dict[str, Page]) -> None:
    page = built["start/tutorial.html"]
    assert not re.search(r"\$[^$]*\\\w+[^$]*\$", page.text)
    assert not [text for text in page.inline if "MathJax.Hub" in text]


def test_navigation_has_every_section_and_page(built: dict[str, Page]) -> None:
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]
    assert tuple(next(iter(part)) for part in nav) == SECTIONS

    def leaves(part: object) -> list[str]:
        if isinstance(part, dict):
            part = list(part.values())
        return [part] if isinstance(part, str) else [leaf for one in part for leaf in leaves(one)]  # type: ignore[attr-defined]

    addresses = [re.sub(r"\.(md|ipynb)$", ".html", leaf) for leaf in leaves(nav)]
    assert len(set(addresses)) == len(addresses)
    assert [address for address in addresses if address not in built] == []
    for guide in (ROOT / "docs").rglob("*.md"):
        address = guide.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert address in addresses, f"{guide.name} is in no section of mkdocs.yml"


def test_site_pages_show_no_markdown_signs(built: dict[str, Page]) -> None:
    """What GitHub takes for a list, a table or code, and Python-Markdown for text, would show its signs."""
    sign = re.compile(r"\s*(\|.*\|\s*$|```|:::|[-*] |#+ |\[.*\]\()")
    shown = [
        f"{address}: {line}" for address, page in built.items() for line in page.prose.splitlines() if sign.match(line)
    ]
    assert shown == []


def test_command_line_page_has_every_command(built: dict[str, Page]) -> None:
    from evaluation.cli import app as evaluation
    from trainer.cli import app as trainer

    page, commands = built["reference/cli.html"], 0
    for name, app in (("trainer", trainer), ("evaluation", evaluation)):
        waiting = [(name, typer.main.get_command(app))]
        while waiting:
            path, command = waiting.pop()
            below = getattr(command, "commands", {})
            waiting += [(f"{path} {part}", one) for part, one in below.items()]
            if below:
                continue
            commands += 1
            assert path.replace(" ", "-") in page.ids
            section = page.text.partition(f"{path}¶")[2].partition("¶")[0]
            for parameter in (one for one in command.params if one.name != "help"):
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert parameter.param_type_name == "argument" or option in section, f"{path} {option}"
                assert (getattr(parameter, "help", None) or "").replace("`", "") in section, f"{path} {parameter.name}"
    assert commands > 15
    for words in (
        "python -m service serve",
        "python -m service settings",
        "python -m service store build",
        "DATA_ROOT",
    ):
        assert words in page.text


def test_http_page_has_every_route(site: Path, built: dict[str, Page]) -> None:
    from service.app import create_app
    from service.settings import Settings

    document = create_app(Settings.model_construct()).openapi()
    assert json.loads((site / "openapi.json").read_text(encoding="utf-8")) == document
    page = built["reference/http.html"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}" in page.text
            assert operation["description"] in page.text
    for name in ("GenerateRequest", "InterpolateRequest", "MixRequest"):
        for fields in document["components"]["schemas"][name]["properties"].values():
            assert fields.get("description", "").replace("`", "") in page.text
    assert "integer, ≥ 1, ≤ 16" in page.text.replace("\N{NO-BREAK SPACE}", " ")  # scale's bounds


def test_settings_page_has_every_setting(built: dict[str, Page]) -> None:
    from service.settings import Settings
    from trainer.config.loading import field_names

    text = built["reference/settings.html"].text
    assert [name for name in Settings.model_fields if f"ATELIER_{name.upper()}" not in text] == []
    assert [name for name in field_names() if "." in name and name not in text] == []


def test_python_pages_have_the_public_functions(built: dict[str, Page]) -> None:
    ids = {one for address, page in built.items() if address.startswith("reference/python/") for one in page.ids}
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference/python").glob("*.md"))
    for module, members in re.findall(r"^::: (\S+)\n    options:\n      members: \[(.*)\]", text, re.MULTILINE):
        assert {f"{module}.{name}" for name in members.split(", ")} - ids == set()
    assert ids >= {
        "imagesets.registry.load",
        "trainer.training.losses.hinge_d",
        "trainer.training.loop.train_step",
        "trainer.onnx_export.exporter.export",
        "trainer.api.train",
        "evaluation.api.score",
        "evaluation.api.fid",
        "evaluation.metrics.frechet.frechet_distance",
        "evaluation.metrics.frechet.FeatureStatistics.update",
        "evaluation.extractors.from_torch.build_extractor",
        "service.client.Client.generate",
        "service.inference.interpolation.slerp",
        "artifacts.generator_file.digest",
    }
