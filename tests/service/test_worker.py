"""When a worker lets connections in, and what it does when it is stopped or cannot load before that."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest

from service import worker as worker_module
from service.models.repository import Repository
from service.server import shutdown
from service.worker import Worker
from tests.support.polling import wait_until
from tests.support.tiny_generator import write_tiny_generator


class Others:
    """The other workers, as `StatusWindow` tells of them."""

    def __init__(self, answer: bool, load: bool = False):
        self.answer, self.load = answer, load
        self.body: list[bool] = []

    def others_accept(self) -> bool:
        return self.answer

    def others_load(self) -> bool:
        return self.load

    def accept_connections(self, loading: bool) -> None:
        self.body.append(loading)


def joined(others: Others, not_ready: str | None, then: Callable[[Any], None] = lambda repository: None) -> list[bool]:
    """What it reported to the others when it joined; `then` is done to it after a moment, which ends its loading."""
    repository = SimpleNamespace(not_ready=not_ready)
    worker = SimpleNamespace(engine=SimpleNamespace(repository=repository), metrics=SimpleNamespace(recent=others))

    async def run() -> None:
        loading: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        joining = asyncio.create_task(Worker.join(cast(Worker, worker), loading))
        await asyncio.sleep(0.2)
        then(repository)
        loading.set_result(None)
        await asyncio.wait_for(joining, 10)
        await asyncio.sleep(0)

    asyncio.run(run())
    return others.body


def test_worker_first_answers_while_it_loads() -> None:
    assert joined(Others(answer=False), "still loading") == [True, False]


def test_worker_with_others_waits_until_it_is_ready() -> None:
    def ready(repository: Any) -> None:
        assert not others.body
        repository.not_ready = None

    others = Others(answer=True)
    assert joined(others, "still loading", ready) == [False, False]


def test_worker_whose_others_are_gone_answers_without_models() -> None:
    def gone(repository: Any) -> None:
        assert not others.body
        others.answer = False

    others = Others(answer=True)
    assert joined(others, "no model", gone) == [False, False]


def test_worker_that_is_ready_waits_at_most_max_wait_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "MAX_WAIT_S", 0.5)
    began = time.monotonic()
    assert joined(Others(answer=True, load=True), None) == [False, False]
    assert 0.5 <= time.monotonic() - began < 5


def test_worker_failing_to_load_reports_it_and_retries(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_generator(tmp_path / "a.onnx", name="a")
    whole = Repository._read
    failures = iter([MemoryError("no room")])

    def read(*args: Any) -> Any:
        for failure in failures:
            raise failure
        return whole(*args)

    monkeypatch.setattr(Repository, "_read", read)
    client = serve(tmp_path, watch_s=0.05)
    wait_until(lambda: "loading the models failed" in caplog.text)
    assert "MemoryError" in caplog.text
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert [model["name"] for model in client.get("/v1/models").json()["data"]] == ["a"]


class Uvicorn:
    """uvicorn's server as `shutdown.install` needs it, asked to stop before it was started."""

    __module__ = "uvicorn.server"

    def __init__(self) -> None:
        self.should_exit, self.started = True, False
        self._captured_signals = [signal.SIGTERM]
        self.config = SimpleNamespace(timeout_graceful_shutdown=None)
        self.servers: list[Any] = []

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        self.should_exit = True


def test_worker_stopped_before_its_handler_existed_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(shutdown.os, "_exit", ended.append)
    done: list[str] = []
    worker = SimpleNamespace(
        settings=SimpleNamespace(grace_s=28.0, drain_s=0.0),
        drain=lambda: done.append("drain"),
        stop=lambda: done.append("stop"),
    )
    server = Uvicorn()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}

    async def run() -> None:
        shutdown.install(cast(Any, worker), lambda: False)
        await asyncio.sleep(0.05)

    try:
        signal.signal(signal.SIGTERM, server.handle_exit)
        asyncio.run(run())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended == [0]
    assert done[:2] == ["drain", "stop"]
    assert not server._captured_signals
