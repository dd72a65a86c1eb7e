"""Reads a generator's weights from the checkpoint files of other code, without running that code."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifacts.files import LFS_HINT, is_lfs_pointer_file
from trainer.errors import TrainerError

Weights = dict[str, Tensor]

# Where checkpoints keep a generator, in lower case and without `_state_dict`.
GENERATORS = frozenset({"generator", "netg", "net_g", "g", "gen"})
AVERAGED = frozenset({f"{name}_ema" for name in GENERATORS} | {"ema", "ema_model", "model_ema", "params_ema"})
WRAPPERS = frozenset({"state_dict", "model", "params", "weights", "module"})
DISCRIMINATORS = frozenset({"discriminator", "netd", "net_d", "d", "disc", "critic"})
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
COUNTERS = ("num_batches_tracked", "n_averaged", "num_updates")
REPARAMETRIZED = ("weight_orig", "weight_g", "parametrizations.weight.original0", "parametrizations.weight.original")
MAX_HEADER_BYTES = 100 * 2**20  # safetensors' own bound
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_state_dict(path: Path, key: str | None = None) -> Weights:
    """Return the weights of a generator, float32, in the order of the file.

    Args:
        path: A state dict or a checkpoint that holds one (torch.save), or a safetensors file.
        key: Which part of the file holds the generator, such as `g_ema` or `state_dict.generator`. None finds it, where
            only one part can be meant.

    Returns:
        The tensors by name, counters left out.

    Raises:
        TrainerError: If the file is not readable without running code, or no weights or several networks are found.
    """
    content = load_file(path)
    if isinstance(content, Mapping) and {"format_version", "G_ema"} <= content.keys():
        raise TrainerError(f"{path} is a checkpoint of this trainer; use: trainer export {shlex.quote(str(path))}")
    if key is not None:
        content = _select(content, key, path)
    tensors = _unwrap(content, path)
    named = {_strip_prefixes(name): value for name, value in tensors.items()}
    if key is None:
        named = _select_generator(named, path)
    found = {
        name: value
        for name, value in named.items()
        if value.is_floating_point() and name.rpartition(".")[2] not in COUNTERS
    }
    if not found:
        raise TrainerError(f"{path} contains no weights")
    if normalized := [name for name in found if name.endswith(REPARAMETRIZED)]:
        raise TrainerError(
            f"{path} has spectral or weight normalization ({normalized[0]}); remove it in its own code before "
            "saving: remove_spectral_norm, remove_weight_norm or parametrize.remove_parametrizations of torch.nn.utils"
        )
    if broken := [name for name, value in found.items() if not value.isfinite().all()]:
        raise TrainerError(f"{path} is from a training that diverged: {broken[0]} has NaN or infinite values")
    return {name: value.detach().float() for name, value in found.items()}


def is_safetensors(path: Path) -> bool:
    """Return whether a file is in the safetensors format, which keeps no order of its tensors."""
    return path.suffix.lower() == ".safetensors"


def load_file(path: Path) -> Any:
    """Return the content of a checkpoint file: nested mappings with tensors, on the CPU."""
    if not path.is_file():
        raise TrainerError(f"no checkpoint at {path}")
    if is_lfs_pointer_file(path):
        raise TrainerError(f"{path} is {LFS_HINT}")
    if is_safetensors(path):
        return _load_safetensors(path)
    if path.suffix.lower() == ".onnx":
        raise TrainerError(f"{path} is an ONNX file, which needs no import: put it into the served folder")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # The unpickler raises nearly anything: struct.error, IndexError, …
        reason = str(error).strip().split("\n")[0][:120] or type(error).__name__
        raise TrainerError(
            f"{path} is not a state dict ({reason}); save one with torch.save(netG.state_dict(), …): "
            "a whole pickled module would run its code here"
        ) from error


def _load_safetensors(path: Path) -> Weights:
    """Read a safetensors file: 8 bytes of the header's length, a JSON header, then the tensors' bytes."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    try:
        if len(content) < 8 + size or size > MAX_HEADER_BYTES:
            raise ValueError("its header is truncated")
        header = json.loads(content[8 : 8 + size])
        data = content[8 + size :]
        found: Weights = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, shape, (start, end) = (
                DTYPES[entry["dtype"]],
                [int(side) for side in entry["shape"]],
                entry["data_offsets"],
            )
            values = math.prod(shape)
            if min([start, *shape]) < 0 or end > len(data) or end - start != values * dtype.itemsize:
                raise ValueError(f"{name} is truncated")
            flat = torch.frombuffer(bytearray(data[start:end]), dtype=dtype) if values else torch.empty(0, dtype=dtype)
            found[name] = flat.reshape(shape)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"unknown tensor type {error}" if isinstance(error, KeyError) else str(error)
        raise TrainerError(f"{path} is not a safetensors file that can be read: {reason}") from error
    return found


def sort_by_name(weights: Weights) -> Weights:
    """Return weights in the order in which layers run, as far as names show it: layer, its norm, the next layer.

    Numbers in names count as numbers. A norm is a module whose weights are vectors.
    """
    modules: dict[str, Weights] = {}
    for name in sorted(weights, key=_natural_key):
        modules.setdefault(name.rpartition(".")[0], {})[name] = weights[name]
    layers = [inside for inside in modules.values() if any(value.dim() > 1 for value in inside.values())]
    norms = [inside for inside in modules.values() if inside not in layers]
    found: Weights = {}
    for index in range(max(len(layers), len(norms))):
        for inside in (*layers[index : index + 1], *norms[index : index + 1]):
            found |= dict(sorted(inside.items(), key=lambda item: _tensor_rank(item[0])))
    return found


def _natural_key(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _tensor_rank(name: str) -> int:
    order = ("weight", "bias", "running_mean", "running_var")
    last = name.rpartition(".")[2]
    return order.index(last) if last in order else len(order)


def _strip_prefixes(name: str) -> str:
    """Return a tensor's name without the prefixes of DataParallel and torch.compile."""
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def _select(content: Any, key: str, path: Path) -> Any:
    """Return the part of a checkpoint that `--key` names, or raise TrainerError where there is none."""
    found = _find(content, key)
    if found is None:
        raise TrainerError(f"{path} has no {key}; it contains {_list_keys(content)}")
    return found


def _find(content: Any, key: str) -> Any:
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get(key), Mapping):
        return content[key]
    parts = key.split(".")
    for length in range(1, len(parts)):  # A name may contain dots.
        inner = content.get(".".join(parts[:length]))
        if (found := _find(inner, ".".join(parts[length:]))) is not None:
            return found
    prefixed = {
        bare.removeprefix(f"{key}."): value
        for name, value in content.items()
        if (bare := _strip_prefixes(str(name))).startswith(f"{key}.")
    }
    if prefixed:
        return prefixed
    for wrapper in WRAPPERS & {str(name) for name in content}:
        if (found := _find(content[wrapper], key)) is not None:
            return found
    return None


def _unwrap(content: Any, path: Path) -> Mapping[str, Tensor]:
    """Return the state dict inside a checkpoint, or raise TrainerError where there is none, or several."""
    while isinstance(content, Mapping) and not _is_state_dict(content):
        inside = {str(name): value for name, value in content.items() if isinstance(value, Mapping)}
        known = [name for name in inside if _kind(name) in GENERATORS | AVERAGED]
        known = known or [name for name in inside if _kind(name) in WRAPPERS or name == "state_dict"]
        if len(known) > 1:
            raise TrainerError(
                f"{path} contains several networks; choose one with --key {' or --key '.join(sorted(known))}"
            )
        if not known:
            break
        content = inside[known[0]]
    if not _is_state_dict(content):
        hint = ". Name its part with --key" if isinstance(content, Mapping) else ""
        raise TrainerError(f"{path} contains no generator's state dict; it contains {_list_keys(content)}{hint}")
    return {str(name): value for name, value in content.items()}


def _select_generator(named: Weights, path: Path) -> Weights:
    """Return the generator's part of a state dict that holds a discriminator too, as Lightning's do."""
    tops: dict[str, Weights] = {}
    for name, value in named.items():
        top, _, rest = name.partition(".")
        tops.setdefault(top, {})[rest] = value
    known = [top for top in tops if top.lower() in GENERATORS | AVERAGED]
    others = [top for top in tops if top.lower() in DISCRIMINATORS]
    if len(known) > 1:
        raise TrainerError(
            f"{path} contains several networks; choose one with --key {' or --key '.join(sorted(known))}"
        )
    if others and not known:
        raise TrainerError(f"{path} contains several networks; choose the generator with --key: {', '.join(tops)}")
    return tops[known[0]] if others else named


def _kind(name: str) -> str:
    return name.lower().removesuffix("_state_dict") if name != "state_dict" else name


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())


def _list_keys(content: Any) -> str:
    return ", ".join(map(str, content))[:200] if isinstance(content, Mapping) else type(content).__name__
