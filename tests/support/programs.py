"""Programs that tests drive, such as nginx and kubectl."""

import os
import shutil

import pytest


def find_program(name: str) -> str:
    """Return a program's path. Without it the test is skipped, which fails in CI (.ci/install-tools installs it)."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed; .ci/install-tools installs it")
    return found
