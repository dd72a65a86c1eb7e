"""`python -m benchmarks.limited_data`: what it trains, resumes and writes, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limited_data, report


class Commands:
    """Stands in for the commands: a training leaves a checkpoint and metrics, a score is 100, adaptive 50."""

    def __init__(self, fails: str = "nothing") -> None:
        self.calls: list[list[str]] = []
        self.fails = fails

    def __call__(self, *words: Any) -> str:
        given = [str(word) for word in words]
        self.calls.append(given)
        if any(self.fails in word for word in given):
            raise SystemExit("error: no room")
        if "reference" in given:
            Path(given[-1]).touch()
            return ""
        if "evaluation" in given:
            return json.dumps({"value": 50.0 if "adaptive" in given[3] else 100.0})
        run_dir = Path(given[3] if given[2] == "resume" else given[given.index("--run-dir") + 1])
        run_dir.mkdir(exist_ok=True)
        (run_dir / "checkpoint-00000001.pt").touch()
        line = {"images_seen": 2000, "D/real": 0.6, "augment/p": 0.25}
        (run_dir / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
        return ""

    def settings(self, number: int) -> set[str]:
        return set(self.calls[number][1:]) - {str(limited_data.PRESET)}


@pytest.fixture
def extractor(tmp_path: Path) -> Path:
    path = tmp_path / "lite.onnx"
    path.touch()
    return path


def run(commands: Commands, extractor: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[int, dict[str, Any]]:
    monkeypatch.setattr(limited_data, "run", commands)
    output = extractor.with_name("result.json")
    words = ["limited_data", "--work", str(extractor.with_name("work")), "--extractor", str(extractor)]
    words += ["--source", "digits", "--output", str(output), "--shares", "10", "--kimg", "2", *more]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        limited_data.main()
    return ended.value.code, json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}


def test_limited_data_arms_differ_in_augmentation_only(extractor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    code, document = run(commands, extractor, monkeypatch)
    assert code == 0
    assert commands.calls[0][2:4] == ["reference", "cifar10@test"]
    without, adaptive = commands.settings(1), commands.settings(3)
    assert {word for word in adaptive ^ without if "limited" not in word and "work" not in word} == {
        *limited_data.ADAPTIVE
    }
    assert "data.max_images=150" in without & adaptive
    runs = document["runs"]["10"]
    assert runs["without"] == {"images": 150, "kimg": 2.0, "distance": 100.0, "D/real": 0.6, "augment/p": 0.25}
    assert runs["adaptive"]["distance"] == 50.0


def test_limited_data_done_is_not_repeated(extractor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Commands(), extractor, monkeypatch)
    again = Commands()
    assert run(again, extractor, monkeypatch)[0] == 0
    assert again.calls == []


def test_limited_data_resumes_a_stopped_run(extractor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Commands(), extractor, monkeypatch)
    extractor.with_name("result.json").unlink()
    again = Commands()
    run(again, extractor, monkeypatch)
    assert [call[2:4] for call in again.calls if "trainer" in call] == [
        ["resume", str(extractor.with_name("work") / f"10-{arm}-2kimg")] for arm in limited_data.ARMS
    ]


def test_limited_data_of_another_length_is_a_new_run(extractor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share's arms have one length once one of a new length is measured; other shares keep theirs."""

    def lengths(document: dict[str, Any]) -> dict[str, dict[str, float]]:
        return {share: {arm: run["kimg"] for arm, run in arms.items()} for share, arms in document["runs"].items()}

    both = {"without": 2.0, "adaptive": 2.0}
    run(Commands(), extractor, monkeypatch, "--shares", "10", "20")
    _, document = run(Commands(fails="5kimg"), extractor, monkeypatch, "--kimg", "5")
    assert lengths(document) == {"10": both, "20": both}
    longer = Commands(fails="10-without")
    _, document = run(longer, extractor, monkeypatch, "--kimg", "5")
    assert "optim.decay_kimg=[2.5,5]" in longer.settings(-2)
    assert lengths(document) == {"10": {"adaptive": 5.0}, "20": both}


def test_limited_data_keeps_the_users_decay_and_its_own_length(
    extractor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands()
    settings = ("--set", "optim.decay_kimg=[1,2]", "--set", "run.total_kimg=9")
    assert run(commands, extractor, monkeypatch, *settings)[0] == 0
    fields = [word for word in commands.calls[1] if "kimg=" in word and "tick" not in word]
    assert fields == ["optim.decay_kimg=[1,2]", "optim.decay_kimg=[1,2]", "run.total_kimg=9", "run.total_kimg=2"]


def test_limited_data_failure_is_kept_and_the_rest_runs(extractor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, document = run(Commands(fails="10-without"), extractor, monkeypatch)
    assert code == 1
    assert document["failed"] == {"10-without-2kimg": "error: no room"}
    assert set(document["runs"]["10"]) == {"adaptive"}


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--shares", "1"], "--shares 1: a share has at least a batch"), (["--set", "data.x=1"], "unknown field data.x")],
)
def test_limited_data_user_error_is_exit_code_2(
    words: list[str],
    says: str,
    extractor: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(Commands(), extractor, monkeypatch, *words)[0] == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_limited_data_table_shows_what_is_known() -> None:
    half = {"without": {"images": 500, "kimg": 300.0, "distance": 200.0}}
    whole = {"without": {"images": 5000, "kimg": 600.0, "distance": 100.0}}
    whole["adaptive"] = {"images": 5000, "kimg": 600.0, "distance": 60.0, "augment/p": 0.5}
    assert report.limited_data_table({"runs": {"1": half, "10": whole}}).splitlines()[2:] == [
        "| 10 % (5,000) | 600 | 100 | 60.0 | **0.60** | 0.50 |",
        "| 1 % (500) | 300 | 200 | – | – | – |",
    ]
