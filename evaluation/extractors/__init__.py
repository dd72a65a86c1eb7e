"""Feature extractors, one ONNX file each. Reading one needs no torch; building one does."""

from evaluation.extractors.extractor import Extracted, Extractor, load_extractor

__all__ = ["Extracted", "Extractor", "load_extractor"]
