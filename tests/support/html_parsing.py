"""What an HTML page or a Markdown file names: its anchors, its links, what it fetches."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

FETCHED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src"}
LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "manifest", "dns-prefetch"}
CSS_URL = re.compile(r"@import|url\(\s*[\"']?(?:https?:)?//")


@dataclass
class Page:
    """What an HTML page has; `inline` are scripts and styles, `prose` is the text without code."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    text: str = ""
    prose: str = ""


def read(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.page.text, reader.page.prose = "".join(reader.words), "".join(reader.prose)
    return reader.page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page, self.words, self.prose = Page(), list[str](), list[str]()
        self.within, self.codes = "", 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.page.ids |= {named[name] for name in ("id", "name") if named.get(name)}
        if tag == "a" and "href" in named:
            self.page.links.append(named["href"])
        if tag == "link" and set(named.get("rel", "").split()) & LINKS:
            self.page.fetched.append(named.get("href", ""))
        if tag in FETCHED and FETCHED[tag] in named:
            self.page.fetched.append(named[FETCHED[tag]])
        self.page.inline += [named["style"]] if "style" in named else []
        if tag in ("script", "style"):
            self.within = tag
        self.codes += tag in ("pre", "code")

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        if tag == self.within:
            self.within = ""
        self.codes -= tag in ("pre", "code")

    def handle_data(self, data: str) -> None:
        if self.within:
            self.page.inline.append(data)
            return
        self.words.append(data)
        if not self.codes:
            self.prose.append(data)


def markdown_links(path: Path) -> list[str]:
    """Targets of a Markdown file's links and images, in HTML too, without those in code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "", text)
    return [one or other for one, other in re.findall(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"", text)]


def anchors(path: Path) -> set[str]:
    """GitHub's anchors of a Markdown file's headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", text, flags=re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = sum(1 for one in found if re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", one))
        found.add(f"{anchor}-{count}" if count else anchor)
    return found
