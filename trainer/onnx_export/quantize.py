"""Faster forms of a generator's graph, same inputs and output: int8 for CPUs, float16 for GPUs.

int8 is static: uint8 activations whose ranges are calibrated on latents of the seed contract, int8 weights with a scale
a channel, written as QuantizeLinear/DequantizeLinear pairs that ONNX Runtime turns into its int8 kernels.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from artifacts.latents import ZDistribution, seeds_to_latents
from trainer.errors import TrainerError
from trainer.onnx_export.rewrite import rewrite

Optimize = Literal["none", "fp16", "int8"]

# Neither those of the check of an export, nor of the images that anyone scores from seed 0 on.
CALIBRATION_SEEDS = range(2_000_000, 2_000_256)
BATCH = 32

Feed = dict[str, np.ndarray]


def feeds(
    seeds: range, z_dim: int, z_distribution: ZDistribution, classes: int = 0, batch: int = BATCH
) -> Iterator[Feed]:
    """What a session is given for these seeds, a batch at a time: latents float32 [N, z_dim], labels int64 [N]."""
    for start in range(seeds.start, seeds.stop, batch):
        part = range(start, min(start + batch, seeds.stop))
        z, y = seeds_to_latents(part, z_dim, z_distribution, num_classes=classes)
        yield {"latents": z} if y is None else {"latents": z, "labels": y}


def int8(model: onnx.ModelProto, calibration: Iterator[Feed]) -> onnx.ModelProto:
    """The model with its inner layers in int8; without metadata. Raises TrainerError when there is nothing to do.

    The first and the last layer stay float32, as do the class's scale and shift of a conditional generator.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def get_next(self) -> Feed | None:
            return next(calibration, None)

    rewritten = rewrite(model)
    if not rewritten.quantized:
        raise TrainerError(
            "int8 has nothing to work on here: the first and the last layer stay float32, and this generator has no "
            "layer between them that could be quantised; export it with --optimize none or fp16"
        )
    with tempfile.TemporaryDirectory() as folder, _quiet():
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
            # laying out pixels is done on bytes too, behind a class's scale and shift in float as well
            extra_options={"ForceQuantizeNoInputCheck": True},
        )
        made = onnx.load(written)
    made.graph.name = model.graph.name
    return _bare(made)


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its weights and layers in float16; latents, and the step to pixels, stay float32. No metadata."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = onnx.ModelProto()
    half.CopyFrom(model)
    for index, node in enumerate(half.graph.node):
        node.name = f"{index}_{node.op_type}"
    last = max((index for index, node in enumerate(half.graph.node) if node.op_type == "Tanh"), default=None)
    if last is None:
        raise TrainerError("fp16 expects a generator that ends in tanh, and there is none in this graph")
    with _quiet():
        made = convert_float_to_float16(
            half, keep_io_types=True, node_block_list=[node.name for node in half.graph.node[last + 1 :]]
        )
    OnnxModel(made).topological_sort()  # the converter appends the casts of the inputs at the end
    return _bare(made)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what the tools note for themselves."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises, through the root logger, what has been done here already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
