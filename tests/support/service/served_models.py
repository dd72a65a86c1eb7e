"""Loads one generator file as the service does."""

import sys
from pathlib import Path

from service.models.model_files import read_model_bytes, validate_model
from service.models.served_model import ServedModel, SessionCache
from service.models.session import Runtime
from service.observability.metrics import Metrics


def load_model(path: Path, max_bytes: int, runtime: Runtime) -> ServedModel:
    """Return the model of a file, warm, with its own cache; ContractError if it is rejected."""
    file = read_model_bytes(path, max_bytes)
    cache = SessionCache(sys.maxsize, Metrics())
    return ServedModel(path, file, validate_model(path, file), runtime, cache, "start")
