"""Exports a checkpoint as a generator file: one self-describing ONNX file, verified before it gets its name.

Its inputs are `latents` float32 [N, z_dim] and, for a class-conditional generator, `labels` int64 [N]; its output is
`images` uint8 [N, H, W, C]. The metadata holds all that a reader needs, sealed by a digest (artifacts.generator_file).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from artifacts.files import LFS_HINT, atomic_path, is_lfs_pointer_file
from artifacts.generator_file import FORMAT_VERSION, digest
from artifacts.latents import ZDistribution, seeds_to_latents
from artifacts.onnx_metadata import metadata_of
from artifacts.typer_group import command_name
from trainer import __version__
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.finetune.record import to_public_json
from trainer.networks import Generator
from trainer.onnx_export import benchmark
from trainer.reports import image_grids
from trainer.run_names import checked_name, is_onnx_path, redact_path
from trainer.training import checkpoint as checkpoints

if TYPE_CHECKING:
    import onnx

OPSET = 18
VERIFY_SEEDS = range(1_000_000, 1_000_064)  # not those of the training grids


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote."""

    path: Path
    name: str  # of the model, in the service and its URLs
    digest: str
    size: int  # bytes
    max_difference: int  # levels of 255, torch against ONNX Runtime
    changed_values: int  # how many of the `compared` pixel values differ at all
    compared: int
    replaced: str | None = None  # a description of the file that was replaced

    def summary(self) -> list[str]:
        """Return lines for the user: the file, how far it is from torch, and how to serve it."""
        levels = "1 level" if self.max_difference == 1 else f"{self.max_difference} levels"
        lines = [
            f"exported: {self.path} ({self.size / 1000:,.0f} kB, sha256 {self.digest[:12]}…); torch and ONNX Runtime "
            f"differ by at most {levels}, in {self.changed_values:,} of {self.compared:,} values"
        ]
        if self.replaced is not None:
            lines.append(f"it replaced {self.replaced}; --name or --output keeps both")
        folder = shlex.quote(str(self.path.parent))
        lines.append(
            f"to serve it: MODEL_DIR={folder} {command_name('python')} -m service serve; an image of it: "
            f"curl -o {self.name}-7.png http://127.0.0.1:3000/v1/models/{self.name}/images/7.png"
        )
        return lines


def require_runtime() -> None:
    """Raise TrainerError when a library that exporting needs is missing: before a training, not after."""
    for module, extra in (("onnx", "train"), ("onnxscript", "train"), ("onnxruntime", "cpu")):
        if importlib.util.find_spec(module) is None:
            raise TrainerError(f"exporting needs {module}: pip install '.[{extra}]' in the checkout")


def require_writable(output: Path) -> None:
    """Raise TrainerError when `export` could not write to `output`: before a training, not after."""
    wanted = output.parent if is_onnx_path(output) else output
    existing = next(folder for folder in (wanted.absolute(), *wanted.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise TrainerError(f"could not write the export to {output}: {existing} is not a writable folder")


def export(
    checkpoint: Mapping[str, Any],
    output: Path,
    *,
    name: str | None = None,
    ema: bool = True,
    user_code: bool = False,
) -> ExportResult:
    """Write the generator file of a checkpoint.

    Args:
        checkpoint: The content of a checkpoint, as checkpoint.read returns it.
        output: The path of the file, or a folder to put `<name>.onnx` in.
        name: The model's name; by default the config's, with `-last` for the weights of the last step.
        ema: Whether to export the averaged generator, or G's weights of the last step.
        user_code: Whether the checkpoint's architecture may be imported from a user's module.

    Returns:
        What was written.

    Raises:
        TrainerError: If the architecture may not be imported, ONNX Runtime's images differ from torch's by more than
            one level, or the file cannot be written. What was at `output` stays then.
    """
    model, differences = make_model(checkpoint, name, ema=ema, user_code=user_code)
    name = metadata_of(model)["name"]
    path = output_path(name, output)
    replaced = describe_file(path)
    write_model(model, path)
    return ExportResult(path, name, digest(model), path.stat().st_size, *differences, replaced)


def make_model(
    checkpoint: Mapping[str, Any], name: str | None = None, *, ema: bool = True, user_code: bool = False
) -> tuple[onnx.ModelProto, tuple[int, int, int]]:
    """Return the model that `export` writes, and how far its images are from torch's, as `verify` returns it."""
    require_runtime()
    config = checkpoints.config_of(checkpoint)
    name = checked_name(name or (config.name if ema else f"{config.name}-last"))
    G = checkpoints.generator_of(checkpoint, ema=ema, user_code=user_code)
    model = to_onnx(G)
    set_metadata(model, build_metadata(config, checkpoint, name, ema=ema))
    return model, verify(model, G, config)


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
    model = load_generator_file(source, name)
    path = output_path(name, output)
    write_model(model, path)
    return path, digest(model)


def load_generator_file(path: Path, name: str | None = None) -> onnx.ModelProto:
    """Return the model of a generator file, under another name if one is given.

    Raises:
        TrainerError: If the file cannot be read or its digest does not match, or the name is not valid.
    """
    import onnx

    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise TrainerError(f"there is no file {path}") from error
    except Exception as error:  # protobuf and onnx raise their own types
        what = LFS_HINT if is_lfs_pointer_file(path) else "not an ONNX file that can be read"
        raise TrainerError(f"{path} is {what}") from error
    properties = metadata_of(model)
    if properties.pop("digest", None) != digest(model):
        raise TrainerError(f"{path} is not a generator file, or was altered: its digest does not match its content")
    if name is not None and name != properties["name"]:
        set_metadata(model, properties | {"name": checked_name(name)})
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, atomically; raise TrainerError if it cannot be written."""
    try:
        with atomic_path(path) as partial:
            partial.write_bytes(model.SerializeToString())
    except OSError as error:
        raise TrainerError(f"could not write {path}: {error.strerror or error}") from error


def output_path(name: str, output: Path) -> Path:
    """Return the path of a model's file: `output`, or in it where that is a folder."""
    return output if is_onnx_path(output) else output / f"{name}.onnx"


def describe_file(path: Path) -> str | None:
    """Return what the generator file at `path` holds, for the user whose file is replaced; None where there is none."""
    properties = metadata_at(path)
    if not properties:
        return None if properties is None else "a file that is not a generator file"
    dataset, created, known = (properties.get(key, "unknown") for key in ("dataset", "created", "digest"))
    return f"a generator of {dataset}, made at {created} (sha256 {known[:12]}…)"


def metadata_at(path: Path) -> dict[str, str] | None:
    """Return the metadata of the ONNX file at `path`, empty for a file of another kind; None where there is none."""
    import onnx

    try:
        return metadata_of(onnx.load(path, load_external_data=False))
    except FileNotFoundError:
        return None
    except Exception:  # protobuf and onnx raise their own types
        return {}


class ToUint8(nn.Module):
    """A generator with the contract's output: float32 [N, z_dim] and int64 [N] → uint8 [N, H, W, C]."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G = G

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the images of latents."""
        return image_grids.to_uint8(self.G(latents, labels))


def to_onnx(G: Generator) -> onnx.ModelProto:
    """Return the graph of a generator in evaluation mode, N dynamic, without metadata."""
    example = {"latents": torch.from_numpy(seeds_to_latents(range(2), G.z_dim)[0])}
    if G.classes:
        example["labels"] = torch.zeros(2, dtype=torch.int64)
    n = torch.export.Dim("N", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ToUint8(G).eval(),
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
    return remove_notes(program.model_proto)


def remove_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what tools note in a model for themselves, such as source paths of this machine, and return it."""
    graph = model.graph
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, model):
        del item.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    return model


def build_metadata(config: Config, checkpoint: Mapping[str, Any], name: str, *, ema: bool = True) -> dict[str, str]:
    """Return the metadata of a generator file, without the digest."""
    data, model = config.data, config.model
    document = config.model_dump(mode="json")
    document["data"]["source"] = redact_path(data.source)
    parent = checkpoints.parent_of(checkpoint)
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "architecture": model.architecture,
        "z_dim": str(model.z_dim),
        "z_distribution": model.z_distribution,
        "height": str(data.height),
        "width": str(data.width),
        "channels": str(data.channels),
        "dataset": redact_path(data.source),
        "class_names": json.dumps(config.data.class_names if model.conditional else [], ensure_ascii=False),
        "images_seen": str(checkpoint["counters"]["images_seen"]),
        "ema": "true" if ema and config.ema.halflife_kimg > 0 else "false",
        "config": json.dumps(document),
        "created": checkpoint["created"],  # the weights' time, so that two exports of a checkpoint are equal
        **({"imported": checkpoint["imported"]} if "imported" in checkpoint else {}),
        **({"parent": to_public_json(parent, redact_path(str(parent.get("dataset", "?"))))} if parent else {}),
    }


def set_metadata(model: onnx.ModelProto, properties: Mapping[str, str]) -> None:
    """Replace the model's metadata, and add the digest over both."""
    import onnx

    model.producer_name, model.producer_version = "gan-atelier", __version__
    onnx.helper.set_model_props(model, dict(properties))
    model.metadata_props.add(key="digest", value=digest(model))


def make_feed(seeds: range, z_dim: int, z_distribution: ZDistribution, classes: int) -> dict[str, np.ndarray]:
    """Return a session's inputs for these seeds: latents float32 [N, z_dim], labels int64 [N]."""
    latents, labels = seeds_to_latents(seeds, z_dim, z_distribution, num_classes=classes)
    return {"latents": latents} if labels is None else {"latents": latents, "labels": labels}


def verify(model: onnx.ModelProto, G: Generator, config: Config) -> tuple[int, int, int]:
    """Check the model of a generator file, and compare its images with torch's.

    Returns:
        The largest difference in levels of 255, how many values differ, and how many were compared.

    Raises:
        TrainerError: If a value differs by more than one level.
    """
    import onnx

    onnx.checker.check_model(model, full_check=True)
    feed = make_feed(VERIFY_SEEDS, G.z_dim, config.model.z_distribution, G.classes)
    (theirs,) = benchmark.make_session(model).run(["images"], feed)
    ours = image_grids.sample(G, VERIFY_SEEDS, config.model.z_distribution)
    if theirs.shape != ours.shape or theirs.dtype != np.uint8:
        raise TrainerError(f"the exported graph gives {theirs.dtype} {theirs.shape}, torch gives {ours.shape}")
    difference = np.abs(theirs.astype(np.int16) - ours.astype(np.int16))
    if difference.max() > 1:
        raise TrainerError(
            f"the exported graph differs from torch by up to {difference.max()} levels of 255; nothing was written"
        )
    return int(difference.max()), int((difference > 0).sum()), difference.size
