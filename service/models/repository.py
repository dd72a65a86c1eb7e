"""The generators that are served: read from a folder, looked at again as it changes, swapped in whole."""

import asyncio
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts.generator_file import ContractError
from artifacts.onnx_files import onnx_reason
from artifacts.resources import available_cpus, available_memory
from service.errors import ApiError
from service.models import bento
from service.models.file_signature import Signature, generator_files, look_alikes, shown_name, signature, size
from service.models.loader import Unreadable, check_readable, prepare, read
from service.models.probe import Limits, Verdict, prober
from service.models.served_model import Generator
from service.models.session_cache import Shelf
from service.models.sessions import ProviderError, RunLimit, Runtime, choose_provider
from service.observability.metrics import Metrics
from service.settings import Settings

log = logging.getLogger("bentoml.atelier")

BUNDLED = Path(__file__).parents[1] / "bundled"
MAX_LANES = 4  # unless ATELIER_LANES says more
LOADING = "models are still being loaded"
TRYING = "it is still being tried, which takes longer than usual"
ROOM_FACTOR = 8  # times a file's size that loading it may take, besides ATELIER_MAX_LOAD_BYTES
DEFAULT_LOAD_BYTES = 2**31
LAST_RUN_S = 5.0  # after the deadline a run answers nobody


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
        self._loading = True  # the files that were there at the start are not all tried yet
        self._left_out: dict[str, str] = {}
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
            self._not_ready = f"{needs} ({onnx_reason(error)})"
            return
        except ProviderError as error:
            self._not_ready = str(error)
            return
        with self._looking:
            self._seen = {path: signature(path) for path in self._listed(self._seen)}
            self._note_left_out()
            self._read_all(self._seen, "start")
            self._loading = False
            self._serve(self._entries)
        if self._settings.model_dir is None and any(path.parent == BUNDLED for path in self._seen):
            log.warning(
                "no generator file (*.onnx) in %s and no MODEL_DIR: serving the bundled example, the model %s",
                Path("models").absolute(),
                ", ".join(sorted(self._models)),
            )
        if not self._not_ready:
            self.get(None).recall()  # where not all have room, the default does
        while not self._settings.watch_s and any(entry.reason == TRYING for entry in self._entries.values()):
            self._look_at_slow()

    def _read_all(self, files: dict[Path, Signature | None], why: str) -> None:
        """Have files tried, and serve each as soon as it is warm, small ones first."""
        ordered = sorted(files.items(), key=lambda seen: size(seen[1]))
        for path, found in ordered:
            self._ask(path, found)
        for path, found in ordered:
            if self._stopping.is_set():
                return
            old = self._entries.get(path)
            entry = self._read(path, found, old, why)
            if entry is not None and entry != old:
                self._serve({**self._entries, path: entry})

    def _look_at_slow(self) -> None:
        """Without a watch nobody else does: wait for what was still being tried when the others were ready."""
        if self._stopping.wait(0.2):
            return
        with self._looking:
            self._read_all({p: self._seen.get(p) for p, e in self._entries.items() if e.reason == TRYING}, "start")

    def give_up(self, error: Exception) -> None:
        """`load_all` ended early: that is why there are none; the next look tries again."""
        self._loading = False
        self._not_ready = f"loading the models failed: {onnx_reason(error)}; see the log"

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
            self._note_left_out()

            def changed(path: Path, found: Signature | None) -> bool:
                old = self._entries.get(path)
                return (old is None or old.signature is None or old.signature != found) and before[path] == found

            again = {p: found for p, found in self._seen.items() if p in before and changed(p, found)}
            self._read_all(again, "changed")
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
            self._metrics.model_load_failures.labels(shown_name(generator.path)).inc()
            message = f"{generator.metadata.name} could not be loaded again: {onnx_reason(error)}"
            raise ApiError(503, "not_ready", message) from None

    def describe(self) -> dict[str, Any]:
        """What /v1/models lists of the models: `default`, `data`, `failed`, `left_out`, `not_ready`."""
        default = self.default
        return {
            "default": default,
            "data": [{**g.describe(), "default": g.metadata.name == default} for g in self.all()],
            "failed": [failure.describe(file) for file, failure in sorted(self.failed.items())],
            "left_out": [{"file": file, "reason": reason} for file, reason in sorted(self._left_out.items())],
            "not_ready": self._not_ready,
        }

    def _choose_runtime(self) -> Runtime:
        s = self._settings
        provider = choose_provider(s.provider)
        limit = RunLimit(s.deadline_s + LAST_RUN_S)
        return Runtime(self.threads, s.max_batch, provider, strict=s.provider == "cuda", lanes=self.lanes, limit=limit)

    def _listed(self, before: dict[Path, Signature | None]) -> list[Path]:
        try:
            return self.files()
        except OSError as error:
            log.warning("the models stay as they are: %s cannot be read: %s", self.folder, error.strerror)
            return list(before)

    def _note_left_out(self) -> None:
        """Look which files may be meant as models but are not read; log those that are new."""
        try:
            # ./models, too, while it holds nothing but such files, and the bundled are served
            folder = self._settings.model_dir or Path("models")
            found = {shown_name(Path(name)): why for name, why in look_alikes(folder).items()}
        except OSError:
            return  # `_listed` says why
        for file, why in sorted(found.items() - self._left_out.items()):
            log.warning("%s is left out: %s", file, why)
        self._left_out = found

    def _limits(self, found: Signature) -> Limits:
        s = self._settings
        half = (available_memory() or 2 * DEFAULT_LOAD_BYTES) // 2
        room = s.max_load_bytes or min(DEFAULT_LOAD_BYTES, half)
        return Limits(
            max_bytes=s.max_model_bytes,
            memory_bytes=room + ROOM_FACTOR * size(found),
            timeout_s=s.load_timeout_s,
            threads=self.threads,
            max_batch=s.max_batch,
            batch_bytes=s.max_batch_bytes,
        )

    def _ask(self, path: Path, found: Signature | None) -> None:
        """Have a file tried while others are loaded."""
        try:
            check_readable(path, self._settings.max_model_bytes)
        except ContractError:
            return
        if found is not None and path.parent != BUNDLED:
            prober().ask(path, found, self._limits(found))

    def _try(self, path: Path, found: Signature | None) -> Verdict | None:
        """What came of a file in the process that tries it; None: not known yet. ContractError: it is refused."""
        check_readable(path, self._settings.max_model_bytes)
        if found is None:
            return Verdict(False, changed=True)
        if path.parent == BUNDLED:  # part of this package, as its code is
            return Verdict(True, rows=self._settings.max_batch)
        verdict = prober().verdict(path, found, self._limits(found), self._stopping)
        if verdict is None or verdict.ok or verdict.changed:
            return verdict
        raise (Unreadable if verdict.unreadable else ContractError)(verdict.reason)

    def _watch(self) -> None:
        while not self._stopping.wait(self._settings.watch_s):
            try:
                self.look()
            except Exception:
                log.exception("looking at %s failed; the models stay as they are", self.folder)

    def _read(self, path: Path, found: Signature | None, old: Entry | None, why: str) -> Entry | None:
        """What has become of a file; `old` if it changed while it was read."""
        try:
            verdict = self._try(path, found)
            if verdict is None:
                return Entry(None, old.generator if old else None, TRYING)
            if verdict.changed:
                return old
            assert found is not None
            limits = self._limits(found)
            if not prober().loading(path, found, limits):
                raise ContractError("loading it ended several workers; it is not loaded again until it changes")
            try:
                content = read(path, self._settings.max_model_bytes)
                if signature(path) != found:
                    return old
                return Entry(found, self._made(path, content, verdict, why), None)
            finally:
                prober().loaded(path, found, limits)
        except ContractError as error:
            reason = str(error)
            if isinstance(error, Unreadable):
                found = None  # what keeps it out of reach may pass: try again at each look
        except Exception as error:  # whatever a file raises is that file's refusal
            log.debug("%s", path, exc_info=True)
            reason = f"it cannot be loaded: {onnx_reason(error)}"
        if old is None or old.reason != reason or old.signature != found:
            digest = old.generator.metadata.digest[:12] if old and old.generator else None
            still = f"; {digest} is still served" if digest else ""
            log.warning("%s is not served: %s%s", shown_name(path), reason, still)
            self._metrics.model_load_failures.labels(shown_name(path)).inc()
        return Entry(found, old.generator if old else None, reason)

    def _made(self, path: Path, content: bytes, verdict: Verdict, why: str) -> Generator:
        """The file's generator, warm: the one there is, if only its scores, time or name on disk are other."""
        assert self._runtime is not None
        prepared = prepare(path, content, verdict.shape)
        wanted = prepared.metadata.name, prepared.metadata.digest
        for known, entry in self._entries.items():
            g = entry.generator
            if g is None or wanted != (g.metadata.name, g.metadata.digest):
                continue
            if known == path or known not in self._seen:
                g.became(path, content, prepared.metadata)
                return g
        with self._metrics.model_load_seconds.time():
            runtime = replace(self._runtime, max_batch=verdict.rows, heavy=verdict.heavy)
            generator = Generator(path, content, prepared, runtime, self._shelf)
        self._shelf.hold(generator, why)
        if why != "start":
            digest = prepared.metadata.digest[:12]
            log.info("%s is loaded from %s, digest %s", generator.metadata.name, shown_name(path), digest)
        return generator

    def _serve(self, entries: dict[Path, Entry]) -> None:
        """Swap in what these entries make: by name, the newest of those that share one."""
        by_name: dict[str, dict[Generator, Path]] = defaultdict(dict)
        reasons: dict[str, tuple[str, Generator | None]] = {}
        for path, entry in sorted(entries.items()):
            if entry.generator is not None:
                by_name[entry.generator.metadata.name].setdefault(entry.generator, path)
            if entry.reason is not None:
                reasons[shown_name(path)] = entry.reason, entry.generator
        models: dict[str, Generator] = {}
        for name, same in by_name.items():
            models[name], *others = sorted(same, key=_newest_first)
            for other in others:
                if same[other] in self._seen:
                    newer = shown_name(models[name].path)
                    reason = f"its name {name!r} is also that of {newer}, which is newer; rename one and export again"
                    reasons[shown_name(same[other])] = reason, None
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
        # which is the newest shows when all are loaded
        self._default = newest[0].metadata.name if newest and not self._loading else None
        not_ready = self._why_not(models)
        if self._not_ready not in (not_ready, LOADING):
            log.info("ready") if not_ready is None else log.error("not ready: %s", not_ready)
        self._not_ready = not_ready
        self._metrics.models_failed.set(len(failed))
        self._metrics.grow()
        for generator in dropped:
            generator.retired = True
            self._shelf.remove(generator)
            self._on_retire(generator)
            log.info("%s, digest %s, is no longer served", generator.metadata.name, generator.metadata.digest[:12])

    def _why_not(self, models: dict[str, Generator]) -> str | None:
        if self._loading:
            return LOADING
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
