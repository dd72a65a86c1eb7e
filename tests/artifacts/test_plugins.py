from __future__ import annotations

import sys
from pathlib import Path

import pytest

from artifacts.plugins import PluginError, import_object, is_plugin


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module into the working directory, which is not on `sys.path`, and return its name."""
    (tmp_path / "own_things.py").write_text("VALUE = 7\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_things", raising=False)
    return "own_things"


def test_import_object_in_the_working_directory_returns_it(module: str) -> None:
    before = list(sys.path)
    assert import_object(f"{module}:VALUE") == 7
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_things:OTHER", "own_things has no OTHER"),
        ("no_such_module_anywhere:X", "there is no module no_such_module_anywhere; run from the folder"),
        ("broken_things:X", "importing broken_things failed: ZeroDivisionError"),
        ("exits_at_once:X", "importing exits_at_once failed: SystemExit: usage: exits"),
        ("needs_things:X", "importing needs_things failed: No module named 'no_such_package'"),
    ],
)
def test_import_object_failure_names_the_reason(module: str, name: str, message: str) -> None:
    Path("broken_things.py").write_text("1 / 0\n", encoding="utf-8")
    Path("exits_at_once.py").write_text("raise SystemExit('usage:\\n  exits')\n", encoding="utf-8")
    Path("needs_things.py").write_text("import no_such_package\n", encoding="utf-8")
    with pytest.raises(PluginError, match=message) as raised:
        import_object(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["hinge", "a:b:c", "a/b:c", "http://x", "a:", ":b", "folder:my photos", "folder:photos"]
)
def test_is_plugin_other_forms_returns_false(name: str) -> None:
    assert is_plugin("my_package.losses:MY_LOSS")
    assert not is_plugin(name)
