"""Split a job into shards for several machines, and merge them into one score.

A shard is a folder `shard-I-of-N` with `shard.json` and, for each range of seeds, the extracted features of its share.
It gets its name when it is complete, so shards can be made at the same time, and made again.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.plugins import is_plugin
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor, load_extractor
from evaluation.features.store import ROWS, SAMPLES, FeatureStore, RowsFile, read_rows, read_state
from evaluation.features.workdir import open_workdir
from evaluation.json_files import first_error, now, versions, write_json
from evaluation.metrics import MetricOptions
from evaluation.metrics.frechet import FeatureStatistics
from evaluation.output_files import atomic_output
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_file import load_statistics
from evaluation.report.document import write_report
from evaluation.report.schema import MetricName
from evaluation.scoring.job import Job, ScoreOptions, add_reference, metrics_named, open_job, shard_bounds
from evaluation.scoring.report import OutputPaths, make_report, recording_partial
from evaluation.scoring.run_job import extract_ranges
from evaluation.sources import ImageBatch, ImagesLike, resolve

FORMAT_VERSION = 1
_DTYPE_KINDS = {"features": "f", "logits": "f", "labels": "iu", "samples": "u"}
_NAME = re.compile(r"shard-(\d+)-of-(\d+)")


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Arguments(_Model):
    """The job's arguments, of which only `shard` differs between the shards of a job."""

    model_config = ConfigDict(extra="allow")

    num_images: int = Field(ge=2)
    first_seed: int = Field(ge=0)
    parts: int = Field(ge=1, le=1000)
    shard: list[int] = Field(min_length=2, max_length=2)
    keep: list[str]
    extractor: str
    source: dict[str, Any]


class _ReferenceName(_Model):
    name: str


class _ExtractorFile(_Model):
    path: str
    digest: str


class Shard(_Model):
    """A complete shard: its folder, and what merging reads of its `shard.json`."""

    folder: Path
    arguments: _Arguments
    metrics: list[MetricName] = Field(min_length=1)
    kid_subset_size: int = Field(default=1000, ge=2)
    reference: _ReferenceName
    extractor: _ExtractorFile
    source: dict[str, Any]
    shape: list[int] = Field(min_length=3, max_length=3)
    seeded: bool
    class_names: list[str]
    warnings: list[str]
    timing: dict[str, Any]


class RecordedSource:
    """The description of the source that shards were made from: for a report, not for more images."""

    num_images: int | None = None

    def __init__(self, shard: Shard) -> None:
        height, width, channels = shard.shape
        self.shape = (height, width, channels)
        self.description, self.seeded, self.class_names = shard.source, shard.seeded, tuple(shard.class_names)

    def batches(self, *_: Any) -> Iterator[ImageBatch]:
        """Raise EvaluationError: shards hold no more images than their samples."""
        raise EvaluationError("shards hold no more images than their samples")


def parse_shard(text: str) -> tuple[int, int]:
    """Return `2/8`, the third of eight, as (2, 8); raise EvaluationError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise EvaluationError(f"--shard is I/N with I from 0 to N - 1, such as 0/4, not {text!r}")
    return int(match[1]), int(match[2])


def score_shard(images: ImagesLike, reference: str, extractor: Extractor, options: ScoreOptions, output: Path) -> Path:
    """Extract the features of one share of the images, `options.shard`, into a folder in `output`; return that.

    A complete shard with the same arguments is left as it is. The arguments are those of `score`.
    """
    assert options.shard is not None
    index, count = options.shard
    job = open_job(images, reference, extractor, options)
    arguments = job.arguments
    final = output / f"shard-{index}-of-{count}"
    if (final / "shard.json").is_file():
        if _read_shard(final).arguments.model_dump() != arguments:
            raise EvaluationError(f"{final} is a shard with other arguments; give another --output")
        return final
    with open_workdir(output / ".partial", arguments) as folder:
        with recording_partial(job, folder):
            stores = extract_ranges(job, folder)
        manifest = {
            "format_version": FORMAT_VERSION,
            "kind": "shard",
            "arguments": arguments,
            "n": [store.n for store in stores],
            "source": job.source.description,
            "shape": list(job.source.shape),
            "seeded": job.source.seeded,
            "class_names": list(job.source.class_names),
            "warnings": job.warnings,
            "timing": stores[0].timing.to_dict(),
            "versions": versions(),
            "created": now(),
            "metrics": [metric.name for metric in options.metrics],
            "reference": {"name": reference},
            "extractor": {"path": str(extractor.path), "digest": extractor.digest},
            "kid_subset_size": options.metric_options.kid_subset_size,
        }
        write_json(folder / "shard.json", manifest)
        (folder / "arguments.json").unlink(missing_ok=True)
        try:
            folder.rename(final)
        except OSError as error:
            raise EvaluationError(f"cannot put the shard in place at {final}: {error.strerror or error}") from error
    return final


def find_shards(paths: Sequence[Path]) -> list[Shard]:
    """Return the shards that are named, or are in named folders, in order; EvaluationError if of different jobs."""
    folders = [folder for path in paths for folder in ([path] if _NAME.fullmatch(path.name) else _shards_in(path))]
    if not folders:
        raise EvaluationError(
            f"there is no shard in {', '.join(map(str, paths))}; `evaluation score … --shard 0/4` makes one"
        )
    shards = sorted((_read_shard(folder) for folder in folders), key=lambda shard: shard.arguments.shard)
    first = shards[0]
    count = first.arguments.shard[1]
    for shard in shards:
        if shard.arguments.shard[1] != count:
            raise EvaluationError(f"{shard.folder} and {first.folder} are of different numbers of shards")
        if differ := _differing_keys(first, shard):
            raise EvaluationError(f"{shard.folder} and {first.folder} belong to different jobs: their {differ} differ")
    indices = [shard.arguments.shard[0] for shard in shards]
    if twice := [index for index in indices if indices.count(index) > 1]:
        raise EvaluationError(f"shard {twice[0]} of {count} was given twice")
    present = set(indices)
    if missing := list(itertools.islice((index for index in range(count) if index not in present), 5)):
        raise EvaluationError(f"shard {', '.join(map(str, missing))} of {count} is missing (counted from 0)")
    return shards


def merge_shards(
    paths: Sequence[Path],
    output: OutputPaths,
    data: DataPaths,
    *,
    metrics: str | None = None,
    reference: str | None = None,
    extractor: Path | None = None,
    kid_subset_size: int | None = None,
    baseline: bool = True,
    fail_above: float | None = None,
    force: bool = False,
    on_warning: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Merge the shards of a job into one score, as one job would have computed it, and write the report.

    `paths` are all shards of a job, or the folders that they are in. Metrics, reference, extractor and subset size are
    by default those that the shards were made with. The other arguments are those of `ScoreOptions`.
    """
    shards = find_shards(paths)
    first, arguments = shards[0], shards[0].arguments
    loaded = load_extractor(extractor or first.extractor.path)
    if loaded.digest != first.extractor.digest:
        raise EvaluationError(f"the shards were made with another extractor than {loaded.path}")
    _check_runs_no_code("--metrics", [] if metrics else first.metrics)
    _check_runs_no_code("--reference", [] if reference else [first.reference.name])
    options = ScoreOptions(
        metrics_named(metrics or first.metrics),
        num_images=arguments.num_images,
        first_seed=arguments.first_seed,
        intervals=arguments.parts > 1,
        baseline=baseline,
        fail_above=fail_above,
        metric_options=MetricOptions(kid_subset_size=kid_subset_size or _recorded_subset_size(shards)),
        force=force,
        paths=data,
        on_warning=on_warning,
    )
    job = Job(RecordedSource(first), loaded, options)
    job.warn(*dict.fromkeys(text for shard in shards for text in shard.warnings))
    name = reference or first.reference.name
    is_statistics = resolve(name).require_real_images().is_statistics
    add_reference(job, load_statistics(name, loaded) if is_statistics else name)
    output.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="merge-", dir=output.work) as folder:
        report = make_report(job, merge_features(shards, Path(folder)), output)
    report["timing"] = {"shards": [shard.timing for shard in shards]}
    write_report(output.document, report)
    return report


def _check_runs_no_code(option: str, recorded: Sequence[str]) -> None:
    """Raise EvaluationError if merging would import a module that only the shards name, not the user."""
    for name in recorded:
        if is_plugin(name.partition("@")[0]):
            raise EvaluationError(
                f"the shards name {name}, and no code that a file names is run; to allow it: "
                f"{option} {','.join(recorded)}"
            )


def _recorded_subset_size(shards: Sequence[Shard]) -> int:
    """Return the kernel distance's subset size that the shards were made for; EvaluationError if they differ."""
    sizes = {shard.kid_subset_size for shard in shards}
    if len(sizes) > 1:
        raise EvaluationError("the shards do not record one subset size for kid; give --kid-subset-size")
    return sizes.pop()


def merge_features(shards: Sequence[Shard], folder: Path) -> list[FeatureStore]:
    """Add the statistics of the shards and concatenate their rows, for each range of seeds, in `folder`."""
    return [_merge_range(shards, f"part-{part}", folder) for part in range(shards[0].arguments.parts)]


def _merge_range(shards: Sequence[Shard], name: str, parent: Path) -> FeatureStore:
    folder = parent / name
    folder.mkdir(parents=True, exist_ok=True)
    states = [_read_state(shard, name) for shard in shards]
    total, digest = FeatureStatistics(states[0][0].dim), states[0][1]
    for shard, (statistics, theirs) in zip(shards, states, strict=True):
        if theirs != digest or statistics.dim != total.dim:
            raise EvaluationError(
                f"{shard.folder / name} is of model {theirs[:12]} and {statistics.dim} features, "
                f"{shards[0].folder / name} of {digest[:12]} and {total.dim}; a score is of one model"
            )
        total.merge(statistics)
    sizes = [statistics.n for statistics, _ in states]
    for what in ROWS:
        pieces = [piece for shard in shards if (piece := read_rows(shard.folder / name / f"{what}.npy")) is not None]
        if not pieces:
            continue
        if len(pieces) != len(shards):
            raise EvaluationError(f"some shards lack their {what}; make them again")
        shape = {"features": (total.dim,), "labels": (), "samples": tuple(shards[0].shape)}
        row_shape, dtype = shape.get(what, pieces[0].shape[1:]), pieces[0].dtype
        for shard, piece, n in zip(shards, pieces, sizes, strict=True):
            expected = (min(SAMPLES, n) if what == "samples" else n, *row_shape)
            if piece.dtype.kind not in _DTYPE_KINDS[what] or piece.dtype != dtype or piece.shape != expected:
                raise EvaluationError(
                    f"{shard.folder / name} is damaged: its {what} are {piece.dtype} {list(piece.shape)}, not "
                    f"{dtype} {list(expected)}; make that shard again"
                )
        if what == "samples":
            with atomic_output(folder / "samples.npy") as handle:
                np.save(handle, np.concatenate(pieces)[:SAMPLES], allow_pickle=False)
            continue
        file, at = RowsFile(folder / f"{what}.npy", total.n, row_shape, dtype), 0
        for piece in pieces:
            file.write(at, piece)
            at += len(piece)
        file.close()
    return FeatureStore(folder, total, digest)


def _read_state(shard: Shard, name: str) -> tuple[FeatureStatistics, str]:
    """Return a shard's statistics and the model's digest; raise EvaluationError unless they are of all its images."""
    index, count = shard.arguments.shard
    start, stop = shard_bounds(shard.arguments.num_images, (index, count))
    try:
        statistics, digest = read_state(shard.folder / name)
        if statistics.n != stop - start:
            raise ValueError(f"it is of {statistics.n} images, not of {stop - start}")
    except (OSError, ValueError) as error:
        reason = str(error)[:100]
        raise EvaluationError(f"{shard.folder / name} is damaged ({reason}); make that shard again") from error
    return statistics, digest


def _differing_keys(shard: Shard, other: Shard) -> str:
    """Return what two shards of one job may not differ in, and do; empty if nothing."""
    ours, theirs = (one.arguments.model_dump(exclude={"shard"}) for one in (shard, other))
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    keys += [key for key in ("metrics", "reference", "shape") if getattr(shard, key) != getattr(other, key)]
    return ", ".join(keys)


def _shards_in(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.glob("shard-*-of-*")) if _NAME.fullmatch(entry.name)]


def _read_shard(folder: Path) -> Shard:
    try:
        manifest = json.loads((folder / "shard.json").read_text(encoding="utf-8"))
        kind = (manifest.get("kind"), manifest.get("format_version")) if isinstance(manifest, dict) else None
        if kind != ("shard", FORMAT_VERSION):
            raise ValueError("another format")
        shard = Shard.model_validate(manifest | {"folder": folder})
        index, count = shard.arguments.shard
        if not 0 <= index < count <= shard.arguments.num_images:
            raise ValueError(f"arguments.shard: [{index}, {count}]")
        return shard
    except ValidationError as error:
        raise EvaluationError(f"{folder} is damaged: shard.json: {first_error(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"{folder} is not a complete shard ({str(error)[:100]})") from error
