"""ONNX Runtime sessions: their execution provider, threads and batch sizes."""

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
CUDA_BATCH_SIZES = (1, 4, 16, 64)  # batches on a GPU have one of these sizes, or the largest
CUDA_OPTIONS = {
    # the search picks by speed and may pick differently in each process; the heuristic picks the same in all
    "cudnn_conv_algo_search": "HEURISTIC",
    "use_tf32": "0",  # 10 bits of mantissa would move an image by more than a level
    "arena_extend_strategy": "kSameAsRequested",
}


class ProviderError(Exception):
    """ATELIER_PROVIDER requires what this machine does not have."""


class RunWatchdog:
    """Terminates runs that take too long: a loop in a graph may depend on the latents, so the probe may not show it."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._running: dict[int, tuple[Any, float]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, session: "InferenceSession", feed: dict[str, NDArray[Any]]) -> list[Any]:
        """Run a session; ONNX Runtime raises an error if the run was terminated."""
        import onnxruntime as ort

        if self._thread is None:
            self._start()
        options = ort.RunOptions()
        self._running[id(options)] = options, time.monotonic() + self._seconds
        try:
            outputs: list[Any] = session.run(None, feed, options)
            return outputs
        finally:
            del self._running[id(options)]

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="run watchdog", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self._seconds / 4))
            now = time.monotonic()
            for options, end in list(self._running.values()):
                if now > end:
                    options.terminate = True


@dataclass(frozen=True)
class Runtime:
    """How a worker's sessions run.

    Attributes:
        threads: Threads of one inference.
        max_batch: Rows of the largest batch.
        provider: The device.
        strict: Reject a session that falls back to another provider.
        parallel_batches: Batches that run at the same time, each on its share of the threads.
        heavy: One row takes more memory than a batch should: run one batch at a time, and keep no memory.
        watchdog: Terminates runs for requests that take too long.
    """

    threads: int
    max_batch: int
    provider: Literal["cpu", "cuda"] = "cpu"
    strict: bool = False
    parallel_batches: int = 1
    heavy: bool = False
    watchdog: RunWatchdog | None = None

    @property
    def cuda_sizes(self) -> tuple[int, ...]:
        """Sizes to which a GPU's batches are padded: its convolutions are selected again for each new size."""
        return (*(size for size in CUDA_BATCH_SIZES if size < self.max_batch), self.max_batch)


def choose_provider(wanted: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """Return the provider to use; for `auto`, CUDA where ONNX Runtime has it and the driver finds a device.

    Raises:
        ProviderError: If CUDA is required and missing.
    """
    import onnxruntime as ort

    if wanted == "cpu":
        return "cpu"
    if CUDA not in ort.get_available_providers():
        missing = "this ONNX Runtime has no CUDA: pip install '.[gpu]' in the checkout in place of [cpu]"
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
    """Return the number of devices that the CUDA driver shows this process; 0 without a driver."""
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
    """A model's ONNX Runtime session.

    On a CPU with parallel batches there are two: one on all the threads for an exclusive batch, and one on the share
    of threads of a parallel batch.

    Attributes:
        provider: The execution provider that runs it.
        sizes: The batch sizes that it accepts, rising; None if it accepts any.
    """

    def __init__(self, content: bytes, runtime: Runtime, batch: int | None = None):
        """Make the session.

        Args:
            content: The ONNX model.
            runtime: How it runs.
            batch: The only batch size that the graph accepts, if it is fixed.
        """
        providers = [(CUDA, CUDA_OPTIONS), CPU] if runtime.provider == "cuda" else [CPU]
        self._wide = self._narrow = _session(content, runtime.threads, providers, keep_memory=not runtime.heavy)
        self._watchdog = runtime.watchdog
        self._one_at_a_time = threading.Lock() if runtime.heavy else nullcontext()
        self.provider: str = self._wide.get_providers()[0]
        if runtime.provider == "cuda" and self.provider != CUDA:
            if runtime.strict:
                raise ContractError("ONNX Runtime could not run it with CUDA (ATELIER_PROVIDER is cuda); see the log")
            log.warning("ONNX Runtime could not start CUDA; the CPU runs instead")
        on_cuda = runtime.cuda_sizes if self.provider == CUDA else None
        self.sizes: tuple[int, ...] | None = (batch,) if batch else on_cuda
        if self.provider == CPU and runtime.threads > 1 and runtime.parallel_batches > 1 and not runtime.heavy:
            self._narrow = _session(content, max(1, runtime.threads // runtime.parallel_batches), [CPU])

    def run(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        exclusive: bool = True,
        limited: bool = False,
    ) -> NDArray[np.uint8]:
        """Generate images.

        Args:
            latents: float32 [N, z_dim].
            labels: int64 [N] if the model is conditional.
            exclusive: Run on all the threads, not on the share of one of several parallel batches.
            limited: Let the watchdog terminate the run.

        Returns:
            Images, uint8 [N, H, W, C].
        """
        watchdog = self._watchdog if limited else None
        session = self._wide if exclusive else self._narrow

        def run(latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[np.uint8]:
            feed: dict[str, NDArray[Any]] = {"latents": latents}
            if labels is not None:
                feed["labels"] = labels
            with self._one_at_a_time:
                outputs = session.run(None, feed) if watchdog is None else watchdog.run(session, feed)
            images: NDArray[np.uint8] = outputs[0]
            return images

        return run(latents, labels) if self.sizes is None else run_in_sizes(run, self.sizes, latents, labels)

    def best_batch(self, z_dim: int, classes: int, largest: int) -> int:
        """Return the rows of the smallest batch that takes about as little time per row as any.

        It is measured on the threads of a parallel batch, in processor time so that other load does not matter, for a
        quarter of a second at most.
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
                self.run(latents, labels, exclusive=False)
                costs[rows] = min(costs.get(rows, np.inf), (time.thread_time() - began) / rows)
            if rows == largest or time.perf_counter() > end:
                break
            rows = min(2 * rows, largest)
        enough = (1 + BATCH_TOLERANCE) * min(costs.values())
        return next(rows for rows, cost in costs.items() if cost <= enough)


def _session(content: bytes, threads: int, providers: list[Any], keep_memory: bool = True) -> "InferenceSession":
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
    """Call `run` with batches of these sizes only.

    The largest is used while there are rows for it, then the smallest that holds the rest, padded with zeros whose
    images are dropped.

    Args:
        run: Runs one batch.
        sizes: The batch sizes, rising.
        latents: float32 [N, z_dim].
        labels: int64 [N], or None.

    Returns:
        Images, uint8 [N, H, W, C].
    """
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
