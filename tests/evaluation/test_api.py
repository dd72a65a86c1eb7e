"""The Python interface, and `evaluation fid`: the same numbers as the commands, for anything that has images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluation
from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from evaluation.metrics import Metric, MetricValue
from evaluation.metrics.frechet import frechet_distance
from evaluation.sources.resized import resize
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.fake_service import fake_service, noise
from tests.support.evaluation.tiny_extractor import write_tiny_extractor

E = {"extractor": "e.onnx"}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def images(n: int = 60) -> np.ndarray:
    return np.stack([noise(seed) for seed in range(n)])


def test_score_of_an_array_has_values_provenance_and_report(workspace: Path) -> None:
    scores = evaluation.score(images(), "pictures@test", ["fid", "recall"], **E)
    assert list(scores) == ["fd_tiny60", "recall_tiny60"]
    score = scores["fd_tiny60"]
    features = load_extractor("e.onnx")(images()).features.astype(np.float64)
    report = scores.to_dict()
    reference = np.load(report["reference"]["path"])
    expected = frechet_distance(features.mean(0), np.cov(features, rowvar=False), reference["mu"], reference["sigma"])
    assert score == pytest.approx(expected, rel=1e-9)
    assert (score.metric, score.n, score.n_reference, score.interval) == ("fid", 60, 40, None)
    assert score.baseline == report["baseline"]["scores"]["fd_tiny60"]
    assert score.provenance["extractor_digest"] == load_extractor("e.onnx").digest
    assert report["source"]["kind"] == "array"
    assert "fd_tiny60 = " in repr(scores)
    assert not list(workspace.glob("report*")), "nothing is written without output"


def test_score_equals_the_command_and_writes_the_same_report(workspace: Path) -> None:
    scores = evaluation.score("g.onnx", "pictures@test", "fid", num_images=50, output="api", **E)
    words = ("--reference", "pictures@test", "--extractor", "e.onnx", "--num-images", 50, "-o", "cli")
    assert run("score", "g.onnx", *words).exit_code == 0
    ours, theirs = (json.loads(Path(name, "report.json").read_text(encoding="utf-8")) for name in ("api", "cli"))
    assert ours["results"] == theirs["results"]
    assert ours["scores"] == dict(scores)
    assert Path("api/report.html").is_file()


@pytest.mark.parametrize("seeded", [False, True])
def test_score_of_a_function_calls_it_with_seeds_or_a_number(workspace: Path, seeded: bool) -> None:
    def by_seed(seeds: np.ndarray) -> np.ndarray:
        return np.stack([noise(seed) for seed in seeds])

    def by_number(n: int) -> np.ndarray:
        return images(n)

    options = {"num_images": 60, "baseline": False, **E}
    scores = evaluation.score(by_seed if seeded else by_number, "pictures@test", **options)
    report = scores.to_dict()
    assert report["seeds"] == ({"first": 0, "last": 59} if seeded else None)
    assert scores["fd_tiny60"] == evaluation.score(images(), "pictures@test", **options)["fd_tiny60"]


def test_score_of_a_function_rejects_what_is_not_images(workspace: Path) -> None:
    for function, reason in (
        (lambda n: np.zeros((n, 8)), r"not images \[1"),
        (lambda n: np.zeros((n, 8, 8, 1)), "uint8"),
    ):
        with pytest.raises(EvaluationError, match=reason):
            evaluation.score(function, "pictures@test", num_images=20, **E)


def test_score_against_an_array_and_a_file_of_statistics(workspace: Path) -> None:
    real = images(40)
    assert evaluation.score(real, real, num_images=40, **E)["fd_tiny40"] < 1e-9
    assert run("reference", "pictures@test", "--extractor", "e.onnx", "-o", "r.npz").exit_code == 0
    scores = evaluation.score("pictures@test", "r.npz")
    assert scores["fd_tiny40"] < 1e-9, "with the extractor that the file names, of all images"


def test_score_takes_a_metric_of_a_module_and_an_object(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from evaluation.metrics import Metric, MetricValue\n"
        "MINE = Metric('mine', 'Mine', 'lower', {'statistics'}, lambda inputs: MetricValue(float(inputs.mu[0])))\n"
    )
    Path("api_metrics.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(workspace))
    mine = Metric("mine", "Mine", "lower", frozenset({"statistics"}), lambda inputs: MetricValue(float(inputs.mu[0])))
    by_name = evaluation.score(images(), "pictures@test", ["api_metrics:MINE"], **E)
    by_object = evaluation.score(images(), "pictures@test", [mine], **E)
    assert list(by_name.values()) == list(by_object.values())
    assert list(by_object) == ["mine_tiny60"]
    assert not list((workspace / "cache/references").glob("baseline-*")), "what it computes can change"


def test_fid_is_the_distance_of_two_of_anything(workspace: Path) -> None:
    zero = evaluation.fid(images(), images(), **E)
    assert zero < 1e-9
    np.save("a.npy", images())
    expected = evaluation.fid(images(), "pictures@test", **E)
    assert evaluation.fid("a.npy", "pictures@test", **E) == expected
    assert evaluation.fid("pictures@test", "a.npy", **E) == pytest.approx(expected, rel=1e-9)
    assert evaluation.fid(lambda seeds: np.stack([noise(seed) for seed in seeds]), "a.npy", num_images=60, **E) < 1e-9
    with fake_service(noise) as url:
        assert evaluation.fid(url, "a.npy", num_images=60, **E) < 1e-9


def test_fid_command_prints_name_value_and_both_numbers(workspace: Path) -> None:
    done = run("fid", "pictures@train", "pictures@test", "--extractor", "e.onnx")
    assert done.exit_code == 0, done.output
    value = evaluation.fid("pictures@train", "pictures@test", **E)
    assert done.stdout == f"fd_tiny60 = {value:.4f}  (60 images against 40; tiny, resize none)\n"
    done = run("fid", "pictures@train", "pictures@test", "--extractor", "e.onnx", "--num-images", 30, "--json")
    report = json.loads(done.stdout)
    assert (report["name"], report["n"], report["n_reference"]) == ("fd_tiny30", 30, 30)


def test_fid_of_other_sizes_warns_that_the_extractor_resizes(workspace: Path) -> None:
    np.save("big.npy", np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8))
    done = run("fid", "big.npy", "pictures@test", "--extractor", "e.onnx")
    assert done.exit_code == 0, done.output
    assert "WARNING: the images are 16x16 with 3 channels and 8x8 with 1" in done.stderr


def write_mixed_sizes(folder: Path) -> None:
    """Write 24 PNGs of three sizes."""
    folder.mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (8 + i % 3, 9, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_fid_of_mixed_sizes_names_the_option_and_takes_it(workspace: Path) -> None:
    write_mixed_sizes(workspace / "mixed")
    words = ("fid", "mixed", "pictures@test", "--extractor", "e.onnx")
    line = one_line(run(*words))
    assert "different sizes" in line
    assert "--resolution 64" in line
    done = run(*words, "--resolution", 8, "--json")
    assert done.exit_code == 0, done.output
    assert "images of mixed of another size were resized to 8x8" in done.stderr
    value = json.loads(done.stdout)["value"]
    assert evaluation.fid("mixed", "pictures@test", resolution=8, **E) == value
    assert evaluation.fid("mixed", "pictures@test", resolution="reference", **E) == value
    assert "--resolution" in one_line(run(*words, "--resolution", "large"))


def test_fid_resizes_arrays_and_generators_to_the_resolution(workspace: Path) -> None:
    big = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 1), dtype=np.uint8)
    small = resize(big, 8)
    assert evaluation.fid(big, small, resolution=8, **E) < 1e-9
    assert evaluation.fid(big, small, resolution="reference", **E) < 1e-9
    assert evaluation.fid(lambda n: big[:n], small, resolution=8, num_images=50, **E) < 1e-9
    assert run("reference", "pictures@test", "--extractor", "e.onnx", "-o", "r.npz").exit_code == 0
    assert "r.npz is of 8 px" in one_line(run("fid", "pictures@train", "r.npz", "--resolution", 16))
    assert "r.npz is of 8 px" in one_line(run("fid", "r.npz", "pictures@train", "--resolution", 16))


def test_fid_without_an_extractor_names_the_commands(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_WEIGHTS", str(workspace / "none"))
    line = one_line(run("fid", "pictures@train", "pictures@test"))
    assert "evaluation extractor inception --resize torch" in line
    assert "evaluation extractor classifier" in line
    write_tiny_extractor(workspace / "cache/extractors/inception-torch.onnx")
    assert run("fid", "pictures@train", "pictures@test").exit_code == 0, "built before"


@pytest.mark.parametrize("name", ["absent/x", "e.txt"])
def test_fid_of_nothing_is_one_line(workspace: Path, name: str) -> None:
    Path("e.txt").write_text("x", encoding="utf-8")
    one_line(run("fid", name, "pictures@test", "--extractor", "e.onnx"))


def test_import_of_the_package_stays_light() -> None:
    code = "import sys, evaluation; dir(evaluation); print({'numpy', 'onnxruntime', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert set(evaluation.__all__) == {"Score", "Scores", "fid", "score"}
    with pytest.raises(AttributeError):
        _ = evaluation.absent
