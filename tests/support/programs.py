"""Programs that tests drive, besides Python's own."""

import os
import shutil

import pytest


def tool(name: str) -> str:
    """Its path. In CI it has to be there (.ci/install-tools); elsewhere the test is skipped without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed; .ci/install-tools installs it")
    return found
