"""The wheel and the source distribution, away from the repository: what they hold, and that it runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest

from tests.support.paths import ROOT
from tests.support.process_cleanup import end_with_parent
from tests.support.service.service_process import Server, free_port, until_ready

pytestmark = pytest.mark.slow
ROOMS = ("artifacts", "imagesets", "evaluation", "trainer", "service")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def run(command: list[str | Path], cwd: Path, **more: str) -> str:
    """What it printed on stdout; it has to succeed."""
    done = subprocess.run(command, cwd=cwd, env=environment(cwd, **more), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of ours but what says how the machine is to be used."""
    kept = ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "LANG", "UV_CACHE_DIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(home)} | more


def uv(*words: str | Path, cwd: Path) -> str:
    return run([sys.executable, "-m", "uv", "--quiet", "--offline", *words], cwd)


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path  # built from the source distribution
    direct: Path  # built from the tree


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both, built from a copy of the checkout, so that nothing is written into it."""
    folder = tmp_path_factory.mktemp("build")
    left_out = {line.strip().strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}

    def ignored(at: str, names: list[str]) -> set[str]:
        top = {name for name in names if name in left_out or name == ".git"} if Path(at) == ROOT else set()
        return top | {name for name in names if name == "__pycache__" or name.endswith(".egg-info")}

    shutil.copytree(ROOT, folder / "tree", ignore=ignored)
    builder = ("--no-build-isolation", "--python", sys.executable)
    uv("build", *builder, "--out-dir", folder / "dist", cwd=folder / "tree")
    uv("build", *builder, "--wheel", "--out-dir", folder / "direct", cwd=folder / "tree")
    ((sdist,), (wheel,), (direct,)) = (
        (folder / "dist").glob("*.tar.gz"),
        (folder / "dist").glob("*.whl"),
        (folder / "direct").glob("*.whl"),
    )
    return Built(sdist, wheel, direct)


@dataclass(frozen=True)
class Installed:
    bin: Path
    work: Path

    def __call__(self, program: str, *words: str | Path) -> str:
        return run([self.bin / program, *words], self.work)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a new environment, and an empty folder to work in.

    The dependencies are those of the Python that runs this, by the path of its site-packages alone: its own .pth
    files, an editable install of the checkout among them, are not read there.
    """
    folder = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    uv("pip", "install", "--no-deps", "--python", python, built.wheel, cwd=folder)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    dependencies = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "dependencies.pth").write_text("\n".join(dependencies) + "\n", encoding="utf-8")
    (folder / "work").mkdir()
    return Installed(python.parent, folder / "work")


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def names_of_packages() -> set[str]:
    """Every file of the four packages in the checkout."""
    paths = (path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


def test_wheel_has_exactly_the_packages_and_their_data(built: Built) -> None:
    info = f"gan_atelier-{VERSION}.dist-info"
    names = names_in(built.wheel)
    assert {name for name in names if not name.startswith(info)} == names_of_packages()
    result = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    assert {name.removeprefix(f"{info}/") for name in names if name.startswith(info)} == result
    for path in (
        *(
            "trainer/config/presets/digits-dcgan.yaml",
            "trainer/reports/templates/report.html",
            "evaluation/report/page.html",
        ),
        *("service/studio/index.html", "service/studio/studio.css", "service/bundled/digits.onnx", "service/py.typed"),
    ):
        assert zipfile.ZipFile(built.wheel).read(path) == (ROOT / path).read_bytes()


def test_sdist_builds_the_same_wheel_as_the_checkout(built: Built) -> None:
    assert names_in(built.wheel) == names_in(built.direct)
    for name in sorted(names_of_packages()):
        assert zipfile.ZipFile(built.wheel).read(name) == zipfile.ZipFile(built.direct).read(name), name


def test_sdist_has_what_a_wheel_needs(built: Built) -> None:
    top = f"gan_atelier-{VERSION}/"
    with tarfile.open(built.sdist) as archive:
        names = {member.name.removeprefix(top) for member in archive.getmembers() if member.isfile()}
    assert names_of_packages() <= names
    others = {name.split("/")[0] for name in names - names_of_packages()}
    assert others == {
        *("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "MANIFEST.in", "constraints.txt"),
        *("pyproject.toml", "setup.cfg", "PKG-INFO", "gan_atelier.egg-info"),
    }
    assert built.sdist.stat().st_size < 1_500_000


def test_installed_packages_are_the_wheels(installed: Installed) -> None:
    code = f"import json, {', '.join(ROOMS)}\nprint(json.dumps([" + (
        ", ".join(f"{room}.__file__" for room in ROOMS) + ", trainer.__version__, artifacts.version()]))"
    )
    *files, one, two = json.loads(installed("python", "-c", code))
    assert all(Path(file).is_relative_to(installed.bin.parent) for file in files), files
    assert {one, two} == {VERSION}


def test_installed_commands_print_help(installed: Installed) -> None:
    presets = {path.stem for path in (ROOT / "trainer" / "presets").glob("*.yaml")}
    assert presets <= set(installed("trainer", "presets").split())
    for program in ("trainer", "evaluation"):
        assert "Usage" in installed(program, "--help")
    assert "ATELIER_MODEL_DIR" in installed("python", "-m", "service", "settings")


def test_installed_packages_train_export_and_score(installed: Installed) -> None:
    tiny = [f"--set=run.{field}" for field in ("total_kimg=0.64", "tick_kimg=0.32", "quality_ticks=0", "threads=1")]
    installed("trainer", "train", "--preset", "digits-dcgan", *tiny, "--run-dir", "run", "--export", "models")
    assert "<img" in (installed.work / "run" / "report.html").read_text(encoding="utf-8")  # its template is the wheel's
    session = onnxruntime.InferenceSession(str(installed.work / "models" / "digits-dcgan.onnx"))
    assert session.get_modelmeta().producer_name == "gan-atelier"
    feed = {"latents": np.zeros((2, 24), np.float32), "labels": np.array([0, 7])}
    (images,) = session.run(["images"], feed)
    assert (images.shape, images.dtype) == ((2, 32, 32, 1), np.uint8)
    installed("evaluation", "extractor", "classifier", "--images=digits", "--resolution=8", "--epochs=1", "-oe.onnx")
    protocol = ("--reference=digits@test", "--extractor=e.onnx", "--num-images=200")
    installed("evaluation", "score", "models/digits-dcgan.onnx", *protocol, "--force", "--output=report")
    report = json.loads((installed.work / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["versions"]["gan-atelier"] == VERSION
    assert report["scores"]["fd_classifier200"] > 0
    assert "fd_classifier200" in (installed.work / "report" / "report.html").read_text(encoding="utf-8")


def test_installed_service_serves_generator_and_studio(installed: Installed) -> None:
    port, log = free_port(), installed.work / "serve.log"
    command = [installed.bin / "python", "-m", "service", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=installed.work,
            env=environment(installed.work),
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,
        )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            until_ready(server)
            (model,) = httpx.get(f"{server.url}/v1/models").json()["data"]
            image = httpx.get(f"{server.url}/v1/models/{model['name']}/images/7.png")
            assert (image.status_code, image.content[:8]) == (200, b"\x89PNG\r\n\x1a\n")
            assert "<title>" in httpx.get(server.url).text
            assert httpx.get(f"{server.url}/openapi.json").json()["info"]["version"] == VERSION
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
