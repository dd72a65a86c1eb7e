"""ONNX Runtime sessions: on which device they run, and in batches of which sizes."""

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from artifacts.generator_file import ContractError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

log = logging.getLogger("bentoml.atelier")

Run = Callable[[NDArray[np.float32], NDArray[np.int64] | None], NDArray[np.uint8]]

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CALIBRATION_S = 0.25
BATCH_TOLERANCE = 0.04
STEPS = (1, 4, 16, 64)  # batches on a GPU have one of these sizes, or the largest
CUDA_OPTIONS = {
    # the search picks by speed and may pick differently in each process; the heuristic picks the same in all
    "cudnn_conv_algo_search": "HEURISTIC",
    "use_tf32": "0",  # 10 bits of mantissa would move an image by more than a level
    "arena_extend_strategy": "kSameAsRequested",
}


class ProviderError(Exception):
    """ATELIER_PROVIDER asks for what this machine does not have."""


class RunLimit:
    """Ends runs that take too long: a loop in a graph may depend on the latents, so that no trial has shown it."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._running: dict[int, tuple[Any, float]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, session: "InferenceSession", feed: dict[str, NDArray]) -> list[Any]:
        """Run a session; ONNX Runtime raises if it was ended."""
        import onnxruntime as ort

        if self._thread is None:
            self._start()
        options = ort.RunOptions()
        self._running[id(options)] = options, time.monotonic() + self._seconds
        try:
            return session.run(None, feed, options)
        finally:
            del self._running[id(options)]

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="run limit", daemon=True)
                self._thread.start()

    def _look(self) -> None:
        while True:
            time.sleep(min(1.0, self._seconds / 4))
            now = time.monotonic()
            for options, end in list(self._running.values()):
                if now > end:
                    options.terminate = True


@dataclass(frozen=True)
class Runtime:
    """How a worker's sessions are made. max_batch: the rows of the largest batch that will be asked for."""

    threads: int
    max_batch: int
    provider: Literal["cpu", "cuda"] = "cpu"
    strict: bool = False  # refuse a session that falls back to another provider
    lanes: int = 1  # batches that run side by side, each on its share of the threads
    heavy: bool = False  # one row takes more memory than a batch should: one at a time, and none is kept
    limit: RunLimit | None = None  # of the runs for requests

    @property
    def cuda_sizes(self) -> tuple[int, ...]:
        """Sizes that a GPU's batches are filled up to: its convolutions are chosen anew for each new one."""
        return (*(size for size in STEPS if size < self.max_batch), self.max_batch)


def choose_provider(wanted: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """auto: cuda where ONNX Runtime has it and the driver finds a device. ProviderError: cuda is not to be had."""
    import onnxruntime as ort

    if wanted == "cpu":
        return "cpu"
    if CUDA not in ort.get_available_providers():
        missing = "this ONNX Runtime has no CUDA: pip install 'gan-atelier[gpu]' in place of [cpu]"
    elif not cuda_devices():
        missing = "the driver finds no device"
    else:
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # CUDA's libraries from their own packages, where the system has none
        return "cuda"
    if wanted == "cuda":
        raise ProviderError(f"ATELIER_PROVIDER is cuda, but {missing}")
    return "cpu"


def cuda_devices() -> int:
    """Devices that the CUDA driver shows this process; 0 without a driver."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


class Session:
    """A model's sessions. `provider` is what really runs it; `sizes` those of its batches, None: any size.

    On a CPU with lanes there are two: one on all the threads for a batch that is alone, one on a lane's share.

    batch: the only batch size that the graph takes, if it is fixed.
    """

    def __init__(self, content: bytes, runtime: Runtime, batch: int | None = None):
        providers = [(CUDA, CUDA_OPTIONS), CPU] if runtime.provider == "cuda" else [CPU]
        self._wide = self._narrow = _session(content, runtime.threads, providers, keep_memory=not runtime.heavy)
        self._limit = runtime.limit
        self._one_at_a_time = threading.Lock() if runtime.heavy else nullcontext()
        self.provider: str = self._wide.get_providers()[0]
        if runtime.provider == "cuda" and self.provider != CUDA:
            if runtime.strict:
                raise ContractError("ONNX Runtime could not run it with CUDA (ATELIER_PROVIDER is cuda); see the log")
            log.warning("ONNX Runtime could not start CUDA; the CPU runs instead")
        on_cuda = runtime.cuda_sizes if self.provider == CUDA else None
        self.sizes: tuple[int, ...] | None = (batch,) if batch else on_cuda
        if self.provider == CPU and runtime.threads > 1 and runtime.lanes > 1 and not runtime.heavy:
            self._narrow = _session(content, max(1, runtime.threads // runtime.lanes), [CPU])

    def run(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        alone: bool = True,
        limited: bool = False,
    ) -> NDArray[np.uint8]:
        """latents float32 [N, z_dim] (and labels int64 [N] if conditional) → images uint8 [N, H, W, C].

        alone: on all the threads; else on a lane's share of them. limited: the runtime's limit ends it.
        """
        limit = self._limit if limited else None
        session = self._wide if alone else self._narrow

        def run(latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[np.uint8]:
            feed: dict[str, NDArray] = {"latents": latents}
            if labels is not None:
                feed["labels"] = labels
            with self._one_at_a_time:
                return session.run(None, feed)[0] if limit is None else limit.run(session, feed)[0]

        return run(latents, labels) if self.sizes is None else run_in_sizes(run, self.sizes, latents, labels)

    def best_batch(self, z_dim: int, classes: int, largest: int) -> int:
        """Rows of the smallest batch that costs a row about as little as any: what is larger only waits longer.

        Measured on a lane, in processor time, so that the machine's other work has no say, for a moment at most.
        """
        if self.provider != CPU or self.sizes is not None:
            return largest
        costs: dict[int, float] = {}
        end = time.perf_counter() + CALIBRATION_S
        rows = min(4, largest)
        while True:
            latents, labels = np.zeros((rows, z_dim), np.float32), np.zeros(rows, np.int64) if classes else None
            for _ in range(2):
                began = time.thread_time()
                self.run(latents, labels, alone=False)
                costs[rows] = min(costs.get(rows, np.inf), (time.thread_time() - began) / rows)
            if rows == largest or time.perf_counter() > end:
                break
            rows = min(2 * rows, largest)
        enough = (1 + BATCH_TOLERANCE) * min(costs.values())
        return next(rows for rows, cost in costs.items() if cost <= enough)


def _session(content: bytes, threads: int, providers: list, keep_memory: bool = True) -> "InferenceSession":
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = keep_memory
    return ort.InferenceSession(content, options, providers=providers)


def run_in_sizes(
    run: Run, sizes: tuple[int, ...], latents: NDArray[np.float32], labels: NDArray[np.int64] | None
) -> NDArray[np.uint8]:
    """`run` on batches of these sizes alone (rising): the largest while there are rows for it, then the smallest
    that holds the rest, filled up with zeros whose images are dropped."""
    parts = []
    for first in range(0, len(latents), sizes[-1]):
        rows = latents[first : first + sizes[-1]]
        classes = None if labels is None else labels[first : first + sizes[-1]]
        size = next(size for size in sizes if size >= len(rows))
        if size > len(rows):
            rows = np.concatenate([rows, np.zeros((size - len(rows), rows.shape[1]), rows.dtype)])
            if classes is not None:
                classes = np.concatenate([classes, np.zeros(size - len(classes), classes.dtype)])
        parts.append(run(rows, classes)[: len(latents) - first])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
