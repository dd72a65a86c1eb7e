import threading

from service.inference.pool import Lanes


def test_a_step_that_fails_leaves_its_lane_to_the_next() -> None:
    lanes, done = Lanes(1), threading.Event()

    def failing() -> None:
        raise RuntimeError("no")

    lanes.submit(failing)
    lanes.submit(done.set)
    assert done.wait(20)
    lanes.close()


def test_a_lane_is_wanted_while_more_steps_wait_than_lanes_are_free() -> None:
    lanes, entered, leave, done = Lanes(1), threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        entered.set()
        leave.wait(20)

    lanes.submit(first)
    assert entered.wait(20)
    assert not lanes.wanted
    lanes.submit(done.set)
    assert lanes.wanted
    leave.set()
    assert done.wait(20)
    assert not lanes.wanted
    lanes.close()
