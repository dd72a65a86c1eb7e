import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.errors import ApiError
from service.inference.batcher import Batcher, InferencePool
from service.observability.metrics import Metrics


class Machine:
    """An inference that can be held: image i of a batch is its latent's first number, and batches are noted."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []

    def __call__(self, latents: np.ndarray, labels: np.ndarray | None, alone: bool) -> np.ndarray:
        rows = latents[:, 0].astype(int).tolist()
        self.batches.append(rows)
        self.alone.append(alone)
        self.entered.set()
        assert self.open.wait(20)
        if 66 in rows:
            raise RuntimeError("bad row")
        return latents[:, :1].astype(np.uint8).reshape(-1, 1, 1, 1)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def lane() -> Iterator[InferencePool]:
    lanes = InferencePool(1)
    yield lanes
    lanes.close()


@pytest.fixture
def lanes() -> Iterator[InferencePool]:
    lanes = InferencePool(2)
    yield lanes
    lanes.close()


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def batcher(machine: Any, lane: InferencePool, max_rows: int = 8, queue: int = 64) -> Batcher:
    return Batcher(machine, lane, max_rows, queue, Metrics())


async def held(machine: Machine, b: Batcher) -> asyncio.Task[np.ndarray]:
    """A first request whose inference has begun and does not end until `machine.open` is set."""
    machine.open.clear()
    machine.entered.clear()
    first = asyncio.create_task(b.submit(rows(0), None, 20))
    await asyncio.to_thread(machine.entered.wait, 20)
    return first


async def queued(b: Batcher, count: int) -> None:
    while b._waiting != count:
        await asyncio.sleep(0)


def values(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_batcher_waiting_requests_share_a_batch(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane)
        first = await held(machine, b)
        others = [asyncio.create_task(b.submit(rows(10 * i, 10 * i + 1), None, 20)) for i in (1, 2, 3)]
        await queued(b, 6)
        machine.open.set()
        assert values(await first) == [0]
        assert [values(await t) for t in others] == [[10, 11], [20, 21], [30, 31]]
        assert machine.batches == [[0], [10, 11, 20, 21, 30, 31]]

    asyncio.run(scenario())


def test_batcher_small_request_does_not_wait_for_a_large_one(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane)
        first = await held(machine, b)
        large = asyncio.create_task(b.submit(rows(*range(1, 31)), None, 20))
        await queued(b, 30)
        small = asyncio.create_task(b.submit(rows(99), None, 20))
        await queued(b, 31)
        machine.open.set()
        assert values(await small) == [99]
        assert values(await large) == list(range(1, 31))
        assert 99 in machine.batches[1]
        assert max(map(len, machine.batches)) == 8
        await first

    asyncio.run(scenario())


def test_batcher_full_queue_is_503(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane, queue=4)
        first = await held(machine, b)
        within = asyncio.create_task(b.submit(rows(1, 2, 3, 4), None, 20))
        await queued(b, 4)
        with pytest.raises(ApiError) as refusal:
            await b.submit(rows(5), None, 20)
        assert (refusal.value.status, refusal.value.code) == (503, "queue_full")
        assert refusal.value.headers["Retry-After"] == "1"  # nothing has been measured yet
        machine.open.set()
        assert values(await within) == [1, 2, 3, 4]
        await first

    asyncio.run(scenario())


def test_batcher_retry_after_is_the_time_of_the_queue(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane, queue=4)
        await b.submit(rows(1), None, 20)
        b._row_seconds = 1.6  # what a machine that slow would have measured
        first = await held(machine, b)
        within = asyncio.create_task(b.submit(rows(1, 2, 3, 4), None, 20))
        await queued(b, 4)
        with pytest.raises(ApiError) as refusal:
            await b.submit(rows(5), None, 20)
        assert refusal.value.headers["Retry-After"] == "7"  # 4 rows of 1.6 s
        machine.open.set()
        await asyncio.gather(first, within)

    asyncio.run(scenario())


def test_batcher_parallel_batches_share_the_cores(machine: Machine, lanes: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lanes)
        first = await held(machine, b)
        second = asyncio.create_task(b.submit(rows(1), None, 20))
        while len(machine.batches) < 2:  # the first has not ended
            await asyncio.sleep(0)
        machine.open.set()
        await asyncio.gather(first, second)
        assert machine.alone == [True, False]
        await b.submit(rows(2), None, 20)
        assert machine.alone == [True, False, True]

    asyncio.run(scenario())


def test_batcher_large_queue_is_shared_over_the_threads(machine: Machine, lanes: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lanes)
        assert values(await b.submit(rows(*range(10)), None, 20)) == list(range(10))
        assert sorted(map(len, machine.batches)) == [5, 5]
        assert machine.alone[0] is False

    asyncio.run(scenario())


def test_pool_models_take_turns_per_batch(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        one, other = batcher(machine, lane, max_rows=2), batcher(machine, lane, max_rows=2)
        first = await held(machine, one)
        large = asyncio.create_task(one.submit(rows(*range(1, 13)), None, 20))
        await queued(one, 12)
        small = asyncio.create_task(other.submit(rows(99), None, 20))
        await queued(other, 1)
        machine.open.set()
        await asyncio.gather(first, large, small)
        assert machine.batches.index([99]) == 1

    asyncio.run(scenario())


def test_batcher_idle_takes_a_request_larger_than_the_queue(machine: Machine, lane: InferencePool) -> None:
    b = batcher(machine, lane, queue=4)
    assert values(asyncio.run(b.submit(rows(*range(20)), None, 20))) == list(range(20))


def test_batcher_cancelled_request_frees_its_rows(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane)
        first = await held(machine, b)
        gone = asyncio.create_task(b.submit(rows(1, 2), None, 20))
        stays = asyncio.create_task(b.submit(rows(3), None, 20))
        await queued(b, 3)
        gone.cancel()
        await queued(b, 1)
        machine.open.set()
        assert values(await stays) == [3]
        await first
        assert machine.batches == [[0], [3]]

    asyncio.run(scenario())


def test_batcher_deadline_is_503_and_frees_the_rows(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane)
        first = await held(machine, b)
        with pytest.raises(ApiError) as refusal:
            await b.submit(rows(1), None, 0.01)
        assert refusal.value.code == "deadline_exceeded"
        assert b._waiting == 0
        assert b._metrics.queue_rows._value.get() == 0
        machine.open.set()
        await first
        assert machine.batches == [[0]]

    asyncio.run(scenario())


def test_batcher_failing_rows_fail_only_their_request(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane)
        first = await held(machine, b)
        good = asyncio.create_task(b.submit(rows(1), None, 20))
        bad = asyncio.create_task(b.submit(rows(66), None, 20))
        more = asyncio.create_task(b.submit(rows(2), None, 20))
        await queued(b, 3)
        machine.open.set()
        assert values(await good) == [1]
        assert values(await more) == [2]
        with pytest.raises(ApiError) as error:
            await bad
        assert error.value.status == 500
        await first
        assert values(await b.submit(rows(7), None, 20)) == [7]

    asyncio.run(scenario())


def test_batcher_requests_of_all_sizes_return_their_rows(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane, queue=10_000)
        sizes = np.random.default_rng(0).integers(1, 30, 200)
        wanted = [[(7 * i + j) % 60 for j in range(n)] for i, n in enumerate(sizes)]
        answers = await asyncio.gather(*(b.submit(rows(*w), None, 20) for w in wanted))
        assert [values(a) for a in answers] == wanted
        assert b._waiting == 0

    asyncio.run(scenario())


def test_batcher_large_requests_leave_a_quarter_to_small_ones(machine: Machine, lane: InferencePool) -> None:
    async def scenario() -> None:
        b = batcher(machine, lane, queue=16)
        first = await held(machine, b)
        large = asyncio.create_task(b.submit(rows(*range(1, 11)), None, 20))
        await queued(b, 10)
        with pytest.raises(ApiError) as refusal:
            await b.submit(rows(20, 21, 22), None, 20)
        assert refusal.value.code == "queue_full"
        small = [asyncio.create_task(b.submit(rows(30 + i, 40 + i), None, 20)) for i in range(3)]
        await queued(b, 16)
        machine.open.set()
        assert [values(await each) for each in small] == [[30, 40], [31, 41], [32, 42]]
        await large
        await first

    asyncio.run(scenario())
