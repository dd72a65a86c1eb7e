"""Scores any source of images against a real image set. Torch is needed only to build an extractor."""
