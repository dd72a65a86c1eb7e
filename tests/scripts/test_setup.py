"""scripts/setup.py: which build of PyTorch is installed, and what a user sees of it."""

from __future__ import annotations

import subprocess
import threading
import venv
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts import setup
from tests.support.paths import ROOT

CONSTRAINTS = "numpy==1.0\ntorch==2.15.0\ntorch-fidelity==0.4.0\ntorchvision==0.29.2\n"


def test_cpu_requirements_pin_the_versions_of_the_constraints() -> None:
    assert setup.cpu_requirements(CONSTRAINTS) == ["torch==2.15.0+cpu", "torchvision==0.29.2+cpu"]
    assert len(setup.cpu_requirements((ROOT / "constraints.txt").read_text(encoding="utf-8"))) == 2


def test_is_reachable_without_an_index_returns_false() -> None:
    assert not setup.is_reachable("http://127.0.0.1:9", timeout_s=2)
    assert not setup.is_reachable("no address")


def write_wheel(folder: Path, name: str, version: str) -> None:
    """Write an empty wheel of a package."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a project with one extra, a virtual environment, and an index of CPU builds."""
    (tmp_path / "constraints.txt").write_text(CONSTRAINTS, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "tiny"\nversion = "1"\noptional-dependencies = { all = ["torch", "torchvision"] }\n'
        "[tool.setuptools]\npy-modules = []\n",
        encoding="utf-8",
    )
    for name, version in (("torch", "2.15.0"), ("torchvision", "0.29.2")):
        write_wheel(tmp_path / "cpu" / name, name, f"{version}+cpu")
        (tmp_path / "cpu" / name / "index.html").write_text(
            f'<a href="{name}-{version}%2Bcpu-py3-none-any.whl">{name}</a>', encoding="utf-8"
        )
    venv.create(tmp_path / ".venv", with_pip=True)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(setup.has_nvidia_driver(), reason="this machine has an NVIDIA driver")
def test_setup_without_a_driver_installs_the_cpu_build(checkout: Path) -> None:
    command = [checkout / ".venv/bin/python", ROOT / "scripts/setup.py", "all"]
    handler = partial(SimpleHTTPRequestHandler, directory=checkout / "cpu")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command += ["--torch-index", f"http://127.0.0.1:{server.server_address[1]}"]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PyTorch for CPUs (no NVIDIA driver found): done" in done.stdout
    assert "WARNING" not in done.stdout + done.stderr
    listed = subprocess.run(
        [checkout / ".venv/bin/python", "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout
    assert "torch==2.15.0+cpu" in listed


@pytest.mark.slow
def test_setup_failure_prints_the_reason_and_the_log(checkout: Path) -> None:
    (checkout / "constraints.txt").write_text("", encoding="utf-8")
    (checkout / "pyproject.toml").write_text("[project", encoding="utf-8")
    command = [checkout / ".venv/bin/python", ROOT / "scripts/setup.py", "all", "--torch-index", "no address"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TOMLDecodeError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the installation failed; all of pip's output is in ")
