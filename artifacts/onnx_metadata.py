"""Metadata, digest and errors of ONNX files that describe themselves."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : " and "/onnxruntime_src/.../model.cc:180 onnxruntime::Model::Model(...) "
CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
SOURCE = re.compile(
    r"\S*\.(?:cc|h|hpp|cpp|cu|inc):\d+ "
    r"(?:[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^\]]*\])? )?"
)
ELLIPSIS = " … "


def onnx_error_message(error: BaseException, length: int = 300) -> str:
    """Return an error's message on one line, without C++ signatures, and never without its end.

    Args:
        error: What ONNX or ONNX Runtime raised.
        length: The most characters of the line; what is left out is in its middle.
    """
    try:
        text = str(error)
    except UnicodeDecodeError:  # the message quotes bytes of the file
        text = type(error).__name__
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    text = SOURCE.sub("", CODE.sub("", text)).strip() or type(error).__name__
    if len(text) <= length:
        return text
    head = length // 3
    return text[:head] + ELLIPSIS + text[len(text) - (length - head - len(ELLIPSIS)) :]


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return a model's `metadata_props` as a dictionary."""
    return {prop.key: prop.value for prop in model.metadata_props}


def digest_of(model: onnx.ModelProto, exclude: Callable[[str], bool]) -> str:
    """Return the sha256 (hex) over a model's graph and its sorted metadata.

    Args:
        model: The model. It is not changed.
        exclude: Whether a metadata key is left out.
    """
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    kept = sorted((prop.key, prop.value) for prop in model.metadata_props if not exclude(prop.key))
    digest = hashlib.sha256(bare.SerializeToString(deterministic=True))
    digest.update(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode())
    return digest.hexdigest()
