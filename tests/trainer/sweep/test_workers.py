"""The score of a trial."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.sweep.workers import score


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


def test_score_without_recall_has_no_recall(tmp_path: Path) -> None:
    line = {"quality/frechet": 2.0, "images_seen": 8, "seconds": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    found = score(tmp_path)
    assert found is not None
    assert found["frechet"] == 2.0
    assert "recall" not in found
