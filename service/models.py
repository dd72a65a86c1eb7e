"""The generators that are served: read from a folder, looked at again as it changes, swapped in whole."""

import asyncio
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts.cpus import available_cpus
from service import bento
from service.errors import ApiError
from service.generator import Generator
from service.generator_file import ContractError
from service.metrics import Metrics
from service.reading import Unreadable, first_line, prepare, read
from service.sessions import ProviderError, Runtime, choose_provider
from service.settings import Settings
from service.shelf import Shelf
from service.watch import Signature, generator_files, signature, size

log = logging.getLogger("bentoml.atelier")

BUNDLED = Path(__file__).parent / "bundled"
MAX_LANES = 4  # unless ATELIER_LANES says more
LOADING = "models are still being loaded"


@dataclass(frozen=True)
class Entry:
    """A file when it was last read: what came of it, or why nothing did. Both: the one before it still serves."""

    signature: Signature | None
    generator: Generator | None
    reason: str | None


@dataclass(frozen=True)
class Failure:
    """A file that is not served as it is now: why, since when, and the (name, digest) it had before, still served."""

    reason: str
    since: str
    serving: tuple[str, str] | None

    def describe(self, file: str) -> dict[str, Any]:
        serving = None if self.serving is None else dict(zip(("model", "digest"), self.serving, strict=True))
        return {"file": file, "reason": self.reason, "since": self.since, "serving": serving}


class Repository:
    """The generators of one folder by name, and the files that are refused, with the reason.

    `load_all` reads it once, `watch` keeps looking; a request sees the models before or after a change, never between.
    `on_retire` is told, on another thread, of each generator that is no longer given out.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics | None = None,
        on_retire: Callable[[Generator], None] = lambda generator: None,
    ):
        self._settings, self._metrics, self._on_retire = settings, metrics or Metrics(), on_retire
        self._runtime: Runtime | None = None
        self._shelf = Shelf(settings.max_loaded_bytes, self._metrics, settings.max_model_bytes)
        self._recalling = ThreadPoolExecutor(1, "recalling")
        self._looking = threading.Lock()
        self._stopping = threading.Event()
        self._seen: dict[Path, Signature | None] = {}
        self._entries: dict[Path, Entry] = {}
        self._models: dict[str, Generator] = {}
        self._default: str | None = None
        self._not_ready: str | None = LOADING
        self.failed: dict[str, Failure] = {}

    @property
    def folder(self) -> Path:
        """MODEL_DIR if it was named, else ./models if it holds generator files, else the bundled folder."""
        if self._settings.model_dir is not None:
            return self._settings.model_dir
        ours = Path("models")
        return ours if generator_files(ours) else BUNDLED

    def files(self) -> list[Path]:
        """The generator files there are now: the folder's; a bento's own, where it has some and no MODEL_DIR."""
        if self._settings.model_dir is None and (own := bento.generator_files()):
            return own
        return generator_files(self.folder)

    @property
    def threads(self) -> int:
        """What a worker's inference may use."""
        return self._settings.threads or max(1, available_cpus() // self._settings.workers)

    @property
    def lanes(self) -> int:
        """Batches that a worker runs side by side."""
        return self._settings.lanes or min(self.threads, MAX_LANES)

    @property
    def not_ready(self) -> str | None:
        """Why requests cannot be answered yet, or None when they can."""
        return self._not_ready

    def load_all(self) -> None:
        """Read every file. One bad file stops no other; nothing is raised."""
        try:
            self._runtime = self._choose_runtime()
        except ImportError as error:
            needs = "the service needs ONNX Runtime: pip install 'gan-atelier[cpu]' (or [gpu])"
            self._not_ready = f"{needs} ({first_line(error)})"
            return
        except ProviderError as error:
            self._not_ready = str(error)
            return
        with self._looking:
            self._seen = {path: signature(path) for path in self._listed(self._seen)}
            entries = {path: self._read(path, found, None, "start") for path, found in self._seen.items()}
            self._serve({path: entry for path, entry in entries.items() if entry is not None})
        if any(path.parent == BUNDLED for path in self._seen):
            log.warning(
                "no generator file (*.onnx) in %s and no MODEL_DIR: serving the bundled example, the model %s",
                Path("models").absolute(),
                ", ".join(sorted(self._models)),
            )
        if not self._not_ready:
            self.get(None).recall()  # where not all have room, the default does

    def give_up(self, error: Exception) -> None:
        """`load_all` ended early: that is why there are none; the next look tries again."""
        self._not_ready = f"loading the models failed: {first_line(error)}; see the log"

    def watch(self) -> None:
        """From now on, look at the files every `watch_s` seconds on a thread of its own (0: never)."""
        if self._settings.watch_s and self._runtime is not None:
            threading.Thread(target=self._watch, name="watching models", daemon=True).start()

    def close(self) -> None:
        self._stopping.set()
        self._recalling.shutdown(wait=False, cancel_futures=True)
        self._shelf.close()

    def look(self) -> None:
        """Read what has changed and been the same at two looks: what is still being copied is left to the next.

        Models that are new are served as each is warm; those whose file is gone go last, so that a file renamed is
        never missed.
        """
        with self._looking:
            before, self._seen = self._seen, {path: signature(path) for path in self._listed(self._seen)}
            # small files first, so that none waits for a large one that changed at the same time
            for path, found in sorted(self._seen.items(), key=lambda seen: size(seen[1])):
                old = self._entries.get(path)
                changed = old is None or old.signature is None or old.signature != found
                if changed and path in before and before[path] == found and not self._stopping.is_set():
                    entry = self._read(path, found, old, "changed")
                    if entry is not None and entry != old:
                        self._serve({**self._entries, path: entry})
            kept = {p: e for p, e in self._entries.items() if p in self._seen or p in before}
            if not any(e.generator for p, e in kept.items() if p in self._seen) and self._settings.model_dir is None:
                return  # ./models has files, but none is sound yet: what was served before goes on
            if kept.keys() != self._entries.keys() or not self._models:  # why there is none may be another reason now
                self._serve(kept)

    def all(self) -> list[Generator]:
        models = self._models
        return [models[name] for name in sorted(models)]

    @property
    def default(self) -> str | None:
        """ATELIER_DEFAULT_MODEL, else the newest by `created` (ties: the first by name; others' files come last)."""
        return self._settings.default_model or self._default

    def get(self, name: str | None) -> Generator:
        """The named generator, the default one for None. ApiError: 404 unknown, 503 none is loaded."""
        models = self._models
        if name is None:
            name = self.default
        if name is not None and name in models:
            return models[name]
        if self._not_ready:
            raise ApiError(503, "not_ready", self._not_ready)
        known = ", ".join(sorted(models)[:20])
        raise ApiError(404, "model_not_found", f"no model is named {str(name)[:100]!r}; there are: {known}", "model")

    async def recall(self, generator: Generator) -> None:
        """Bring a generator's session back into memory, off the event loop, if it had to make way.

        ApiError 503: it cannot be brought back, or not within the deadline.
        """
        if generator.loaded:
            return
        deadline_s = self._settings.deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.get_running_loop().run_in_executor(self._recalling, generator.recall)
        except TimeoutError:
            self._metrics.rejected.labels("deadline").inc()
            message = f"{generator.metadata.name} is still being loaded after {deadline_s:g} s; try again"
            raise ApiError(503, "deadline_exceeded", message) from None
        except Exception as error:
            log.exception("%s could not be loaded again", generator.metadata.name)
            self._metrics.model_load_failures.labels(generator.path.name).inc()
            message = f"{generator.metadata.name} could not be loaded again: {first_line(error)}"
            raise ApiError(503, "not_ready", message) from None

    def describe(self) -> dict[str, Any]:
        """What /v1/models tells of the models: `default`, `data`, `failed`, `not_ready`."""
        default = self.default
        return {
            "default": default,
            "data": [{**g.describe(), "default": g.metadata.name == default} for g in self.all()],
            "failed": [failure.describe(file) for file, failure in sorted(self.failed.items())],
            "not_ready": self._not_ready,
        }

    def _choose_runtime(self) -> Runtime:
        s = self._settings
        provider = choose_provider(s.provider)
        return Runtime(self.threads, s.max_batch, provider, strict=s.provider == "cuda", lanes=self.lanes)

    def _listed(self, before: dict[Path, Signature | None]) -> list[Path]:
        try:
            return self.files()
        except OSError as error:
            log.warning("the models stay as they are: %s cannot be read: %s", self.folder, error.strerror)
            return list(before)

    def _watch(self) -> None:
        while not self._stopping.wait(self._settings.watch_s):
            try:
                self.look()
            except Exception:
                log.exception("looking at %s failed; the models stay as they are", self.folder)

    def _read(self, path: Path, found: Signature | None, old: Entry | None, why: str) -> Entry | None:
        """What has become of a file; `old` if it changed while it was read."""
        try:
            content = read(path, self._settings.max_model_bytes)
            if signature(path) != found:
                return old
            return Entry(found, self._made(path, content, why), None)
        except ContractError as error:
            reason = str(error)
            if isinstance(error, Unreadable):
                found = None  # what keeps it out of reach may pass: try again at each look
        if old is None or old.reason != reason or old.signature != found:
            still = f"; {old.generator.metadata.digest[:12]} goes on serving" if old and old.generator else ""
            log.warning("%s is not served: %s%s", path.name, reason, still)
            self._metrics.model_load_failures.labels(path.name).inc()
        return Entry(found, old.generator if old else None, reason)

    def _made(self, path: Path, content: bytes, why: str) -> Generator:
        """The file's generator, warm: the one there is, if only its scores, time or name on disk are other."""
        assert self._runtime is not None
        prepared = prepare(path, content)
        wanted = prepared.metadata.name, prepared.metadata.digest
        for known, entry in self._entries.items():
            g = entry.generator
            if g is None or wanted != (g.metadata.name, g.metadata.digest):
                continue
            if known == path or known not in self._seen:
                g.became(path, content, prepared.metadata)
                return g
        with self._metrics.model_load_seconds.time():
            generator = Generator(path, content, prepared, self._runtime, self._shelf)
        self._shelf.hold(generator, why)
        if why != "start":
            log.info(
                "%s is loaded from %s, digest %s", generator.metadata.name, path.name, prepared.metadata.digest[:12]
            )
        return generator

    def _serve(self, entries: dict[Path, Entry]) -> None:
        """Swap in what these entries make: by name, the newest of those that share one."""
        by_name: dict[str, dict[Generator, Path]] = defaultdict(dict)
        reasons: dict[str, tuple[str, Generator | None]] = {}
        for path, entry in sorted(entries.items()):
            if entry.generator is not None:
                by_name[entry.generator.metadata.name].setdefault(entry.generator, path)
            if entry.reason is not None:
                reasons[path.name] = entry.reason, entry.generator
        models: dict[str, Generator] = {}
        for name, same in by_name.items():
            models[name], *others = sorted(same, key=_newest_first)
            for other in others:
                if same[other] in self._seen:
                    told = f"its name {name!r} is also that of {models[name].path.name}, which is newer; rename one"
                    reasons[same[other].name] = f"{told} and export again", None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        failed = {}
        for file, (reason, generator) in reasons.items():
            since = self.failed[file].since if file in self.failed else now
            before = None if generator is None else (generator.metadata.name, generator.metadata.digest)
            failed[file] = Failure(reason, since, before)
        dropped = {g for e in self._entries.values() if (g := e.generator)} - {
            g for e in entries.values() if (g := e.generator)
        }
        newest = sorted(models.values(), key=lambda g: (*_newest_first(g)[:2], g.metadata.name))
        self._entries, self._models, self.failed = entries, models, failed
        self._default = newest[0].metadata.name if newest else None
        not_ready = self._why_not(models)
        if self._not_ready not in (not_ready, LOADING):
            log.info("ready") if not_ready is None else log.error("not ready: %s", not_ready)
        self._not_ready = not_ready
        self._metrics.models_failed.set(len(failed))
        for generator in dropped:
            generator.retired = True
            self._shelf.remove(generator)
            self._on_retire(generator)
            log.info("%s, digest %s, is no longer served", generator.metadata.name, generator.metadata.digest[:12])

    def _why_not(self, models: dict[str, Generator]) -> str | None:
        default = self._settings.default_model
        if not models:
            return self._why_none()
        if default is not None and default not in models:
            return f"ATELIER_DEFAULT_MODEL is {default!r}; the models are {', '.join(sorted(models))}"
        return None

    def _why_none(self) -> str:
        """What keeps every model away, and what to do."""
        try:
            if not self.folder.is_dir():
                return f"the model folder {self.folder} does not exist; set MODEL_DIR to a folder of generator files"
            if self.files():
                return f"no usable generator file (*.onnx) in {self.folder}; /v1/models tells what was refused"
        except OSError as error:
            who = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
            return f"the model folder {self.folder} cannot be read by {who}: {error.strerror}"
        bundled = "leave MODEL_DIR unset to serve the bundled digits"
        return f"the model folder {self.folder} holds no generator file (*.onnx); put one there, or {bundled}"


def _newest_first(generator: Generator) -> tuple[bool, float, str]:
    """Others' files last: theirs is the time they were copied here."""
    m = generator.metadata
    return m.foreign, -datetime.fromisoformat(m.created).timestamp(), generator.path.name
