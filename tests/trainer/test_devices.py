from __future__ import annotations

import platform
import resource
import sys

import pytest
import torch

from trainer import devices


def test_describe_names_no_kernel_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.18.44-of-a-host")
    monkeypatch.setattr(platform, "platform", lambda: "Linux-6.18.44-of-a-host-x86_64-with-glibc2.36")
    assert devices.describe()["platform"] == "Linux-6.18-x86_64-with-glibc2.36"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults of glibc's malloc")
def test_keep_freed_memory_avoids_page_faults() -> None:
    assert devices.keep_freed_memory()

    def faults(times: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(times):
            step = [torch.ones(2**21) for _ in range(8)]  # of 8 MB, 2048 pages each
            del step
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults(2)
    assert faults(10) < 8 * 2048


@pytest.mark.parametrize(
    ("cpus", "variables", "expected"), [(1, {}, 1), (10**6, {}, 4), (1, {"OMP_NUM_THREADS": "4"}, 4)]
)
def test_default_threads_follows_quota_and_variable(
    cpus: int, variables: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(devices, "available_cpus", lambda: cpus)
    assert devices.default_threads() == expected
