"""The generators that are served: read from a folder, and read again when it changes."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifacts.generator_file import ContractError
from artifacts.onnx_metadata import onnx_error_message
from artifacts.resources import available_cpus, available_memory
from service.errors import ApiError
from service.models.bento_store import bento_generator_files
from service.models.catalog import Catalog, LoadFailure, ModelEntry
from service.models.model_files import (
    FileSignature,
    UnreadableFileError,
    check_readable,
    display_name,
    file_signature,
    list_generator_files,
    list_ignored_files,
    read_model_bytes,
    signature_bytes,
    validate_model,
)
from service.models.probe import TrialRequest, Verdict, prober
from service.models.served_model import ServedModel, SessionCache
from service.models.session import ProviderError, Runtime, RunWatchdog, choose_provider
from service.observability.metrics import Metrics
from service.settings import Settings

log = logging.getLogger("bentoml.atelier")

BUNDLED = Path(__file__).parents[1] / "bundled"
MAX_PARALLEL_BATCHES = 4  # default of ATELIER_PARALLEL_BATCHES
LOADING = "models are still being loaded"
PROBING = "it is still being tried, which takes longer than usual"
MEMORY_FACTOR = 8  # times a file's size that loading it may take, in addition to ATELIER_MAX_LOAD_BYTES
DEFAULT_LOAD_BYTES = 2**31
RUN_GRACE_S = 5.0  # after the deadline, when no client waits for a run any more


class Repository:
    """The generators of one folder by name, and the rejected files with the reason.

    `load_all` reads it once and `watch` keeps watching it. A request sees the models before or after a change, never
    in between.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics | None = None,
        on_replaced: Callable[[ServedModel], object] = lambda _model: None,
    ):
        """Make a repository without models.

        Args:
            settings: The service's settings.
            metrics: Counts loads and failures.
            on_replaced: Called, on another thread, with each model that is no longer served.
        """
        self._settings, self._metrics, self._on_replaced = settings, metrics or Metrics(), on_replaced
        self._runtime: Runtime | None = None
        self._cache = SessionCache(settings.max_loaded_bytes, self._metrics, settings.max_model_bytes)
        self._reloading = ThreadPoolExecutor(1, "reloading")
        self._scanning = threading.Lock()
        self._stopping = threading.Event()
        self._files: dict[Path, FileSignature | None] = {}
        self._catalog = Catalog()
        self._not_ready: str | None = LOADING
        self._loading = True  # until the files that existed at the start have been tried
        self._ignored: dict[str, str] = {}

    @property
    def folder(self) -> Path:
        """MODEL_DIR if it is set, else ./models if it contains generator files, else the bundled folder."""
        if self._settings.model_dir is not None:
            return self._settings.model_dir
        default = Path("models")
        return default if list_generator_files(default) else BUNDLED

    def files(self) -> list[Path]:
        """Return the generator files that exist now: the folder's, or the bento's if it has some and no MODEL_DIR."""
        if self._settings.model_dir is None and (packed := bento_generator_files()):
            return packed
        return list_generator_files(self.folder)

    @property
    def threads(self) -> int:
        """Threads that a worker's inference may use."""
        return self._settings.threads or max(1, available_cpus() // self._settings.workers)

    @property
    def parallel_batches(self) -> int:
        """Batches that a worker runs at the same time."""
        return self._settings.parallel_batches or min(self.threads, MAX_PARALLEL_BATCHES)

    @property
    def not_ready(self) -> str | None:
        """Why requests cannot be answered yet, or None when they can."""
        return self._not_ready

    @property
    def failed(self) -> Mapping[str, LoadFailure]:
        """The rejected files by name."""
        return self._catalog.failed

    def load_all(self) -> None:
        """Read every file. A bad file does not stop the others; nothing is raised."""
        s = self._settings
        try:
            self._runtime = Runtime(
                self.threads,
                s.max_batch,
                choose_provider(s.provider),
                strict=s.provider == "cuda",
                parallel_batches=self.parallel_batches,
                watchdog=RunWatchdog(s.deadline_s + RUN_GRACE_S),
            )
        except ImportError as error:
            needs = "the service needs ONNX Runtime: pip install '.[cpu]' in the checkout (or [gpu])"
            self._not_ready = f"{needs} ({onnx_error_message(error)})"
            return
        except ProviderError as error:
            self._not_ready = str(error)
            return
        with self._scanning:
            self._files = {path: file_signature(path) for path in self._list_files()}
            self._update_ignored()
            self._read_all(self._files, "start")
            self._loading = False
            self._serve(self._catalog.entries)
        if s.model_dir is None and any(path.parent == BUNDLED for path in self._files):
            log.warning(
                "no generator file (*.onnx) in %s and no MODEL_DIR: serving the bundled example, the model %s",
                Path("models").absolute(),
                ", ".join(sorted(self._catalog.models)),
            )
        if not self._not_ready:
            self.get(None).load()  # where not all have room, the default has
        while not s.watch_s and any(entry.reason == PROBING for entry in self._catalog.entries.values()):
            if self._stopping.wait(0.2):
                return
            with self._scanning:
                entries = self._catalog.entries
                slow = {path: self._files.get(path) for path, entry in entries.items() if entry.reason == PROBING}
                self._read_all(slow, "start")

    def _read_all(self, files: Mapping[Path, FileSignature | None], why: str) -> None:
        """Have files tried, and serve each as soon as it is warm, small ones first."""
        ordered = sorted(files.items(), key=lambda file: signature_bytes(file[1]))
        for path, found in ordered:
            self._request_probe(path, found)
        for path, found in ordered:
            if self._stopping.is_set():
                return
            old = self._catalog.entries.get(path)
            entry = self._read(path, found, old, why)
            if entry is not None and entry != old:
                self._serve({**self._catalog.entries, path: entry})

    def give_up(self, error: Exception) -> None:
        """Report that `load_all` ended early as the reason for having no models; the next scan tries again."""
        self._loading = False
        self._not_ready = f"loading the models failed: {onnx_error_message(error)}; see the log"

    def watch(self) -> None:
        """Start to scan the files every `watch_s` seconds on another thread (0: never)."""
        if self._settings.watch_s and self._runtime is not None:
            threading.Thread(target=self._watch, name="watching models", daemon=True).start()

    def close(self) -> None:
        """Stop watching, and remove the copies of evicted models."""
        self._stopping.set()
        self._reloading.shutdown(wait=False, cancel_futures=True)
        self._cache.close()

    def scan(self) -> None:
        """Read the files that have changed and are the same in two scans, so that unfinished copies are left alone.

        New models are served as soon as each is warm. Models whose file is gone are dropped last, so that a renamed
        file is served throughout.
        """
        with self._scanning:
            before, self._files = self._files, {path: file_signature(path) for path in self._list_files()}
            self._update_ignored()
            known = {path: entry.signature for path, entry in self._catalog.entries.items() if entry.signature}
            whole = {path: found for path, found in self._files.items() if path in before and before[path] == found}
            changed = {path: found for path, found in whole.items() if path not in known or known[path] != found}
            self._read_all(changed, "changed")
            entries = self._catalog.entries
            kept = {path: entry for path, entry in entries.items() if path in self._files or path in before}
            if self._settings.model_dir is None and not any(e.model for p, e in kept.items() if p in self._files):
                return  # ./models has files, but none is valid yet: the models so far stay
            if kept.keys() != entries.keys() or not self._catalog.models:  # the reason for having none may have changed
                self._serve(kept)

    def all(self) -> list[ServedModel]:
        """Return the served models by name."""
        models = self._catalog.models
        return [models[name] for name in sorted(models)]

    @property
    def default(self) -> str | None:
        """ATELIER_DEFAULT_MODEL, else the newest model by `created`, which is known once all are loaded."""
        return self._settings.default_model or (None if self._loading else self._catalog.newest)

    def get(self, name: str | None) -> ServedModel:
        """Return the model called `name`, or the default one for None.

        Raises:
            ApiError: 404 if the name is unknown, 503 if no model is loaded.
        """
        models = self._catalog.models
        if name is None:
            name = self.default
        if name is not None and name in models:
            return models[name]
        if self._not_ready:
            raise ApiError(503, "not_ready", self._not_ready)
        known = ", ".join(sorted(models)[:20])
        raise ApiError(404, "model_not_found", f"no model is named {str(name)[:100]!r}; there are: {known}", "model")

    async def reload(self, model: ServedModel) -> None:
        """Make a model's session again, off the event loop, if it was evicted.

        Raises:
            ApiError: 503 if it cannot be made, or not within the deadline.
        """
        if model.loaded:
            return
        deadline_s = self._settings.deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.get_running_loop().run_in_executor(self._reloading, model.load)
        except TimeoutError:
            self._metrics.rejected.labels("deadline").inc()
            message = f"{model.name} is still being loaded after {deadline_s:g} s; try again"
            raise ApiError(503, "deadline_exceeded", message) from None
        except Exception as error:
            log.exception("%s could not be loaded again", model.name)
            self._metrics.model_load_failures.labels(display_name(model.path)).inc()
            message = f"{model.name} could not be loaded again: {onnx_error_message(error)}"
            raise ApiError(503, "not_ready", message) from None

    def describe(self) -> dict[str, Any]:
        """Return the body of /v1/models without its limits."""
        default = self.default
        return {
            "default": default,
            "data": [{**model.describe(), "default": model.name == default} for model in self.all()],
            "failed": [failure.describe(file) for file, failure in sorted(self.failed.items())],
            "left_out": [{"file": file, "reason": reason} for file, reason in sorted(self._ignored.items())],
            "not_ready": self._not_ready,
        }

    def _list_files(self) -> list[Path]:
        try:
            return self.files()
        except OSError as error:
            log.warning("the models stay as they are: %s cannot be read: %s", self.folder, error.strerror)
            return list(self._files)

    def _update_ignored(self) -> None:
        """List the files that look like models but are not read, and log the new ones."""
        try:
            # also ./models while the bundled model is served, because ./models holds only such files
            folder = self._settings.model_dir or Path("models")
            found = {display_name(Path(name)): why for name, why in list_ignored_files(folder).items()}
        except OSError:
            return  # `_list_files` logs the reason
        for file, why in sorted(found.items() - self._ignored.items()):
            log.warning("%s is left out: %s", file, why)
        self._ignored = found

    def _trial(self, path: Path, found: FileSignature) -> TrialRequest:
        s = self._settings
        half = (available_memory() or 2 * DEFAULT_LOAD_BYTES) // 2
        memory = s.max_load_bytes or min(DEFAULT_LOAD_BYTES, half)
        return TrialRequest(
            path,
            found,
            max_bytes=s.max_model_bytes,
            memory_bytes=memory + MEMORY_FACTOR * signature_bytes(found),
            timeout_s=s.load_timeout_s,
            threads=self.threads,
            max_batch=s.max_batch,
            batch_bytes=s.max_batch_bytes,
        )

    def _request_probe(self, path: Path, found: FileSignature | None) -> None:
        """Have a file tried while others are loaded."""
        try:
            check_readable(path, self._settings.max_model_bytes)
        except ContractError:
            return
        if found is not None and path.parent != BUNDLED:
            prober().request(self._trial(path, found))

    def _probe(self, path: Path, found: FileSignature | None) -> Verdict | None:
        """Return the verdict of the probe process on a file; None if it is not known yet.

        Raises:
            ContractError: If the file is rejected.
        """
        check_readable(path, self._settings.max_model_bytes)
        if found is None:
            return Verdict(ok=False, changed=True)
        if path.parent == BUNDLED:  # part of this package, as its code is
            return Verdict(ok=True, rows=self._settings.max_batch)
        verdict = prober().verdict(self._trial(path, found), self._stopping)
        if verdict is None or verdict.ok or verdict.changed:
            return verdict
        raise (UnreadableFileError if verdict.unreadable else ContractError)(verdict.reason)

    def _watch(self) -> None:
        while not self._stopping.wait(self._settings.watch_s):
            try:
                self.scan()
            except Exception:
                log.exception("reading %s failed; the models stay as they are", self.folder)

    def _read(self, path: Path, found: FileSignature | None, old: ModelEntry | None, why: str) -> ModelEntry | None:
        """Return the entry of a file; `old` if the file changed while it was read."""
        try:
            verdict = self._probe(path, found)
            if verdict is None:
                return ModelEntry(None, old.model if old else None, PROBING)
            if verdict.changed:
                return old
            assert found is not None
            trial = self._trial(path, found)
            if not prober().begin_loading(trial):
                raise ContractError("loading it ended several workers; it is not loaded again until it changes")
            try:
                file = read_model_bytes(path, self._settings.max_model_bytes)
                if file_signature(path) != found:
                    return old
                return ModelEntry(found, self._make(path, file, verdict, why), None)
            finally:
                prober().end_loading(trial)
        except ContractError as error:
            reason = str(error)
            if isinstance(error, UnreadableFileError):
                found = None  # the reason may pass: try again at each scan
        except Exception as error:  # a file may raise anything
            log.debug("%s", path, exc_info=True)
            reason = f"it cannot be loaded: {onnx_error_message(error)}"
        if old is None or old.reason != reason or old.signature != found:
            digest = old.model.metadata.digest[:12] if old and old.model else None
            still = f"; {digest} is still served" if digest else ""
            log.warning("%s is not served: %s%s", display_name(path), reason, still)
            self._metrics.model_load_failures.labels(display_name(path)).inc()
        return ModelEntry(found, old.model if old else None, reason)

    def _make(self, path: Path, file: bytes, verdict: Verdict, why: str) -> ServedModel:
        """Return the file's model; the one that is loaded, if only its scores, time or file name differ."""
        assert self._runtime is not None
        validated = validate_model(path, file, verdict.shape)
        identity = validated.metadata.name, validated.metadata.digest
        for known, entry in self._catalog.entries.items():
            model = entry.model
            if model is None or identity != (model.name, model.metadata.digest):
                continue
            if known == path or known not in self._files:
                model.update_source(path, file, validated.metadata)
                return model
        with self._metrics.model_load_seconds.time():
            runtime = replace(self._runtime, max_batch=verdict.rows, heavy=verdict.heavy)
            model = ServedModel(path, file, validated, runtime, self._cache, why)
        if why != "start":
            log.info("%s is loaded from %s, digest %s", model.name, display_name(path), model.metadata.digest[:12])
        return model

    def _serve(self, entries: Mapping[Path, ModelEntry]) -> None:
        """Replace the catalog by that of these entries, and let go of the models that are no longer in it."""
        before, self._catalog = self._catalog, self._catalog.updated(entries, self._files)
        not_ready = self._not_ready_reason()
        if self._not_ready not in (not_ready, LOADING):
            log.info("ready") if not_ready is None else log.error("not ready: %s", not_ready)
        self._not_ready = not_ready
        self._metrics.models_failed.set(len(self._catalog.failed))
        self._metrics.grow()
        for model in before.loaded() - self._catalog.loaded():
            model.mark_replaced()
            self._on_replaced(model)
            log.info("%s, digest %s, is no longer served", model.name, model.metadata.digest[:12])

    def _not_ready_reason(self) -> str | None:
        models, default = self._catalog.models, self._settings.default_model
        if self._loading:
            return LOADING
        if not models:
            return self._no_models_reason()
        if default is not None and default not in models:
            return f"ATELIER_DEFAULT_MODEL is {default!r}; the models are {', '.join(sorted(models))}"
        return None

    def _no_models_reason(self) -> str:
        try:
            if not self.folder.is_dir():
                return f"the model folder {self.folder} does not exist; set MODEL_DIR to a folder of generator files"
            if self.files():
                return f"no usable generator file (*.onnx) in {self.folder}; /v1/models lists the rejected files"
        except OSError as error:
            who = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
            return f"the model folder {self.folder} cannot be read by {who}: {error.strerror}"
        bundled = "leave MODEL_DIR unset to serve the bundled digits"
        return f"the model folder {self.folder} holds no generator file (*.onnx); put one there, or {bundled}"
