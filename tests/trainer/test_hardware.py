from __future__ import annotations

import resource
import sys

import pytest
import torch

from trainer import hardware


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults of glibc's malloc")
def test_freed_tensors_are_taken_again_without_page_faults() -> None:
    assert hardware.keep_freed_memory()

    def faults(times: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(times):
            step = [torch.ones(2**21) for _ in range(8)]  # of 8 MB, 2048 pages each
            del step
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults(2)
    assert faults(10) < 8 * 2048
