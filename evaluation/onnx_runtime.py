"""Read and run ONNX files safely."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

from artifacts.files import LFS_HINT, is_lfs_pointer
from artifacts.onnx_metadata import onnx_error_message
from artifacts.resources import available_cpus
from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime

# Longest time of one batch; Inception takes about 10 s on two cores.
DEADLINE_S = 600.0


def read_model(path: Path, what: str) -> onnx.ModelProto:
    """Return the model of an ONNX file; EvaluationError, which names `what` it should be, if it is not one."""
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
        raise EvaluationError(f"{path} is not an ONNX file, or is truncated ({onnx_error_message(error)})") from error
    if not model.graph.node:
        raise EvaluationError(f"{path} is not an ONNX file, or is empty")
    return cast("onnx.ModelProto", model)


def create_session(model: onnx.ModelProto, path: Path) -> onnxruntime.InferenceSession:
    """Return a session on the GPU if ONNX Runtime has one, else on all cores that this process may use."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        needs = f"running {path} needs ONNX Runtime: pip install '.[cpu]' in the checkout (or [gpu])"
        raise EvaluationError(f"{needs} ({onnx_error_message(error)})") from error

    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    options.inter_op_num_threads = 1
    # Errors are raised; the log would repeat them in many lines.
    options.log_severity_level = 4
    # Spinning threads would take cores from the process that makes the images at the same time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # TensorFloat-32, CUDA's default, rounds to 10 bits: features would differ from a CPU's in the third digit.
    wanted: list[tuple[str, dict[str, str]]] = [
        ("CUDAExecutionProvider", {"use_tf32": "0"}),
        ("CPUExecutionProvider", {}),
    ]
    providers = [provider for provider in wanted if provider[0] in ort.get_available_providers()]
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exception types have no other common base
        raise EvaluationError(f"ONNX Runtime cannot run {path}: {onnx_error_message(error)}") from error


def run_session(
    session: onnxruntime.InferenceSession, outputs: list[str], feed: dict[str, np.ndarray], what: str
) -> list[np.ndarray]:
    """Return a session's outputs of these names; `what` names it in messages.

    Raises:
        EvaluationError: If it does not run on this input, or takes longer than `DEADLINE_S`: a file may contain an
            endless loop, which Ctrl-C does not stop.
    """
    import onnxruntime as ort

    options = ort.RunOptions()
    timer = threading.Timer(DEADLINE_S, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        arrays: list[np.ndarray] = session.run(outputs, feed, options)
        return arrays
    except Exception as error:  # ONNX Runtime's exception types have no other common base
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feed.items())
        why = f"it took longer than {DEADLINE_S:g} s" if options.terminate else onnx_error_message(error)
        raise EvaluationError(f"{what} cannot run on {shapes}: {why}") from error
    finally:
        timer.cancel()
