"""A client of the service that costs httpx and numpy alone: for the evaluation job, scripts and notebooks."""

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from artifacts.generator_file import NAME
from service.client.transport import ServiceError, Transport
from service.client.wire import expand, read_npy, read_npz

__all__ = ["Batch", "Client", "ServiceError"]

JSON, NPY, NPZ = "application/json", "application/x-npy", "application/x-npz"


@dataclass(frozen=True)
class Batch:
    """Images uint8 [N, H, W, C] and where they come from.

    `seeds` and `labels` are one an image, and empty for images that have none (or too many to be told with npy);
    `latents` float32 [N, z_dim] is told of interpolations and mixes.
    """

    images: NDArray[np.uint8]
    seeds: list[int]
    model: str
    digest: str
    labels: Sequence[int] = ()
    latents: NDArray[np.float32] | None = None


class Client:
    """Talks to one service, from any number of threads. Use it as a context manager.

    connections: requests in flight at once (`stream`); timeout: seconds without a byte until an answer is given up.
    patience_s: seconds that a request is tried again after its first failure, when the service is overloaded or
    still loads its models (429, 502, 503, 504) or its connection is refused, breaks or times out: a service that
    is restarted meanwhile costs a pause. Waits double from 0.1 s to 5 s, each shortened at random by up to a half so
    that many clients do not come back together, and are never shorter than its Retry-After. 0: one attempt. Until
    the service has answered for the first time no more than 5 s are spent, since the address may be wrong.
    api_key: for a service that asks for one. max_answer_bytes: an answer that is larger is refused.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connections: int = 4,
        timeout: float = 60.0,
        patience_s: float = 30.0,
        api_key: str | None = None,
        max_answer_bytes: int = 2**30,
    ):
        self._transport = Transport(
            base_url,
            connections=connections,
            timeout=timeout,
            patience_s=patience_s,
            api_key=api_key,
            max_answer_bytes=max_answer_bytes,
        )
        self.base_url = self._transport.base_url
        self._connections, self._max_answer_bytes = connections, max_answer_bytes

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def models(self) -> list[dict[str, Any]]:
        """Each model's metadata, as /v1/models tells it."""
        return self._listing()["data"]

    def model(self, name: str | None = None) -> dict[str, Any]:
        """One model's metadata; the default one's for None. ServiceError: there is none of that name."""
        listing = self._listing()
        if listing.get("not_ready"):  # perhaps still loading: as patient as with any 503
            self._transport.answer("GET", "/readyz", JSON)
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
        body = {
            "model": model,
            "seeds": None if seeds is None else [int(s) for s in seeds],
            "seed": seed,
            "n": n,
            "latents": None if latents is None else np.asarray(latents, np.float64).tolist(),
            "labels": None if labels is None else [int(label) for label in labels],
            "truncation": truncation,
        }
        return self._generate(body)

    def interpolate(
        self,
        keyframes: Sequence[int | ArrayLike],
        *,
        model: str | None = None,
        steps: int | None = None,
        mode: Literal["slerp", "lerp"] | None = None,
        easing: Literal["linear", "ease_in", "ease_out", "ease_in_out"] | None = None,
        loop: bool = False,
        labels: Sequence[int] | None = None,
        truncation: float | None = None,
    ) -> Batch:
        """Frames along a path through keyframes, seeds or latents [z_dim]; the fields of POST /v1/interpolate."""
        body = {
            "model": model,
            "keyframes": [int(k) if np.ndim(k) == 0 else np.asarray(k, np.float64).tolist() for k in keyframes],  # type: ignore[arg-type]
            "steps": steps,
            "mode": mode,
            "easing": easing,
            "loop": loop,
            "labels": None if labels is None else [int(label) for label in labels],
            "truncation": truncation,
        }
        return self._packed("/v1/interpolate", body)

    def mix(
        self,
        terms: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        normalize: bool | None = None,
        label: int | None = None,
        truncation: float | None = None,
    ) -> Batch:
        """A weighted sum of terms {"seed" or "latent", "weight"?, "label"?}: its image, then each term's."""
        told = [
            {k: np.asarray(v, np.float64).tolist() if k == "latent" else v for k, v in term.items()} for term in terms
        ]
        labels = None if label is None else [label]
        body = {"model": model, "terms": told, "normalize": normalize, "labels": labels, "truncation": truncation}
        return self._packed("/v1/mix", body)

    def image(
        self,
        seed: int,
        *,
        model: str | None = None,
        form: Literal["png", "webp", "jpg"] = "png",
        truncation: float | None = None,
        label: int | None = None,
        scale: int | None = None,
        quality: int | None = None,
    ) -> bytes:
        """One seed's image as a picture file, from the resource that HTTP caches between here and there may keep."""
        name = self.model()["name"] if model is None else model
        if not NAME.fullmatch(name):  # in a path it would lead elsewhere
            raise ServiceError(f"{self.base_url} does not serve a model named {name!r}", 404, "model_not_found")
        query = {"truncation": truncation, "label": label, "scale": scale, "quality": quality}
        path = f"/v1/models/{name}/images/{int(seed)}.{form}"
        given = "&".join(f"{key}={value}" for key, value in query.items() if value is not None)
        return self._transport.answer(
            "GET", path + (f"?{given}" if given else ""), f"image/{form.replace('jpg', 'jpeg')}"
        ).content

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
        Several requests are in flight, so the service's batches stay full, and no more than 2·connections batches
        are held, however slowly they are taken. ServiceError: also when the model is replaced by another on the
        way, since its images would be of two models.
        """
        digest = None
        name = self.model(model)["name"]
        starts = iter(range(first_seed, first_seed + num_images, batch))
        end = first_seed + num_images
        pending: deque[tuple[int, Future[Batch]]] = deque()
        given_up = threading.Event()
        pool = ThreadPoolExecutor(self._connections, "stream")
        try:
            while True:
                while len(pending) < 2 * self._connections and (start := next(starts, None)) is not None:
                    n = min(batch, end - start)
                    chosen = None if labels is None else labels[start - first_seed : start - first_seed + n]
                    body = {"model": name, "seed": start, "n": n, "truncation": truncation}
                    body["labels"] = None if chosen is None else [int(label) for label in chosen]
                    pending.append((n, pool.submit(self._generate, body, given_up)))
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
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _generate(self, body: dict[str, Any], given_up: threading.Event | None = None) -> Batch:
        answer = self._transport.answer("POST", "/v1/generate", NPY, body, given_up)
        try:
            images = read_npy(answer.content)
            name, digest = answer.headers["Atelier-Model"], answer.headers["Atelier-Digest"]
            told, labels = answer.headers.get("Atelier-Seeds"), answer.headers.get("Atelier-Labels")
            seeds = expand(told, len(images)) if told is not None else body.get("seeds") or []
            drawn = [int(label) for label in labels.split(",")] if labels else []
        except (ValueError, EOFError, KeyError) as error:
            raise self._unreadable(error) from None
        return Batch(images, seeds, name, digest, drawn)

    def _packed(self, path: str, body: dict[str, Any]) -> Batch:
        """Images with their latents and labels, as a .npz."""
        try:
            told = read_npz(self._transport.answer("POST", path, NPZ, body).content, self._max_answer_bytes)
            images, name, digest = told["images"], str(told["model"]), str(told["digest"])
            labels = [int(label) for label in told["labels"]] if "labels" in told else []
            if images.dtype != np.uint8 or images.ndim != 4 or len(told["latents"]) != len(images):
                raise ValueError(f"{images.dtype} {list(images.shape)}, not uint8 [N, H, W, C]")
        except (ValueError, TypeError, KeyError) as error:
            raise self._unreadable(error) from None
        return Batch(images, [], name, digest, labels, told["latents"])

    def _unreadable(self, error: Exception) -> ServiceError:
        return ServiceError(f"{self.base_url} answered images that cannot be read: {error}")

    def _listing(self) -> dict[str, Any]:
        answer = self._transport.answer("GET", "/v1/models", JSON)
        try:
            listing = answer.json()
            if isinstance(listing["data"], list):
                return listing
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise ServiceError(f"{self.base_url}/v1/models is not the list of models of a GAN Atelier service")
