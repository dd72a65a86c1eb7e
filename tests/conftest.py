"""What holds for every test: no downloads, and no skipping where everything should be there."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.process_cleanup import own_temporary_folder, stop_on_signals

own_temporary_folder()
stop_on_signals()
os.environ["ATELIER_OFFLINE"] = "1"
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
# Tests talk to servers of this machine, which a proxy of the user's cannot reach
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
# By default OpenMP's threads spin while they wait for each other. Where several programs share the cores, as with
# `pytest -n`, the one that is waited for does not run meanwhile, and two trainings side by side take far longer.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The one thing that a machine may lack: real data, which the repository does not hold.
ALLOWED = "ATELIER_TEST_DATA"


def _refuse_to_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """On CI a skipped test is a failed one: what it needs was to be installed."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr)
        if ALLOWED not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped on CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_to_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_to_skip(report)
    return report


IMAGES = "tests/system/containers"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The container images come first: they take the longest, and wait for a network more than for a processor.

    Then the files that have slow tests, so that at the end no process waits for another's long file.
    """
    slow = {file_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.nodeid.startswith(IMAGES), file_of(item.nodeid) not in slow))


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `pytest -n`: a file's tests stay together, and so do those of the images, which are built once.

    In the order above: xdist by itself would begin with the files of the most tests, and end with the slow ones of few.
    """
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return IMAGES if nodeid.startswith(IMAGES) else file_of(nodeid)

    return ByFile(config, log)
