from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.support.paths import ROOT
from trainer.cli import app
from trainer.config import loading
from trainer.errors import TrainerError
from trainer.reports import image_grids
from trainer.sweep import report, runner, space
from trainer.sweep.runner import SweepProgress
from trainer.sweep.study import Plan, Study, Trial, check_folder, make_plan
from trainer.sweep.workers import Job, jobs_of, score
from trainer.training import logger

FIELDS = """
    data.resolution=8 model.architecture=mlp model.g_widths=[8] model.d_widths=[8] model.z_dim=4 model.init_std=1
    model.conditional=false model.d_norm=none objective.r1_gamma=0 optim.batch_size=32
    run.total_kimg=1.28 run.tick_kimg=0.064 run.quality_ticks=5 run.quality_images=20
    run.device=cpu run.precision=fp32
"""


def plan_of(*varies: str, sampler: str = "grid", trials: int | None = None, seeds: int = 1, **sets: Any) -> Plan:
    fields = [f"{section}={value}" for section, value in sets.items()]
    return make_plan("digits-dcgan", fields, varies, sampler=sampler, trials=trials, seeds=seeds)


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[Plan], Study]:
    return lambda plan: Study(tmp_path, plan)


def ended(seed: int = 0, **values: Any) -> dict[str, Any]:
    run = {"seed": seed, "frechet": 2.0, "recall": 0.5, "images_seen": 1000, "final_images_seen": 1000, "seconds": 3.0}
    return run | {"folder": f"trials/0000/seed-{seed}"} | values


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


def test_plan_images_count_seeds_and_varied_lengths() -> None:
    assert plan_of("run.total_kimg=1,3", "model.z_dim=4,8", seeds=3).images == 2 * (1000 + 3000) * 3
    assert plan_of("model.z_dim=4..8", sampler="random", trials=7, **{"run.total_kimg": 2}).images == 14_000


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


def test_study_tell_scores_the_mean_and_fails_with_a_failed_seed(begin: Callable[[Plan], Study]) -> None:
    study = begin(plan_of("model.z_dim=4,8", seeds=2))
    first, second = study.ask(), study.ask()
    assert first
    assert second
    ended_trial = study.tell(first, [ended(0, frechet=1.0), ended(1, frechet=4.0)])
    assert (ended_trial.state, ended_trial.score) == ("finished", 2.5)
    assert ended_trial.mean_and_std("frechet") == "2.500 ± 2.121"
    assert study.optuna_study.best_value == 2.5
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


def run_with(script: str, study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The runner, with a shell script in place of each child."""
    child = folder / "child"
    child.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    child.chmod(0o755)
    with monkeypatch.context() as patch, SweepProgress(Console(file=io.StringIO()), study.plan) as progress:
        patch.setattr(sys, "executable", str(child))
        return runner.Runner(study, folder, progress, 1, 1, folder, lambda: False, lambda: None).run()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'error: could not write it (No space left on device)'; exit 2", "could not write it (No space left"),
        ("kill -9 $$", "killed by SIGKILL (out of memory?)"),
    ],
)
def test_runner_outside_fault_stops_and_fails_no_trial(
    script: str, says: str, begin: Callable[[Plan], Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(plan_of("model.z_dim=4,8"))
    with pytest.raises(TrainerError) as stopped:
        run_with(script, study, tmp_path, monkeypatch)
    assert f"z_dim=4, seed 0 cannot continue: {says}" in str(stopped.value)
    assert "run the same command to resume" in str(stopped.value)
    assert [trial.state for trial in study.trials()] == ["running", "waiting"]

    again = begin(plan_of("model.z_dim=4,8"))
    assert run_with("echo 'error: loss/D became NaN'; exit 1", again, tmp_path, monkeypatch)
    assert [(trial.state, trial.reason) for trial in again.trials()] == [("failed", "loss/D became NaN")] * 2


def test_score_is_the_lowest_distance_and_recall_at_that_tick(tmp_path: Path) -> None:
    assert score(tmp_path) is None
    lines: list[dict[str, float]] = [
        {"images_seen": 100, "seconds": 1, "quality/frechet": 9.0, "quality/recall": 0.1},
        {"images_seen": 200, "seconds": 2, "quality/frechet": 3.0, "quality/recall": 0.4},
        {"images_seen": 300, "seconds": 3},
        {"images_seen": 400, "seconds": 4, "quality/frechet": 5.0, "quality/recall": 0.6},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"images_seen": 500, "quali', encoding="utf-8")  # being written
    found = score(tmp_path)
    assert found is not None
    assert (found["frechet"], found["recall"], found["images_seen"]) == (3.0, 0.4, 200)
    assert (found["final_frechet"], found["final_images_seen"], found["seconds"]) == (5.0, 400, 4)


@pytest.fixture
def shown(tmp_path: Path) -> Study:
    """A grid of 2 x 3 with its sheets: the image of seed s of trial t is filled with 30 t + s."""
    import numpy as np

    plan = plan_of("model.z_dim=4,8", "model.g_widths=[8],[16],[24]", **{"data.resolution": 8, "model.d_widths": [8]})
    study = Study(tmp_path, plan)
    while (trial := study.ask()) is not None:
        folder = f"{trial.folder}/seed-0"
        images = np.full((64, 8, 8, 1), 30 * trial.number, np.uint8)
        images += np.arange(64, dtype=np.uint8)[:, None, None, None]
        sheet = tmp_path / folder / "samples" / "fixed-000001000.png"
        image_grids.write_png(image_grids.grid(images), sheet)
        failed = {"seed": 0, "reason": "<b>loss</b>"}
        study.tell(trial, [failed if trial.number == 4 else ended(frechet=10.0 - trial.number, folder=folder)])
    return study


def test_report_page_ranks_trials_and_embeds_all_pictures(shown: Study, tmp_path: Path) -> None:
    page = report.write(tmp_path, shown).read_text(encoding="utf-8")
    document = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert document["best"] == 5
    assert document["trials"][5]["frechet"] == {"mean": 5.0, "std": None, "n": 1}
    assert document["trials"][4]["reason"] == "<b>loss</b>"
    assert not re.search(r'(src|href|srcset)="(?!data:)', page)
    assert "<b>loss" not in page
    assert "&lt;b&gt;loss" in page
    ranks = re.findall(r"<td>(\d|–)</td><td>(\d{4})</td>", page)
    assert ranks == [("1", "0005"), ("2", "0003"), ("3", "0002"), ("4", "0001"), ("5", "0000"), ("–", "0004")]
    assert page.count('src="data:image/png') == 5 + 1 + 2  # a picture each, the best again, two charts
    assert "--best --output models" in page  # the checkpoint that was scored


def test_read_picture_is_the_top_left_quarter_at_the_best_tick(shown: Study, tmp_path: Path) -> None:
    picture = report.read_picture(tmp_path, shown.plan, shown.trials()[1])
    assert picture is not None
    step = picture.width // 42  # 4 images of 8 and 5 gaps of 2: 42 pixels, enlarged
    assert picture.width == picture.height == 42 * step
    places = [step * (3 + 10 * i) for i in range(4)]  # inside each image
    seen = [picture.getpixel((x, y)) for y in places for x in places]
    assert [value[0] - 30 for value in seen] == [8 * j + i for j in range(4) for i in range(4)]
    assert len(logger.GRID_SEEDS) == 64


def test_picture_matrix_places_trials_by_their_values(shown: Study) -> None:
    trials = shown.trials()
    table = report.picture_matrix(shown.plan, trials)
    assert table is not None
    assert table["across"].field == "model.g_widths"
    found = [[cell and cell.number for cell in cells] for _, cells in table["lines"]]
    assert found == [[0, 1, 2], [3, 4, 5]]
    assert report.picture_matrix(plan_of("optim.g_lr=1e-5..1e-3", sampler="tpe"), trials) is None


def test_draw_scores_of_ranges_and_single_seeds(begin: Callable[[Plan], Study]) -> None:
    study = begin(plan_of("optim.g_lr=1e-5..1e-3:log", "model.init=normal,xavier", sampler="tpe", trials=3))
    while (trial := study.ask()) is not None:
        study.tell(trial, [ended(frechet=1.0 + trial.number)])
        for measure in report.MEASURES:
            with Image.open(io.BytesIO(report.draw_scores(study.optuna_study, measure))) as picture:
                assert picture.width > 300


def test_shared_settings_leave_out_varied_fields() -> None:
    assert (
        report.shared_settings(plan_of("model.z_dim=4,8"))
        == "100 kimg, digits at 32 px, dcgan, non-saturating, batch 32"
    )
    assert (
        report.shared_settings(plan_of("optim.batch_size=8,16", "run.total_kimg=1,2"))
        == "digits at 32 px, dcgan, non-saturating"
    )


def test_default_folder_names_the_varied_fields() -> None:
    plan = plan_of("model.z_dim=4,8", "optim.g_lr=1e-4,1e-3")
    assert plan.default_folder == Path("sweeps/digits-dcgan-z_dim-g_lr")


@pytest.mark.parametrize("terminal", [False, True])
def test_sweep_progress_shows_brackets_literally(terminal: bool, tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=200, force_terminal=terminal, color_system=None, markup=False)
    plan = plan_of("data.augment=[color],[]")
    trial = Trial(0, "failed", {"data.augment": ["color"]}, [], "[/b] broke")
    (job,) = jobs_of(trial, plan, tmp_path, 1)
    with SweepProgress(console, plan) as progress:
        progress.started(job, resumed=False)
        progress.update(0, "0 of 2 trials done")
        progress.print_trial(trial)
    assert '0000 augment=["color"]  failed: [/b] broke' in screen.getvalue()
    assert ("\x1b" in screen.getvalue()) is terminal


def test_sweep_progress_time_left_ignores_earlier_images() -> None:
    now = 1000.0
    plan = plan_of("model.z_dim=4,8")
    progress = SweepProgress(Console(file=io.StringIO()), plan, get_time=lambda: now)
    progress.update(plan.images // 8, "")  # of an earlier process
    assert progress.time_left() == ""
    for eighths, expected in ((2, ""), (3, ", about 5 minutes left"), (7, ", about a minute left"), (8, "")):
        now += 60
        progress.update(plan.images * eighths // 8, "")
        assert progress.time_left() == expected


# with real workers


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(*arguments: str) -> list[str]:
    """A command of tiny networks; what it varies is not set."""
    given = {argument.partition("=")[0] for argument in arguments}
    tiny = [word for field in FIELDS.split() if field.partition("=")[0] not in given for word in ("--set", field)]
    return [sys.executable, "-m", "trainer", "sweep", *tiny, *arguments]


def wait_for(seen: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sweep_dry_run_lists_trials_and_writes_nothing(here: Path) -> None:
    arguments = sweep("--vary", "model.z_dim=4,8", "--vary", "model.d_widths=[8],[8,8]", "--seeds", "3", "--dry-run")
    result = CliRunner().invoke(app, arguments[3:])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["0000  model.z_dim=4  model.d_widths=[8]", "0001  model.z_dim=4  model.d_widths=[8, 8]"]
    assert lines[-1] == "4 trials x 3 seeds = 12 runs, 15.36 kimg (15,360 real images) in all"
    assert not list(here.iterdir())


@pytest.mark.slow
def test_sweep_killed_resumes_and_a_diverged_run_fails_only_itself(here: Path) -> None:
    # D's scores pass float32's range in sixty layers of weights N(0, 1)
    arguments = ["--vary", f"model.d_widths=[8],[16],{[64] * 60}", "-o", "out"]
    second = here / "out" / "trials" / "0001" / "seed-0"
    with subprocess.Popen(sweep(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(lambda: list(second.glob("checkpoint-*.pt")), process)
        process.kill()
    first = here / "out" / "trials" / "0000" / "seed-0" / "metrics.jsonl"
    before = first.stat().st_mtime_ns, (here / "out" / "trials" / "0000" / "seed-0.log").read_text(encoding="utf-8")

    again = subprocess.run(sweep(*arguments), capture_output=True, text=True, check=False)
    assert again.returncode == 1, again.stderr
    assert "(1 are done)" in again.stdout
    assert "1 of 3 trials failed, the first: loss/" in again.stdout
    assert "Traceback" not in again.stdout + again.stderr
    assert before == (
        first.stat().st_mtime_ns,
        (here / "out" / "trials" / "0000" / "seed-0.log").read_text(encoding="utf-8"),
    )
    assert "$ trainer resume" in second.with_suffix(".log").read_text(encoding="utf-8")
    steps = [json.loads(line)["step"] for line in (second / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40

    document = json.loads((here / "out" / "sweep.json").read_text(encoding="utf-8"))
    assert [trial["state"] for trial in document["trials"]] == ["finished", "finished", "failed"]
    assert "NaN or infinite" in document["trials"][2]["reason"]
    assert document["best"] == min((0, 1), key=lambda number: document["trials"][number]["frechet"]["mean"])
    assert document["trials"][0]["runs"][0]["seconds"] > 0


@pytest.mark.slow
def test_sweep_interrupt_lets_workers_save_and_exits_130(here: Path) -> None:
    arguments = ["--vary", "model.z_dim=4,8", "--jobs", "2", "--set", "run.total_kimg=100000", "-o", "out"]
    runs = [here / "out" / "trials" / f"000{number}" / "seed-0" for number in (0, 1)]
    with subprocess.Popen(sweep(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(lambda: all((run / "metrics.jsonl").is_file() for run in runs), process)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "Run the same command to resume" in rest
    for run in runs:
        assert list(run.glob("checkpoint-*.pt"))
        assert "stopped and saved" in run.with_suffix(".log").read_text(encoding="utf-8")
        assert Job(Trial(0, "running", {}), 0, loading.resolve("digits-dcgan"), run).is_free()
    assert (here / "out" / "sweep.html").is_file()
    assert os.access(here / "out" / "study.db", os.R_OK)


@pytest.mark.slow
def test_sweep_in_a_folder_of_equal_module_names_runs_ours(here: Path) -> None:
    for name in ("trainer", "random", "secrets"):
        (here / f"{name}.py").write_text("print('FOREIGN CODE')\nraise SystemExit(3)\n", encoding="utf-8")
    command = sweep("--vary", "model.z_dim=4,8", "-o", "out")
    command.insert(1, "-P")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (here / "out" / "trials" / "0000" / "seed-0.log").read_text(encoding="utf-8")
    assert "trained: " in log
    assert "FOREIGN" not in log + done.stdout


def test_score_without_recall_has_no_recall(tmp_path: Path) -> None:
    line = {"quality/frechet": 2.0, "images_seen": 8, "seconds": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    found = score(tmp_path)
    assert found is not None
    assert found["frechet"] == 2.0
    assert "recall" not in found


def test_report_page_of_runs_without_recall_has_no_chart_of_it(begin: Callable[[Plan], Study], tmp_path: Path) -> None:
    study = begin(plan_of("model.z_dim=4,8"))
    while (trial := study.ask()) is not None:
        study.tell(trial, [{name: value for name, value in ended().items() if name != "recall"}])
    page = report.write(tmp_path, study).read_text(encoding="utf-8")
    assert page.count("against each field") == 1


def test_check_folder_ignores_the_name(tmp_path: Path) -> None:
    Study(tmp_path, plan_of("model.z_dim=4,8"))
    check_folder(tmp_path, plan_of("model.z_dim=4,8", name="other"))


def test_check_folder_ignores_class_names(tmp_path: Path) -> None:
    Study(tmp_path, plan_of("model.z_dim=4,8", **{"data.class_names": "[a, b]"}))
    check_folder(tmp_path, plan_of("model.z_dim=4,8"))
