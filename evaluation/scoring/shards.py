"""Outgrowing one machine: a shard passes over its share of every draw, and merging adds what the shards left.

A shard is a folder `shard-I-of-N` with `shard.json` and, for each draw, the statistics and rows that a pass leaves. It
takes its final name when it is whole, so that shards can be made by as many machines as there are, and again.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.atomic import written_whole
from evaluation.errors import EvaluationError
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.report.schema import now, versions, write_json
from evaluation.rows import RowsFile, mapped
from evaluation.scoring.feature_store import KEPT, SAMPLES, Collected, read_state
from evaluation.scoring.job import Job, check_extrapolation, partial_kept, share
from evaluation.scoring.workdir import opened

FORMAT_VERSION = 1
_KINDS = {"features": "f", "logits": "f", "labels": "iu", "samples": "u"}
_NAME = re.compile(r"shard-(\d+)-of-(\d+)")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Arguments(_Part):
    """What merging reads of a job's arguments; all of them are compared from shard to shard."""

    num_images: int = Field(ge=2)
    first_seed: int = Field(ge=0)
    parts: int = Field(ge=1, le=1000)
    shard: list[int] = Field(min_length=2, max_length=2)
    keep: list[str]
    extractor: str
    source: dict[str, Any]


class _ReferenceName(_Part):
    name: str


class _ExtractorFile(_Part):
    path: str
    digest: str


class _Told(_Part):
    """`shard.json`, checked once, so that merging has nothing to doubt in it."""

    arguments: _Arguments
    metrics: list[str] = Field(min_length=1)
    reference: _ReferenceName
    extractor: _ExtractorFile
    source: dict[str, Any]
    shape: list[int] = Field(min_length=3, max_length=3)
    seeded: bool
    class_names: list[str]
    warnings: list[str]
    timing: dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """A whole shard: `told` is its shard.json."""

    folder: Path
    told: dict[str, Any]


def parse(text: str) -> tuple[int, int]:
    """`2/8` → (2, 8): the third of eight, since an indexed job counts from 0. Raises EvaluationError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise EvaluationError(f"--shard is I/N with I from 0 to N - 1, such as 0/4, not {text!r}")
    return int(match[1]), int(match[2])


def score_shard(job: Job, output: Path, told: dict[str, Any]) -> Path:
    """Pass over this shard's share and leave it as a folder in `output`; `told` is what merging needs to know.

    One that is there already is left as it is, if it is of the same arguments.
    """
    assert job.settings.shard is not None
    index, count = job.settings.shard
    draws = job.draws()
    check_extrapolation(job, draws[0].n)
    arguments = job.arguments(draws)
    final = output / f"shard-{index}-of-{count}"
    if (final / "shard.json").is_file():
        if _read(final).told["arguments"] != arguments:
            raise EvaluationError(f"{final} is a shard of other arguments; give another --output")
        return final
    with opened(output / ".partial", arguments) as folder:
        with partial_kept(job, None, draws, folder):
            parts = job.passes(draws, folder)
        document = {
            "format_version": FORMAT_VERSION,
            "kind": "shard",
            "arguments": arguments,
            "n": [part.statistics.n for part in parts],
            "source": job.source.description,
            "shape": list(job.source.shape),
            "seeded": job.source.seeded,
            "class_names": list(job.source.class_names),
            "warnings": job.warnings,
            "timing": parts[0].timing.told(),
            "versions": versions(),
            "created": now(),
            **told,
        }
        write_json(folder / "shard.json", document)
        (folder / "arguments.json").unlink(missing_ok=True)
        try:
            folder.rename(final)
        except OSError as error:
            raise EvaluationError(f"cannot put the shard in place at {final}: {error.strerror or error}") from error
    return final


def find(paths: Sequence[Path]) -> list[Shard]:
    """The shards named or inside folders named, in order. Raises EvaluationError unless they are all of one job."""
    folders = [folder for path in paths for folder in ([path] if _NAME.fullmatch(path.name) else _inside(path))]
    if not folders:
        raise EvaluationError(
            f"there is no shard in {', '.join(map(str, paths))}; `evaluation score … --shard 0/4` makes one"
        )
    shards = sorted((_read(folder) for folder in folders), key=lambda shard: shard.told["arguments"]["shard"])
    first = shards[0].told
    count = first["arguments"]["shard"][1]
    for shard in shards:
        for key in ("arguments", "metrics", "reference", "shape"):
            ours, theirs = ({**of[key], "shard": None} if key == "arguments" else of[key] for of in (first, shard.told))
            if key == "arguments" and shard.told["arguments"]["shard"][1] != count:
                raise EvaluationError(f"{shard.folder} and {shards[0].folder} are not of one number of shards")
            if ours != theirs:
                other = key if key != "arguments" else ", ".join(k for k in ours if ours[k] != theirs.get(k))
                raise EvaluationError(f"{shard.folder} and {shards[0].folder} are not of one job: their {other} differ")
    there = [shard.told["arguments"]["shard"][0] for shard in shards]
    if twice := [index for index in there if there.count(index) > 1]:
        raise EvaluationError(f"shard {twice[0]} of {count} was given twice")
    present = set(there)
    if missing := list(itertools.islice((index for index in range(count) if index not in present), 5)):
        raise EvaluationError(f"shard {', '.join(map(str, missing))} of {count} is missing (counted from 0)")
    return shards


def merged(shards: Sequence[Shard], folder: Path) -> list[Collected]:
    """Each draw's statistics added, and its rows put one after the other into `folder`."""
    found = []
    for part in range(shards[0].told["arguments"]["parts"]):
        found.append(_merge_part(shards, f"part-{part}", folder / f"part-{part}"))
    return found


def _merge_part(shards: Sequence[Shard], name: str, folder: Path) -> Collected:
    folder.mkdir(parents=True, exist_ok=True)
    states = [_state(shard, name) for shard in shards]
    total, digest = FeatureStatistics(states[0][0].dim), states[0][1]
    for shard, (statistics, theirs) in zip(shards, states, strict=True):
        if theirs != digest or statistics.dim != total.dim:
            raise EvaluationError(
                f"{shard.folder / name} is of model {theirs[:12]} and {statistics.dim} features, "
                f"{shards[0].folder / name} of {digest[:12]} and {total.dim}; one score is of one model"
            )
        total.merge(statistics)
    sizes = [statistics.n for statistics, _ in states]
    for what in KEPT:
        pieces = [mapped(shard.folder / name / f"{what}.npy") for shard in shards]
        there = [piece for piece in pieces if piece is not None]
        if not there:
            continue
        if len(there) != len(pieces):
            raise EvaluationError(f"some shards lack their {what}; make them again")
        row = {"features": (total.dim,), "labels": (), "samples": tuple(shards[0].told["shape"])}.get(
            what, there[0].shape[1:]
        )
        for shard, piece, n in zip(shards, there, sizes, strict=True):
            rows = min(SAMPLES, n) if what == "samples" else n
            kind = piece.dtype.kind in _KINDS[what] and piece.dtype == there[0].dtype
            if not kind or piece.shape != (rows, *row):
                raise EvaluationError(
                    f"{shard.folder / name} is damaged: its {what} are {piece.dtype} {list(piece.shape)}, not "
                    f"{there[0].dtype} {[rows, *row]}; make that shard again"
                )
        if what == "samples":
            with written_whole(folder / "samples.npy") as handle:
                np.save(handle, np.concatenate(there)[:SAMPLES], allow_pickle=False)
            continue
        file = RowsFile(folder / f"{what}.npy", total.n, there[0].shape[1:], there[0].dtype)
        at = 0
        for piece in there:
            for start in range(0, len(piece), 4096):
                file.write(at + start, piece[start : start + 4096])
            at += len(piece)
        file.close()
    return Collected(folder, total, digest)


def _state(shard: Shard, name: str) -> tuple[FeatureStatistics, str]:
    """What a shard's pass saved. Raises EvaluationError unless it is of all of the shard's images."""
    arguments = shard.told["arguments"]
    start, stop = share(arguments["num_images"], tuple(arguments["shard"]))
    try:
        statistics, digest = read_state(shard.folder / name)
        if statistics.n != stop - start:
            raise ValueError(f"it is of {statistics.n} images, not of {stop - start}")
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{shard.folder / name} is damaged ({str(error)[:100]}); make that shard again"
        ) from error
    return statistics, digest


def _inside(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.glob("shard-*-of-*")) if _NAME.fullmatch(entry.name)]


def _read(folder: Path) -> Shard:
    try:
        told = json.loads((folder / "shard.json").read_text(encoding="utf-8"))
        if not isinstance(told, dict) or (told.get("kind"), told.get("format_version")) != ("shard", FORMAT_VERSION):
            raise ValueError("another format")
        index, count = _Told.model_validate(told).arguments.shard
        if not 0 <= index < count <= told["arguments"]["num_images"]:
            raise ValueError(f"arguments.shard: [{index}, {count}]")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EvaluationError(f"{folder} is damaged: shard.json: {where}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"{folder} is not a whole shard ({str(error)[:100]})") from error
    return Shard(folder, told)


class RecordedSource:
    """The source that shards were made from, as far as they tell: for a document, not for more images."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.description: dict[str, Any] = told["source"]
        height, width, channels = told["shape"]
        self.shape: tuple[int, int, int] = (height, width, channels)
        self.seeded: bool = told["seeded"]
        self.class_names: tuple[str, ...] = tuple(told["class_names"])

    def limit(self) -> int | None:
        return None

    def batches(self, draw: Any, start: int, stop: int, batch: int) -> Any:
        raise EvaluationError("shards tell no more images than they hold")
