from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError
from trainer.quality import patience
from trainer.training import checkpoint, loop, resume
from trainer.training.state import TrainState

Tiny = Callable[..., Config]
BatchesOf = Callable[[Config], Batches]
# A tick is 40 images: 5 steps of 8.
PATIENT = {"quality_ticks": 1, "patience_ticks": 3, "total_kimg": 0.8}


def measures(*distances: float) -> Callable[[TrainState], dict[str, float]]:
    """measure() that returns these Fréchet distances, one per tick."""
    return lambda state: {"quality/frechet": distances[int(state.images_seen // 40) - 1]}


def train(config: Config, batches: Batches, run_dir: Path, measure: Callable[[TrainState], dict[str, float]]) -> None:
    """Train, or resume the latest checkpoint, with the given distances."""
    try:
        state = checkpoint.restore(checkpoint.load_latest(run_dir)[1], config)
    except TrainerError:
        state = TrainState.create(config)
    loop.train(state, batches, loop.Callback(), lambda state: checkpoint.save(state, run_dir, keep=50), measure=measure)


def test_train_ends_after_patience_ticks_without_better_quality(
    tiny: Tiny, batches_of: BatchesOf, tmp_path: Path
) -> None:
    config = tiny(run=PATIENT)
    train(config, batches_of(config), tmp_path, measures(9, 5, 6, 4, 4, 4.5, 7, 1))
    content = checkpoint.load_latest(tmp_path)[1]
    assert content["counters"]["ticks"] == 7  # the best is that of the fourth
    assert content["best"] == {"step": 20, "frechet": 4}
    record = json.loads((tmp_path / "best.json").read_text(encoding="utf-8"))
    assert record["ended"] == "no improvement of quality/frechet for 3 ticks; best at 0.16 kimg"


def test_train_without_patience_reaches_its_length(tiny: Tiny, batches_of: BatchesOf, tmp_path: Path) -> None:
    config = tiny(run={**PATIENT, "patience_ticks": 0})
    train(config, batches_of(config), tmp_path, lambda _: {"quality/frechet": 1.0})
    assert checkpoint.load_latest(tmp_path)[1]["counters"]["images_seen"] == 800
    assert "ended" not in json.loads((tmp_path / "best.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stop", [3, 17, 24, 31])
def test_train_with_patience_resumed_equals_no_interruption(
    stop: int, tiny: Tiny, batches_of: BatchesOf, tmp_path: Path
) -> None:
    config, distances = tiny(run=PATIENT), measures(9, 5, 6, 4, 4, 4.5, 7, 1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(config, batches_of(config), whole, distances)

    state = TrainState.create(config)

    def save(state: TrainState) -> None:
        checkpoint.save(state, parts, keep=50)

    loop.train(state, batches_of(config), loop.Callback(), save, lambda: state.steps == stop, distances)
    train(config, batches_of(config), parts, distances)
    ours, theirs = (checkpoint.load_latest(run_dir)[1] for run_dir in (parts, whole))
    assert ours["counters"] | {"seconds": 0} == theirs["counters"] | {"seconds": 0}
    assert ours["best"] == theirs["best"]
    assert ours["G_ema"].keys() == theirs["G_ema"].keys()
    assert all(ours["G_ema"][name].equal(theirs["G_ema"][name]) for name in theirs["G_ema"])


def test_train_measures_when_patience_is_between_two_measurements(
    tiny: Tiny, batches_of: BatchesOf, tmp_path: Path
) -> None:
    """Measured at ticks 2, 4, 5 (3 after the best), where it improves, and 8 (3 after the best again)."""
    seen: list[float] = []
    config = tiny(run={**PATIENT, "quality_ticks": 2, "patience_ticks": 3})
    found = {2: 5.0, 4: 6.0, 5: 4.0, 6: 4.0, 8: 4.0}

    def measure(state: TrainState) -> dict[str, float]:
        seen.append(state.images_seen / 40)
        return {"quality/frechet": found[int(state.images_seen // 40)]}

    train(config, batches_of(config), tmp_path, measure)
    assert seen == [2, 4, 5, 6, 8]


def test_resume_after_patience_explains_how_to_continue(tiny: Tiny, batches_of: BatchesOf, tmp_path: Path) -> None:
    config = tiny(run=PATIENT)
    train(config, batches_of(config), tmp_path, measures(3, 4, 4, 4))
    end = resume.plan_resume(tmp_path).end
    assert end is not None
    assert end.startswith("ended at 0.16 kimg: no improvement of quality/frechet for 3 ticks; best at 0.04 kimg; ")
    assert "--set run.patience_ticks=6" in end
    assert resume.plan_resume(tmp_path, kimg=1.6).end is not None  # a greater length does not help
    for patience_ticks in (0, 6):
        assert resume.plan_resume(tmp_path, [f"run.patience_ticks={patience_ticks}"]).end is None


def test_resume_with_more_patience_equals_a_run_that_had_it(tiny: Tiny, batches_of: BatchesOf, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    distances = measures(3, 4, 4, 4, 4, 2, *[5.0] * 9)
    patient = tiny(run={**PATIENT, "patience_ticks": 6})
    train(patient, batches_of(patient), whole, distances)
    config = tiny(run=PATIENT)
    train(config, batches_of(config), parts, distances)
    train(patient, batches_of(patient), parts, distances)
    ours, theirs = (checkpoint.load_latest(run_dir)[1] for run_dir in (parts, whole))
    assert ours["counters"]["steps"] == theirs["counters"]["steps"] == 60
    assert all(ours["G"][name].equal(theirs["G"][name]) for name in theirs["G"])


def test_ticks_without_improvement_are_counted_from_the_best_step(tiny: Tiny) -> None:
    config = tiny(optim={"n_critic": 2}, run=PATIENT)
    assert patience.ticks_without_improvement(config, {}, 400) == 0
    assert patience.ticks_without_improvement(config, {"step": 5, "frechet": 1}, 240) == 4  # from 80 images on


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"quality_ticks": 0, "patience_ticks": 5}, "set run.quality_ticks too"),
        ({"quality_ticks": 5, "patience_ticks": 4}, "patience_ticks=4 is below run.quality_ticks=5.*set it to 5"),
    ],
)
def test_patience_without_enough_measurements_is_rejected(fields: dict[str, int], reason: str, tiny: Tiny) -> None:
    with pytest.raises(TrainerError, match=reason) as error:
        tiny(run=fields)
    assert "\n" not in str(error.value)
