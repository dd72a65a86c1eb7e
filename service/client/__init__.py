"""A client of the service, for evaluation, scripts and notebooks. It needs only httpx and numpy."""

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
from service.client.decoding import parse_seed_ranges, read_arrays, read_images
from service.client.transport import ServiceError, Transport

__all__ = ["Batch", "Client", "ServiceError"]

JSON, NPY, NPZ = "application/json", "application/x-npy", "application/x-npz"


@dataclass(frozen=True)
class Batch:
    """Images and where they come from.

    Attributes:
        images: uint8 [N, H, W, C].
        seeds: One per image; empty for images without seeds, or too many for a header.
        model: The model's name.
        digest: The model's digest.
        labels: One per image; empty for a model without classes, or too many for a header.
        latents: float32 [N, z_dim], of interpolations and mixes only.
    """

    images: NDArray[np.uint8]
    seeds: list[int]
    model: str
    digest: str
    labels: Sequence[int] = ()
    latents: NDArray[np.float32] | None = None


class Client:
    """Sends requests to one service, from any number of threads. Use it as a context manager.

    A request is repeated when the service is overloaded or still loads its models (429, 502, 503, 504), or when its
    connection is refused, breaks or times out, so that a restart of the service costs a pause. Pauses double from
    0.1 s to 5 s, each shortened at random by up to a half so that many clients do not return together, and are never
    shorter than the service's Retry-After.
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
        """Make a client; no request is sent yet.

        Args:
            base_url: The service's address, such as http://127.0.0.1:3000.
            connections: Requests at the same time in `stream`.
            timeout: Seconds without a byte after which a response is abandoned.
            patience_s: Seconds for which a request is repeated after its first failure; 0: it is never repeated.
                Until the service has answered once it is at most 5 s, because the address may be wrong.
            api_key: The key, for a service that requires one.
            max_answer_bytes: The largest response to accept.

        Raises:
            ServiceError: If the address, the key, or a proxy variable of the environment cannot be used.
        """
        self._transport = Transport(base_url, connections, timeout, patience_s, api_key, max_answer_bytes)
        self.base_url = self._transport.base_url
        self._connections, self._max_answer_bytes = connections, max_answer_bytes

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the requests that wait."""
        self._transport.close()

    def models(self) -> list[dict[str, Any]]:
        """Return each model's metadata, as /v1/models lists it."""
        models: list[dict[str, Any]] = self._listing()["data"]
        return models

    def model(self, name: str | None = None) -> dict[str, Any]:
        """Return one model's metadata.

        Args:
            name: The model's name. Default: the service's default model.

        Raises:
            ServiceError: If there is no such model.
        """
        listing = self._listing()
        if listing.get("not_ready"):  # its models may still be loading: wait as for any other request
            self._transport.answer("GET", "/readyz", JSON)
            listing = self._listing()
        wanted = listing.get("default") if name is None else name
        models: list[dict[str, Any]] = listing["data"]
        for entry in models:
            if entry["name"] == wanted:
                return entry
        known = ", ".join(entry["name"] for entry in models) or "none"
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
        """Generate images from seeds or latents (POST /v1/generate).

        Args:
            model: The model's name. Default: the service's default model.
            seeds: One seed per image.
            seed: The first of `n` consecutive seeds. Default: a random one, which is returned.
            n: The number of images. Default: 1.
            latents: float [N, z_dim], instead of seeds.
            labels: One class per image, or one for all. Default: each seed draws its own.
            truncation: Bound of the latents' absolute values, for normal latents.

        Returns:
            The images, with their seeds and labels.

        Raises:
            ServiceError: If the service rejects the request, fails, or does not answer.
        """
        body = {
            "model": model,
            "seeds": _integers(seeds),
            "seed": seed,
            "n": n,
            "latents": None if latents is None else np.asarray(latents, np.float64).tolist(),
            "labels": _integers(labels),
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
        """Generate the frames of a path through keyframes (POST /v1/interpolate).

        Args:
            keyframes: Seeds, or latents float [z_dim].
            model: The model's name. Default: the service's default model.
            steps: Frames from one keyframe to the next, including both.
            mode: Spherical or linear interpolation.
            easing: How the speed changes between two keyframes.
            loop: Whether the path returns to the first keyframe.
            labels: One class per keyframe, or one for all.
            truncation: Bound of the latents' absolute values, for normal latents.

        Returns:
            The frames, with their latents and labels.

        Raises:
            ServiceError: If the service rejects the request, fails, or does not answer.
        """
        body = {
            "model": model,
            "keyframes": [int(k) if np.ndim(k) == 0 else np.asarray(k, np.float64).tolist() for k in keyframes],  # type: ignore[arg-type]
            "steps": steps,
            "mode": mode,
            "easing": easing,
            "loop": loop,
            "labels": _integers(labels),
            "truncation": truncation,
        }
        return self._generate_with_latents("/v1/interpolate", body)

    def mix(
        self,
        terms: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        normalize: bool | None = None,
        label: int | None = None,
        truncation: float | None = None,
    ) -> Batch:
        """Generate the image of a weighted sum of latents (POST /v1/mix).

        Args:
            terms: Each with "seed" or "latent", and optionally "weight" and "label".
            model: The model's name. Default: the service's default model.
            normalize: Whether the sum is rescaled to the distribution of a single latent. Default: yes.
            label: Class of the sum. Default: that of the term with the largest absolute weight.
            truncation: Bound of the latents' absolute values, for normal latents.

        Returns:
            The image of the sum, then the image of each term, with their latents and labels.

        Raises:
            ServiceError: If the service rejects the request, fails, or does not answer.
        """
        plain = [
            {k: np.asarray(v, np.float64).tolist() if k == "latent" else v for k, v in term.items()} for term in terms
        ]
        labels = None if label is None else [label]
        body = {"model": model, "terms": plain, "normalize": normalize, "labels": labels, "truncation": truncation}
        return self._generate_with_latents("/v1/mix", body)

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
        """Fetch the image of one seed as a file, from the resource that HTTP caches may store.

        Args:
            seed: The seed.
            model: The model's name. Default: the service's default model.
            form: The file format.
            truncation: Bound of the latent's absolute values, for normal latents.
            label: Class of the image.
            scale: Factor by which the image is enlarged.
            quality: Quality of WebP and JPEG.

        Returns:
            The content of the file.

        Raises:
            ServiceError: If the service rejects the request, fails, or does not answer.
        """
        name = self.model()["name"] if model is None else model
        if not NAME.fullmatch(name):  # it would make another path
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
        """Generate the images of many consecutive seeds, in order.

        Several requests are in flight, so that the service's batches stay full, and at most 2·connections batches are
        in memory, however slowly they are consumed.

        Args:
            model: The model's name. Default: the service's default model.
            first_seed: The first seed.
            num_images: The number of images.
            batch: Images per request.
            labels: One class per image. Default: each seed draws its own.
            truncation: Bound of the latents' absolute values, for normal latents.

        Yields:
            Batches of at most `batch` images.

        Raises:
            ServiceError: If a request fails, or the model is replaced meanwhile.
        """
        digest = None
        name = self.model(model)["name"]
        starts = iter(range(first_seed, first_seed + num_images, batch))
        end = first_seed + num_images
        pending: deque[tuple[int, Future[Batch]]] = deque()
        cancelled = threading.Event()
        pool = ThreadPoolExecutor(self._connections, "stream")
        try:
            while True:
                while len(pending) < 2 * self._connections and (start := next(starts, None)) is not None:
                    n = min(batch, end - start)
                    chosen = None if labels is None else labels[start - first_seed : start - first_seed + n]
                    body = {"model": name, "seed": start, "n": n, "truncation": truncation, "labels": _integers(chosen)}
                    pending.append((n, pool.submit(self._generate, body, cancelled)))
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
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _generate(self, body: dict[str, Any], cancelled: threading.Event | None = None) -> Batch:
        answer = self._transport.answer("POST", "/v1/generate", NPY, body, cancelled)
        try:
            images = read_images(answer.content)
            name, digest = answer.headers["Atelier-Model"], answer.headers["Atelier-Digest"]
            ranges, labels = answer.headers.get("Atelier-Seeds"), answer.headers.get("Atelier-Labels")
            seeds = parse_seed_ranges(ranges, len(images)) if ranges is not None else body.get("seeds") or []
            drawn = [int(label) for label in labels.split(",")] if labels else []
        except (ValueError, EOFError, KeyError) as error:
            raise self._unreadable(error) from None
        return Batch(images, seeds, name, digest, drawn)

    def _generate_with_latents(self, path: str, body: dict[str, Any]) -> Batch:
        try:
            arrays = read_arrays(self._transport.answer("POST", path, NPZ, body).content, self._max_answer_bytes)
            images, name, digest = arrays["images"], str(arrays["model"]), str(arrays["digest"])
            labels = [int(label) for label in arrays["labels"]] if "labels" in arrays else []
            if images.dtype != np.uint8 or images.ndim != 4 or len(arrays["latents"]) != len(images):
                raise ValueError(f"{images.dtype} {list(images.shape)}, not uint8 [N, H, W, C]")
        except (ValueError, TypeError, KeyError) as error:
            raise self._unreadable(error) from None
        return Batch(images, [], name, digest, labels, arrays["latents"])

    def _unreadable(self, error: Exception) -> ServiceError:
        return ServiceError(f"{self.base_url} answered images that cannot be read: {error}")

    def _listing(self) -> dict[str, Any]:
        answer = self._transport.answer("GET", "/v1/models", JSON)
        try:
            listing: dict[str, Any] = answer.json()
            if isinstance(listing["data"], list):
                return listing
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise ServiceError(f"{self.base_url}/v1/models is not the list of models of a GAN Atelier service")


def _integers(values: Sequence[int] | None) -> list[int] | None:
    return None if values is None else [int(value) for value in values]
