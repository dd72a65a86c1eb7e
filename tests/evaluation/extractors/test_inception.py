"""FID's Inception beside its peers': the same real images, resized and looked at with the same random weights."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from cleanfid import inception_pytorch as clean_fid_network
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from PIL import Image
from pytorch_fid import inception as pytorch_fid
from torch.nn import functional
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import (
    interpolate_bilinear_2d_like_tensorflow1x as tf1_resize,
)

from evaluation.errors import EvaluationError
from evaluation.extractors import inception, load_extractor
from evaluation.extractors.extractor_export import centered_relative_error, preprocessing_model
from evaluation.extractors.inception import build_inception, load_network
from evaluation.extractors.resize import RESIZES
from imagesets import load_image_set
from tests.support.evaluation.inception import exported_once, random_inception

TOLERANCE = 1e-5  # of the spread of images or features about their mean
RESIZE_NAMES = ("tf1", "torch", "clean")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_inception(), path)
    return path


@pytest.fixture(scope="module")
def files(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An extractor file a resize, made by `export`; the network, which they share, is exported once."""
    folder = tmp_path_factory.mktemp("extractors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.extractors.extractor_export.export_network", exported_once())
        for resize in RESIZE_NAMES:
            build_inception(weights, resize, folder / f"{resize}.onnx", expected_sha256_prefix=None)
    return {resize: folder / f"{resize}.onnx" for resize in RESIZE_NAMES}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[int, np.ndarray]:
    """uint8 [4, S, S, 3] of each size: two digits in colour, and two pictures of noise, coarse and fine."""
    cache, random, found = tmp_path_factory.mktemp("cache"), np.random.default_rng(0), {}
    for side in (32, 400):  # enlarged, and reduced
        digits = load_image_set("digits@test", resolution=side, channels=3, cache_root=cache).images[:2]
        coloured = (digits * random.uniform(0.2, 1, (2, 1, 1, 3))).astype(np.uint8)
        noise = [
            np.asarray(Image.fromarray(random.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((side, side)))
            for n in (9, side)
        ]
        found[side] = np.concatenate([coloured, noise])
    return found


class Peer:
    """A peer's own code from uint8 [N, H, W, 3] to the tensor its network sees, and on to features."""

    def __init__(self, run: Callable[[np.ndarray], torch.Tensor], first: torch.nn.Module) -> None:
        self.run = run
        first.register_forward_pre_hook(lambda _, inputs: self.seen.append(inputs[0].clone()))
        self.seen: list[torch.Tensor] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.seen.clear()
        with torch.no_grad():
            features = self.run(images).reshape(len(images), 2048).numpy()
        return self.seen[0].numpy(), features


def nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def torch_fidelity_peer(weights: Path, _: Path) -> Peer:
    network = FeatureExtractorInceptionV3("peer", ["2048"], feature_extractor_weights_path=str(weights))
    return Peer(lambda images: network(nchw(images))[0], network.Conv2d_1a_3x3)


def pytorch_fid_peer(weights: Path, _: Path) -> Peer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid, "load_state_dict_from_url", lambda *_, **__: torch.load(weights))
        network = pytorch_fid.InceptionV3([3]).eval()
    return Peer(lambda images: network(nchw(images).float() / 255)[0], network.blocks[0])


def clean_fid_peer(weights: Path, folder: Path) -> Peer:
    """Its wrapper wants a TorchScript file: an empty one, into which its own torch network is put."""

    class Layers(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    class Base(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = Layers()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    torch.jit.script(Base()).save(folder / "inception-2015-12-05.pt")
    wrapper = InceptionV3W(str(folder), download=False, resize_inside=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clean_fid_network, "load_state_dict_from_url", lambda *_, **__: torch.load(weights))
        network = clean_fid_network.InceptionV3([3], resize_input=False, normalize_input=False).eval()

    class Its(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(x)[0]

    wrapper.layers = Its()
    resize = build_resizer("clean")
    return Peer(
        lambda images: wrapper(torch.stack([torch.from_numpy(resize(image)) for image in images]).permute(0, 3, 1, 2)),
        network.blocks[0],
    )


PEERS = {"tf1": torch_fidelity_peer, "torch": pytorch_fid_peer, "clean": clean_fid_peer}

# What goes wrong in the field, for each protocol: a resize of another kind, and another normalisation.
replace = dataclasses.replace
WRONG = {
    "tf1": {
        "half a pixel off": replace(RESIZES["tf1"], center="half-pixel"),
        "normalised as pytorch-fid": replace(RESIZES["tf1"], offset=127.5, scale=127.5),
    },
    "torch": {
        "half a pixel off": replace(RESIZES["torch"], center="corner"),
        "normalised as TensorFlow": replace(RESIZES["torch"], offset=128.0, scale=128.0),
    },
    "clean": {
        "without antialiasing": replace(RESIZES["clean"], antialias=False),
        "another cubic": replace(RESIZES["clean"], cubic_a=-0.75),
        "normalised as pytorch-fid": replace(RESIZES["clean"], offset=127.5, scale=127.5),
    },
}


def prepared(resize: str, images: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(preprocessing_model(resize, 299, 3).SerializeToString()).run(None, {"images": images})[
        0
    ]


RESIZERS = {
    "tf1": lambda images: tf1_resize(nchw(images).float(), size=(299, 299), align_corners=False) / 128 - 1,
    "torch": lambda images: 2 * functional.interpolate(nchw(images) / 255, (299, 299), mode="bilinear") - 1,
    "clean": lambda images: nchw(np.stack([build_resizer("clean")(image) for image in images])) / 128 - 1,
}


@pytest.mark.parametrize("resize", RESIZE_NAMES)
@pytest.mark.parametrize(
    "size", [(1, 1), (28, 28), (48, 80), (96, 96), (299, 299), (300, 300), (333, 500), (700, 700)], ids=str
)
def test_resize_white_noise_of_any_size_equals_the_peers(resize: str, size: tuple[int, int]) -> None:
    """The hardest images there are, at ratios where float32 places are roundest."""
    noise = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    assert centered_relative_error(prepared(resize, noise), RESIZERS[resize](noise).numpy()) < TOLERANCE / 5


@pytest.mark.slow
@pytest.mark.parametrize("resize", RESIZE_NAMES)
def test_inception_features_equal_the_peers(
    resize: str,
    weights: Path,
    files: dict[str, Path],
    pictures: dict[int, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer, extractor, network = PEERS[resize](weights, tmp_path), load_extractor(files[resize]), load_network(weights)
    assert extractor.dim == 2048
    assert extractor.metric == "fd_inception_unverified", "no other weights' distance is a FID"
    for side, images in pictures.items():
        tensor, features = peer(images)
        assert tensor.shape == (4, 3, 299, 299)
        assert 0.1 < features.mean() < 10, side
        assert centered_relative_error(prepared(resize, images), tensor) < TOLERANCE / 5, side
        assert centered_relative_error(extractor(images).features, features) < TOLERANCE, side
        for how, wrong in WRONG[resize].items():
            if how == "without antialiasing" and side < 299:
                continue  # enlarging has nothing to smooth
            monkeypatch.setitem(RESIZES, "wrong", wrong)
            got = prepared("wrong", images)
            with torch.no_grad():
                wrong_features = network(torch.from_numpy(got))[0].numpy()
            assert centered_relative_error(got, tensor) > 100 * TOLERANCE, (side, how)
            assert centered_relative_error(wrong_features, features) > 100 * TOLERANCE, (side, how)


@pytest.mark.slow
def test_inception_logits_omit_the_bias(weights: Path, files: dict[str, Path], pictures: dict[int, np.ndarray]) -> None:
    peer = FeatureExtractorInceptionV3(
        "peer", ["logits_unbiased", "logits"], feature_extractor_weights_path=str(weights)
    )
    images = pictures[400]
    with torch.no_grad():
        unbiased, biased = (found.numpy() for found in peer(nchw(images)))
    logits = load_extractor(files["tf1"])(images).logits
    assert logits is not None
    assert centered_relative_error(logits, unbiased) < TOLERANCE
    assert centered_relative_error(biased, unbiased) > 100 * TOLERANCE


def test_build_inception_other_weights_fails_before_writing(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="sha256 begins"):
        build_inception(weights, "torch", tmp_path / "i.onnx")
    with pytest.raises(EvaluationError, match="cannot read"):
        build_inception(tmp_path / "absent.pth", "torch", tmp_path / "i.onnx")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(EvaluationError, match="does not hold"):
        build_inception(tmp_path / "junk.pth", "torch", tmp_path / "i.onnx", expected_sha256_prefix=None)
    with pytest.raises(EvaluationError, match="no resize"):
        build_inception(weights, "nearest", tmp_path / "i.onnx")
    assert not (tmp_path / "i.onnx").exists()


def test_build_inception_without_weights_names_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_OFFLINE", "1")
    monkeypatch.setenv("ATELIER_WEIGHTS", str(tmp_path))
    with pytest.raises(EvaluationError, match="--weights PATH"):
        build_inception(None, "torch", tmp_path / "i.onnx")


@pytest.fixture
def host() -> Iterator[tuple[str, dict[str, bytes]]]:
    """An HTTP server on this machine: its URL, and the bodies it answers with by path (404 for others)."""
    bodies: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bodies.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", bodies
    server.shutdown()
    server.server_close()
    thread.join()


def test_build_inception_downloads_once_and_drops_damaged_file(
    host: tuple[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, bodies = host
    body = b"stands for the weights"
    monkeypatch.delenv("ATELIER_OFFLINE")
    monkeypatch.setenv("ATELIER_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(inception, "WEIGHTS_URL", f"{url}/weights.pth")
    monkeypatch.setattr(inception, "WEIGHTS_SHA256_PREFIX", hashlib.sha256(body).hexdigest()[:8])
    kept = tmp_path / "weights" / inception.FID_WEIGHTS_FILE

    with pytest.raises(EvaluationError, match=r"--weights PATH.*404"):
        inception._download()
    bodies["/weights.pth"] = body[:-3]
    with pytest.raises(EvaluationError, match="its sha256 begins"):
        inception._download()
    assert not kept.exists()
    bodies["/weights.pth"] = body
    assert inception._download() == kept
    bodies.clear()
    assert inception._download().read_bytes() == body
