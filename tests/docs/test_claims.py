"""What pages say is so: links between the repository's files, examples and what they print, tests that are named."""

from __future__ import annotations

import contextlib
import io
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support import html_parsing
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
FILES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
EXAMPLES = [
    (page, number)
    for page in ("latents", "measuring")
    for number in range((DOCS / f"concepts/{page}.md").read_text(encoding="utf-8").count("```python"))
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_files_lead_to_files_and_headings(path: Path) -> None:
    """As GitHub shows them; anchors of the Python reference exist in the site alone, where they are checked."""
    for target in html_parsing.markdown_links(path):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        to = (path.parent / unquote(name)).resolve() if name else path
        assert to.exists(), f"{path.name}: {target}"
        if anchor and to.suffix == ".md" and "reference/python" not in to.as_posix():
            assert unquote(anchor) in html_parsing.anchors(to), f"{path.name}: {target}"


@pytest.mark.parametrize(("page", "number"), EXAMPLES)
def test_example_on_a_page_prints_its_output(page: str, number: int) -> None:
    text = (DOCS / f"concepts/{page}.md").read_text(encoding="utf-8")
    code, printed = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.DOTALL)[number]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, page, "exec"), {})
    assert out.getvalue() == printed


def test_generator_file_page_lists_the_configs_architectures() -> None:
    from trainer.config.schema import ARCHITECTURES

    (printed,) = re.findall(
        r"^\| `architecture` \| (.*) \|$",
        (DOCS / "reference/generator-file.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert re.findall(r"`(\w+)`", printed) == list(ARCHITECTURES)


def test_results_list_the_lengths_of_presets_and_write_ups() -> None:
    from scripts.reproduce.runs import RUNS
    from trainer.config.loading import resolve

    text = (DOCS / "results/index.md").read_text(encoding="utf-8")
    row = r"^\| `([\w-]+)` \| ([\d,]+) kimg \| (?:([\d,]+) kimg \([^|]*|not stated)? ?\|"
    lengths = {name: kimgs for name, *kimgs in re.findall(row, text, re.MULTILINE)}
    assert lengths == {
        run.preset: [
            f"{resolve(run.preset).run.total_kimg:,.0f}",
            f"{run.kimg:,.0f}" if run.sources and run.dataset != "celeba" else "",
        ]
        for run in RUNS
    }


def test_security_statements_name_existing_code_and_tests() -> None:
    """Each statement of the security page (a bullet that begins in bold) has tests, and each test is there."""
    page = (DOCS / "operations/security.md").read_text(encoding="utf-8")
    statements = tomllib.loads((ROOT / "tests/docs/security.toml").read_text(encoding="utf-8"))
    assert re.findall(r"^- \*\*(.+?)\*\*", page, re.MULTILINE) == list(statements)
    tests = [test for statement in statements.values() for test in statement["tests"]]
    assert len(tests) > 55
    for test in tests:
        file, _, name = test.partition("::")
        assert (f"def {name}(" if name else "def test_") in (ROOT / file).read_text(encoding="utf-8"), test
    for statement, proof in statements.items():
        assert proof["tests"], statement
        for name in proof["code"]:
            assert list(ROOT.glob(name)), name


def test_request_schemas_have_no_field_for_an_address() -> None:
    """Every text that a request may hold is one of a few words, or the name of a model."""
    from service.app import create_app
    from service.settings import Settings

    document = create_app(Settings.model_construct()).openapi()
    texts = set()

    def look(name: str, schema: Any) -> None:
        if isinstance(schema, dict):
            if schema.get("type") == "string" and "enum" not in schema:
                texts.add(name)
            for key, value in schema.get("properties", {}).items():
                look(key, value)
            for part in (*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")):
                look(name, part)

    for request in ("GenerateRequest", "InterpolateRequest", "MixRequest", "Term"):
        schema = document["components"]["schemas"][request]
        assert schema["additionalProperties"] is False
        look(request, schema)
    assert texts == {"model"}


def test_documented_environment_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "hooks"))
    import reference

    code = "".join(
        path.read_text(encoding="utf-8")
        for room in ("trainer", "evaluation", "service", "imagesets")
        for path in (ROOT / room).rglob("*.py")
    )
    assert [name for name in reference.OTHERS if f'"{name}"' not in code] == []
