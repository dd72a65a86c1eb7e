from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.reproduce import runs, training
from scripts.reproduce.__main__ import collect
from scripts.reproduce.runs import ReproductionContext, Trial
from tests.support.polling import wait_until
from trainer.config import loading

MakeTrial = Callable[..., Trial]
TrainTo = Callable[..., Path]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Export by writing a file; return the names that were exported."""
    names: list[str] = []

    def export(checkpoint: Path, path: Path, averaged: bool) -> None:
        assert checkpoint.is_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        names.append(path.name)

    monkeypatch.setattr(training, "export", export)
    return names


def test_training_images_are_the_train_split(context: ReproductionContext) -> None:
    assert context.training_images("mnist") == "mnist"  # the train split
    assert context.training_images("cifar10") == "folder:photos@train"


def test_collect_keeps_the_points_that_the_run_has_ticks_at(
    context: ReproductionContext, trial: MakeTrial, train_to: TrainTo, exported: list[str]
) -> None:
    dcgan = trial("mnist-dcgan")
    train_to(dcgan, [30.02, 60.03, 100, 150, 180])  # none within a tenth after 90 and 120
    training.collect(context, dcgan)
    assert sorted(exported) == [
        "mnist-dcgan-00000300.onnx",
        "mnist-dcgan-00000600.onnx",
        "mnist-dcgan-00001800-last.onnx",
        "mnist-dcgan-00001800.onnx",
    ]
    assert [round(point.tick["images_seen"]) for point in runs.points(context, dcgan)] == [30020, 60030, 180000]
    assert sorted(path.name for path in context.record(dcgan).iterdir()) == [
        "config.json",
        "curves.png",
        "made_by.json",
        "metrics.jsonl",
        "samples.png",
    ]


def test_collect_without_points_keeps_the_ends(
    context: ReproductionContext, trial: MakeTrial, train_to: TrainTo, exported: list[str]
) -> None:
    best = trial("mnist-best", seed=2)
    train_to(best, [30, 60, 90])
    training.collect(replace(context, points=False), best)
    assert exported == ["mnist-best-seed2-00000900.onnx"]


def test_collect_interrupted_in_an_export_continues(
    context: ReproductionContext,
    trial: MakeTrial,
    train_to: TrainTo,
    exported: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gan, whole = trial("mnist-gan"), training.export
    train_to(gan, [30, 60, 70])

    def interrupted(checkpoint: Path, path: Path, averaged: bool) -> None:
        if len(exported) == 2:
            raise KeyboardInterrupt
        whole(checkpoint, path, averaged)

    with monkeypatch.context() as patch:
        patch.setattr(training, "export", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.collect(context, gan)
    assert runs.collected(context) == ()  # what is not complete is not scored
    training.collect(context, gan)
    assert len(exported) == len(set(exported)) == 4
    assert runs.collected(context) == (gan,)


def test_collect_of_a_longer_run_replaces_its_end(
    context: ReproductionContext, trial: MakeTrial, train_to: TrainTo, exported: list[str]
) -> None:
    gan, other = trial("mnist-gan"), trial("mnist-gan-2")
    for kimgs in ([30], [30, 60, 70]):
        for one in (gan, other):
            train_to(one, kimgs)
        collect(context, [])
    models = {path.name for path in (context.collected / "models").iterdir()}
    assert models == {f"{name}-00000700{end}.onnx" for name in ("mnist-gan", "mnist-gan-2") for end in ("", "-last")}
    assert [point.tick["step"] for point in runs.points(context, gan)] == [300, 600, 700]


def test_collect_takes_presets_and_folders_of_runs(
    context: ReproductionContext, trial: MakeTrial, train_to: TrainTo, exported: list[str]
) -> None:
    for one in (trial("mnist-best"), trial("mnist-best", 1), trial("mnist-gan")):
        train_to(one, [10])
    collect(context, ["mnist-best-seed1"])
    assert exported == ["mnist-best-seed1-00000100.onnx"]
    collect(context, ["mnist-best"])
    assert exported[1:] == ["mnist-best-00000100.onnx"]
    with pytest.raises(SystemExit, match="2"):
        collect(context, ["mnist-best-seed7"])


def test_collect_ignores_a_line_that_is_being_written(
    context: ReproductionContext, trial: MakeTrial, train_to: TrainTo, exported: list[str]
) -> None:
    gan = trial("mnist-gan")
    with (train_to(gan, [20]) / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 30')
    training.collect(context, gan)
    assert [point.tick["step"] for point in runs.points(context, gan)] == [200]


def test_train_all_failed_run_leaves_the_others(
    context: ReproductionContext, trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def train(_: object, one: Trial, *__: object) -> int:
        trained.append(one.name)
        return int(one.name == "mnist-gan")

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "is_available", lambda _, dataset: dataset == "mnist")
    trials = [trial(preset) for preset in ("mnist-gan", "cifar10-best", "mnist-best")]
    with pytest.raises(SystemExit, match="1"):
        training.train_all(context, trials, 1)
    assert trained == ["mnist-gan", "mnist-best"]
    assert "not finished: mnist-gan (exit code 1)" in capsys.readouterr().out


def test_processes_interrupt_ends_all_and_starts_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    processes, logs, codes = training.Processes(), [tmp_path / "logs" / name for name in "ab"], list[int]()

    def serve(log: Path) -> None:
        codes.append(processes.run("http.server", 0, "--bind", "127.0.0.1", log=log))

    threads = [threading.Thread(target=serve, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(log.is_file() and "Serving" in log.read_text(encoding="utf-8") for log in logs))
    processes.interrupt()
    for thread in threads:
        thread.join(30)
    assert codes == [0, 0]
    assert processes.running == set()
    assert processes.run("http.server", log=None) == training.STOPPED


def test_train_for_minutes_passes_on_what_is_left(
    context: ReproductionContext, trial: MakeTrial, train_to: TrainTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[object, ...]] = []

    class Records(training.Processes):
        def run(self, module: str, *words: object, log: Path | None) -> int:
            commands.append((module, *words))
            return 0

    gan, limited = trial("mnist-gan"), replace(context, minutes=2.0)
    training.train(limited, gan, Records())
    assert commands[0][:2] == ("trainer", "train")
    assert commands[0][-2:] == ("--minutes", "2")

    ticks = training.read_ticks(train_to(gan, [30, 60]))
    commands.clear()
    training.train(replace(context, minutes=ticks[-1]["seconds"] / 60 + 0.5), gan, Records())
    assert commands[0][:2] == ("trainer", "resume")
    assert commands[0][-2:] == ("--minutes", "0.5")
    commands.clear()
    training.train(replace(context, minutes=ticks[-1]["seconds"] / 60), gan, Records())
    assert [command[0] for command in commands] == ["scripts.reproduce"]  # only collects
    commands.clear()
    training.train(context, gan, Records())
    assert "--minutes" not in commands[0]


def test_train_never_resumes_with_other_settings(
    context: ReproductionContext, trial: MakeTrial, capsys: pytest.CaptureFixture[str]
) -> None:
    one = trial("mnist-gan-2")
    context = replace(context, images={"mnist": "digits"}, sets=("optim.g_lr=1e-3",))
    folder = context.run_dir(one)
    folder.mkdir(parents=True)
    sets = ("data.source=digits", "optim.g_lr=1e-3", "run.device=cpu", "run.precision=fp32")
    (folder / "config.json").write_text(loading.to_json(loading.resolve("mnist-gan-2", sets)), encoding="utf-8")
    for same in (context, replace(context, sets=(*context.sets, "run.device=auto", "run.precision=auto"))):
        training.check_settings(same, one)
    for other in (replace(context, sets=("optim.g_lr=2e-3",)), replace(context, images={"mnist": "mnist"})):
        with pytest.raises(SystemExit, match="2"):
            training.check_settings(other, one)
        assert "was started with other settings" in capsys.readouterr().err
