"""What an optimized generator gains and loses against the float32 one: both run alternately, on the same latents."""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.images.resolution import Resolution
from artifacts.resources import available_cpus
from trainer.devices import cpu_name
from trainer.errors import TrainerError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

BATCHES = (1, 16, 64)
ROUNDS = 7
TURN_SECONDS = 0.15  # at least, per session and round

Feed = Mapping[str, np.ndarray]


def make_session(
    model: onnx.ModelProto, provider: str = "CPUExecutionProvider", *, threads: int = 0
) -> onnxruntime.InferenceSession:
    """Return a session with the service's settings: all available cores (`threads` 0), and no spinning threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])


@dataclass(frozen=True)
class Throughput:
    """Images/s of one batch size: the medians of the rounds, and the median of the rounds' ratios."""

    plain: float
    optimized: float
    ratio: float


def measure(
    plain: onnxruntime.InferenceSession,
    optimized: onnxruntime.InferenceSession,
    feed: Feed,
    *,
    rounds: int = ROUNDS,
    turn_seconds: float = TURN_SECONDS,
) -> Throughput:
    """Return the images/s of two models on one batch.

    They alternate, so that a machine whose speed drifts changes both alike.
    """
    n = len(feed["latents"])
    sessions = {"plain": plain, "optimized": optimized}
    for session in sessions.values():  # the warm-up
        session.run(["images"], feed)
    rates: dict[str, list[float]] = {name: [] for name in sessions}
    for index in range(rounds):
        for name in sorted(sessions, reverse=index % 2 == 1):
            runs, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < turn_seconds or not runs:
                sessions[name].run(["images"], feed)
                runs += 1
            rates[name].append(runs * n / elapsed)
    ratios = [b / a for a, b in zip(rates["plain"], rates["optimized"], strict=True)]
    return Throughput(*(statistics.median(values) for values in (rates["plain"], rates["optimized"], ratios)))


class Scorer:
    """An extractor, and reference statistics made with it: `fd_classifier10k` or `fid10k` of images."""

    def __init__(self, reference: Path, extractor: Path) -> None:
        """Load both files.

        Raises:
            TrainerError: If a file cannot be read, or the two do not belong together.
        """
        from evaluation.errors import EvaluationError
        from evaluation.extractors import load_extractor
        from evaluation.references.reference_file import load_reference

        try:
            self.reference = load_reference(reference)
            self.extractor = load_extractor(extractor)
        except EvaluationError as error:
            raise TrainerError(str(error)) from error
        made_with = self.reference.provenance["extractor"]
        if made_with.get("digest") != self.extractor.digest:
            raise TrainerError(
                f"{reference} was made with the extractor {made_with.get('name')} "
                f"({str(made_with.get('digest'))[:12]}…), not with {extractor} ({self.extractor.digest[:12]}…)"
            )

    def check_resolution(self, resolution: Resolution) -> None:
        """Raise TrainerError when the reference's images have another resolution."""
        real = self.reference.provenance["image_set"].get("resolution")
        if real != resolution:
            raise TrainerError(
                f"the generator's images are {resolution} px and the reference's {real} px; "
                f"make a reference with --resolution {resolution}"
            )


def compare_outputs(
    plain: onnxruntime.InferenceSession,
    optimized: onnxruntime.InferenceSession,
    feeds: Iterable[Feed],
    scorer: Scorer | None = None,
) -> dict[str, Any]:
    """Compare the images of two models on all of `feeds`, and score both if there is a scorer.

    Returns:
        The number of images, the mean and maximum difference in levels of 255, and the share of values that differ at
        all (`changed`). The name of the Fréchet distance, both distances and their relative change (0.01 is one
        percent worse) are None without a scorer.

    Raises:
        TrainerError: If the shape or type of the images differs.
    """
    from evaluation.metrics import result_name
    from evaluation.metrics.frechet import FeatureStatistics, frechet_distance

    seen = [FeatureStatistics(scorer.extractor.dim) for _ in range(2)] if scorer else []
    images = total = changed = maximum = values = 0
    for feed in feeds:
        a, b = (session.run(["images"], feed)[0] for session in (plain, optimized))
        if a.shape != b.shape or b.dtype != np.uint8:
            raise TrainerError(f"the optimized graph gives {b.dtype} {b.shape}, the float32 one {a.dtype} {a.shape}")
        off = np.abs(a.astype(np.int16) - b.astype(np.int16))
        images, values, total = images + len(a), values + off.size, total + int(off.sum())
        changed, maximum = changed + int((off > 0).sum()), max(maximum, int(off.max()))
        if scorer:
            for statistic, pixels in zip(seen, (a, b), strict=True):
                statistic.update(scorer.extractor(pixels).features)
    found = {"images": images, "mean": total / values, "maximum": maximum, "changed": changed / values}
    if not scorer:
        return found | dict.fromkeys(("metric", "plain_score", "optimized_score", "score_change"))
    real = scorer.reference
    before, after = (float(frechet_distance(one.mu, one.sigma, real.mu, real.sigma)) for one in seen)
    metric = result_name("fid", scorer.extractor.metric, images)
    scores = {"metric": metric, "plain_score": before, "optimized_score": after, "score_change": after / before - 1}
    return found | scores


def has_vnni() -> bool | None:
    """Return whether this CPU multiplies bytes fast (x86's VNNI, ARM's dot product); None where it is unknown."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return bool({"avx512_vnni", "avx_vnni", "asimddp"} & set(flags.group(1).split())) if flags else None


def machine() -> dict[str, Any]:
    """Return the machine and the versions, for the report."""
    return {
        "cpu": cpu_name(),
        "cores": available_cpus(),
        "vnni": has_vnni(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("onnx", "numpy")},
        "onnxruntime": __import__("onnxruntime").__version__,
        "load_average_before": os.getloadavg()[0],
    }
