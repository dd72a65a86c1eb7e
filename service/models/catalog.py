"""The models that are served at one moment, made from the files that were read; replaced as a whole."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from service.models.model_files import FileSignature, display_name
from service.models.served_model import ServedModel


@dataclass(frozen=True)
class ModelEntry:
    """A file when it was last read.

    Attributes:
        signature: The file's signature; None to read it again at each scan.
        model: The model that it gives, or gave before, which is still served.
        reason: Why the file as it is now is not served.
    """

    signature: FileSignature | None
    model: ServedModel | None
    reason: str | None


@dataclass(frozen=True)
class LoadFailure:
    """A file that is not served as it is now: why, since when, and the (name, digest) that is served instead."""

    reason: str
    since: str
    serving: tuple[str, str] | None

    def describe(self, file: str) -> dict[str, Any]:
        """Return the entry of /v1/models under `failed`."""
        serving = None if self.serving is None else dict(zip(("model", "digest"), self.serving, strict=True))
        return {"file": file, "reason": self.reason, "since": self.since, "serving": serving}


@dataclass(frozen=True)
class Catalog:
    """The served models by name, and the rejected files by name with the reason."""

    entries: Mapping[Path, ModelEntry] = field(default_factory=dict)
    models: Mapping[str, ServedModel] = field(default_factory=dict)
    failed: Mapping[str, LoadFailure] = field(default_factory=dict)

    @cached_property
    def newest(self) -> str | None:
        """The name of the newest model; of several, the first by name. Third-party models are last."""
        ordered = sorted(self.models.values(), key=lambda model: (*_newest_first(model)[:2], model.name))
        return ordered[0].name if ordered else None

    def loaded(self) -> set[ServedModel]:
        """Return every model of the entries, those included whose name another file has."""
        return {entry.model for entry in self.entries.values() if entry.model}

    def updated(self, entries: Mapping[Path, ModelEntry], files: Collection[Path]) -> "Catalog":
        """Return the catalog of these entries: by name, the newest model of those that share one.

        Args:
            entries: What was read.
            files: The files that exist now; a removed file does not make a name ambiguous.
        """
        by_name: dict[str, dict[ServedModel, Path]] = defaultdict(dict)
        reasons: dict[str, tuple[str, ServedModel | None]] = {}
        for path, entry in sorted(entries.items()):
            if entry.model is not None:
                by_name[entry.model.name].setdefault(entry.model, path)
            if entry.reason is not None:
                reasons[display_name(path)] = entry.reason, entry.model
        models: dict[str, ServedModel] = {}
        for name, same in by_name.items():
            models[name], *others = sorted(same, key=_newest_first)
            newer = display_name(models[name].path)
            for other in others:
                if same[other] in files:
                    reason = f"its name {name!r} is also that of {newer}, which is newer; rename one and export again"
                    reasons[display_name(same[other])] = reason, None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        failed = {}
        for file, (reason, model) in reasons.items():
            since = self.failed[file].since if file in self.failed else now
            failed[file] = LoadFailure(reason, since, None if model is None else (model.name, model.metadata.digest))
        return Catalog(dict(entries), models, failed)


def _newest_first(model: ServedModel) -> tuple[bool, float, str]:
    """Sort key. Third-party models are last, because their time is when they were copied here."""
    m = model.metadata
    return m.foreign, -datetime.fromisoformat(m.created).timestamp(), model.path.name
