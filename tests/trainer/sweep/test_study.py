"""The plan of a sweep, and the study that holds its state."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.trainer.sweep_plans import ended, plan_of
from trainer.errors import TrainerError
from trainer.sweep import space
from trainer.sweep.plan import Plan, check_folder
from trainer.sweep.study import Study


@pytest.mark.parametrize(
    ("varies", "says"),
    [
        (["model.z_dm=4,8"], "did you mean model.z_dim"),
        (["model=4,8"], "model is a section"),
        (["model.z_dim=0,8"], "--vary model.z_dim: Input should be greater than or equal to 1, got 0"),
        (["model.z_dim=8,8.0"], "8 is listed twice"),
        (["optim.g_lr=1e-4,0.0001"], "0.0001 is listed twice"),
        (["model.z_dim=8"], "one value; give two or more, or use --set model.z_dim=8"),
        (["model.z_dim=4,[8"], "not readable"),
        (["model.z_dim"], "section.field=value"),
        (["model.z_dim=4,8", "model.z_dim=5,9"], "was given twice; list all values in one option"),
        (["optim.g_lr=1e-5..1e-3"], "add --sampler random or tpe"),
        (["run.seed=1,2"], "--seeds 3"),
        (["run.track=none,wandb"], "it only records the run; use --set run.track=…"),
        (["data.source=digits,mnist"], "do not compare"),
        (["objective.name=hinge,wasserstein"], "with objective.name=wasserstein: the wasserstein objective needs"),
        (["model.z_dim=4,8", "model.g_widths=[8,8,8],[8]"], "with model.z_dim=4  model.g_widths=[8]: at 32 px"),
        ([f"model.z_dim={','.join(map(str, range(1, 102)))}", "optim.batch_size=" + ",".join(map(str, range(2, 103)))],
         "10,201 combinations"),
        ([], "nothing to vary"),
    ],
)  # fmt: skip
def test_make_plan_invalid_vary_raises_one_line(varies: list[str], says: str) -> None:
    with pytest.raises(TrainerError) as refused:
        plan_of(*varies)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ("optim.g_lr=1e-3..1e-5", "from the lower number to the higher"),
        ("optim.g_lr=0.1..2", "optim.g_lr: Input should be less than or equal to 1, got 2"),
        ("objective.r1_gamma=0..1:log", "begins above 0"),
        ("optim.g_lr=1e-5..1e-3:lin", "only :log"),
        ("model.init=normal..xavier", "a range requires numbers"),
        ("optim.batch_size=8..x", "optim.batch_size"),
        ("optim.g_lr={..5", "the ends of the range are not readable"),
    ],
)
def test_make_plan_invalid_range_raises_one_line(vary: str, says: str) -> None:
    with pytest.raises(TrainerError) as refused:
        plan_of(vary, sampler="tpe")
    assert says in str(refused.value)


def test_make_plan_conflicting_options_raise() -> None:
    for keywords, says in (
        ({"sampler": "nope"}, "grid, random or tpe"),
        ({"trials": 3}, "a grid tries all its 2 settings"),
        ({"model.z_dim": 5}, "in --set and in --vary"),
        ({"run.quality_ticks": 0}, "measures nothing"),
        ({"run.seed": 2**32 - 1, "seeds": 2}, "the last seed is"),
    ):
        with pytest.raises(TrainerError, match=says):
            plan_of("model.z_dim=4,8", **keywords)  # type: ignore[arg-type]


def test_make_plan_varied_field_may_disagree_with_the_preset() -> None:
    plan = plan_of("objective.clip=0.01,0.1", **{"objective.name": "wasserstein", "objective.r1_gamma": 0})
    assert [space.apply(plan.config, setting).objective.clip for setting in space.combinations(plan.varies)] == [
        0.01,
        0.1,
    ]


def test_make_plan_accepts_lists_and_integer_and_real_ranges() -> None:
    plan = plan_of("model.g_widths=[8,8,8],[16,8,8]", "optim.g_lr=1e-4,2e-4")
    assert list(space.combinations(plan.varies)) == [
        {"model.g_widths": widths, "optim.g_lr": lr} for widths in ([8, 8, 8], [16, 8, 8]) for lr in (1e-4, 2e-4)
    ]
    whole, real = plan_of("model.z_dim=4..64:log", "optim.g_lr=1e-5..1", sampler="tpe").varies
    assert (whole.integer, whole.log, real.integer, real.log) == (True, True, False, False)
    assert whole.describe() == "4..64:log"


def test_plan_with_other_trackers_is_the_same_sweep() -> None:
    recorded = plan_of("model.z_dim=4,8").to_dict()
    del recorded["config"]["run"]["track"]  # of a release before the field
    assert plan_of("model.z_dim=4,8", **{"run.track": "wandb"}).differences(recorded) == []
    assert plan_of("model.z_dim=4,8", **{"run.tick_kimg": 3}).differences(recorded) != []


def test_plan_images_count_seeds_and_varied_lengths() -> None:
    assert plan_of("run.total_kimg=1,3", "model.z_dim=4,8", seeds=3).images == 2 * (1000 + 3000) * 3
    assert plan_of("model.z_dim=4..8", sampler="random", trials=7, **{"run.total_kimg": 2}).images == 14_000


@pytest.mark.slow
def test_study_grid_asks_each_setting_once_in_order(begin: Callable[[Plan], Study]) -> None:
    plan = plan_of("model.g_widths=[8,8,8],[16,8,8]", "model.z_dim=4,8")
    study = begin(plan)
    tried = []
    while (trial := study.ask()) is not None:
        tried.append(trial.setting)
        study.tell(trial, [ended()])
        study = begin(plan)  # as after a kill between two trials
    assert tried == list(space.combinations(plan.varies))
    assert [trial.state for trial in study.trials()] == ["finished"] * 4


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_study_unfinished_trial_is_asked_again(sampler: str, begin: Callable[[Plan], Study]) -> None:
    if sampler == "grid":
        plan = plan_of("model.z_dim=4,8")
    else:
        plan = plan_of("model.z_dim=4..64", "optim.g_lr=1e-5..1e-2:log", sampler=sampler, trials=2)
    first = begin(plan).ask()
    again = begin(plan)
    assert again.ask() == first
    assert first is not None
    other = again.ask()
    assert other is not None
    assert other.number == 1
    assert other.setting != first.setting
    assert again.ask() is None


def test_study_interrupted_sampler_draws_the_same_settings(tmp_path: Path) -> None:
    plan = plan_of("optim.g_lr=1e-5..1e-2:log", "model.init=normal,xavier", sampler="random", trials=4)
    drawn = []
    for name, restarts in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        study = Study(tmp_path / name, plan)
        settings = []
        while (trial := study.ask()) is not None:
            settings.append(trial.setting)
            study.tell(trial, [ended()])
            study = Study(tmp_path / name, plan) if restarts else study
        drawn.append(settings)
    assert drawn[0] == drawn[1]
    assert len({json.dumps(setting) for setting in drawn[0]}) == 4


@pytest.mark.slow
def test_study_tell_scores_the_mean_and_fails_with_a_failed_seed(begin: Callable[[Plan], Study]) -> None:
    study = begin(plan_of("model.z_dim=4,8", seeds=2))
    first, second = study.ask(), study.ask()
    assert first
    assert second
    ended_trial = study.tell(first, [ended(0, frechet=1.0), ended(1, frechet=4.0)])
    assert (ended_trial.state, ended_trial.score) == ("finished", 2.5)
    assert ended_trial.mean_and_std("frechet") == "2.500 ± 2.121"
    assert study._study.best_value == 2.5
    ended_trial = study.tell(second, [ended(0), {"seed": 1, "reason": "loss/D became NaN"}])
    assert (ended_trial.state, ended_trial.reason) == ("failed", "seed 1: loss/D became NaN")


def test_check_folder_other_plan_raises_with_the_difference(begin: Callable[[Plan], Study], tmp_path: Path) -> None:
    begin(plan_of("model.z_dim=4..8", sampler="tpe", trials=3))
    check_folder(tmp_path, plan_of("model.z_dim=4..8", sampler="tpe", trials=9))  # more of the same
    for plan, difference in (
        (plan_of("model.z_dim=4..9", sampler="tpe"), "--vary model.z_dim: 4..8 → 4..9"),
        (plan_of("model.z_dim=4..8", "optim.g_lr=1e-4,2e-4", sampler="tpe"), "--vary optim.g_lr: not varied → "),
        (plan_of("model.z_dim=4..8", sampler="random"), "--sampler: tpe → random"),
        (plan_of("model.z_dim=4..8", sampler="tpe", seeds=3), "--seeds: 1 → 3"),
        (plan_of("model.z_dim=4..8", sampler="tpe", **{"optim.d_lr": 0.5}), "optim.d_lr: 0.001 → 0.5"),
    ):
        with pytest.raises(TrainerError) as refused:
            check_folder(tmp_path, plan)
        assert difference in str(refused.value)
    with pytest.raises(TrainerError, match="something other than a sweep"):
        check_folder(ROOT, plan_of("model.z_dim=4,8"))


def test_study_damaged_files_raise_one_line(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(TrainerError, match=r"study\.db cannot be used") as refused:
        Study(tmp_path, plan_of("model.z_dim=4,8"))
    assert "\n" not in str(refused.value)
    (tmp_path / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(TrainerError, match=r"plan\.json is damaged"):
        check_folder(tmp_path, plan_of("model.z_dim=4,8"))


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """From its call on no file grows beyond so many bytes; the system refuses each write as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_study_full_disk_raises_one_line_and_resumes_later(
    begin: Callable[[Plan], Study], full_disk: Callable[[int], None]
) -> None:
    plan = plan_of("model.z_dim=4,8")
    study = begin(plan)
    trial = study.ask()
    assert trial
    full_disk(1)
    for act in (study.ask, lambda: study.tell(trial, [ended()])):
        with pytest.raises(
            TrainerError, match=r"study\.db cannot be used \(.*disk.*run the same command to resume"
        ) as refused:
            act()
        assert "\n" not in str(refused.value)
    full_disk(resource.RLIM_INFINITY)
    again = begin(plan)
    assert again.ask() == trial
    assert again.tell(trial, [ended()]).state == "finished"


def test_default_folder_names_the_varied_fields() -> None:
    plan = plan_of("model.z_dim=4,8", "optim.g_lr=1e-4,1e-3")
    assert plan.default_folder == Path("sweeps/digits-dcgan-z_dim-g_lr")


# with real workers


def test_check_folder_ignores_the_name(tmp_path: Path) -> None:
    Study(tmp_path, plan_of("model.z_dim=4,8"))
    check_folder(tmp_path, plan_of("model.z_dim=4,8", name="other"))


def test_check_folder_ignores_class_names(tmp_path: Path) -> None:
    Study(tmp_path, plan_of("model.z_dim=4,8", **{"data.class_names": "[a, b]"}))
    check_folder(tmp_path, plan_of("model.z_dim=4,8"))
