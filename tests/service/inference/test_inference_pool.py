import threading

from service.inference.batcher import InferencePool


def test_pool_after_a_failed_step_runs_the_next() -> None:
    pool, done = InferencePool(1), threading.Event()

    def fail() -> None:
        raise RuntimeError("no")

    pool.submit(fail)
    pool.submit(done.set)
    assert done.wait(20)
    pool.close()


def test_pool_has_pending_while_a_step_waits_for_a_thread() -> None:
    pool, started, leave, done = InferencePool(1), threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        started.set()
        leave.wait(20)

    pool.submit(first)
    assert started.wait(20)
    assert not pool.has_pending
    pool.submit(done.set)
    assert pool.has_pending
    leave.set()
    assert done.wait(20)
    assert not pool.has_pending
    pool.close()
