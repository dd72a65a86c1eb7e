"""What an optimised generator gains and what it loses, beside the float32 one: in turns, on the same latents."""

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

from artifacts.resources import available_cpus
from trainer.errors import TrainerError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from evaluation.extractors import Extractor
    from evaluation.references.file import Reference

BATCHES = (1, 16, 64)
ROUNDS = 7
TURN_S = 0.15  # at least, a session's turn in a round

Feed = Mapping[str, np.ndarray]


def provider() -> str:
    """Where float16 would be computed: on the GPU where ONNX Runtime has one."""
    import onnxruntime

    cuda = "CUDAExecutionProvider"
    return cuda if cuda in onnxruntime.get_available_providers() else "CPUExecutionProvider"


def session(
    model: onnx.ModelProto, provider: str = "CPUExecutionProvider", *, threads: int = 0, spinning: bool = False
) -> onnxruntime.InferenceSession:
    """A session set as the service sets its own: all cores this process may use (0), whose threads do not spin."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])


@dataclass(frozen=True)
class Rates:
    """Images a second of one batch size: the medians of the rounds, and the median of the rounds' ratios."""

    plain: float
    optimized: float
    ratio: float


def rates(
    plain: onnxruntime.InferenceSession,
    optimized: onnxruntime.InferenceSession,
    feed: Feed,
    *,
    rounds: int = ROUNDS,
    turn_s: float = TURN_S,
) -> Rates:
    """Images a second of both on one batch, turn by turn, so that a machine whose speed drifts changes both alike."""
    n = len(feed["latents"])
    for warm in (plain, optimized):
        warm.run(["images"], feed)
    measured = []
    for index in range(rounds):
        pair = {id(one): 0.0 for one in (plain, optimized)}
        for one in (plain, optimized) if index % 2 else (optimized, plain):
            runs, began = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - began) < turn_s or not runs:
                one.run(["images"], feed)
                runs += 1
            pair[id(one)] = runs * n / elapsed
        measured.append((pair[id(plain)], pair[id(optimized)]))
    return Rates(
        statistics.median(a for a, _ in measured),
        statistics.median(b for _, b in measured),
        statistics.median(b / a for a, b in measured),
    )


@dataclass(frozen=True)
class Difference:
    """Between the images of the same latents, in levels of 255; and the Fréchet distance of either."""

    images: int
    mean: float
    maximum: int
    changed: float  # share of the values that differ at all
    metric: str | None = None
    plain_score: float | None = None
    optimized_score: float | None = None

    @property
    def score_change(self) -> float | None:
        """Relative: 0.01 is one per cent worse."""
        if self.plain_score is None or self.optimized_score is None:
            return None
        return self.optimized_score / self.plain_score - 1


class Judge:
    """An extractor and reference statistics made with it: `fd_classifier10k`, `fid10k` of images as they come."""

    def __init__(self, reference: Path, extractor: Path) -> None:
        """Raises TrainerError for files that cannot be read, or do not belong together."""
        from evaluation.errors import EvaluationError
        from evaluation.extractors import load_extractor
        from evaluation.references.file import load_reference

        try:
            self.reference: Reference = load_reference(reference)
            self.extractor: Extractor = load_extractor(extractor)
        except EvaluationError as error:
            raise TrainerError(str(error)) from error
        made_by = self.reference.provenance["extractor"]
        if made_by.get("digest") != self.extractor.digest:
            raise TrainerError(
                f"{reference} was made with the extractor {made_by.get('name')} "
                f"({str(made_by.get('digest'))[:12]}…), not with {extractor} ({self.extractor.digest[:12]}…)"
            )

    def check(self, resolution: int) -> None:
        """Raises TrainerError when the reference's images are of another size."""
        real = self.reference.provenance["image_set"].get("resolution")
        if real != resolution:
            raise TrainerError(
                f"the generator's images are {resolution} px and the reference's {real} px; "
                f"make a reference with --resolution {resolution}"
            )


def difference(
    plain: onnxruntime.InferenceSession,
    optimized: onnxruntime.InferenceSession,
    feeds: Iterable[Feed],
    judge: Judge | None = None,
) -> Difference:
    """Compare the images of both, and score both, on all of `feeds`. Raises TrainerError when a shape differs."""
    from evaluation.metrics import result_name
    from evaluation.metrics.frechet import FeatureStatistics, frechet_distance

    seen = [FeatureStatistics(judge.extractor.dim) for _ in range(2)] if judge else []
    images = total = changed = maximum = values = 0
    for feed in feeds:
        a, b = (one.run(["images"], feed)[0] for one in (plain, optimized))
        if a.shape != b.shape or b.dtype != np.uint8:
            raise TrainerError(f"the optimised graph gives {b.dtype} {b.shape}, the float32 one {a.dtype} {a.shape}")
        off = np.abs(a.astype(np.int16) - b.astype(np.int16))
        images, values, total = images + len(a), values + off.size, total + int(off.sum())
        changed, maximum = changed + int((off > 0).sum()), max(maximum, int(off.max()))
        if judge:
            for statistic, pixels in zip(seen, (a, b), strict=True):
                statistic.update(judge.extractor(pixels).features)
    told = (images, total / values, maximum, changed / values)
    if not judge:
        return Difference(*told)
    real = judge.reference
    scores = [float(frechet_distance(one.mu, one.sigma, real.mu, real.sigma)) for one in seen]
    return Difference(*told, result_name("fid", judge.extractor.metric, images), *scores)


def has_vnni() -> bool | None:
    """Whether this CPU multiplies bytes fast (x86's VNNI, ARM's dot product); None where that cannot be read."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = (
        re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
        if cpuinfo.exists()
        else None
    )
    return bool({"avx512_vnni", "avx_vnni", "asimddp"} & set(flags.group(1).split())) if flags else None


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    return {
        "cpu": model.group(1) if model else platform.processor(),
        "cores": available_cpus(),
        "vnni": has_vnni(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("onnx", "numpy")},
        "onnxruntime": __import__("onnxruntime").__version__,
        "load_average_before": os.getloadavg()[0],
    }
