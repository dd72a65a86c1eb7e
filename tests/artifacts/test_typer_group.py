from __future__ import annotations

import sys
from pathlib import Path

import pytest

from artifacts.typer_group import command_name


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment `my env/bin` in the working directory, whose Python runs this process."""
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "trainer"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("command", ["python", "trainer"])
def test_command_name_in_an_activated_environment_is_the_name(
    command: str, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin")
    assert command_name(command) == command


@pytest.mark.parametrize("command", ["python", "trainer"])
def test_command_name_without_activation_is_the_quoted_path(
    command: str, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / command).symlink_to(environment / command)
    monkeypatch.setenv("PATH", str(other))
    assert command_name(command) == f"'my env/bin/{command}'"
    monkeypatch.chdir("/")
    assert command_name(command) == f"'{environment}/{command}'"


def test_command_name_of_another_place_is_its_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (environment / "trainer").unlink()
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command_name("trainer") == "trainer"
