"""Generators as others write and save them, imported: the images are those of their own code."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from artifacts.latents import seeds_to_latents
from tests.support.trainer.safetensors_files import write_safetensors
from trainer.cli import app
from trainer.errors import TrainerError
from trainer.onnx_export import state_dict_import


def tutorial(z: int = 20, width: int = 4, channels: int = 3) -> nn.Sequential:
    """The form of the DCGAN tutorial's generator at 64 px: no biases, tanh at the end."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(z, width * 8, 4, 1, 0, bias=False)]
    for into, out in ((8, 4), (4, 2), (2, 1)):
        layers += [nn.BatchNorm2d(width * into), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(width * into, width * out, 4, 2, 1, bias=False)]
    return nn.Sequential(
        *layers,
        nn.BatchNorm2d(width),
        nn.ReLU(True),
        nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def document_28(z: int = 10) -> nn.Sequential:
    """A 28 px form with biases: 7x7 first, a 3x3 layer last."""
    return nn.Sequential(
        nn.ConvTranspose2d(z, 8, 7),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 4, 2, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 4, 2, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 3, 1, 1),
        nn.Tanh(),
    )


def fully_connected(z: int = 12) -> nn.Sequential:
    return nn.Sequential(nn.Linear(z, 16), nn.ReLU(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 64), nn.Tanh())


def trained(network: nn.Sequential) -> nn.Sequential:
    """Weights and running statistics that are not the defaults."""
    torch.manual_seed(3)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) * 0.5 + 0.1 if value.dim() == 1 else torch.randn_like(value) * 0.3)
    return network.eval()


def imported(tmp_path: Path, content: object, architecture: str, *options: str) -> Path:
    torch.save(content, tmp_path / "netG_epoch_24.pth")
    command = ["import", str(tmp_path / "netG_epoch_24.pth"), "--architecture", architecture]
    result = CliRunner().invoke(app, [*command, "--output", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    return next(tmp_path.glob("*.onnx"))


FORMS = {
    "tutorial": (tutorial, "dcgan", lambda z: z[:, :, None, None]),
    "document": (document_28, "dcgan", lambda z: z[:, :, None, None]),
    "mlp": (fully_connected, "mlp", lambda z: z),
}


@pytest.mark.parametrize("form", FORMS)
def test_import_draws_the_images_of_its_own_code(form: str, tmp_path: Path) -> None:
    make, architecture, shaped = FORMS[form]
    theirs = trained(make())
    # as DataParallel names them, inside a checkpoint of several networks
    weights = OrderedDict((f"module.main.{key}", value) for key, value in theirs.state_dict().items())
    path = imported(tmp_path, {"netG": weights, "epoch": 24}, architecture, "--dataset", "celeba")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    z = seeds_to_latents(range(5), session.get_inputs()[0].shape[1])[0]
    (ours,) = session.run(None, {"latents": z})
    with torch.no_grad():
        expected = theirs(shaped(torch.from_numpy(z)))
    side = ours.shape[1]
    pixels = ((expected.reshape(5, -1, side, side) + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(ours.astype(int) - pixels).max() <= 1
    assert pixels.std() > 5
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["name"] == "netg_epoch_24"
    assert metadata["dataset"] == "celeba"
    assert metadata["imported"].startswith("netG_epoch_24.pth, sha256 ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_import_of_diverged_weights_raises(value: float, tmp_path: Path) -> None:
    network = tutorial()
    with torch.no_grad():
        next(network.parameters())[0] = value
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(TrainerError, match=r"diverged: 0\.weight has NaN or infinite values"):
        state_dict_import.import_state_dict(tmp_path / "theirs.pth", "dcgan", name="x")


@pytest.mark.parametrize(
    ("architecture", "network", "says"),
    [
        ("mlp", tutorial(), "has 0 linear layers"),
        ("dcgan", fully_connected(), "0 transposed convolutions"),
        ("dcgan", nn.Sequential(nn.ConvTranspose2d(9, 8, 3), nn.ConvTranspose2d(8, 3, 4, 2, 1)), "first map of 3x3"),
        ("dcgan", nn.Sequential(nn.ConvTranspose2d(9, 8, 4), nn.ConvTranspose2d(8, 5, 4, 2, 1)), "gives 5 channels"),
        ("dcgan", nn.Sequential(nn.ConvTranspose2d(9, 8, 4), nn.ConvTranspose2d(7, 3, 4, 2, 1)), "gives 8 channels"),
        ("dcgan", nn.Sequential(nn.ConvTranspose2d(9, 8, 4), nn.ConvTranspose2d(8, 3, 6, 2, 2)), "4x4 (doubling)"),
        (
            "dcgan",
            nn.Sequential(nn.ConvTranspose2d(9, 8, 4), nn.ConvTranspose2d(8, 3, 4, 2, 1)),
            "does not fit: 1.weight",
        ),
        ("mlp", nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 50)), "no square image"),
        ("mlp", nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 64)), "does not fit: 1.weight"),
    ],
)
def test_import_of_layers_that_do_not_fit_names_the_layer(
    architecture: str, network: nn.Module, says: str, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(TrainerError) as error:
        state_dict_import.import_state_dict(tmp_path / "theirs.pth", architecture, name="x")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["module", "text", "numbers", "nothing"])
def test_import_of_another_file_raises_and_runs_no_code(content: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.pth"
    if content == "text":
        path.write_text("hello", encoding="utf-8")
    else:
        torch.save({"module": tutorial(), "numbers": {"lr": 3.0, "step": 4}, "nothing": {}}[content], path)
    with pytest.raises(TrainerError, match=r"state dict|contains no weights"):
        state_dict_import.import_state_dict(path, "dcgan", name="x")


@pytest.mark.parametrize(
    "options", [["--architecture", "unet"], ["--architecture", "dcgan", "--z-distribution", "cauchy"]]
)
def test_import_unknown_choice_raises(options: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["import", str(tmp_path / "x.pth"), *options])
    assert result.exit_code == 2
    assert "not" in result.output


BUILT = {
    "leaky": (nn.LeakyReLU(0.1), nn.Tanh(), 1e-5, ["--activation", "leaky-relu:0.1"]),
    "sigmoid": (nn.ReLU(), nn.Sigmoid(), 1e-5, ["--output-activation", "sigmoid"]),
    "eps": (nn.ELU(), nn.Tanh(), 0.8, ["--activation", "elu", "--batchnorm-eps", "0.8"]),
    "none": (nn.ReLU(), nn.Identity(), 1e-5, ["--output-activation", "none"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILT)
def test_import_with_the_layers_named_draws_the_same_images(kind: str, tmp_path: Path) -> None:
    between, last, eps, options = BUILT[kind]
    theirs = trained(
        nn.Sequential(
            *(nn.ConvTranspose2d(9, 8, 4), nn.BatchNorm2d(8, eps), between),
            *(nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.BatchNorm2d(4, eps), between, nn.ConvTranspose2d(4, 3, 4, 2, 1)),
            last,
        )
    )
    path = imported(tmp_path, theirs.state_dict(), "dcgan", *options)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    z = seeds_to_latents(range(5), 9)[0]
    with torch.no_grad():
        floats = theirs(torch.from_numpy(z)[:, :, None, None])
    levels = floats * 255 if kind == "sigmoid" else (floats + 1) * 127.5
    expected = levels.round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    (ours,) = session.run(None, {"latents": z})
    assert np.abs(ours.astype(int) - expected).max() <= 1
    assert expected.std() > 5
    assert options[1] in session.get_modelmeta().custom_metadata_map["imported"]


def test_import_prints_its_assumptions(tmp_path: Path) -> None:
    torch.save(trained(tutorial()).state_dict(), tmp_path / "theirs.pth")
    words = ["import", str(tmp_path / "theirs.pth"), "--architecture", "dcgan", "--output", str(tmp_path)]
    last = CliRunner().invoke(app, words).output.splitlines()[-1]
    assert last.startswith(
        "not in the file, so assumed: relu between layers, tanh at the end, BatchNorm eps 1e-05, normal latents, "
        "the strides and paddings of a DCGAN"
    )
    assert "--activation, --output-activation, --batchnorm-eps, --z-distribution" in last


def test_import_of_safetensors_draws_what_the_state_dict_does(tmp_path: Path) -> None:
    weights = trained(tutorial()).state_dict()
    torch.save(weights, tmp_path / "a.pth")
    write_safetensors(weights, tmp_path / "a.safetensors")
    one, other = (
        state_dict_import.import_state_dict(tmp_path / name, "dcgan", name="a") for name in ("a.pth", "a.safetensors")
    )
    assert one["config"] == other["config"]
    assert all(torch.equal(value, other["G_ema"][name]) for name, value in one["G_ema"].items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--activation", "swish"], "--activation is relu, leaky-relu"),
        (["--activation", "leaky-relu:x"], "takes a slope from 0 to 1, not x"),
        (["--activation", "relu:0.1"], "--activation is relu, leaky-relu"),
        (["--output-activation", "softmax"], "--output-activation is tanh, sigmoid or none"),
        (["--batchnorm-eps", "0"], "--batchnorm-eps is above 0"),
        (["--batchnorm-eps", "nan"], "--batchnorm-eps is above 0"),
    ],
)
def test_import_with_layers_that_are_not_known_is_one_line(options: list[str], says: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["import", str(tmp_path / "x.pth"), "--architecture", "dcgan", *options])
    assert done.exit_code == 2
    assert says in done.output
