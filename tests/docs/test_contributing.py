"""CONTRIBUTING.md's examples work as they stand there: a file, a line in a registry, a test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.paths import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("artifacts", "imagesets", "evaluation", "trainer", "service", "tests", "pyproject.toml")

# (section, path, language, block) of each block that is headed by a path
BLOCKS = [
    (section.partition("\n")[0], *found)
    for section in TEXT.split("\n### ")[1:]
    for found in re.findall(r"^`([\w./]+)`\n\n```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
]
FILES = [(section, path, block) for section, path, language, block in BLOCKS if language == "python"]
CHANGES = [(section, path, block) for section, path, language, block in BLOCKS if language == "diff"]
SECTIONS = ("A loss", "A network", "A dataset", "A metric", "An endpoint")
OWN_MODULES = (
    "A loss",
    "A network",
    "A dataset",
    "A metric",
)  # named as `package.module:NAME`, so nothing is registered


def changed(text: str, diff: str) -> str:
    """The text with a change made to it, whose lines that stay or go have to be there, together, once."""
    lines = diff.splitlines()
    before = "".join(line[1:] + "\n" for line in lines if line[0] in " -")
    after = "".join(line[1:] + "\n" for line in lines if line[0] in " +")
    assert text.count(before) == 1, f"not there, or more than once:\n{before}"
    return text.replace(before, after)


@pytest.fixture(scope="module")
def repo_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and their tests with every example in it."""
    folder = tmp_path_factory.mktemp("repo")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    for _, path, block in FILES:
        assert not (folder / path).exists(), path
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(block, encoding="utf-8")
    for _, path, block in CHANGES:
        (folder / path).write_text(changed((folder / path).read_text(encoding="utf-8"), block), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def outcomes(repo_copy: Path) -> dict[str, list[str]]:
    """Of each of the examples' tests: what failed in it, by the name of its file; and how many were run."""
    tests = [path for _, path, _ in FILES if path.startswith("tests/")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=found.xml", *tests]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=repo_copy, env=environment, capture_output=True, text=True, check=False)
    assert (repo_copy / "found.xml").is_file(), done.stdout + done.stderr
    found: dict[str, list[str]] = {path: [] for path in tests}
    for case in ElementTree.parse(repo_copy / "found.xml").iter("testcase"):
        path = case.attrib["classname"].replace(".", "/") + ".py"
        problems = [child.text or child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[path].append(f"{case.attrib['name']}: {problems[0]}" if problems else "")
    return found


def test_example_is_one_new_file_one_registry_and_one_test() -> None:
    for section in SECTIONS:
        paths = [path for named, path, _ in FILES if named == section]
        assert [path.startswith("tests/") for path in paths] == [False, True], section
        registries = {path for named, path, _ in CHANGES if named == section}
        assert len(registries) == (0 if section in OWN_MODULES else 1), section
    assert {section for section, *_ in BLOCKS} == set(SECTIONS)
    assert len(BLOCKS) == len(re.findall(r"^```(?:python|diff)$", TEXT, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_example_test_passes(section: str, outcomes: dict[str, list[str]]) -> None:
    (test,) = (path for named, path, _ in FILES if named == section and path.startswith("tests/"))
    assert len(outcomes[test]) >= 2
    assert not [problem for problem in outcomes[test] if problem]


@pytest.mark.slow
def test_examples_pass_the_linter(repo_copy: Path) -> None:
    for command in (["format", "--check"], ["check"]):
        words = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", "pyproject.toml"]
        done = subprocess.run(
            [*words, *{path for _, path, _ in FILES + CHANGES}],
            cwd=repo_copy,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_changed_without_its_place_raises() -> None:
    assert changed("a\nb\nc\n", " a\n-b\n+d\n") == "a\nd\nc\n"
    with pytest.raises(AssertionError, match="not there"):
        changed("a\nb\n", " a\n+d\n c\n")


def test_named_targets_and_files_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z-]+)(?= |`|$)", TEXT, re.MULTILINE)) - {"are"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    examples = {path for _, path, _ in FILES}
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`((?:imagesets|evaluation|trainer|service|tests)/[\w./]+)`", prose)) - examples
    assert len(named) > 8
    for path in named | set(re.findall(r"\]\((?!http)([^)#]+)", prose)):
        assert (ROOT / path).exists(), path
