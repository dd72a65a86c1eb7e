"""One line for an error of ONNX or ONNX Runtime, whose reason often stands at the end of a long message."""

from __future__ import annotations

import re

# "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : " and "/onnxruntime_src/.../model.cc:180 onnxruntime::Model::Model(...) "
CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
SOURCE = re.compile(
    r"\S*\.(?:cc|h|hpp|cpp|cu|inc):\d+ "
    r"(?:[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^\]]*\])? )?"
)
ELLIPSIS = " … "


def onnx_reason(error: BaseException, length: int = 300) -> str:
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
