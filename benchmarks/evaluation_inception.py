"""Inception's features beside pytorch-fid's and torch-fidelity's: a sub-benchmark of evaluation.py."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import in_turns, times_as_fast, told

BATCH, SQUARE = 50, 4096
PEERS = {"pytorch_fid": "torch", "torch_fidelity": "tf1"}  # and the resize that is theirs


def inception(rounds: int) -> dict[str, Any]:
    """Images a second of each, how many times as fast ours is, and how far the features are apart.

    Either peer's own network as it calls it, on uint8 images in memory, beside an extractor file with its resize.
    """
    import torch
    from pytorch_fid import inception as pytorch_fid
    from torch.utils.flop_counter import FlopCounterMode
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from evaluation.extractors import load_extractor
    from evaluation.extractors.builder import centered_relative_error

    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder) / "random.pth")
        ours = {name: load_extractor(build(weights, resize)) for name, resize in PEERS.items()}
        fidelity = FeatureExtractorInceptionV3(
            "peer", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
        )
        state = torch.load(weights)
    pytorch_fid.load_state_dict_from_url = lambda *_, **__: state
    device = "cuda" if "CUDA" in ours["pytorch_fid"].session.get_providers()[0] else "cpu"
    network, fidelity = pytorch_fid.InceptionV3([3]).eval().to(device), fidelity.to(device)
    images = small_images(BATCH)
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    square = torch.rand(SQUARE, SQUARE, device=device)

    def of_pytorch_fid() -> np.ndarray:
        with torch.no_grad():
            return network(nchw.to(device).float() / 255)[0].squeeze(3).squeeze(2).cpu().numpy()

    def of_torch_fidelity() -> np.ndarray:
        with torch.no_grad():
            return fidelity(nchw.to(device))[0].cpu().numpy()

    with FlopCounterMode(display=False) as counter:
        of_pytorch_fid()
    gflop = counter.get_total_flops() / BATCH / 1e9  # an image
    functions = {
        "ours_torch": lambda: ours["pytorch_fid"](images).features,
        "pytorch_fid": of_pytorch_fid,
        "ours_tf1": lambda: ours["torch_fidelity"](images).features,
        "torch_fidelity": of_torch_fidelity,
        "matrix": lambda: (square @ square)[0, 0].item(),
    }
    in_turns(functions, 1)
    seconds, values = in_turns(functions, rounds)
    rates = {name: BATCH / statistics.median(seconds[name]) for name in functions if name != "matrix"}
    matrix = 2 * SQUARE**3 / statistics.median(seconds["matrix"]) / 1e9
    ratios = {peer: times_as_fast(seconds[f"ours_{resize}"], seconds[peer]) for peer, resize in PEERS.items()}
    differences = {
        peer: centered_relative_error(values[f"ours_{resize}"], values[peer]) for peer, resize in PEERS.items()
    }
    shares = {name: round(rate * gflop / matrix, 2) for name, rate in rates.items()}
    for peer, resize in PEERS.items():
        print(
            f"inception, {resize} resize: ours {rates[f'ours_{resize}']:.1f} img/s, {peer.replace('_', '-')} "
            f"{rates[peer]:.1f} img/s, {told(ratios[peer])} times as fast; features differ by {differences[peer]:.1e}; "
            f"of {matrix:.0f} GFlop/s in a matrix product ours reaches {shares[f'ours_{resize}']:.0%}, theirs "
            f"{shares[peer]:.0%}",
            flush=True,
        )
    return {
        "device": device,
        "torch_threads": torch.get_num_threads(),
        "ours_images_per_s": round(rates["ours_torch"], 2),
        "ours_tf1_images_per_s": round(rates["ours_tf1"], 2),
        **{f"{peer}_images_per_s": round(rates[peer], 2) for peer in PEERS},
        "times_as_fast": ratios,
        "features_differ": differences,
        "gflop_an_image": round(gflop, 2),
        "matrix_product_gflop_per_s": round(matrix, 1),
        "share_of_matrix_product": shares,
        "rounds": {name: [round(each, 3) for each in taken] for name, taken in seconds.items()},
    }


def random_weights(path: Path) -> Path:
    """A file of seeded weights for every network of Inception's here; its features are near 0.7."""
    import torch

    from tests.evaluation.helpers import random_inception

    torch.save(random_inception(), path)
    return path


def build(weights: Path, resize: str) -> Path:
    """The extractor file of these weights and this resize, beside them."""
    from evaluation.extractors.inception import build_inception

    path = weights.with_name(f"{resize}.onnx")
    build_inception(weights, resize, path, expected_sha256_prefix=None)
    return path


def small_images(n: int, seed: int = 0) -> np.ndarray:
    """uint8 [n, 32, 32, 3]: noise of 8 px, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)
