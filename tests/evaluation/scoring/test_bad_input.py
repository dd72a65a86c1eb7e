"""What cannot be scored is one line and exit code 2, and the work done so far is kept."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from evaluation.extractors.extractor_export import seal
from tests.support.evaluation.commands import one_line, run, score
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.image_files import write_pictures
from tests.support.tiny_generator import tiny_generator, write_tiny_generator


def kept(workspace: Path) -> dict:
    """The one partial result in the work folder."""
    (path,) = (workspace / "report" / ".partial").glob("*/partial.json")
    assert not (workspace / "report" / "report.json").exists()
    return json.loads(path.read_text(encoding="utf-8"))


def altered(path: Path, to: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A copy of an extractor file with other weights, sealed again so that it is sound but for them."""
    model = onnx.load(path)
    weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    change(weights)
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    result = {p.key: p.value for p in model.metadata_props if p.key not in ("digest", "created", "format_version")}
    del model.metadata_props[:]
    seal(model, result)
    onnx.save(model, to)
    return to


def test_score_of_an_empty_source_is_one_line(workspace: Path) -> None:
    (workspace / "nothing").mkdir()
    np.save("none.npy", np.zeros((0, 8, 8, 1), np.uint8))
    assert "no images" in one_line(run(*score("nothing")))
    assert "needs 2 images or more, not 0" in one_line(run(*score("none.npy")))


def test_score_of_one_image_is_one_line(workspace: Path) -> None:
    (workspace / "one").mkdir()
    (workspace / "one" / "only.png").write_bytes((workspace / "pictures/test/000.png").read_bytes())
    assert "needs 2 images or more, not 1" in one_line(run(*score("one")))
    assert "equal to 2" in run(*score("g.onnx", "--num-images", 1)).output, "not by asking either"
    line = one_line(run("reference", "folder:one", "--extractor", "e.onnx", "--output", "r.npz"))
    assert "need 2 images or more; folder:" in line


def test_score_of_truncated_images_names_or_omits_them(workspace: Path) -> None:
    """More than one in a hundred is refused by name; fewer are left out, which the report says."""
    cut = workspace / "pictures/train/007.png"
    cut.write_bytes(cut.read_bytes()[:60])
    line = one_line(run(*score("folder:pictures@train")))
    assert "007.png" in line
    assert "repair or remove" in line
    many = workspace / "many"
    write_pictures(many, n_train=120, n_test=0)
    (many / "train/003.png").write_bytes(b"\x89PNG cut short")
    done = run(*score("many/train"))
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["n"] == 119
    assert "1 broken images were skipped" in report["warnings"]


@pytest.mark.parametrize("packed", [False, True])
def test_score_of_files_of_mixed_modes_warns(workspace: Path, packed: bool) -> None:
    folder, random = workspace / "mixed", np.random.default_rng(0)
    folder.mkdir()
    for i, mode in enumerate(["RGBA"] * 3 + ["P"] * 2 + ["RGB"] * 25):
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i:02d}.png")
    if packed:
        shutil.make_archive("mixed", "zip", folder)
    warning = "5 of 30 images were P/RGBA and were converted to RGB, transparency laid over white"
    done = run(*score("mixed.zip" if packed else "mixed"))
    assert done.exit_code == 0, done.output
    assert warning in " ".join(done.stderr.split())
    assert warning in json.loads((workspace / "report/report.json").read_text(encoding="utf-8"))["warnings"]
    assert warning in (workspace / "report/report.html").read_text(encoding="utf-8")
    for file in folder.glob("0[0-4].png"):
        file.unlink()
    assert run(*score("mixed")).exit_code == 0
    assert "converted" not in (workspace / "report/report.json").read_text(encoding="utf-8"), (
        "files of one mode need no warning"
    )


def test_score_of_identical_images_reports_collapse(workspace: Path) -> None:
    same = tiny_generator()
    (weight,) = (tensor for tensor in same.graph.initializer if tensor.name == "W")
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)), "W"))
    from tests.support.tiny_generator import digest, set_metadata

    set_metadata(same, digest=digest(same))
    onnx.save(same, "collapsed.onnx")
    assert "identical: the generator has collapsed" in one_line(run(*score("collapsed.onnx", "--num-images", 100)))
    assert kept(workspace)["n"] == 100


def test_score_of_constant_features_is_one_line(workspace: Path) -> None:
    def blind(weights: dict[str, np.ndarray]) -> None:
        weights["W"][:] = 0

    altered(workspace / "e.onnx", workspace / "blind.onnx", blind)
    line = one_line(run(*score("g.onnx", extractor="blind.onnx")))
    assert "all have the same features" in line


def test_score_of_features_not_finite_is_one_line(workspace: Path) -> None:
    def nan(weights: dict[str, np.ndarray]) -> None:
        weights["W"][0, 0] = np.nan

    altered(workspace / "e.onnx", workspace / "nan.onnx", nan)
    assert "not finite; is it damaged?" in one_line(run(*score("g.onnx", extractor="nan.onnx")))


def test_score_of_more_features_than_images_warns(workspace: Path) -> None:
    write_tiny_extractor(workspace / "wide.onnx", dim=90)
    done = run(*score("g.onnx", "--num-images", 80, extractor="wide.onnx"))
    assert done.exit_code == 0, done.output
    assert "WARNING: 80 images for 90 features: the covariance is singular" in done.stderr
    assert "WARNING: 40 reference images for 90 features" in done.stderr


def test_score_without_a_distance_does_not_warn_of_few_images(workspace: Path) -> None:
    write_tiny_extractor(workspace / "wide.onnx", dim=90)
    done = run(*score("g.onnx", "--num-images", 80, "--metrics", "kid", "--kid-subset-size", 20, extractor="wide.onnx"))
    assert done.exit_code == 0, done.output
    assert "for 90 features" not in done.output


def test_score_with_a_wrong_digest_is_one_line(workspace: Path) -> None:
    write_tiny_generator(workspace / "forged.onnx", digest="0" * 64)
    assert "changed after" in one_line(run(*score("forged.onnx")))
    model = onnx.load(workspace / "e.onnx")
    model.graph.node[0].name = "other"
    onnx.save(model, workspace / "bent.onnx")
    assert "its digest does not match" in one_line(run(*score("g.onnx", extractor="bent.onnx")))


def test_score_against_another_extractors_statistics_is_one_line(workspace: Path) -> None:
    assert run("reference", "folder:pictures@test", "--extractor", "e.onnx", "--output", "r.npz").exit_code == 0
    write_tiny_extractor(workspace / "other.onnx", seed=4)
    line = one_line(run("score", "g.onnx", "--reference", "r.npz", "--extractor", "other.onnx", "-o", "report"))
    assert "was made with extractor tiny" in line
    assert "cannot be compared" in line


def test_score_of_a_service_that_returns_html_is_one_line(workspace: Path) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html><body>It works!</body></html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    line = one_line(run(*score(f"http://127.0.0.1:{server.server_address[1]}")))
    server.shutdown()
    server.server_close()
    assert "text/html" in line
    assert "not a GAN Atelier service" in line


def test_score_of_mixed_sizes_needs_a_resolution(workspace: Path) -> None:
    (workspace / "mixed").mkdir()
    rng = np.random.default_rng(0)
    for index in range(20):
        side, mode = (8, 12)[index % 2], ("L", "RGB")[index % 3 == 0]
        shape = (side, side) if mode == "L" else (side, side, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(workspace / "mixed" / f"{index}.png")
    assert "different sizes (8x8, 12x12, ...)" in one_line(run(*score("mixed")))
    done = run(*score("mixed", "--resolution", "reference"))
    assert done.exit_code == 0, done.output
    assert "images of another size were resized to 8x8 (crop centre-square, pil-bilinear)" in done.stderr
    report = json.loads((workspace / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["source"]["resize"] == "pil-bilinear"
    assert report["source"]["channels"] == 3, "one picture in colour makes all of them so"
