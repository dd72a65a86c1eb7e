"""A client of the service that costs httpx and numpy alone: for the evaluation job, scripts and notebooks."""

import io
import math
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray

NPY = "application/x-npy"
RETRIED = (429, 502, 503, 504)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


class ServiceError(Exception):
    """The service refused, failed or is not there. One line; `status` and `code` as it answered, if it did."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None):
        super().__init__(" ".join(message.split()))
        self.status, self.code = status, code


@dataclass(frozen=True)
class Batch:
    """Images uint8 [N, H, W, C] and where they come from; `seeds` is empty for images of latents."""

    images: NDArray[np.uint8]
    seeds: list[int]
    model: str
    digest: str


class Client:
    """Talks to one service. Use it as a context manager.

    connections: requests in flight at once (`stream`); timeout: seconds for one answer; retries: further attempts
    after a refused connection or an overloaded service, waiting 0.1 s, 0.2 s, 0.4 s, … between them.
    """

    def __init__(self, base_url: str, *, connections: int = 4, timeout: float = 60.0, retries: int = 6):
        self.base_url = base_url.rstrip("/")
        self._connections, self._retries = connections, retries
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        try:
            self._http = httpx.Client(base_url=self.base_url, timeout=timeout, limits=limits)
        except (httpx.InvalidURL, TypeError) as error:
            raise ServiceError(f"{base_url!r} is not the address of a service: {error}") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """Each model's metadata, as /v1/models tells it."""
        return self._listing()["data"]

    def model(self, name: str | None = None) -> dict[str, Any]:
        """One model's metadata; the default one's for None. ServiceError: there is none of that name."""
        listing = self._listing()
        wanted = listing.get("default") if name is None else name
        for entry in listing["data"]:
            if entry["name"] == wanted:
                return entry
        known = ", ".join(entry["name"] for entry in listing["data"]) or "none"
        what = "a default model" if wanted is None else f"a model named {wanted!r}"
        raise ServiceError(f"{self.base_url} does not serve {what}; it serves: {known}", 404, "model_not_found")

    def generate(
        self,
        *,
        model: str | None = None,
        seeds: Sequence[int] | None = None,
        seed: int | None = None,
        n: int | None = None,
        latents: ArrayLike | None = None,
        labels: Sequence[int] | None = None,
        truncation: float | None = None,
    ) -> Batch:
        """Images of seeds, or of latents [N, z_dim]; the fields are those of POST /v1/generate."""
        body: dict[str, Any] = {
            "model": model,
            "seeds": None if seeds is None else [int(s) for s in seeds],
            "seed": seed,
            "n": n,
            "latents": None if latents is None else np.asarray(latents, np.float64).tolist(),
            "labels": None if labels is None else [int(label) for label in labels],
            "truncation": truncation,
        }
        answer = self._answer("POST", "/v1/generate", NPY, {k: v for k, v in body.items() if v is not None})
        try:
            images = read_npy(answer.content)
            name, digest = answer.headers["Atelier-Model"], answer.headers["Atelier-Digest"]
            told = answer.headers.get("Atelier-Seeds")
            answered = expand(told, len(images)) if told is not None else body["seeds"] or []
        except (ValueError, EOFError, KeyError) as error:
            raise ServiceError(f"{self.base_url} answered images that cannot be read: {error}") from None
        return Batch(images, answered, name, digest)

    def stream(
        self,
        *,
        model: str | None = None,
        first_seed: int,
        num_images: int,
        batch: int = 64,
        labels: Sequence[int] | None = None,
        truncation: float | None = None,
    ) -> Iterator[Batch]:
        """Images of seeds first_seed … first_seed + num_images − 1 in that order, a batch at a time.

        `labels`: one an image; of a conditional model that is given none, each seed draws its own.
        Several requests are in flight, so the service's batches stay full. ServiceError: also when the
        model is replaced by another on the way, since its images would be of two models.
        """
        digest = None
        name = self.model(model)["name"]
        starts = iter(range(first_seed, first_seed + num_images, batch))
        end = first_seed + num_images
        pending: deque[tuple[int, Future[Batch]]] = deque()
        pool = ThreadPoolExecutor(self._connections, "stream")
        try:
            while True:
                while len(pending) < 2 * self._connections and (start := next(starts, None)) is not None:
                    n = min(batch, end - start)
                    chosen = None if labels is None else labels[start - first_seed : start - first_seed + n]
                    task = pool.submit(self.generate, model=name, seed=start, n=n, labels=chosen, truncation=truncation)
                    pending.append((n, task))
                if not pending:
                    return
                n, task = pending.popleft()
                part = task.result()
                if len(part.images) != n:
                    raise ServiceError(f"{self.base_url} answered {len(part.images)} images, not {n}")
                if digest not in (None, part.digest):
                    raise ServiceError(f"the model {name!r} was replaced while its images were fetched")
                digest = part.digest
                yield part
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _listing(self) -> dict[str, Any]:
        answer = self._answer("GET", "/v1/models", "application/json")
        try:
            listing = answer.json()
            if isinstance(listing["data"], list):
                return listing
        except (ValueError, KeyError, TypeError):
            pass
        raise ServiceError(f"{self.base_url}/v1/models is not the list of models of a GAN Atelier service")

    def _answer(self, method: str, path: str, accept: str, body: Any = None) -> httpx.Response:
        """The 200 answer of that content type, after retries. ServiceError: there is none."""
        for attempt in range(self._retries + 1):
            try:
                answer = self._http.request(method, path, json=body, headers={"Accept": accept})
            except httpx.InvalidURL as error:
                raise ServiceError(f"{self.base_url!r} is not the address of a service: {error}") from None
            except httpx.UnsupportedProtocol:
                raise ServiceError(f"{self.base_url!r} needs http:// or https:// before it") from None
            except httpx.TransportError as error:
                failure = ServiceError(
                    f"no answer from {self.base_url} ({type(error).__name__}: {error}); is the service running?"
                )
                after = 0.0
            else:
                if answer.status_code == 200:
                    return self._of_type(answer, accept)
                failure = self._refusal(answer)
                if answer.status_code not in RETRIED:
                    raise failure
                after = _seconds(answer.headers.get("Retry-After"))
            if attempt < self._retries:
                wait = max(after, FIRST_WAIT_S * 2**attempt)
                time.sleep(min(wait, LONGEST_WAIT_S) * random.uniform(0.5, 1.0))
        raise failure

    def _of_type(self, answer: httpx.Response, accept: str) -> httpx.Response:
        told = answer.headers.get("Content-Type", "nothing").partition(";")[0]
        if told != accept:
            raise ServiceError(
                f"{self.base_url} answered {told} where {accept} was asked for: not a GAN Atelier service?", 200
            )
        return answer

    def _refusal(self, answer: httpx.Response) -> ServiceError:
        try:
            error = answer.json()["error"]
            return ServiceError(str(error["message"]), answer.status_code, str(error["code"]))
        except (ValueError, KeyError, TypeError):
            told = answer.headers.get("Content-Type", "nothing").partition(";")[0]
            return ServiceError(
                f"{answer.url} answered {answer.status_code} with {told}: not a GAN Atelier service?",
                answer.status_code,
            )


def read_npy(content: bytes) -> NDArray[np.uint8]:
    """Images uint8 [N, H, W, C] of a .npy file. ValueError: it is not one, or not as long as it says."""
    file = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not a .npy file of version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        raise
    except Exception as error:  # numpy's reader lets the tokenizer's and the parser's own errors through
        raise ValueError(f"its header is broken ({type(error).__name__})") from None
    if dtype != np.uint8 or len(shape) != 4 or fortran or min(shape) < 0:
        raise ValueError(f"{dtype} {list(shape)}, not uint8 [N, H, W, C]")
    if math.prod(shape) != len(content) - file.tell():
        raise ValueError(f"{list(shape)} in {len(content) - file.tell()} bytes")
    return np.frombuffer(content, np.uint8, offset=file.tell()).reshape(shape).copy()


def expand(seeds: str, at_most: int = 2**20) -> list[int]:
    """ "0-3,7" as [0, 1, 2, 3, 7]. ValueError: not a list of seeds, or of more than `at_most`."""
    result: list[int] = []
    for part in seeds.split(",") if seeds else []:
        first, _, last = part.partition("-")
        run = range(int(first), int(last or first) + 1)
        # compared by its ends: the length of a longer range overflows
        if run.stop - run.start > at_most - len(result):
            raise ValueError(f"more than {at_most} seeds")
        result.extend(run)
    return result


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 0.0
