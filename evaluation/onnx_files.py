"""Reading ONNX files that carry their own description: metadata, digest, session."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.files import LFS_HINT, is_lfs_pointer
from artifacts.onnx_files import onnx_reason
from artifacts.resources import available_cpus
from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime

# Of one batch. Inception takes some 10 s for one on two cores.
DEADLINE_S = 600.0


def read_model(path: Path, what: str) -> onnx.ModelProto:
    """Parse an ONNX file. EvaluationError, naming `what` it should be, if it is absent or not one."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise EvaluationError(f"there is no {what} at {path}")
    try:
        content = path.read_bytes()
        if is_lfs_pointer(content):
            raise EvaluationError(f"{path} is {LFS_HINT}")
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, OSError, ValueError) as error:
        raise EvaluationError(f"{path} is not an ONNX file, or is truncated ({onnx_reason(error)})") from error
    if not model.graph.node:
        raise EvaluationError(f"{path} is not an ONNX file, or is empty")
    return model


def session_of(model: onnx.ModelProto, path: Path) -> onnxruntime.InferenceSession:
    """A session on the GPU where ONNX Runtime has one, else on all the cores this process may use."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        needs = f"running {path} needs ONNX Runtime: pip install 'gan-atelier[cpu]' (or [gpu])"
        raise EvaluationError(f"{needs} ({onnx_reason(error)})") from error

    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it raises says it all, and here it is one line
    # Spinning threads would take the cores from whatever makes the images at the same time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # TensorFloat-32, the default there, rounds to 10 bits: features would differ from a CPU's in the third digit.
    wanted: list[tuple[str, dict[str, str]]] = [
        ("CUDAExecutionProvider", {"use_tf32": "0"}),
        ("CPUExecutionProvider", {}),
    ]
    providers = [provider for provider in wanted if provider[0] in ort.get_available_providers()]
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own exception types share no base but this
        raise EvaluationError(f"ONNX Runtime cannot run {path}: {onnx_reason(error)}") from error


def run(session: onnxruntime.InferenceSession, outputs: list[str], feed: dict[str, np.ndarray], what: str) -> list:
    """Return the session's outputs.

    Args:
        session: A session.
        outputs: Names of the outputs.
        feed: The inputs by name.
        what: What runs, for the message.

    Raises:
        EvaluationError: If it does not run on this input, or takes longer than `DEADLINE_S`: a file may hold a loop
            without an end, which Ctrl-C does not stop either.
    """
    import onnxruntime as ort

    options = ort.RunOptions()
    timer = threading.Timer(DEADLINE_S, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return session.run(outputs, feed, options)
    except Exception as error:  # ONNX Runtime's own exception types share no base but this
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feed.items())
        why = f"it took longer than {DEADLINE_S:g} s" if options.terminate else onnx_reason(error)
        raise EvaluationError(f"{what} cannot run on {shapes}: {why}") from error
    finally:
        timer.cancel()


def need(metadata: dict[str, str], keys: tuple[str, ...], path: Path, what: str) -> None:
    missing = [key for key in keys if key not in metadata]
    if missing:
        raise EvaluationError(f"{path} is not {what}: its metadata lack {', '.join(missing)}")


def number(metadata: dict[str, str], key: str, path: Path) -> int:
    try:
        return int(metadata[key])
    except ValueError as error:
        raise EvaluationError(f"{path}: metadata {key} is {metadata[key]!r}, not a number") from error


def names(metadata: dict[str, str], key: str, path: Path) -> tuple[str, ...]:
    """A JSON list of strings in the metadata; () if there is none."""
    try:
        found: Any = json.loads(metadata.get(key) or "[]")
    except ValueError as error:
        raise EvaluationError(f"{path}: metadata {key} is not JSON") from error
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise EvaluationError(f"{path}: metadata {key} is not a list of names")
    return tuple(found)
