import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.default_address import default_port
from service.middleware.auth import ApiKeys
from service.middleware.client_address import TrustedProxies
from service.middleware.cross_origin import allowed_origins
from service.settings import Settings, SettingsError, markdown_table, settings
from tests.support.paths import ROOT


def test_settings_invalid_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    for name, value in (("ATELIER_WORKERS", "abc"), ("ATELIER_DEADLINE_S", "-1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        settings()
    assert "ATELIER_WORKERS is 'abc'" in str(error.value)
    assert "ATELIER_DEADLINE_S is '-1'" in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_serve_with_an_invalid_setting_exits_2() -> None:
    done = run("import service.service", ATELIER_WORKERS="abc")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ATELIER_WORKERS is 'abc'")
    assert done.stderr.count("\n") == 1


def test_runtime_folder_is_shared_and_removed_by_the_supervisor() -> None:
    code = (
        "import os; from service.observability.metrics import configure_multiprocess_dir as configure; configure(2); "
        "print(os.environ['PROMETHEUS_MULTIPROC_DIR'])"
    )
    worker = f"import subprocess, sys; {code}; sys.stdout.flush(); subprocess.run([sys.executable, '-c', {code!r}])"
    folders = run(worker).stdout.split()
    assert len(folders) == 2
    assert folders[0] == folders[1]
    assert not Path(folders[0]).exists()
    shutil.rmtree(folders[0], ignore_errors=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATE_LIMIT", "1e-300"), ("RATE_LIMIT", "inf"), ("RATE_LIMIT", "nan"), ("RATE_BURST", "1" + "0" * 23),
        ("THREADS", "100000000"), ("HEADER_TIMEOUT_S", "inf"), ("BODY_TIMEOUT_S", "1e308"), ("WRITE_TIMEOUT_S", "nan"),
        ("DEADLINE_S", "inf"), ("MAX_BODY_BYTES", "1" + "0" * 30), ("MAX_CONNECTIONS", "1" + "0" * 30),
    ],
)  # fmt: skip
def test_settings_value_out_of_range_is_rejected(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    settings.cache_clear()
    monkeypatch.setenv(f"ATELIER_{name}", value)
    with pytest.raises(SettingsError, match=f"^ATELIER_{name} is '{value[:99]}"):
        settings()


def test_settings_drain_as_long_as_the_stop_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    monkeypatch.setenv("ATELIER_DRAIN_S", "28")
    with pytest.raises(SettingsError, match=r"^ATELIER_DRAIN_S \(28\) has to be less than ATELIER_GRACE_S \(28\)"):
        settings()


def test_settings_default_grace_outlasts_drain_and_deadline() -> None:
    default = {name: field.default for name, field in Settings.model_fields.items()}
    assert default["drain_s"] + default["deadline_s"] <= default["grace_s"]


@pytest.mark.parametrize("body", [",", "   ", " , ,"])
def test_settings_invalid_keys_are_rejected(body: str) -> None:
    """A key that was left out by mistake must not open the service to all."""
    with pytest.raises(SettingsError, match="ATELIER_API_KEYS has no key"):
        ApiKeys(Settings(api_keys=body))  # type: ignore[arg-type]
    assert not ApiKeys(Settings(api_keys=""))  # type: ignore[arg-type]


def test_settings_command_rejects_what_serve_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    monkeypatch.setenv("ATELIER_API_KEYS_FILE", "/nope")
    assert CliRunner().invoke(app, ["settings"]).exit_code == 2
    settings.cache_clear()


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_settings_accept_every_variable_that_documents_name(monkeypatch: pytest.MonkeyPatch) -> None:
    root = ROOT
    pages = [*root.glob("docs/**/*.md"), root / "README.md", *root.glob("docker/*.y*ml"), root / "Makefile"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"\bATELIER_[A-Z][A-Z_]*[A-Z]\b", text))
    known = {"ATELIER_" + name.upper() for name in Settings.model_fields}
    others = named - known - {"ATELIER_WORKER"}  # a mistake that a page shows
    assert {"ATELIER_API_KEY", "ATELIER_PORT", "ATELIER_BIND", "ATELIER_VERSION"} <= others
    for name in others:
        monkeypatch.setenv(name, "1")
    settings()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"one,two"', ("one", "two")),
        ("'one'", ("one",)),
        ("one", ("one",)),
        ('"one","two"', ("one", "two")),
        ("'one', 'two'", ("one", "two")),
    ],
)
def test_settings_leave_out_quotes_of_env_files(
    value: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_API_KEYS", value)
    monkeypatch.setenv("ATELIER_WORKERS", '"2"')
    monkeypatch.setenv("ATELIER_DEFAULT_MODEL", "''")
    found = Settings()
    assert (found.workers, found.default_model) == (2, None)
    assert all(ApiKeys(found).authenticate(f"Bearer {word}".encode()) for word in words)


def test_settings_leave_out_quotes_of_each_entry_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CORS_ORIGINS", "'https://a.example/','https://b.example'")
    monkeypatch.setenv("ATELIER_TRUSTED_PROXIES", '"10.0.0.1","10.1.0.0/16"')
    found = Settings()
    assert allowed_origins(found.cors_origins) == {"https://a.example", "https://b.example"}
    assert TrustedProxies(found.trusted_proxies).trusts(ipaddress.ip_address("10.1.2.3"))


def test_settings_expand_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("ATELIER_MODEL_DIR", "~/models")
    monkeypatch.setenv("ATELIER_API_KEYS_FILE", "~/keys")
    assert Settings().model_dir == Path("/home/someone/models")
    assert Settings().api_keys_file == Path("/home/someone/keys")


@pytest.mark.usefixtures("_fresh")
def test_settings_with_an_unknown_home_folder_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_MODEL_DIR", "~nobody-here/models")
    with pytest.raises(SettingsError, match="ATELIER_MODEL_DIR is '~nobody-here/models'"):
        settings()


def test_keys_of_a_file_with_a_bom_and_comments(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b'\xef\xbb\xbfone\r\n# two\r\n\r\n  "three"  \r\n')
    keys = ApiKeys(Settings(api_keys_file=tmp_path / "keys"))
    valid = {key for key in ("one", "# two", "two", "three", "") if keys.authenticate(f"Bearer {key}".encode())}
    assert valid == {"one", "three"}


def test_keys_of_bytes_that_are_not_utf8_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_API_KEYS", os.fsdecode(b"k\xff"))
    keys = ApiKeys(Settings())
    assert keys.authenticate(b"Bearer k\xff")
    assert not keys.authenticate(b"Bearer k")


def test_keys_of_a_file_with_comments_only_are_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="has no key"):
        ApiKeys(Settings(api_keys_file=tmp_path / "keys"))


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({}, "3000"),
        ({"PORT": "8000", "ATELIER_PORT": "9000"}, "8000"),
        ({"ATELIER_PORT": "9000"}, "9000"),
        ({"ATELIER_PORT": "tcp://10.0.0.1:80"}, "3000"),
        ({"ATELIER_PORT": '"9000"'}, "9000"),
        ({"PORT": "''", "ATELIER_PORT": "abc"}, "abc"),  # which `serve` refuses
    ],
)
def test_default_port_of_an_environment(environment: dict[str, str], port: str) -> None:
    assert default_port(environment) == port


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_settings_command_survives_a_closed_pipe(unbuffered: str) -> None:
    command = f"{sys.executable} -m service settings | head -1; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_settings_page_has_the_table_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    import reference

    assert markdown_table() in reference.settings(), "python -m service settings --markdown"
    assert set(re.findall(r"`ATELIER_(\w+)`", markdown_table())) >= {name.upper() for name in Settings.model_fields}
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_command_lists_values_but_no_secret() -> None:
    env = {"PATH": "/bin", "ATELIER_API_KEYS": "hush", "ATELIER_WORKERS": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "service", "settings"], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ATELIER_WORKERS=3 " in done.stdout
    assert "ATELIER_API_KEYS=(secret)" in done.stdout
    assert "hush" not in done.stdout
    assert len(done.stdout.splitlines()) == len(Settings.model_fields)
