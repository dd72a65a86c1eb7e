"""Score against images seen: every checkpoint of a run in the same way, in one document."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.references.file import Reference
from evaluation.report.schema import write_report
from evaluation.scoring.job import Job, score
from evaluation.scoring.workdir import Output, key_of, remove


def score_checkpoints(
    job_of: Callable[[str], tuple[Job, Reference]], checkpoints: Sequence[Path], output: Output
) -> dict[str, Any]:
    """The document of the newest checkpoint, and under `checkpoints` the scores of each by its images seen.

    Checkpoints are scored oldest first, and one that was scored before the job was stopped is not scored again.
    Raises EvaluationError for none, and as `score` does.
    """
    if not checkpoints:
        raise EvaluationError("there are no checkpoints in this run yet")
    kept = output.work / "checkpoints"
    history, document = [], {}
    for path in checkpoints:
        job, reference = job_of(str(path))
        newest = path == checkpoints[-1]
        arguments = job.arguments(job.draws()) | {
            "metrics": [metric.name for metric in job.settings.metrics],
            "reference": reference.sha256,
            "threshold": job.settings.fail_above,
        }
        file = kept / f"{path.stem}-{key_of(arguments)}.json"
        if file.is_file():
            document = json.loads(file.read_text(encoding="utf-8"))
        else:
            document = score(job, reference, Output(file, output.work, output.images if newest else None, output.kept))
        source = document["source"]
        entry = {"checkpoint": path.name, "step": source.get("step"), "images_seen": source.get("images_seen")}
        history.append(entry | {key: document[key] for key in ("digest", "scores", "results", "warnings")})
    document |= {"checkpoints": history}
    write_report(output.document, document)
    remove(kept)
    return document
