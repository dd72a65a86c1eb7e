"""Weights in the files that other trainers write: nested, prefixed, averaged, half precision, safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.trainer.safetensors_files import write_safetensors
from trainer.errors import TrainerError
from trainer.onnx_export import state_dict_file


def generator(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.ConvTranspose2d(9, 8, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()
    )


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in weights.items()}


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "theirs.ckpt")
    return folder / "theirs.ckpt"


G, D, EMA = (generator(seed).state_dict() for seed in range(3))
FILES: dict[str, tuple[Any, str | None]] = {
    "alone": (EMA, None),
    "netG_state_dict": ({"netG_state_dict": EMA, "netD_state_dict": D, "epoch": 3}, None),
    "averaged of two": ({"g": G, "g_ema": EMA, "d": D, "args": {"lr": 0.1}}, "g_ema"),
    "BasicSR": ({"params": G, "params_ema": EMA}, "params_ema"),
    "Lightning": ({"state_dict": prefixed("generator", EMA) | prefixed("discriminator", D), "epoch": 3}, None),
    "Lightning by key": ({"state_dict": prefixed("net.main", EMA) | prefixed("critic", D)}, "net.main"),
    "Lightning by whole key": ({"state_dict": prefixed("a", EMA) | prefixed("b", D)}, "state_dict.a"),
    "torch.compile in DataParallel": (prefixed("module._orig_mod", EMA), None),
    "AveragedModel": (prefixed("module", EMA) | {"n_averaged": torch.tensor(4)}, None),
    "model by class": ({"model": prefixed("G", EMA) | prefixed("D", D)}, None),
}


@pytest.mark.parametrize("kind", FILES)
def test_read_finds_the_generator_of_common_checkpoints(kind: str, tmp_path: Path) -> None:
    content, key = FILES[kind]
    found = state_dict_file.read_state_dict(saved(content, tmp_path), key)
    expected = {name: value for name, value in EMA.items() if not name.endswith("num_batches_tracked")}
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("content", "key", "says"),
    [
        ({"g": G, "g_ema": EMA}, None, "several networks; choose one with --key g or --key g_ema"),
        ({"params": G, "params_ema": EMA}, "param", "has no param; it contains params, params_ema"),
        (prefixed("G", G) | prefixed("G_ema", EMA), None, "choose one with --key G or --key G_ema"),
        (prefixed("net", G) | prefixed("critic", D), None, "choose the generator with --key: net, critic"),
        ({"format_version": 1, "G": G, "G_ema": EMA}, None, "is a checkpoint of this trainer; use: trainer export"),
        ({"epoch": 3, "losses": {"g": 0.5}}, None, "contains no generator's state dict; it contains epoch, losses"),
        ({"0.weight_orig": torch.ones(2, 2), "0.weight_u": torch.ones(2)}, None, "spectral or weight normalization"),
    ],
)
def test_read_of_an_unclear_file_names_the_way_out(content: Any, key: str | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as error:
        state_dict_file.read_state_dict(saved(content, tmp_path), key)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        ("a.onnx", b"any", "is an ONNX file, which needs no import"),
        ("a.safetensors", b"", "not a safetensors file that can be read: its header is truncated"),
        ("a.safetensors", b"\xff" * 16, "its header is truncated"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"[]", "not a safetensors file"),
        (
            "a.safetensors",
            (64).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'.ljust(64),
            "w is truncated",
        ),
        (
            "a.safetensors",
            (64).to_bytes(8, "little") + b'{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'.ljust(64) + b"0",
            "unknown tensor type",
        ),
    ],
)
def test_read_of_another_kind_of_file_is_one_line(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainerError) as error:
        state_dict_file.read_state_dict(tmp_path / name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_read_of_half_precision_leaves_out_the_counters(dtype: torch.dtype, tmp_path: Path) -> None:
    half = {name: value.to(dtype) for name, value in EMA.items()}
    found = state_dict_file.read_state_dict(saved(half, tmp_path))
    assert "1.num_batches_tracked" not in found
    assert all(torch.equal(value, half[name].float()) for name, value in found.items())


def test_read_of_safetensors_gives_the_written_values(tmp_path: Path) -> None:
    tensors = EMA | {"3.weight": EMA["3.weight"].half(), "0.bias": EMA["0.bias"].bfloat16()}
    found = state_dict_file.read_state_dict(write_safetensors(tensors, tmp_path / "a.safetensors"))
    assert set(found) == {name for name in EMA if "num_batches" not in name}
    assert all(torch.equal(value, tensors[name].float()) for name, value in found.items())


@pytest.mark.parametrize(
    "names",
    [
        ["main.0", "main.1", "main.3", "main.4", "main.12"],
        ["conv1", "bn1", "conv2", "bn2", "conv10"],
        ["up.0.conv", "up.0.norm", "up.1.conv", "up.1.norm", "up.2.conv"],
    ],
)
def test_order_of_names_is_layer_norm_layer(names: list[str]) -> None:
    layer, norm = ("weight", "bias"), ("weight", "bias", "running_mean", "running_var")
    wanted = [f"{name}.{part}" for at, name in enumerate(names) for part in (norm if at % 2 else layer)]
    weights = {name: torch.ones(3, 3, 4, 4) if name.endswith("weight") else torch.ones(3) for name in wanted}
    for name in names[1::2]:
        weights[f"{name}.weight"] = torch.ones(3)
    found = state_dict_file.sort_by_name(dict(sorted(weights.items())))
    assert list(found) == wanted
