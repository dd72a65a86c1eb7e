from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.sweep.plan import Plan
from trainer.sweep.study import Study


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[Plan], Study]:
    return lambda plan: Study(tmp_path, plan)
