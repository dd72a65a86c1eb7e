"""An optimized file keeps the contract, names its method, and is written only where it gains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from artifacts import generator_file
from evaluation.extractors.extractor import load_extractor
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.references.reference_file import save_reference
from evaluation.sources import SeedRange, open_source
from service.models.session import Runtime
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.service.served_models import load_model
from tests.support.trainer.generators import CLASSES, random_generator
from trainer.cli import app
from trainer.config.schema import Config
from trainer.onnx_export import benchmark, exporter, quantize
from trainer.onnx_export.benchmark import Throughput

Tiny = Callable[..., Config]


def write_generator(config: Config, folder: Path) -> Path:
    """A generator file as `trainer export` writes it, of a generator that was never trained."""
    model = exporter.to_onnx(random_generator(config))
    payload = {"counters": {"images_seen": 40}, "created": "2026-01-01T00:00:00+00:00"}
    exporter.set_metadata(model, exporter.build_metadata(config, payload, config.name))
    path = folder / f"{config.name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def conditional(tiny: Tiny, tmp_path: Path) -> Path:
    config = tiny(
        data={"resolution": 16, "channels": 3, "class_names": CLASSES},
        model={"g_widths": [24, 16, 8], "conditional": True},
    )
    return write_generator(config, tmp_path)


@pytest.fixture
def set_speed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the ratio of throughputs that is measured, which tests cannot leave to the machine."""

    def set_ratio(ratio: float) -> None:
        monkeypatch.setattr(benchmark, "measure", lambda *_: Throughput(100.0, 100.0 * ratio, ratio))

    return set_ratio


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.slow
@pytest.mark.parametrize("how", ["int8", "fp16"])
def test_optimized_file_is_read_by_service_and_evaluation(
    how: str, conditional: Path, tmp_path: Path, set_speed: Callable[[float], None]
) -> None:
    set_speed(2.0)
    forced = ["--force"] if how == "fp16" else []  # there is no GPU that gains by it
    code, output = run(conditional, "--optimize", how, "--output", tmp_path / "models", *forced)
    assert code == 0, output
    path = tmp_path / "models" / "tiny.onnx"
    plain, made = ({entry.key: entry.value for entry in onnx.load(one).metadata_props} for one in (conditional, path))
    assert made.pop("optimize") == how
    if how == "int8":
        assert json.loads(made.pop("calibration")) == {"method": "minmax", "seeds": [2_000_000, 2_000_255]}
    assert made.pop("digest") != plain.pop("digest")
    assert made == plain  # all the rest is carried over

    served = load_model(path, 2**30, Runtime(1, 4))  # digest, metadata and graph agree, and it runs
    assert served.metadata.name == "tiny"
    ours, theirs = (
        np.concatenate([batch.images for batch in open_source(str(one)).batches(SeedRange(0, 256), 0, 256, 64)])
        for one in (path, conditional)
    )
    off = np.abs(ours.astype(int) - theirs.astype(int))
    assert ours.shape == (256, 16, 16, 3)
    assert theirs.std() > 30  # images that differ from each other
    assert 0 < off.mean() < (1.5 if how == "int8" else 0.2)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert ("QuantizeLinear" in kinds) is (how == "int8")


@pytest.mark.slow
def test_optimize_twice_writes_equal_files(
    conditional: Path, tmp_path: Path, set_speed: Callable[[float], None]
) -> None:
    set_speed(2.0)
    for folder in ("a", "b"):
        assert run(conditional, "--optimize", "int8", "--output", tmp_path / folder)[0] == 0
    assert (tmp_path / "a" / "tiny.onnx").read_bytes() == (tmp_path / "b" / "tiny.onnx").read_bytes()


@pytest.mark.slow
def test_optimize_without_gain_writes_float32_and_the_reason(
    conditional: Path, tmp_path: Path, set_speed: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_speed(0.7)
    monkeypatch.setattr(benchmark, "has_vnni", lambda: False)
    path = tmp_path / "models" / "tiny.onnx"
    code, output = run(conditional, "--optimize", "int8", "--output", path)
    assert code == 0
    assert "kept float32: it is not faster: 0.70 times float32's images/s on this CPU, which has no VNNI" in output
    assert path.read_bytes() == conditional.read_bytes()
    report = json.loads(path.with_suffix(".optimize.json").read_text(encoding="utf-8"))
    assert (report["asked"], report["written"]) == ("int8", "none")
    assert report["digest"] == generator_file.digest(onnx.load(path))
    assert report["images_per_s"]["16"] == {"fp32": 100.0, "int8": 70.0, "ratio": 0.7}

    assert run(conditional, "--optimize", "int8", "--output", path, "--force")[0] == 0
    assert json.loads(path.with_suffix(".optimize.json").read_text(encoding="utf-8"))["written"] == "int8"
    assert path.read_bytes() != conditional.read_bytes()


@pytest.mark.slow
def test_optimize_with_a_scorer_reports_and_decides_by_score(
    conditional: Path, tmp_path: Path, set_speed: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_speed(2.0)
    extractor = load_extractor(write_tiny_extractor(tmp_path / "extractor.onnx"))
    statistics = FeatureStatistics(extractor.dim)
    noise = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    statistics.update(extractor(noise).features)
    real = {"extractor": extractor.provenance(), "image_set": {"resolution": 16}}
    save_reference(tmp_path / "real.npz", statistics, real)
    options = ("--reference", tmp_path / "real.npz", "--extractor", extractor.path, "--num-images", "1000")

    code, output = run(conditional, "--optimize", "int8", "--output", tmp_path / "models", *options)
    assert code == 0, output
    document = json.loads((tmp_path / "models" / "tiny.optimize.json").read_text(encoding="utf-8"))["difference"]
    assert (document["metric"], document["images"]) == ("fd_tiny1k", 1000)
    assert document["plain_score"] > 0
    assert document["score_change"] == pytest.approx(document["optimized_score"] / document["plain_score"] - 1)
    assert "fd_tiny1k" in output

    monkeypatch.setattr(quantize, "MAX_SCORE_LOSS", document["score_change"] - 1e-9)
    code, output = run(conditional, "--optimize", "int8", "--output", tmp_path / "models", *options)
    assert code == 0
    assert "kept float32: its fd_tiny1k is" in output

    save_reference(tmp_path / "real.npz", statistics, real | {"image_set": {"resolution": 32}})
    code, output = run(conditional, "--optimize", "int8", "--output", tmp_path / "models", *options)
    assert (code, output.count("\n")) == (2, 1)
    assert "make a reference with --resolution 16" in output


@pytest.mark.slow
def test_measure_of_equal_models_has_a_ratio_near_one(conditional: Path) -> None:
    model = onnx.load(conditional)
    session = benchmark.make_session(model, threads=1)
    feed = {"latents": np.zeros((4, 4), np.float32), "labels": np.zeros(4, np.int64)}
    document = benchmark.measure(session, benchmark.make_session(model, threads=1), feed, rounds=5, turn_seconds=0.02)
    assert document.plain > 0
    assert 0.2 < document.ratio < 5  # the same model twice, on a machine that may be doing much else


@pytest.mark.slow
def test_optimize_without_inner_layers_raises(tiny: Tiny, tmp_path: Path) -> None:
    code, output = run(write_generator(tiny(), tmp_path), "--optimize", "int8", "--output", tmp_path / "models")
    assert (code, output.count("\n")) == (2, 1)
    assert "int8 has nothing to quantize" in output
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_optimize_invalid_input_raises_one_line(
    conditional: Path, tmp_path: Path, set_speed: Callable[[float], None]
) -> None:
    set_speed(2.0)
    done = tmp_path / "done.onnx"
    assert run(conditional, "--optimize", "int8", "--output", done)[0] == 0
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    altered = onnx.load(conditional)
    altered.metadata_props[0].value += "x"
    onnx.save(altered, tmp_path / "altered.onnx")
    for arguments, words in (
        ((done, "--optimize", "int8"), "is int8 already"),
        ((tmp_path / "junk.onnx", "--optimize", "int8"), "not an ONNX file"),
        ((tmp_path / "none.onnx", "--optimize", "int8"), "there is no file"),
        ((tmp_path / "altered.onnx", "--optimize", "int8"), "digest does not match"),
        ((conditional, "--optimize", "int8", "--name", "../x"), "a model's name has"),
        ((conditional, "--optimize", "int8", "--extractor", done), "needs both"),
        ((conditional, "--force"), "belong to --optimize"),
        ((conditional, "--optimize", "int8", "--output", conditional / "models"), "could not write"),
    ):
        code, output = run(*arguments)
        assert (code, output.count("\n")) == (2, 1), output
        assert words in output


@pytest.mark.slow
def test_optimize_fp16_on_a_cpu_writes_float32(
    conditional: Path, tmp_path: Path, set_speed: Callable[[float], None]
) -> None:
    set_speed(2.0)
    code, output = run(conditional, "--optimize", "fp16", "--output", tmp_path / "models")
    assert code == 0
    assert "float16 is for GPUs" in " ".join(output.split())
    assert (tmp_path / "models" / "tiny.onnx").read_bytes() == conditional.read_bytes()


@pytest.mark.slow
def test_optimize_never_replaces_its_source(conditional: Path) -> None:
    before = conditional.read_bytes()
    for output in (conditional, conditional.parent):
        code, output = run(conditional, "--optimize", "int8", "--output", output, "--name", conditional.stem)
        assert code == 2
        assert "would replace" in " ".join(output.split())
    assert conditional.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--optimize", "int8", "--num-images", "50"], "--num-images needs a score"),
        (["--optimize", "none"], "is a generator file already"),
        ([], "is a generator file already"),
    ],
)
def test_export_options_without_effect_raise(options: list[str], says: str, conditional: Path, tmp_path: Path) -> None:
    code, output = run(conditional, "--output", tmp_path, *options)
    assert code == 2
    assert says in " ".join(output.split())
