"""Reports of small jobs, and a parser of their pages."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from evaluation.report.document import write_report
from evaluation.report.render import write_views
from tests.support.evaluation.commands import run
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.image_files import write_pictures
from tests.support.tiny_generator import write_tiny_generator


def set_model_name(path: Path, name: str) -> None:
    """Give the model of a report another name, such as one that a generator file cannot have, and write its views."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document["model"] = name
    write_report(path, document)
    write_views(path)


METRICS = "fid,precision,recall,density,coverage,is,fid_infinity,memorization"
NASTY = '<script>alert("1")</script> & | *b*'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The page's text, elements and headings; fails when a tag is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.rows: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "tags are closed in order"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "tr" in self.open:
            self.rows[-1] = " ".join(f"{self.rows[-1]} {data}".split())
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def embedded(page: Page) -> list[Image.Image]:
    """Each picture of the page, from inside it."""
    sources = [str(attributes["src"]) for attributes in page.of("img")]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def score_in(root: Path) -> None:
    """Run a job with everything that needs no labels, of a model with markup in its name; its files are in report/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_CACHE", str(root / "cache"))
        patch.chdir(root)
        write_pictures(root / "pictures")
        write_tiny_extractor(root / "e.onnx")
        write_tiny_generator(root / "g.onnx")
        words = ("score", "g.onnx", "--reference", "folder:pictures@test", "--extractor", "e.onnx", "--num-images", 50)
        done = run(*words, "--metrics", METRICS, "--intervals", "--seed", 7, "--output", "report")
    assert done.exit_code == 0, done.output
    set_model_name(root / "report/report.json", NASTY)
