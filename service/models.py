"""The generators that are served: sessions that run sound files, and why the other files are refused."""

import logging
import os
import threading
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ApiError
from service.generator_file import ContractError, Metadata, check
from service.settings import Settings

log = logging.getLogger("bentoml.atelier")

BUNDLED = Path(__file__).parent / "bundled"


class Generator:
    """A sound generator file and the session that runs it."""

    def __init__(self, path: Path, metadata: Metadata, content: bytes, threads: int):
        import onnxruntime as ort

        self.path, self.metadata = path, metadata
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """latents float32 [N, z_dim] (and labels int64 [N] if conditional) → images uint8 [N, H, W, C]."""
        feed: dict[str, NDArray] = {"latents": latents}
        if labels is not None:
            feed["labels"] = labels
        return self.session.run(None, feed)[0]

    def warm_up(self, max_batch: int) -> None:
        """Run the smallest and the largest batch, and the last class. ContractError: not the images promised."""
        classes = self.metadata.num_classes
        for n, label in dict.fromkeys(((1, 0), (1, max(0, classes - 1)), (max_batch, 0))):
            latents = np.zeros((n, self.metadata.z_dim), np.float32)
            try:
                images = self.run(latents, np.full(n, label, np.int64) if classes else None)
            except Exception as error:
                if not label:
                    raise
                message = f"class_names has {classes} classes, but the graph does not run label {label}: "
                raise ContractError(message + first_line(error)) from None
            if images.shape != (n, *self.metadata.image_shape) or images.dtype != np.uint8:
                raise ContractError(
                    f"{n} latents gave {images.dtype} {list(images.shape)}, not uint8 {[n, *self.metadata.image_shape]}"
                )

    def describe(self) -> dict[str, Any]:
        """The model as /v1/models tells it."""
        return {**vars(self.metadata), "file": self.path.name}


def load(path: Path, max_bytes: int, threads: int, max_batch: int) -> Generator:
    """Read, check and warm up one generator file. ContractError: it is refused, and why."""
    import onnx

    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ContractError(f"cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise ContractError(f"larger than ATELIER_MAX_MODEL_BYTES ({max_bytes} bytes)")
    try:
        model = onnx.load_from_string(content)
    except Exception:
        raise ContractError("not an ONNX file") from None
    metadata = check(model)
    del model
    try:
        generator = Generator(path, metadata, content, threads)
        generator.warm_up(max_batch)
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(f"ONNX Runtime does not run it: {first_line(error)}") from None
    return generator


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


class Repository:
    """The generators of one folder by name, and the files that were refused, with the reason."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._lock = threading.Lock()
        self._models: dict[str, Generator] = {}
        self.failed: dict[str, str] = {}
        self._not_ready: str | None = "models are still being loaded"

    @property
    def folder(self) -> Path:
        """MODEL_DIR if it was named, else ./models if it holds generator files, else the bundled folder."""
        if self._settings.model_dir is not None:
            return self._settings.model_dir
        ours = Path("models")
        return ours if any(ours.glob("*.onnx")) else BUNDLED

    @property
    def not_ready(self) -> str | None:
        """Why requests cannot be answered yet, or None when they can."""
        return self._not_ready

    def load_all(self) -> None:
        """Read the folder. One bad file stops no other; nothing is raised."""
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            needs = "the service needs ONNX Runtime: pip install 'gan-atelier[cpu]' (or [gpu])"
            self._not_ready = f"{needs} ({first_line(error)})"
            return
        threads = self._settings.threads or max(1, available_cores() // self._settings.workers)
        by_name: dict[str, list[Generator]] = defaultdict(list)
        failed: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.onnx")):
            try:
                generator = load(path, self._settings.max_model_bytes, threads, self._settings.max_batch)
                by_name[generator.metadata.name].append(generator)
            except ContractError as error:
                failed[path.name] = str(error)
        for name, same in by_name.items():
            for generator in same if len(same) > 1 else []:
                others = ", ".join(g.path.name for g in same if g is not generator)
                failed[generator.path.name] = f"its name {name!r} is also that of {others}; rename one and export again"
        models = {name: same[0] for name, same in by_name.items() if len(same) == 1}
        for file, reason in failed.items():
            log.warning("%s is not served: %s", file, reason)
        with self._lock:
            self._models, self.failed = models, failed
            self._not_ready = self._why_not(models)

    def _why_not(self, models: dict[str, Generator]) -> str | None:
        default = self._settings.default_model
        if not self.folder.is_dir():
            return f"the model folder {self.folder} does not exist; set MODEL_DIR to a folder of generator files"
        if not models:
            return f"no usable generator file (*.onnx) in {self.folder}; /v1/models tells what was refused"
        if default is not None and default not in models:
            return f"ATELIER_DEFAULT_MODEL is {default!r}; the models are {', '.join(sorted(models))}"
        return None

    def all(self) -> list[Generator]:
        return [self._models[name] for name in sorted(self._models)]

    @property
    def default(self) -> str | None:
        """ATELIER_DEFAULT_MODEL, else the newest by `created` (ties: the first by name)."""
        if self._settings.default_model is not None:
            return self._settings.default_model
        newest = sorted(self.all(), key=lambda g: datetime.fromisoformat(g.metadata.created), reverse=True)
        return newest[0].metadata.name if newest else None

    def get(self, name: str | None) -> Generator:
        """The named generator, the default one for None. ApiError: 404 unknown, 503 none is loaded."""
        models = self._models
        if name is None:
            name = self.default
        if name is not None and name in models:
            return models[name]
        if self._not_ready:
            raise ApiError(503, "not_ready", self._not_ready)
        known = ", ".join(sorted(models)[:20])
        raise ApiError(404, "model_not_found", f"no model is named {str(name)[:100]!r}; there are: {known}", "model")


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
