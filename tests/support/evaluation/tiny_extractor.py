"""Tiny extractor files, image folders and a stand-in for the service, for the tests of the evaluation."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from evaluation.extractors import builder
from evaluation.extractors.builder import seal
from evaluation.report.render import write_views
from evaluation.report.schema import write_report


def write_tiny_extractor(path: Path, *, dim: int = 4, classes: int = 2, seed: int = 0, **metadata: Any) -> Path:
    """features = means of 2x2 pooled pixels, projected; logits = two of them. Any size of 8 or more, C 1 or 3."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axis"], ["grey"], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "one"], ["nchw"]),
        helper.make_node("Shape", ["nchw"], ["batch"], start=0, end=2),
        helper.make_node("Concat", ["batch", "side"], ["sizes"], axis=0),
        helper.make_node("Resize", ["nchw", "", "", "sizes"], ["small"], mode="linear"),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("Gemm", ["flat", "W"], ["features"]),
        helper.make_node("Gemm", ["features", "V"], ["logits"]),
    ]
    constants = {
        "axis": np.array([3]),
        "one": np.array([1]),
        "side": np.array([8, 8]),
        "W": (rng.normal(size=(64, dim)) / 255).astype(np.float32),
        "V": rng.normal(size=(dim, classes)).astype(np.float32),
    }
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", "C"])],
            [
                helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", dim]),
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    values = {
        "name": "tiny",
        "network": "tiny",
        "metric": "fd_tiny",
        "weights_sha256": "0" * 64,
        "resize": "none",
        "class_names": [str(i) for i in range(classes)],
    }
    seal(model, values | metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def exported_once() -> Callable[..., onnx.ModelProto]:
    """In place of `graph.export_network`, for builds of one network: exported for the first, copied for the rest."""
    export, exported = builder.export_network, []

    def once(*arguments: Any) -> onnx.ModelProto:
        if not exported:
            exported.append(export(*arguments))
        copy = onnx.ModelProto()
        copy.CopyFrom(exported[0])
        return copy

    return once


def random_inception() -> dict[str, Any]:
    """A seeded state of FID's Inception. Features are near 0.7: a default one's are 1e-8, and agree with anything."""
    import torch

    from evaluation.extractors.inception import FidInception

    torch.manual_seed(0)
    network = FidInception()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return network.state_dict()


def write_pictures(root: Path, n_train: int = 60, n_test: int = 40, size: int = 8) -> Path:
    """A folder of grey noise with train/ and test/."""
    rng = np.random.default_rng(1)
    for split, n in (("train", n_train), ("test", n_test)):
        (root / split).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{i:03}.png")
    return root


def set_model_name(path: Path, name: str) -> None:
    """Give the model of a report another name, such as one that a generator file cannot have, and write its views."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document["model"] = name
    write_report(path, document)
    write_views(path)


@contextmanager
def fake_service(
    make: Any,
    *,
    shape: tuple[int, int, int] = (8, 8, 1),
    fail_after: int | None = None,
    change_after: int | None = None,
    away_after: int | None = None,
    away_s: float = 0.0,
    result: dict[str, Any] | None = None,
    models: bytes | None = None,
    key: str | None = None,
) -> Iterator[str]:
    """A service whose image of a seed is make(seed); after so many answers it dies, changes its model, or is away:
    for half of `away_s` it hangs up on everyone, for the other half it answers 503. `result` are further fields of its
    model, or others; `models` is all of its answer about them, `key` what it asks for."""
    answered = {"n": 0}
    left: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def _answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def _known(self) -> bool:
            if key is None or self.headers["Authorization"] == f"Bearer {key}":
                return True
            error = {"type": "authentication_error", "code": "missing_key", "message": "a key is needed", "param": None}
            self._answer(401, "application/json", json.dumps({"error": error}).encode())
            return False

        def do_GET(self) -> None:
            if not self._known():
                return
            entry = {"name": "tiny", "digest": "a" * 64} | dict(
                zip(("height", "width", "channels"), shape, strict=True)
            )
            listing = json.dumps({"default": "tiny", "data": [entry | (result or {})]}).encode()
            self._answer(200, "application/json", listing if models is None else models)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._known():
                return
            seeds = asked.get("seeds") or list(range(asked["seed"], asked["seed"] + asked["n"]))
            answered["n"] += 1
            if away_after is not None and answered["n"] > away_after:
                left.append(time.monotonic())
                if left[-1] - left[0] < away_s / 2:
                    self.close_connection = True
                    return
                if left[-1] - left[0] < away_s:
                    error = {"type": "server_error", "code": "not_ready", "message": "loading", "param": None}
                    self._answer(503, "application/json", json.dumps({"error": error}).encode())
                    return
            if fail_after is not None and answered["n"] > fail_after:
                error = {"type": "server_error", "code": "internal", "message": "it broke", "param": None}
                self._answer(500, "application/json", json.dumps({"error": error}).encode())
                return
            buffer = io.BytesIO()
            np.save(buffer, np.stack([make(seed) for seed in seeds]))
            changed = change_after is not None and answered["n"] > change_after
            self._answer(
                200,
                "application/x-npy",
                buffer.getvalue(),
                Atelier_Model="tiny",
                Atelier_Digest=("b" if changed else "a") * 64,
                Atelier_Seeds=f"{seeds[0]}-{seeds[-1]}",
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
