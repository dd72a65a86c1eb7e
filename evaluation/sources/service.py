"""Images of a running service, as npy over several connections at once; the same seeds give them again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from artifacts.latents import seeds_to_labels
from evaluation.errors import EvaluationError
from evaluation.report.schema import without_credentials
from evaluation.sources.base import Conditions, Draw, ImageBatch, one_line

CONNECTIONS = 4
KEY_VARIABLE = "ATELIER_API_KEY"
PATIENCE_S = 120.0  # a service that is restarted, or moved to another machine, is back by then


class ServiceSource:
    """Images of a model of a service, over `service.client`, which waits out restarts and 503s."""

    seeded = True

    def __init__(
        self, url: str, model: str | None, conditions: Conditions = Conditions(), patience_s: float = PATIENCE_S
    ) -> None:
        from service.client import Client, ServiceError

        self._error, self._keyed = ServiceError, False
        public, after = without_credentials(url), url.find("://") + 3
        self._secret = url[after : after + len(url) - len(public)]
        try:
            # Its patience is for a service that was there once: a wrong address is told after seconds.
            # The key comes from the environment: a command line is shown to all, and kept in the report.
            key = _api_key()
            self._keyed = key is not None
            self._client = Client(url, connections=CONNECTIONS, patience_s=patience_s, api_key=key)
            told = self._client.model(model)
            self._name = str(told["name"])
            self.shape = (_whole(told, "height"), _whole(told, "width"), _whole(told, "channels", most=4))
            self._digest = str(told["digest"])
            self._z_dim = _whole(told, "z_dim", least=0) if "z_dim" in told else 0
            z_distribution = str(told.get("z_distribution", "normal"))
            self.class_names = tuple(str(name) for name in told.get("class_names") or ())
            # into the report as they are, and the report is checked when it is read: so here, before the work
            images_seen = told.get("images_seen")
            if images_seen is not None:
                images_seen = _whole(told, "images_seen", least=0, most=2**63 - 1)
            dataset, file = (None if told.get(key) is None else str(told[key]) for key in ("dataset", "file"))
        except ServiceError as error:
            raise EvaluationError(self._told(error)) from error
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            why = f"{type(error).__name__}: {str(error)[:100]}"
            raise EvaluationError(f"{public} does not answer as a generation service does ({why})") from error
        conditions.check(z_distribution, self.class_names, self._name)
        self._conditions = conditions
        self.description = {
            "kind": "service",
            "url": public,
            "model": self._name,
            "digest": self._digest,
            "shape": list(self.shape),
            "dataset": dataset,
            "images_seen": images_seen,
            "file": file,
            **conditions.told(),
        }

    def limit(self) -> int | None:
        return None

    def batches(self, draw: Draw, start: int, stop: int, batch: int) -> Iterator[ImageBatch]:
        draw.check()
        first, n = draw.seed(start), stop - start
        expected = first
        labels = self._conditions.labels_of(first, n, self.class_names)
        try:
            stream = self._client.stream(
                model=self._name,
                first_seed=first,
                num_images=n,
                batch=batch,
                labels=None if labels is None else labels.tolist(),
                truncation=self._conditions.truncation,
            )
            for got in stream:
                # The service's own word for which images these are, and whose: a score is of one model.
                if got.digest != self._digest:
                    raise EvaluationError(
                        f"the model {self._name} changed while it was scored (digest {self._digest[:12]}, then "
                        f"{got.digest[:12]}); score it again"
                    )
                seeds = [int(seed) for seed in got.seeds]
                if seeds != list(range(expected, expected + len(got.images))):
                    raise EvaluationError(f"the service answered other seeds than asked for, near {expected}")
                yield ImageBatch(got.images, got.digest, self._labels(labels, expected, len(seeds), first))
                expected += len(seeds)
        except self._error as error:
            raise EvaluationError(self._told(error)) from error
        if expected != first + n:
            raise EvaluationError(f"the service gave {expected - first} of {n} images")

    def _told(self, error: Exception) -> str:
        """The error in one line, without the URL's user and password: it is kept in partial.json."""
        text = one_line(error)
        text = text.replace(self._secret, "") if self._secret else text
        text = re.sub(r"(?i)(https?://)[^/?#\s]*@", r"\1", text)  # as httpx writes them, with %-escapes
        if getattr(error, "status", None) in (401, 403):
            text += f"; ${KEY_VARIABLE} is set to another key" if self._keyed else f"; set ${KEY_VARIABLE} to its key"
        return text

    def _labels(self, chosen: np.ndarray | None, seed: int, n: int, first: int) -> np.ndarray | None:
        if chosen is not None:
            return chosen[seed - first : seed - first + n]
        return seeds_to_labels(range(seed, seed + n), self._z_dim, len(self.class_names))


def _api_key() -> str | None:
    """Return the key in the environment, None if there is none. EvaluationError: no header can carry it."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise EvaluationError(f"${KEY_VARIABLE} is not a key: it has spaces, line breaks or characters beyond ASCII")
    return key or None


def _whole(told: dict[str, Any], key: str, *, least: int = 1, most: int = 2**16) -> int:
    """A whole number of the service's answer. Raises ValueError for any other, KeyError for none."""
    value = told[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{key} is {str(value)[:40]!r}, not a whole number from {least} to {most}")
    return value
