"""Faster forms of a generator's graph, kept only where they gain: int8 for CPUs, float16 for GPUs.

int8 is static: uint8 activations whose ranges are calibrated on latents of the seed contract, int8 weights with one
scale per channel, as QuantizeLinear/DequantizeLinear pairs that ONNX Runtime turns into its int8 kernels.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import onnx

from artifacts.generator_file import digest
from artifacts.images.resolution import resolution_of
from artifacts.latents import ZDistribution
from artifacts.onnx_metadata import metadata_of
from trainer.errors import TrainerError
from trainer.onnx_export import benchmark
from trainer.onnx_export.benchmark import Feed, Scorer
from trainer.onnx_export.conv_transpose_rewrite import rewrite
from trainer.onnx_export.exporter import (
    load_generator_file,
    make_feed,
    metadata_at,
    output_path,
    remove_notes,
    set_metadata,
    write_model,
)
from trainer.training import run_folder

Method = Literal["fp16", "int8"]

# Neither those that verify an export, nor those of images that are scored, from seed 0 on.
CALIBRATION_SEEDS = range(2_000_000, 2_000_256)
MIN_GAIN = 1.05  # times float32's images/s at DECIDING_BATCH; less is not worth any difference
DECIDING_BATCH = 16
MAX_MEAN_DIFFERENCE = 2.0  # levels of 255
MAX_SCORE_LOSS = 0.01  # of the Fréchet distance, relative
UNSCORED_IMAGES = 1024


@dataclass(frozen=True)
class OptimizationResult:
    """What was written."""

    path: Path
    report: dict[str, Any]  # the JSON document next to the file: what was requested, and the figures that decided

    @property
    def digest(self) -> str:
        """The digest of the generator file."""
        return str(self.report["digest"])

    @property
    def report_path(self) -> Path:
        """The JSON report next to the generator file."""
        return self.path.with_suffix(".optimize.json")

    def summary(self) -> list[str]:
        """Return the report for people, one line each."""
        report, method, off = self.report, self.report["asked"], self.report["difference"]
        plain, optimized = report["bytes"].values()
        rows = [("", "fp32", method, "")]
        rows += [("size", f"{plain / 1000:,.0f} kB", f"{optimized / 1000:,.0f} kB", f"x {optimized / plain:.2f}")]
        for batch, rates in report["images_per_s"].items():
            before, after, ratio = rates.values()
            rows += [(f"images/s, batch {batch}", f"{before:,.0f}", f"{after:,.0f}", f"x {ratio:.2f}")]
        if off["score_change"] is not None:
            scores = f"{off['plain_score']:.3f}", f"{off['optimized_score']:.3f}"
            rows += [(off["metric"], *scores, f"{off['score_change']:+.2%}")]
        first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [
            "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], rest, strict=True))])
            for row in rows
        ]
        lines.append(
            f"pixels differ by {off['mean']:.3f} levels of 255 on average and {off['maximum']} at most, "
            f"{off['changed']:.1%} of them at all, on {off['images']:,} latents"
        )
        kept = f"kept float32: {report['why']} (--force writes {method} anyway)"
        lines.append(kept if report["written"] == "none" else f"{method}: {report['why']}")
        return [line.rstrip() for line in lines]


def load_plain(path: Path, name: str | None = None) -> onnx.ModelProto:
    """Return the model of a float32 generator file, under another name if one is given.

    Raises:
        TrainerError: If the file is not a generator file, was altered, or is optimized already.
    """
    model = load_generator_file(path, name)
    if method := metadata_of(model).get("optimize"):
        raise TrainerError(f"{path} is {method} already; optimize the float32 file")
    return model


def check_replaceable(path: Path, method: Method) -> None:
    """Raise TrainerError if a file at `path` holds another optimized form, which would be lost."""
    existing = (metadata_at(path) or {}).get("optimize", method)
    if existing != method:
        raise TrainerError(f"{path} holds the {existing} form; give another --output or --name for {method}")


def optimize(
    plain: onnx.ModelProto,
    output: Path,
    method: Method,
    *,
    source: Path,
    scorer: Scorer | None = None,
    num_images: int = 10_000,
    force: bool = False,
) -> OptimizationResult:
    """Write a generator file's faster form where it is faster and as good, otherwise the float32 model.

    A report is written next to the file.

    Args:
        plain: The model of a float32 generator file.
        output: A folder, or the path of the .onnx file.
        method: int8 for CPUs with VNNI, fp16 for GPUs.
        source: The run, checkpoint or generator file that `plain` was made from.
        scorer: Scores the images of both models; None leaves the score out.
        num_images: How many images are compared and scored, from seed 0 on (1,024 without a scorer).
        force: Whether to write the faster form in any case.

    Returns:
        What was written, and the figures that decided.

    Raises:
        TrainerError: If there is nothing to optimize, the output is the source, or the file cannot be written.
    """
    import onnxruntime

    properties = metadata_of(plain)
    path = output_path(properties["name"], output)
    if path.exists() and source.exists() and path.samefile(source):
        raise TrainerError(
            f"this would replace {source}, the float32 file it is made from; give another --output or --name"
        )
    check_replaceable(path, method)
    if scorer:
        scorer.check_resolution(resolution_of(int(properties["height"]), int(properties["width"])))
    z_distribution = cast(ZDistribution, properties["z_distribution"])
    latent = (int(properties["z_dim"]), z_distribution, len(json.loads(properties["class_names"])))

    # The scores are those of the float32 images, and the digest changes.
    kept = {key: text for key, text in properties.items() if key != "digest" and not key.startswith("evaluation.")}
    if method == "int8":
        optimized = to_int8(plain, feeds(CALIBRATION_SEEDS, *latent))
        seeds = [CALIBRATION_SEEDS.start, CALIBRATION_SEEDS.stop - 1]
        kept["calibration"] = json.dumps({"method": "minmax", "seeds": seeds})
    else:
        optimized = to_fp16(plain)
    set_metadata(optimized, kept | {"optimize": method})
    onnx.checker.check_model(optimized, full_check=True)

    machine = benchmark.machine()
    on_gpu = method == "fp16" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    provider = "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"
    sessions = benchmark.make_session(plain, provider), benchmark.make_session(optimized, provider)
    largest = max(benchmark.BATCHES)
    feed = next(feeds(range(largest), *latent, batch=largest))
    throughputs = {
        batch: benchmark.measure(*sessions, {key: rows[:batch] for key, rows in feed.items()})
        for batch in benchmark.BATCHES
    }
    compared = range(num_images if scorer else UNSCORED_IMAGES)
    difference = benchmark.compare_outputs(*sessions, feeds(compared, *latent, batch=64), scorer)

    keep, why = _decide(method, throughputs[DECIDING_BATCH].ratio, difference, on_gpu, force)
    chosen = optimized if keep else plain
    report = {
        "file": path.name,
        "digest": digest(chosen),
        "asked": method,
        "written": method if keep else "none",  # "none" is the float32 model
        "why": why,
        "provider": provider,
        "bytes": {"fp32": plain.ByteSize(), method: optimized.ByteSize()},
        "images_per_s": {
            str(batch): {"fp32": round(one.plain, 1), method: round(one.optimized, 1), "ratio": round(one.ratio, 3)}
            for batch, one in throughputs.items()
        },
        "difference": difference,
        "machine": machine,
    }
    result = OptimizationResult(path, report)
    write_model(chosen, path)
    run_folder.write_text(result.report_path, json.dumps(report, indent=2) + "\n")
    return result


def _decide(method: Method, ratio: float, difference: Mapping[str, Any], on_gpu: bool, force: bool) -> tuple[bool, str]:
    """Return whether to keep the optimized model, and why."""
    gain = f"{ratio:.2f} times float32's images/s on {'the GPU' if on_gpu else 'this CPU'}"
    mean, change = difference["mean"], difference["score_change"]
    against = []
    if method == "fp16" and not on_gpu:
        against.append(
            f"float16 is for GPUs, a CPU computes it in float32: {gain}; --force writes it for a GPU elsewhere"
        )
    elif ratio < MIN_GAIN:
        without_vnni = method == "int8" and benchmark.has_vnni() is False
        against.append(f"it is not faster: {gain}" + (", which has no VNNI" if without_vnni else ""))
    if mean > MAX_MEAN_DIFFERENCE:
        against.append(f"its pixels are off by {mean:.2f} levels on average, {MAX_MEAN_DIFFERENCE:g} at most")
    if change is not None and change > MAX_SCORE_LOSS:
        against.append(f"its {difference['metric']} is {change:.1%} worse, {MAX_SCORE_LOSS:.0%} at most")
    if not against:
        return True, gain
    return force, "forced, though " * force + "; ".join(against)


def feeds(seeds: range, z_dim: int, z_distribution: ZDistribution, classes: int = 0, batch: int = 32) -> Iterator[Feed]:
    """Yield a session's inputs for these seeds in batches."""
    for start in range(seeds.start, seeds.stop, batch):
        yield make_feed(range(start, min(start + batch, seeds.stop)), z_dim, z_distribution, classes)


def to_int8(model: onnx.ModelProto, calibration: Iterator[Feed]) -> onnx.ModelProto:
    """Return the model with its inner layers in int8, without metadata.

    The first and the last layer stay float32, as do the class's scale and shift of a conditional generator.

    Args:
        model: A float32 generator.
        calibration: Inputs that the ranges of activations are taken from.

    Raises:
        TrainerError: If there is no layer to quantize.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Feed | None:
            return next(calibration, None)

    rewritten = rewrite(model)
    if not rewritten.quantized:
        raise TrainerError(
            "int8 has nothing to quantize: the first and the last layer stay float32, and this generator has no "
            "layer between them that could be quantized; export it with --optimize none or fp16"
        )
    with tempfile.TemporaryDirectory() as folder, _only_errors():
        written = Path(folder) / "int8.onnx"
        quantize_static(
            rewritten.model,
            written,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_quantize=rewritten.quantized,
            # The layout of pixels is done on bytes too, also after a class's scale and shift in float.
            extra_options={"ForceQuantizeNoInputCheck": True},
        )
        quantized = onnx.load(written)
    quantized.graph.name = model.graph.name
    del quantized.graph.value_info[:]
    return remove_notes(quantized)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with weights and layers in float16, and latents and the step to pixels in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = onnx.ModelProto()
    half.CopyFrom(model)
    for index, node in enumerate(half.graph.node):
        node.name = f"{index}_{node.op_type}"
    last = max((index for index, node in enumerate(half.graph.node) if node.op_type == "Tanh"), default=None)
    if last is None:
        raise TrainerError("fp16 requires a generator that ends in tanh, and there is none in this graph")
    with _only_errors():
        converted = convert_float_to_float16(
            half, keep_io_types=True, node_block_list=[node.name for node in half.graph.node[last + 1 :]]
        )
    OnnxModel(converted).topological_sort()  # The converter appends the casts of the inputs at the end.
    del converted.graph.value_info[:]
    return remove_notes(converted)


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Silence the quantizer's advice in the root logger, which has been followed already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
