"""Train GANs on an image set and export their generators."""

import os

# ONNX Runtime's wheels for Linux report their use to their maker, unless they are told not to before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
