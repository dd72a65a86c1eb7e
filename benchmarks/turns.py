"""Training loops as processes of their own that take turns: each runs alone while the others stand still.

A loop is any command that tells a step on its output, be it a script of ours or somebody's, unmodified. Its speed is
read from that output alone, from the first line of a turn to the last, so that all are measured alike and none shares
a memory allocator, a thread pool or a garbage collector with another.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_S = 180.0  # to wait for a loop's first step
SETTLE_S = 0.3  # after a turn began, before anything counts


class Loop:
    """A process that trains, stopped but for its turns. `step_of` reads a line of its output as the step it ended.

    `name` is what an error calls it; by default its command.
    """

    def __init__(
        self,
        command: Sequence[str],
        step_of: Callable[[str], int | None],
        batch: int,
        cwd: Path,
        name: str | None = None,
    ) -> None:
        self.step_of, self.batch, self.name = step_of, batch, name or " ".join(command)
        self.log = cwd / "output.txt"
        self.seen: list[tuple[float, int]] = []  # when a step ended, and how many steps had by then
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # of its own, with its loader's workers; the session stays, and with it our priority
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        with self.log.open("wb") as log:
            while chunk := os.read(self.process.stdout.fileno(), 65536):
                log.write(chunk)
                log.flush()
                *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
                for line in lines:
                    step = self.step_of(line.decode(errors="replace"))
                    if step is not None and (not self.seen or step > self.seen[-1][1]):
                        self.seen.append((time.perf_counter(), step))

    def warm_up(self, seconds: float) -> None:
        """From the start, or from where it stands, until it has trained `seconds`; then stopped."""
        self._signal(signal.SIGCONT)
        self._wait_for(lambda: bool(self.seen), START_S)
        time.sleep(seconds)
        self._wait_for(lambda: len(self.seen) >= 2, START_S)
        self._signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> float:
        """Images a second over about `seconds`, two steps at least."""
        self._signal(signal.SIGCONT)
        time.sleep(SETTLE_S)
        first = len(self.seen)
        self._wait_for(lambda: len(self.seen) > first + 1, START_S)
        left = seconds - (time.perf_counter() - self.seen[first][0])
        time.sleep(max(left, 0))
        self._signal(signal.SIGSTOP)
        (began, before), (ended, after) = self.seen[first], self.seen[-1]
        return (after - before) * self.batch / (ended - began)

    def end(self) -> None:
        if self.process.poll() is None:
            self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            raise SystemExit(f"{self.name} ended by itself; its output:\n{self._tail()}") from None

    def _wait_for(self, happened: Callable[[], bool], seconds: float) -> None:
        deadline = time.perf_counter() + seconds
        while not happened():
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended by itself; its output:\n{self._tail()}")
            if time.perf_counter() > deadline:
                raise SystemExit(f"{self.name} told no step in {seconds:.0f} s:\n{self._tail()}")
            time.sleep(0.01)

    def _tail(self) -> str:
        return self.log.read_text(errors="replace", encoding="utf-8")[-2000:]


@contextmanager
def taking_turns(loops: Sequence[Loop], warm_up_s: float) -> Iterator[Callable[[float], list[float]]]:
    """Gives a function: one round, a turn of so many seconds each → images a second of each."""
    try:
        for loop in loops:
            loop._signal(signal.SIGSTOP)
        for loop in loops:
            loop.warm_up(warm_up_s)
        yield lambda seconds: [loop.turn(seconds) for loop in loops]
    finally:
        for loop in loops:
            loop.end()
