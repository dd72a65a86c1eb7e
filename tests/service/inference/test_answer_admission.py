"""Who is made to wait, who passes, and what is given back."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.errors import ApiError
from service.inference import answer_admission
from service.inference.answer_admission import Admission
from service.middleware import request
from service.server import connection_limits


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_admission_large_answers_taken_small_ones_pass() -> None:
    async def scenario() -> None:
        room = Admission(2**20)
        await room.acquire(2**20)
        waiting = asyncio.create_task(room.acquire(2**19))
        await settle()
        assert not waiting.done()
        for pixels in (1, 2**11, 2**12, 2**15):
            assert room.try_acquire(pixels)
        room.release(2**20)
        await waiting

    asyncio.run(scenario())


def test_admission_waiting_answers_keep_their_order() -> None:
    async def scenario() -> None:
        room, order = Admission(2**20), []

        async def enter(pixels: int) -> None:
            await room.acquire(pixels)
            order.append(pixels)

        await room.acquire(2**19)
        tasks = [asyncio.create_task(enter(pixels)) for pixels in (2**19 + 1, 2**16, 2**17)]
        await settle()
        assert not order  # the later ones would fit, but the first would then wait without end
        room.release(2**19)
        await settle()
        assert order == [2**19 + 1, 2**16]
        room.release(2**19 + 1)
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_admission_cancelled_wait_leaves_room_for_the_next() -> None:
    async def scenario() -> None:
        room = Admission(2**20)
        await room.acquire(2**19)
        first, second = (asyncio.create_task(room.acquire(pixels)) for pixels in (2**19, 2**16))
        await settle()
        first.cancel()
        await second
        third = asyncio.create_task(room.acquire(2**19))
        await settle()
        room.release(2**19)
        room.release(2**16)
        third.cancel()  # admitted and cancelled at once
        await settle()
        assert room.try_acquire(2**20)

    asyncio.run(scenario())


def test_admission_too_many_waiting_answers_are_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        refused: list[int] = []
        room = Admission(100, lambda: refused.append(1))
        await room.acquire(100)
        waiting = asyncio.create_task(room.acquire(50))
        await settle()
        with pytest.raises(ApiError) as error:
            await room.acquire(50)
        assert (error.value.status, error.value.code, refused) == (503, "queue_full", [1])
        room.release(100)
        await waiting

    monkeypatch.setattr(answer_admission, "MAX_WAITING", 1)
    asyncio.run(scenario())


def test_admission_encode_holds_its_room_until_the_thread_ends() -> None:
    async def scenario() -> None:
        room, end = Admission(100), threading.Event()
        await room.acquire(100)
        begun = threading.Event()

        def work() -> bool:
            begun.set()
            return end.wait(20)

        job = asyncio.create_task(room.encode(100, work))
        assert await asyncio.to_thread(begun.wait, 20)
        job.cancel()
        await settle()
        assert job.cancelled()
        assert not room.try_acquire(100)
        end.set()
        await asyncio.wait_for(room.acquire(100), 20)
        room.close()

    asyncio.run(scenario())


def test_gate_large_bodies_have_a_bound_together(serve: Any, folder: Path) -> None:
    client: TestClient = serve(folder)
    worker = client.app.state.worker  # type: ignore[attr-defined]
    large = b'{"seed": 0}' + b" " * request.SMALL_BODY
    headers = {"Content-Type": "application/json"}
    worker.body_bytes = request.MAX_BODIES  # as if other connections held them
    answer = client.post("/v1/generate", content=large, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
    assert int(answer.headers["Retry-After"]) > 0
    assert client.post("/v1/generate", json={"seed": 0}).status_code == 200
    worker.body_bytes = 0
    assert client.post("/v1/generate", content=large, headers=headers).status_code == 200
    assert worker.body_bytes == 0


class SlowReader:
    """A connection with this much unread, since that time."""

    def __init__(self, size: int, since: float):
        self.size, self.sending_since, self.aborted = size, since, False

    def unsent_bytes(self) -> int:
        return self.size

    def abort(self) -> None:
        self.aborted = True

    def check(self, now: float) -> None:
        pass


def test_connection_limits_close_the_slowest_of_too_much_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "MAX_UNSENT_BYTES", 130)
    limits = connection_limits.ConnectionLimits()
    sizes = ((90, 99.0), (80, 0.0), (30, 0.0), (5, 0.0))
    new, large, middle, small = readers = [SlowReader(size, since) for size, since in sizes]
    limits._close_slow_readers(100.0, readers)
    assert [each.aborted for each in (new, large, middle, small)] == [False, True, False, False]
    burst = [SlowReader(90, 99.0) for _ in range(3)]
    limits._close_slow_readers(100.0, burst)
    assert sum(each.aborted for each in burst) == 2
    few = SlowReader(130, 0.0)
    limits._close_slow_readers(100.0, [few])
    assert not few.aborted
