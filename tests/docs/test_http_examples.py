"""Every example in docs/reference/http-api.md runs, as it stands there, against a real service."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from tests.support.service.service_process import served

pytestmark = pytest.mark.slow
BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```$",
    (ROOT / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
ADDRESS = "localhost:3000"  # in the docs; the test's service has another
SHELL = [text for language, text in BLOCKS if language == "sh"]
PYTHON = [text for language, text in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.mktemp("bundled")
    (models / "digits.onnx").write_bytes((ROOT / "service" / "bundled" / "digits.onnx").read_bytes())
    with served(models) as server:
        yield server.url.removeprefix("http://")


def test_blocks_are_run_or_shown() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python", "json", "console"}
    assert len(SHELL) == sum("curl" in text for _, text in BLOCKS)
    assert all(ADDRESS in text for text in SHELL + PYTHON)


@pytest.mark.parametrize("block", SHELL, ids=lambda text: text.split()[2].removeprefix(ADDRESS))
def test_curl_examples_print_what_the_page_shows(block: str, address: str, tmp_path: Path) -> None:
    script = block.replace(ADDRESS, address)
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, check=True, timeout=60)
    written = re.findall(r"-o (\S+)", block)
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())
    for name in written:
        content = (tmp_path / name).read_bytes()
        match Path(name).suffix:
            case ".json":
                assert json.loads(content)["data"]
            case ".npy" | ".npz":
                assert np.load(io.BytesIO(content), allow_pickle=False) is not None
            case ".zip":
                assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
            case suffix:
                assert Image.open(io.BytesIO(content)).format == Image.registered_extensions()[suffix]


@pytest.mark.parametrize("block", PYTHON, ids=["service.client", "bentoml"])
def test_python_examples_print_what_the_page_shows(block: str, address: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", block.replace(ADDRESS, address)], cwd=tmp_path, env=env, check=True, timeout=120
    )
