"""The served models: finding, checking, loading and reloading generator files, and their ONNX Runtime sessions."""
