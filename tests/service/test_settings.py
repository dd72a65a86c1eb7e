import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, settings


def test_a_bad_setting_is_one_line_that_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    for name, value in (("ATELIER_WORKERS", "abc"), ("ATELIER_DEADLINE_S", "-1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        settings()
    assert "ATELIER_WORKERS is 'abc'" in str(error.value)
    assert "ATELIER_DEADLINE_S is '-1'" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL_DIR", "ATELIER_DEFAULT_MODEL", "ATELIER_WORKERS"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("ATELIER_MODEL_DIR", raising=False)
    found = Settings()
    assert (found.model_dir, found.default_model, found.workers) == (None, None, 1)
    monkeypatch.setenv("ATELIER_MODEL_DIR", "")
    monkeypatch.setenv("MODEL_DIR", "there")
    assert Settings().model_dir == Path("there")


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_serving_with_a_bad_setting_exits_2() -> None:
    done = run("import service.service", ATELIER_WORKERS="abc")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ATELIER_WORKERS is 'abc'")
    assert done.stderr.count("\n") == 1


def test_workers_share_the_folder_of_their_supervisor_which_removes_it() -> None:
    code = "import os; from service.metrics import place; place(2); print(os.environ['PROMETHEUS_MULTIPROC_DIR'])"
    worker = f"import subprocess, sys; {code}; sys.stdout.flush(); subprocess.run([sys.executable, '-c', {code!r}])"
    folders = run(worker).stdout.split()
    assert len(folders) == 2
    assert folders[0] == folders[1]
    assert not Path(folders[0]).exists()
    shutil.rmtree(folders[0], ignore_errors=True)
