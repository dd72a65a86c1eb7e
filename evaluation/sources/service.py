"""Images of a running service, requested as npy over several connections at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from artifacts.latents import seeds_to_labels
from evaluation.errors import EvaluationError
from evaluation.json_files import without_credentials
from evaluation.sources.base import ImageBatch, SamplingOptions, SeedRange

CONNECTIONS = 4
KEY_VARIABLE = "ATELIER_API_KEY"
PATIENCE_S = 120.0  # enough for a service that restarts or moves to another machine


class ServiceSource:
    """Images of a model of a service, through `service.client`, which waits during restarts and after a 503."""

    seeded = True
    num_images: int | None = None

    def __init__(
        self, url: str, model: str | None, sampling: SamplingOptions = SamplingOptions(), patience_s: float = PATIENCE_S
    ) -> None:
        from service.client import Client, ServiceError

        self._service_error = ServiceError
        public, start = without_credentials(url), url.find("://") + 3
        self._secret = url[start : start + len(url) - len(public)]
        # The key comes from the environment: everybody can see a command line, and the report keeps it.
        key = _api_key()
        self._has_key = key is not None
        try:
            # A wrong address fails after seconds: the patience is for a service that has answered once.
            self._client = Client(url, connections=CONNECTIONS, patience_s=patience_s, api_key=key)
            entry = self._client.model(model)
            self._name = str(entry["name"])
            self.shape = (_integer(entry, "height"), _integer(entry, "width"), _integer(entry, "channels", most=4))
            self._digest = str(entry["digest"])
            self._z_dim = _integer(entry, "z_dim", least=0) if "z_dim" in entry else 0
            self.class_names = tuple(str(name) for name in entry.get("class_names") or ())
            # These go into the report, which is validated when it is read: so they are checked before the work.
            images_seen = entry.get("images_seen")
            if images_seen is not None:
                images_seen = _integer(entry, "images_seen", least=0, most=2**63 - 1)
            dataset, file = (None if entry.get(key) is None else str(entry[key]) for key in ("dataset", "file"))
        except ServiceError as error:
            raise EvaluationError(self._one_line(error)) from error
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {str(error)[:100]}"
            raise EvaluationError(f"{public} does not answer as a generation service does ({reason})") from error
        sampling.check(str(entry.get("z_distribution", "normal")), self.class_names, self._name)
        self._sampling = sampling
        self.description = {
            "kind": "service",
            "url": public,
            "model": self._name,
            "digest": self._digest,
            "shape": list(self.shape),
            "dataset": dataset,
            "images_seen": images_seen,
            "file": file,
            **vars(sampling),
        }

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield the images of the seeds; raise EvaluationError if the model or the seeds of an answer differ."""
        seeds.check()
        first, n = seeds.seed(start), stop - start
        expected = first
        labels = self._sampling.labels_for(first, n, self.class_names)
        try:
            for batch in self._client.stream(
                model=self._name,
                first_seed=first,
                num_images=n,
                batch=batch_size,
                labels=None if labels is None else labels.tolist(),
                truncation=self._sampling.truncation,
            ):
                if batch.digest != self._digest:
                    raise EvaluationError(
                        f"the model {self._name} changed while it was scored (digest {self._digest[:12]}, then "
                        f"{batch.digest[:12]}); score it again"
                    )
                answered = [int(seed) for seed in batch.seeds]
                if answered != list(range(expected, expected + len(batch.images))):
                    raise EvaluationError(f"the service returned other seeds than requested, near {expected}")
                yield ImageBatch(batch.images, batch.digest, self._labels(expected, len(answered)))
                expected += len(answered)
        except self._service_error as error:
            raise EvaluationError(self._one_line(error)) from error
        if expected != first + n:
            raise EvaluationError(f"the service returned {expected - first} of {n} images")

    def _one_line(self, error: Exception) -> str:
        """Return the error without the URL's user and password: partial.json keeps it."""
        text = " ".join(str(error).split()) or type(error).__name__
        text = text.replace(self._secret, "") if self._secret else text
        text = re.sub(r"(?i)(https?://)[^/?#\s]*@", r"\1", text)  # as httpx writes them, with %-escapes
        if getattr(error, "status", None) in (401, 403):
            text += f"; ${KEY_VARIABLE} is set to another key" if self._has_key else f"; set ${KEY_VARIABLE} to its key"
        return text

    def _labels(self, seed: int, n: int) -> np.ndarray | None:
        chosen = self._sampling.labels_for(seed, n, self.class_names)
        drawn = seeds_to_labels(range(seed, seed + n), self._z_dim, len(self.class_names))
        return drawn if chosen is None else chosen


def _api_key() -> str | None:
    """Return the key in the environment, or None; raise EvaluationError for one that no HTTP header can carry."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise EvaluationError(f"${KEY_VARIABLE} is not a key: it has spaces, line breaks or characters beyond ASCII")
    return key or None


def _integer(entry: dict[str, Any], key: str, *, least: int = 1, most: int = 2**16) -> int:
    """Return an integer of the service's answer; raise ValueError for anything else, KeyError without the key."""
    value = entry[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{key} is {str(value)[:40]!r}, not an integer from {least} to {most}")
    return value
