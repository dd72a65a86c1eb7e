"""Generation over HTTP. Nothing of ours is imported here, so that `service.client` costs httpx and numpy alone."""

import os

# ONNX Runtime's wheels for Linux report their use to their maker, unless they are told not to before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
