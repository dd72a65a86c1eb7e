"""BentoML's model store, and a bento that is built and served for real."""

import io
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from artifacts.latents import seeds_to_latents
from service.errors import UserError
from service.models import bento_store
from tests.support.paths import ROOT
from tests.support.service.onnx_fixtures import write_plain
from tests.support.service.service_process import free_port, listening_hosts, running
from tests.support.tiny_generator import write_tiny_generator

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with an empty BentoML store, and nothing of this checkout's."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MODEL_DIR", "ATELIER_MODEL_DIR")}
    return kept | {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "true"}


def stored(home: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "store", *words]
    return subprocess.run(command, cwd=ROOT, env=home, capture_output=True, text=True, timeout=120, check=False)


def test_build_outside_a_checkout_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bento_store, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"store build needs a checkout: bentofile\.yaml is not at .+bentofile\.yaml$"):
        bento_store.build([tmp_path / "model.onnx"])


def test_bento_serves_its_models(tmp_path: Path, home: dict[str, str]) -> None:
    ours = write_tiny_generator(tmp_path / "ours.onnx", name="Packed", seed=7)
    theirs = write_plain(tmp_path / "theirs.onnx")
    done = stored(home, "build", str(ours), str(theirs))
    assert done.returncode == 0, done.stderr
    tag = done.stdout.split()[-1]
    assert tag.startswith("gan_atelier:")
    wanted = ort.InferenceSession(str(ours), providers=["CPUExecutionProvider"]).run(
        None, {"latents": seeds_to_latents(range(4), 8)[0]}
    )[0]
    ours.unlink()
    theirs.unlink()
    (dockerfile,) = (tmp_path / "home" / "bentos").glob("*/*/env/docker/Dockerfile")
    assert "ARG BENTOML_HOST=0.0.0.0\n" in dockerfile.read_text(encoding="utf-8")  # its image lets other machines in
    with running(tag, free_port(), tmp_path / "log", home, cwd=tmp_path) as server:
        url = server.url
        assert listening_hosts(server.workers()[0]) == {"127.0.0.1"}
        listing = httpx.get(f"{url}/v1/models").json()
        assert {m["name"]: m["foreign"] for m in listing["data"]} == {"Packed": False, "theirs": True}
        answer = httpx.post(
            f"{url}/v1/generate",
            json={"model": "Packed", "seed": 0, "n": 4},
            headers={"Accept": "application/x-npy"},
        )
        np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), wanted)
        assert stored(home, "put", str(write_tiny_generator(ours, name="Packed", seed=7))).stdout.strip() == (
            f"packed:{answer.headers['Atelier-Digest'][:16]}"
        )


def test_store_put_is_repeated_only_for_changed_scores(tmp_path: Path, home: dict[str, str]) -> None:
    path = write_tiny_generator(tmp_path / "a.onnx", name="tiny")
    stamped = write_tiny_generator(tmp_path / "stamped" / "a.onnx", name="tiny", **{"evaluation.fid10k": "12.5"})
    first, again, other = (stored(home, "put", str(p)).stdout.strip() for p in (path, path, stamped))
    assert first == again == other
    (kept,) = (tmp_path / "home" / "models" / "tiny").glob("*/a.onnx")
    assert kept.read_bytes() == stamped.read_bytes()


def test_store_put_of_another_file_is_one_line(tmp_path: Path, home: dict[str, str]) -> None:
    (tmp_path / "x.onnx").write_bytes(b"junk")
    done = stored(home, "build", str(tmp_path / "x.onnx"))
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'x.onnx'}: not an ONNX file\n")
    with pytest.raises(bento_store.StoreError, match="two files have one name"):
        bento_store.build([tmp_path / "a" / "x.onnx", tmp_path / "b" / "x.onnx"])


def test_bento_generator_files_outside_a_bento_is_empty() -> None:
    assert bento_store.bento_generator_files() == []


def test_bento_installs_the_versions_of_the_images(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(
        "numpy==2.4.6 ; python_full_version < '3.12'\nnumpy==2.5.5 ; python_full_version >= '3.12'\nonnx==1.23.2\n",
        encoding="utf-8",
    )
    assert bento_store.pin_versions(
        ["numpy>=1.26", "onnxruntime>=1.20", "onnx>=1.17; os_name == 'posix'"], constraints
    ) == [
        "numpy==2.4.6 ; python_full_version < '3.12'",
        "numpy==2.5.5 ; python_full_version >= '3.12'",
        "onnxruntime>=1.20",
        "onnx==1.23.2",
    ]
    assert bento_store.pin_versions(["numpy>=1.26"], tmp_path / "none") == ["numpy>=1.26"]
