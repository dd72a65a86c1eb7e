"""Train GANs on an image set and export their generators."""

import os

# ONNX Runtime's wheels for Linux report their use to their maker, unless they are told not to before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> str:
    """`__version__`, read when it is asked for: pyproject.toml alone says it."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from artifacts import version

    return version()
