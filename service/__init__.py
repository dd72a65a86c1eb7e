"""Serve generators over HTTP. This file imports no submodule, so that `service.client` needs only httpx and numpy."""

import os

# The Linux wheels of ONNX Runtime send telemetry unless this is set before they are loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__: list[str] = []
