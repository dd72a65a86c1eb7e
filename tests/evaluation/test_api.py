"""The Python interface, and `evaluation fid`: the same numbers as the commands, for anything that has images."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import artifacts
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


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
def test_scores_can_be_copied_and_pickled(workspace: Path, copied: Callable[[Any], Any]) -> None:
    scores = evaluation.score(images(), "pictures@test", "fid", **E)
    other = copied(scores)
    assert (other.to_dict(), dict(other)) == (scores.to_dict(), dict(scores))
    score = copied(scores["fd_tiny60"])
    assert type(score) is evaluation.Score
    assert (float(score), vars(score)) == (float(scores["fd_tiny60"]), vars(scores["fd_tiny60"]))
    with pytest.raises(KeyError, match="there is no score 'fid'; there are fd_tiny60"):
        scores["fid"]
    assert "fid" not in scores
    assert scores.get("fid") is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_images": 0}, "num_images is a whole number, 2 or more, not 0"),
        ({"num_images": "10"}, "num_images is a whole number, 2 or more, not '10'"),
        ({"num_images": True}, "num_images is a whole number, 2 or more, not True"),
        ({"num_images": 10.0}, "num_images is a whole number, 2 or more, not 10.0"),
        ({"seed": -1}, "seed is a whole number, 0 or more, not -1"),
        ({"kid_subset_size": 0}, "kid_subset_size is a whole number, 2 or more, not 0"),
    ],
)
def test_score_of_a_wrong_number_fails(workspace: Path, arguments: dict, words: str) -> None:
    with pytest.raises(EvaluationError, match=f"^{re.escape(words)}$"):
        evaluation.score(images(), "pictures@test", **arguments, **E)
    if "num_images" in arguments:
        with pytest.raises(EvaluationError, match=f"^{re.escape(words)}$"):
            evaluation.fid(images(), "pictures@test", **arguments, **E)


def returning(compute: Callable[[Any], Any]) -> Metric:
    return Metric("mine", "Mine", "lower", frozenset({"statistics"}), compute)


def test_score_converts_what_a_user_metric_returns_in_numpy_types(workspace: Path) -> None:
    details = {"mean": np.float32(0.5), "all": np.arange(2), np.int64(3): (np.bool_(True), [np.uint8(7)])}
    mine = returning(lambda _: MetricValue(np.array([1.5], np.float32), np.float64(0.25), details))  # type: ignore[arg-type]
    scores = evaluation.score(images(), "pictures@test", mine, output="r.json", **E)
    assert (scores["mine_tiny60"], scores["mine_tiny60"].std) == (1.5, 0.25)
    written = json.loads(Path("r.json").read_text(encoding="utf-8"))["results"][0]
    assert written["details"] == {"mean": 0.5, "all": [0, 1], "3": [True, [7]]}


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (lambda _: {}["absent"], "mine failed: KeyError: 'absent'"),
        (lambda _: 3.0, "mine cannot be computed: it returned float, not evaluation.metrics.MetricValue"),
        (lambda _: None, "mine cannot be computed: it returned NoneType, not evaluation.metrics.MetricValue"),
        (lambda _: MetricValue("3"), "mine cannot be computed: its value is str, not a number"),
        (lambda _: MetricValue(np.zeros(2)), "mine cannot be computed: its value is ndarray, not a number"),
        (lambda _: MetricValue(1.0, details=[1]), "mine cannot be computed: its details are list, not a dict"),
        (lambda _: MetricValue(1.0, details={"x": {1}}), "mine cannot be computed: its details are not JSON: "),
    ],
)
def test_score_of_a_failing_user_metric_is_one_line(workspace: Path, compute: Any, words: str) -> None:
    with pytest.raises(EvaluationError, match="^" + re.escape(words)):
        evaluation.score(images(), "pictures@test", returning(compute), **E)


def test_score_of_metrics_of_another_type_fails(workspace: Path) -> None:
    for metrics in (3, [3], None):
        with pytest.raises(EvaluationError, match=r"names or evaluation\.metrics\.Metric objects, not"):
            evaluation.score(images(), "pictures@test", metrics, **E)


def test_fid_interrupted_gives_no_hint_to_resume(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluation.scoring.distance.distance_between", interrupt)
    done = run("fid", "pictures@train", "pictures@test", "--extractor", "e.onnx")
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")
    monkeypatch.setattr("evaluation.scoring.run_job.score", interrupt)
    done = run("score", "pictures@train", "--reference", "pictures@test", "--extractor", "e.onnx")
    assert (done.exit_code, done.stderr) == (130, "interrupted; `score` with the same --output resumes from here\n")


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


def test_classify_of_mixed_sizes_takes_the_resolution(workspace: Path) -> None:
    write_mixed_sizes(workspace / "mixed")
    words = ("classify", "mixed", "--extractor", "e.onnx", "--num-images", 20)
    assert "--resolution 64" in one_line(run(*words))
    done = run(*words, "--resolution", 8)
    assert done.exit_code == 0, done.output
    assert "resized to 8x8" in done.stderr


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
    assert set(evaluation.__all__) == {"EvaluationError", "Score", "Scores", "__version__", "fid", "score"}
    assert set(evaluation.__all__) <= set(dir(evaluation))
    assert evaluation.EvaluationError is EvaluationError
    assert evaluation.__version__ == artifacts.version()
    with pytest.raises(AttributeError):
        _ = evaluation.absent
