"""Checkpoint → generator file: one self-describing ONNX file, verified before it is put in place.

The contract: inputs `latents` float32 [N, z_dim]; output `images` uint8 [N, H, W, C]; everything a reader needs to
know stands in the file's metadata, sealed by a digest over all but `evaluation.*`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from artifacts.files import atomic_path
from artifacts.latents import seeds_to_labels, seeds_to_latents
from trainer import __version__
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.names import checked_name, is_onnx_path
from trainer.networks import Generator
from trainer.reports import image_grids
from trainer.training import checkpoint

if TYPE_CHECKING:
    import onnx

FORMAT_VERSION = "1"
OPSET = 18
CHECK_SEEDS = range(1_000_000, 1_000_064)  # not those of the training grids


@dataclass(frozen=True)
class Export:
    path: Path
    name: str  # of the model, in the service and its URLs
    digest: str
    size: int  # bytes
    max_difference: int  # levels, torch against ONNX Runtime
    changed_values: int  # of `compared` pixel values, how many differ at all
    compared: int
    replaced: str | None = None  # what the file was before, in words


def require_runtime() -> None:
    """Raises TrainerError when a library that exporting needs is not installed: before a training, not after."""
    for module, extra in (("onnx", "train"), ("onnxscript", "train"), ("onnxruntime", "cpu")):
        if importlib.util.find_spec(module) is None:
            raise TrainerError(f"exporting needs {module}: pip install 'gan-atelier[{extra}]'")


def require_writable(output: Path) -> None:
    """Raises TrainerError when `export` could not write there: before a training, not after."""
    wanted = output.parent if is_onnx_path(output) else output
    there = next(folder for folder in (wanted.absolute(), *wanted.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise TrainerError(f"could not write the export to {output}: {there} is not a folder one may write to")


def public(source: str) -> str:
    """A source without the folders above it, which are nobody's business: folder:/home/me/cats → folder:cats."""
    kind, colon, path = source.partition(":")
    return f"{kind}{colon}{Path(path).name}" if colon else source


class ToPixels(nn.Module):
    """A generator with the contract's tail: float32 [N, z_dim] and int64 [N] → uint8 [N, H, W, C]."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G = G

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return image_grids.to_pixels(self.G(latents, labels))


def export(payload: Mapping[str, Any], output: Path, *, name: str | None = None, ema: bool = True) -> Export:
    """Write the generator file of a checkpoint's payload to `output` (a path, or a folder to put `<name>.onnx` in).

    It holds the averaged generator, or without `ema` G's weights of the last step, by default named `<name>-last`. The
    file is checked by onnx and compared with torch on fresh latents before it takes its final name.
    Raises TrainerError when they differ by more than one level, or the file cannot be written.
    """
    require_runtime()
    config = checkpoint.config_of(payload)
    name = checked_name(name or (config.name if ema else f"{config.name}-last"))
    path = destination(name, output)
    before = in_words(path)
    G = checkpoint.generator_of(payload, ema=ema)
    model = to_onnx(G)
    describe(model, metadata(config, payload, name, ema=ema))

    try:
        with atomic_path(path) as partial:
            partial.write_bytes(model.SerializeToString())
            maximum, changed, compared = verify(partial, G, config)
    except OSError as error:
        raise TrainerError(f"could not write {path}: {error.strerror or error}") from error
    return Export(path, name, digest(model), path.stat().st_size, maximum, changed, compared, before)


def in_words(path: Path) -> str | None:
    """Return what a generator file at `path` is, for the user whose file is replaced; None where there is none."""
    import onnx

    try:
        found = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    except FileNotFoundError:
        return None
    except Exception:  # protobuf raises its own types, onnx others
        return "a file that is not a generator file"
    dataset, created, known = (found.get(key, "unknown") for key in ("dataset", "created", "digest"))
    return f"a generator of {dataset}, made at {created} (sha256 {known[:12]}…)"


def rename(source: Path, output: Path, name: str) -> tuple[Path, str]:
    """Write a generator file under another model name; weights, pixels and scores stay the same.

    Args:
        source: A generator file.
        output: A folder, or the path of the new .onnx file. It may be `source` itself.
        name: The new name of the model.

    Returns:
        The path that was written and the new digest.

    Raises:
        TrainerError: If the file is not a generator file, the name is not valid, or nothing can be written.
    """
    import onnx

    try:
        model = onnx.load(source)
    except FileNotFoundError as error:
        raise TrainerError(f"there is no file {source}") from error
    except Exception as error:  # protobuf raises its own types, onnx others
        raise TrainerError(f"{source} is not an ONNX file that can be read") from error
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if properties.pop("digest", None) != digest(model):
        raise TrainerError(f"{source} is not a generator file, or its digest does not match its content")
    del model.metadata_props[:]
    describe(model, properties | {"name": checked_name(name)})
    path = destination(name, output)
    try:
        with atomic_path(path) as partial:
            partial.write_bytes(model.SerializeToString())
    except OSError as error:
        raise TrainerError(f"could not write {path}: {error.strerror or error}") from error
    return path, digest(model)


def destination(name: str, output: Path) -> Path:
    """The path of a model's file: `output`, or in it where that is a folder."""
    return output if is_onnx_path(output) else output / f"{name}.onnx"


def to_onnx(G: Generator) -> onnx.ModelProto:
    """The graph of a generator in evaluation mode, N dynamic."""
    example = {"latents": torch.from_numpy(seeds_to_latents(range(2), G.z_dim)[0])}
    if G.classes:
        example["labels"] = torch.zeros(2, dtype=torch.int64)
    n = torch.export.Dim("N", min=1)
    quiet = (warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with quiet[0], quiet[1]:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ToPixels(G).eval(),
            tuple(example.values()),
            input_names=list(example),
            output_names=["images"],
            dynamic_shapes={name: {0: n} for name in example},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return strip(program.model_proto)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what the exporter notes for its own debugging (source paths of the machine it ran on)."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    return model


def metadata(config: Config, payload: Mapping[str, Any], name: str, *, ema: bool = True) -> dict[str, str]:
    """What the file says of itself, without the digest."""
    data, model = config.data, config.model
    described = config.model_dump(mode="json")
    described["data"]["source"] = public(data.source)
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "architecture": model.architecture,
        "z_dim": str(model.z_dim),
        "z_distribution": model.z_distribution,
        "height": str(data.resolution),
        "width": str(data.resolution),
        "channels": str(data.channels),
        "dataset": public(data.source),
        "class_names": json.dumps(config.data.class_names if model.conditional else [], ensure_ascii=False),
        "images_seen": str(payload["counters"]["images_seen"]),
        "ema": "true" if ema and config.ema.halflife_kimg > 0 else "false",
        "config": json.dumps(described),
        "created": payload["created"],  # the weights' time: two exports of a checkpoint are the same file
        **({"imported": payload["imported"]} if "imported" in payload else {}),
    }


def describe(model: onnx.ModelProto, properties: Mapping[str, str]) -> None:
    """Put the metadata into the model, and the digest over both."""
    model.producer_name, model.producer_version = "gan-atelier", __version__
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    model.metadata_props.add(key="digest", value=digest(model))


def digest(model: onnx.ModelProto) -> str:
    """sha256 over the model without metadata, then over its metadata but `digest` and `evaluation.*`, sorted."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    kept = sorted(
        (entry.key, entry.value)
        for entry in model.metadata_props
        if entry.key != "digest" and not entry.key.startswith("evaluation.")
    )
    seal = hashlib.sha256(bare.SerializeToString(deterministic=True))
    seal.update(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode())
    return seal.hexdigest()


def verify(path: Path, G: Generator, config: Config) -> tuple[int, int, int]:
    """Check the file and compare its images with torch's: (largest difference in levels, values that differ, values).

    Raises TrainerError when a value differs by more than one level.
    """
    import onnx
    import onnxruntime

    content = path.read_bytes()  # by name neither library opens a file whose name is not UTF-8
    onnx.checker.check_model(content, full_check=True)
    feed: dict[str, np.ndarray] = {"latents": seeds_to_latents(CHECK_SEEDS, G.z_dim, config.model.z_distribution)[0]}
    if (y := seeds_to_labels(CHECK_SEEDS, G.z_dim, G.classes)) is not None:
        feed["labels"] = y
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["images"], feed)
    ours = image_grids.sample(G, CHECK_SEEDS, config.model.z_distribution)
    if theirs.shape != ours.shape or theirs.dtype != np.uint8:
        raise TrainerError(f"the exported graph gives {theirs.dtype} {theirs.shape}, torch gives {ours.shape}")
    difference = np.abs(theirs.astype(np.int16) - ours.astype(np.int16))
    if difference.max() > 1:
        raise TrainerError(
            f"the exported graph differs from torch by up to {difference.max()} levels of 255; nothing was written"
        )
    return int(difference.max()), int((difference > 0).sum()), difference.size
