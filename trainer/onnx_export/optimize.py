"""Export in a faster form, if it is one: built, compared with float32 in every respect, and kept only when it gains."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import onnx

from artifacts.files import LFS_HINT, atomic_path, is_lfs_pointer_file
from artifacts.latents import ZDistribution
from trainer.errors import TrainerError
from trainer.names import checked_name
from trainer.onnx_export import quantize, throughput
from trainer.onnx_export.exporter import describe, digest
from trainer.onnx_export.quantize import CALIBRATION_SEEDS, Optimize
from trainer.onnx_export.throughput import Difference, Judge, Rates

MIN_GAIN = 1.05  # times float32's images/s at DECIDING_BATCH: less is not worth any difference
DECIDING_BATCH = 16
MAX_MEAN_DIFFERENCE = 2.0  # levels of 255
MAX_SCORE_LOSS = 0.01  # of the Fréchet distance, relative
UNSCORED_IMAGES = 1024


@dataclass(frozen=True)
class Outcome:
    """What was asked for, what was written, and the figures that decided."""

    path: Path
    digest: str
    asked: Optimize
    written: Optimize
    why: str
    plain_bytes: int
    optimized_bytes: int
    provider: str
    rates: dict[int, Rates]  # by batch size
    difference: Difference
    machine: dict[str, Any]

    @property
    def report_path(self) -> Path:
        return self.path.with_suffix(".optimize.json")

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "file": self.path.name,
            "digest": self.digest,
            "asked": self.asked,
            "written": self.written,
            "why": self.why,
            "provider": self.provider,
            "bytes": {"fp32": self.plain_bytes, self.asked: self.optimized_bytes},
            "images_per_s": {
                str(batch): {
                    "fp32": round(told.plain, 1),
                    self.asked: round(told.optimized, 1),
                    "ratio": round(told.ratio, 3),
                }
                for batch, told in self.rates.items()
            },
            "difference": {**asdict(self.difference), "score_change": self.difference.score_change},
            "machine": self.machine,
        }


def read(path: Path, name: str | None = None) -> onnx.ModelProto:
    """A generator file of ours, under another name if one is given.

    Raises TrainerError for anything else, for one that was altered, and for one that is optimised already.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise TrainerError(f"there is no file {path}") from error
    except Exception as error:  # protobuf's own, and onnx's
        what = LFS_HINT if is_lfs_pointer_file(path) else "not an ONNX file that can be read"
        raise TrainerError(f"{path} is {what}") from error
    told = properties_of(model)
    if told.get("digest") != digest(model):
        raise TrainerError(f"{path} is not a generator file, or was altered: its digest does not match its content")
    if "optimize" in told:
        raise TrainerError(f"{path} is {told['optimize']} already; optimise the float32 one")
    if name is not None and name != told["name"]:
        del model.metadata_props[:]
        describe(model, {key: text for key, text in told.items() if key != "digest"} | {"name": checked_name(name)})
    return model


def check_replaceable(path: Path, how: Optimize) -> None:
    """Raise TrainerError if a file at `path` holds another optimized form than `how`, which would be lost."""
    try:
        there = properties_of(onnx.load(path, load_external_data=False)).get("optimize", how)
    except Exception:  # there is no such file, or it is not an ONNX file
        return
    if there != how:
        raise TrainerError(f"{path} holds the {there} form; give another --output or --name for {how}")


def properties_of(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def optimize(
    plain: onnx.ModelProto,
    path: Path,
    how: Optimize,
    *,
    judge: Judge | None = None,
    num_images: int = 10_000,
    force: bool = False,
) -> Outcome:
    """Write a generator file's faster form `how` (int8 or fp16) to `path` when that is faster and as good.

    Where it is not, `plain` is written as it is, unless `force`. The report is written beside it. The images of seeds 0
    to `num_images` - 1 are compared and scored (1,024 without a judge).
    Raises TrainerError where there is nothing to optimise, or nothing can be written.
    """
    told = properties_of(plain)
    check_replaceable(path, how)
    if judge:
        judge.check(int(told["height"]))
    z_distribution = cast(ZDistribution, told["z_distribution"])
    latent = (int(told["z_dim"]), z_distribution, len(json.loads(told["class_names"])))

    if how == "int8":
        optimized = quantize.int8(plain, quantize.feeds(CALIBRATION_SEEDS, *latent))
        seeds = [CALIBRATION_SEEDS.start, CALIBRATION_SEEDS.stop - 1]
        told["calibration"] = json.dumps({"method": "minmax", "seeds": seeds})
    else:
        optimized = quantize.fp16(plain)
    # scores are those of the float32 images; the digest is made anew
    kept = {key: text for key, text in told.items() if key != "digest" and not key.startswith("evaluation.")}
    describe(optimized, kept | {"optimize": how})
    onnx.checker.check_model(optimized, full_check=True)

    machine = throughput.machine()
    where = throughput.provider() if how == "fp16" else "CPUExecutionProvider"
    sessions = throughput.session(plain, where), throughput.session(optimized, where)
    feed = next(quantize.feeds(range(max(throughput.BATCHES)), *latent, batch=max(throughput.BATCHES)))
    rates = {n: throughput.rates(*sessions, {key: rows[:n] for key, rows in feed.items()}) for n in throughput.BATCHES}
    scored = range(num_images if judge else UNSCORED_IMAGES)
    difference = throughput.difference(*sessions, quantize.feeds(scored, *latent, batch=64), judge)

    keep, why = _decide(how, rates[DECIDING_BATCH].ratio, difference, where, force)
    chosen = optimized if keep else plain
    outcome = Outcome(
        path,
        digest(chosen),
        how,
        how if keep else "none",
        why,
        plain.ByteSize(),
        optimized.ByteSize(),
        where,
        rates,
        difference,
        machine,
    )
    try:
        with atomic_path(path) as partial:
            partial.write_bytes(chosen.SerializeToString())
        with atomic_path(outcome.report_path) as partial:
            partial.write_text(json.dumps(outcome.document(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainerError(f"could not write {path}: {error.strerror or error}") from error
    return outcome


def _decide(how: Optimize, ratio: float, difference: Difference, where: str, force: bool) -> tuple[bool, str]:
    """Whether the optimised file is kept, and the words why."""
    on = "the GPU" if where.startswith("CUDA") else "this CPU"
    gain = f"{ratio:.2f} times float32's images/s on {on}"
    change = difference.score_change
    against = []
    if how == "fp16" and not where.startswith("CUDA"):
        against.append(
            f"float16 is for GPUs, a CPU computes it in float32: {gain}; --force writes it for a GPU elsewhere"
        )
    elif ratio < MIN_GAIN:
        missing = how == "int8" and throughput.has_vnni() is False
        against.append(f"it is not faster: {gain}" + (", which has no VNNI" if missing else ""))
    if difference.mean > MAX_MEAN_DIFFERENCE:
        against.append(
            f"its pixels are off by {difference.mean:.2f} levels on average, {MAX_MEAN_DIFFERENCE:g} at most"
        )
    if change is not None and change > MAX_SCORE_LOSS:
        against.append(f"its {difference.metric} is {change:.1%} worse, {MAX_SCORE_LOSS:.0%} at most")
    if not against:
        return True, gain
    if force:
        return True, "forced, though " + "; ".join(against)
    return False, "; ".join(against)


def table(outcome: Outcome) -> list[str]:
    """The report for people, a line each."""
    how, off = outcome.asked, outcome.difference
    rows: list[tuple[str, str, str, str]] = [("", "fp32", how, "")]
    rows.append(
        (
            "size",
            f"{outcome.plain_bytes / 1000:,.0f} kB",
            f"{outcome.optimized_bytes / 1000:,.0f} kB",
            f"x {outcome.optimized_bytes / outcome.plain_bytes:.2f}",
        )
    )
    for batch, told in outcome.rates.items():
        rows.append((f"images/s, batch {batch}", f"{told.plain:,.0f}", f"{told.optimized:,.0f}", f"x {told.ratio:.2f}"))
    if off.metric is not None and off.score_change is not None:
        rows.append((off.metric, f"{off.plain_score:.3f}", f"{off.optimized_score:.3f}", f"{off.score_change:+.2%}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    lines.append(
        f"pixels differ by {off.mean:.3f} levels of 255 on average and {off.maximum} at most, "
        f"{off.changed:.1%} of them at all, on {off.images:,} latents"
    )
    if outcome.written == "none":
        lines.append(f"kept float32: {outcome.why} (--force writes {how} all the same)")
    else:
        lines.append(f"{how}: {outcome.why}")
    return [line.rstrip() for line in lines]
