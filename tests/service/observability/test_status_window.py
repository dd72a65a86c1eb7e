import json
import math
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.observability.status_window import WINDOW_S, StatusWindow, percentile
from tests.support.polling import wait_until


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_status_percentiles_are_within_5_percent() -> None:
    clock = Clock()
    recent = StatusWindow(clock=clock)
    for ms in range(1, 101):
        recent.count_request(200, ms / 1000)
    latency = recent.report()["latency_ms"]
    for name, exact in (("p50", 50), ("p95", 95), ("p99", 99)):
        assert latency[name] == pytest.approx(exact, rel=0.05)
    clock.now += WINDOW_S - 1
    assert recent.report()["requests"] == 100
    clock.now += 1
    assert recent.report()["requests"] == 0
    assert recent.report()["latency_ms"] == {"p50": None, "p95": None, "p99": None}


def test_status_rates_are_over_the_elapsed_time() -> None:
    clock = Clock()
    recent = StatusWindow(clock=clock)
    recent.count_images(64)
    clock.now += 8
    assert recent.report()["images_per_s"] == 8
    clock.now += 40
    recent.count_images(56)
    assert recent.report()["images_per_s"] == 2.5
    clock.now += 12
    recent.count_images(4)
    assert recent.report()["images_per_s"] == 1


def test_status_rejections_and_failures_have_no_latency() -> None:
    recent = StatusWindow()
    for status in (200, 304, 422, 429, 503, 500, 499):
        recent.count_request(status, 0.01)
    report = recent.report()
    assert (report["requests"], report["refused"], report["failed"]) == (7, 2, 1)
    assert report["latency_ms"]["p99"] == pytest.approx(10, rel=0.05)


def test_status_latency_of_any_length_has_a_bin() -> None:
    recent = StatusWindow()
    for seconds in (0, 1e-9, 1e-4, 1e9):
        recent.count_request(200, seconds)
    assert math.isfinite(recent.report()["latency_ms"]["p99"])


def test_percentile_of_one_is_its_bin_of_none_is_none() -> None:
    assert percentile([0, 0, 0], 50) is None
    assert percentile([0, 1, 0], 50) == percentile([0, 1, 0], 99) == pytest.approx(0.105, rel=0.01)


def test_status_adds_up_living_workers(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from service.observability.status_window import StatusWindow\n"
        f"r = StatusWindow(Path({str(tmp_path)!r})); r.accept_connections(loading=False)\n"
        "r.count_images(5); r.count_queued(3); r.count_request(200, 0.01)\n"
        "print('there', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"there\n"
        recent = StatusWindow(tmp_path)
        recent.accept_connections(loading=False)
        recent.count_images(2)
        report = recent.report()
        assert (report["workers"], report["images"], report["queue_rows"], report["requests"]) == (2, 7, 3, 1)
        other.kill()
    report = recent.report()
    assert (report["workers"], report["images"], report["queue_rows"]) == (1, 2, 0)
    assert [p.name for p in tmp_path.iterdir()] == [f"status-{os.getpid()}"]


def test_status_starting_workers_take_turns(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from service.observability.status_window import StatusWindow\n"
        f"r = StatusWindow(Path({str(tmp_path)!r})); print('there', flush=True)\n"
        "for line in sys.stdin:\n"
        "    load = eval(line); print(r.others_accept(), r.others_load() if load is None else load, flush=True)"
    )
    with ExitStack() as stack:
        others = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(3)
        ]
        for other in others:
            stack.callback(other.kill)
            assert other.stdout is not None
            assert other.stdout.readline() == "there\n"

        def asked(other: subprocess.Popen[str], do: str = "None") -> tuple[bool, bool]:
            assert other.stdin is not None
            assert other.stdout is not None
            print(do, file=other.stdin, flush=True)
            answer, load = other.stdout.readline().split()
            return answer == "True", load == "True"

        first, second, third = sorted(others, key=lambda other: other.pid)
        assert [asked(other) for other in (first, second, third)] == [(False, False), (True, False), (True, False)]
        asked(second, "r.accept_connections(loading=True)")
        assert [asked(other) for other in (first, third)] == [(True, True), (True, True)]
        asked(second, "r.accept_connections(loading=False)")
        assert [asked(other) for other in (first, third)] == [(True, False), (True, False)]
        asked(second, "r.drain()")
        assert [asked(other) for other in (first, third)] == [(False, False), (True, False)]
        first.kill()
        first.wait()
        assert asked(third) == (False, False)


def test_status_route_counts_requests(serve, folder: Path) -> None:
    client = serve(folder)
    for i in range(3):
        assert client.post("/v1/generate", json={"seed": i, "n": 2}).status_code == 200
    assert client.post("/v1/generate", json={"n": 0}).status_code == 422
    client.get("/v1/models")
    wait_until(lambda: client.get("/v1/status").json()["requests"] == 4)
    answer = client.get("/v1/status")
    report = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (report["status"], report["reason"], report["scope"], report["workers"]) == ("ready", None, "all_workers", 1)
    assert (report["images"], report["queue_rows"]) == (6, 0)
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"]
    schema = client.get("/openapi.json").json()["paths"]["/v1/status"]["get"]["responses"]["200"]
    assert set(schema["content"]["application/json"]["schema"]["properties"]) == set(report), json.dumps(report)
