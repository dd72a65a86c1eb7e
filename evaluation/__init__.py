"""Scores any source of images against a real image set. Torch is needed only to build an extractor."""

import os

# ONNX Runtime's wheels for Linux report their use to their maker, unless they are told not to before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
