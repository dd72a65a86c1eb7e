"""pyproject.toml defines the version; every other place agrees with it."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import artifacts
import trainer
from artifacts import version
from evaluation.json_files import versions
from tests.support.paths import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(autouse=True)
def _no_cached_version() -> None:
    version.cache_clear()


def test_version_in_a_checkout_equals_pyproject() -> None:
    assert {version(), trainer.__version__, versions()["gan-atelier"]} == {VERSION}


def test_version_outside_a_checkout_is_the_installed_one_or_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "artifacts" / "__init__.py"))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "9"\n', encoding="utf-8")
    requested = []
    monkeypatch.setattr(metadata, "version", lambda package: requested.append(package) or "7.0")
    assert version() == "7.0"
    assert requested == ["gan-atelier"]
    version.cache_clear()

    def absent(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", absent)
    assert version() == "0"
    version.cache_clear()


def test_trainer_unknown_attribute_raises() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = trainer.nothing


def test_citation_and_changelog_have_this_version() -> None:
    """A release renames the changelog's first section, and raises both numbers."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (VERSION, "Apache-2.0")
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == "Unreleased" or sections[0].startswith(f"{VERSION} ")
    released = [section.split(" ")[0] for section in sections if section != "Unreleased"]
    assert released[0] == VERSION
    assert released == sorted(released, key=lambda text: [int(part) for part in text.split(".")], reverse=True)


def test_license_is_the_whole_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert all(f"\n   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text
