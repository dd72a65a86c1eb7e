"""The lesson in docs/start/tutorial.ipynb: what it shows was really run, and it runs."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

from examples import notebook
from examples.notebook import execute
from tests.support.paths import ROOT

PATH = ROOT / "docs" / "start" / "tutorial.ipynb"


def cells_of(document: Any) -> list[Any]:
    return [cell for cell in document.cells if cell.cell_type == "code"]


def text_of(document: Any) -> str:
    """All that its cells printed."""
    outputs = [output for cell in cells_of(document) for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


def pictures_of(document: Any) -> list[Image.Image]:
    outputs = [output for cell in cells_of(document) for output in cell.outputs]
    found = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def check_whole(document: Any) -> None:
    """Every cell was run, once, in order, without an error or a word on stderr."""
    cells = cells_of(document)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result"), output
            assert output.get("name", "stdout") == "stdout", output.text
    assert len(pictures_of(document)) >= 12


def check_scores(document: Any) -> None:
    """What a short run is to reach, and what holds for any: real images do better, noise does worse."""
    text = text_of(document)
    (difference,) = re.findall(r"largest difference: (\d+) of 255", text)
    assert int(difference) <= 1
    fd, real, noise = (
        float(re.search(rf"^{name} *= *([\d.]+)$", text, re.MULTILINE)[1])  # type: ignore[index]
        for name in (r"fd_classifier1500", "train against test", "noise against test")
    )
    assert 0 < real < fd < noise / 4
    number = r" +([\d.]+)"
    rows = re.findall(rf"^(all|t = 1\.0|t = 0\.5|test images){number}{number}{number}$", text, re.MULTILINE)
    table = {name: tuple(map(float, values)) for name, *values in rows}
    assert table["all"][0] == pytest.approx(fd, abs=0.01)
    assert all(0 <= share <= 1 for _, *shares in table.values() for share in shares)
    assert table["all"][2] > table["t = 0.5"][2]  # truncation costs recall
    assert min(table["test images"][1:]) > 0.8
    (read,) = re.findall(r"read as the requested digit: ([\d.]+)%", text)
    assert float(read) > 60
    (copies,) = re.findall(r"near-copies: ([\d.]+)% of the fakes", text)
    assert float(copies) < 20


@pytest.fixture(scope="module")
def kept() -> Any:
    document = nbformat.read(PATH, as_version=4)
    nbformat.validate(document)
    return document


def test_tutorial_outputs_are_of_one_run_in_order(kept: Any) -> None:
    check_whole(kept)
    check_scores(kept)


def test_tutorial_outputs_name_no_path_of_the_machine(kept: Any) -> None:
    printed = text_of(kept)
    assert not re.search(r"(?<![\w.:/])/(home|root|tmp|usr|var|work|Users|opt|mnt)\b", printed)
    assert kept.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all("execution" not in cell.metadata for cell in kept.cells)


def test_tutorial_and_its_images_are_small(kept: Any) -> None:
    assert PATH.stat().st_size < 1_500_000
    assert all(max(picture.size) <= 1000 for picture in pictures_of(kept))


def test_tutorial_links_resolve(kept: Any) -> None:
    text = "\n".join(cell.source for cell in kept.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert len(links) >= 3
    assert all((PATH.parent / link).is_file() for link in links)


def test_tutorial_last_exercise_serves_the_exported_folder(kept: Any) -> None:
    code = "\n".join(cell.source for cell in cells_of(kept))
    (folder,) = re.findall(r"export\(run, (.*)\)", code)
    (command,) = re.findall(r"Serve it.*?`(print.*?)`", kept.cells[-1].source)
    work, out = Path("/tmp/tutorial"), io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(command, {"work": work})
    assert shlex.split(out.getvalue()) == ["make", "serve", f"MODEL_DIR={eval(folder, {'work': work})}"]


@pytest.mark.parametrize("text", [None, "# no notebook", "{}", '["cells"]'], ids=["none", "text", "object", "list"])
def test_notebook_script_with_another_file_is_one_line(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nope.ipynb"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["notebook.py", str(path)])
    with pytest.raises(SystemExit) as ended:
        notebook.main()
    assert ended.value.code == 2
    printed = (
        f"there is no notebook at {path}" if text is None else f"{path} is not a notebook (.ipynb) that can be read"
    )
    assert capsys.readouterr().err.splitlines()[-1] == f"notebook.py: error: {printed}"


@pytest.mark.slow
def test_tutorial_runs(tmp_path: Path) -> None:
    document = execute(PATH, tmp_path)
    check_whole(document)
    check_scores(document)
    assert list(tmp_path.iterdir()) == []
