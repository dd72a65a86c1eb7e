"""A collected folder and a run folder, as small as a test needs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from scripts.reproduce.runs import ReproductionContext, Trial, select
from trainer.config import loading


@pytest.fixture
def context(tmp_path: Path) -> ReproductionContext:
    return ReproductionContext(tmp_path / "work", tmp_path, {"mnist": "mnist", "cifar10": "folder:photos"})


@pytest.fixture
def trial() -> Callable[..., Trial]:
    def make(preset: str, seed: int = 0) -> Trial:
        return Trial(select([preset])[0], seed)

    return make


@pytest.fixture
def gather(context: ReproductionContext) -> Callable[..., None]:
    """Write what the training half collects of a run, with empty generators at each (kimg, CPU seconds)."""

    def write(trial: Trial, points: Sequence[tuple[float, float]], gpu: bool = False, **more: str) -> None:
        record = context.record(trial)
        record.mkdir(parents=True)
        ticks = [
            {"step": kimg * 10, "images_seen": kimg * 1000, "seconds": 2 * cpu, "cpu_seconds": cpu}
            for kimg, cpu in points
        ]
        (record / "metrics.jsonl").write_text("".join(json.dumps(tick) + "\n" for tick in ticks), encoding="utf-8")
        sets = ("run.device=cpu", "run.precision=fp32", "run.threads=1")
        config = json.loads(loading.to_json(loading.resolve(trial.run.preset, sets)))
        config["run"]["device"] = "cuda" if gpu else "cpu"
        (record / "config.json").write_text(json.dumps(config), encoding="utf-8")
        machine = {"cpu": "a CPU", "gpu": "a GPU" if gpu else None, "torch": "2"} | more
        (record / "made_by.json").write_text(json.dumps({"machine": machine}), encoding="utf-8")
        paths = [context.point(trial, tick["step"]) for tick in ticks[:-1]]
        paths += [context.model(trial, ticks[-1]["step"], averaged) for averaged in (True, False)]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return write


@pytest.fixture
def train_to(context: ReproductionContext) -> Callable[..., Path]:
    """Write the run folder of a run that was trained to these kimg, a tick each."""

    def write(trial: Trial, kimgs: Sequence[float]) -> Path:
        run_dir = context.run_dir(trial)
        (run_dir / "samples").mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "made_by.json"):
            (run_dir / name).write_text("{}", encoding="utf-8")
        lines = []
        for kimg in kimgs:
            step, images = round(kimg * 10), round(kimg * 1000)
            (run_dir / f"checkpoint-{step:08d}.pt").touch()
            (run_dir / "samples" / f"fixed-{images:09d}.png").write_bytes(b"a grid")
            lines.append(json.dumps({"step": step, "images_seen": images, "loss/D": 1.0, "seconds": kimg}))
        (run_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return run_dir

    return write
