"""Feature extractors: one ONNX file each. Reading one needs no torch; the builders here do."""

from evaluation.extractors.extractor import Extracted, Extractor, load_extractor

__all__ = ["Extracted", "Extractor", "load_extractor"]
