from __future__ import annotations

from pathlib import Path

from trainer.training.logger import truncate_metrics


def test_steps_after_the_checkpoint_are_forgotten_and_so_is_a_torn_line(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st', encoding="utf-8")
    truncate_metrics(metrics, 2)
    assert metrics.read_text(encoding="utf-8") == '{"step": 1}\n{"step": 2}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_run_that_has_written_nothing_forgets_nothing(tmp_path: Path) -> None:
    truncate_metrics(tmp_path / "metrics.jsonl", 0)
    assert not list(tmp_path.iterdir())
