"""Train GANs on your images and export their generators.

>>> import trainer
>>> config = trainer.load_config("digits-dcgan", overrides={"run.total_kimg": 20})
>>> run = trainer.train(config)
>>> trainer.export(run, "models")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.api import Run, export, finetune_config, inspect, train
    from trainer.config.loading import load_config
    from trainer.config.schema import Config
    from trainer.errors import TrainerError, TrainingDiverged

__all__ = [
    "Config",
    "Run",
    "TrainerError",
    "TrainingDiverged",
    "__version__",
    "export",
    "finetune_config",
    "inspect",
    "load_config",
    "train",
]

# ONNX Runtime's wheels for Linux send usage data to their maker unless this is set before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "Config": "trainer.config.schema",
    "Run": "trainer.api",
    "TrainerError": "trainer.errors",
    "TrainingDiverged": "trainer.errors",
    "export": "trainer.api",
    "finetune_config": "trainer.api",
    "inspect": "trainer.api",
    "load_config": "trainer.config.loading",
    "train": "trainer.api",
}

__version__: str


def __getattr__(name: str) -> Any:
    """Import what is used, so that `import trainer` stays light."""
    if name == "__version__":
        from artifacts import version

        return version()
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
