"""The real wandb, offline: what its file holds after a run and its continuation."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.config.schema import Config
from trainer.trackers import RunTrackers

wandb = pytest.importorskip("wandb")  # in CI a skipped test fails
BLOCK = 32768  # of LevelDB's log format


def records(path: Path) -> Iterator[Any]:
    """Yield the protocol buffers of a .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, buffered = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        buffered += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of a record, or its end
            yield Record.FromString(buffered)
            buffered = b""


def history(path: Path) -> list[dict[str, Any]]:
    """Return the rows that were logged, nested keys joined by a slash."""
    rows = [record.history for record in records(path) if record.WhichOneof("record_type") == "history"]
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item} for row in rows]


@pytest.fixture
def finished_service() -> Iterator[None]:
    yield
    wandb.teardown()


@pytest.mark.slow
@pytest.mark.usefixtures("finished_service")
def test_wandb_offline_file_holds_metrics_images_and_config(tmp_path: Path, tiny: Callable[..., Config]) -> None:
    run_dir = tmp_path / "0001-tiny"
    run_dir.mkdir()
    config, lines = tiny(run={"track": ["wandb"]}), list[str]()

    def live(images_seen: int, ticks: list[int]) -> None:
        trackers = RunTrackers(
            config, run_dir, images_seen=images_seen, made_by={"seed": 1}, history=[], report=lines.append
        )
        for tick in ticks:
            picture = np.full((4, 6, 1), tick, np.uint8)
            trackers.log_tick(tick, {"loss/G": tick / 2}, {"samples/fixed": picture})
        trackers.finish("stopped", ticks[-1], {})

    live(0, [40, 80])
    live(40, [80, 120])  # from an earlier checkpoint: 80 is logged already
    # As at Python's exit. The second finish() of an id in one process may return before the file is written.
    wandb.teardown()
    run_id = json.loads((run_dir / "trackers.json").read_text(encoding="utf-8"))["wandb"]["id"]
    first, second = sorted(run_dir.glob(f"wandb/offline-run-*-{run_id}*/*.wandb"))
    rows = [*history(first), *history(second)]
    assert [(row["_step"], row["loss/G"]) for row in rows] == [(40, 20.0), (80, 40.0), (120, 60.0)]
    for path, row in zip((first, first, second), rows, strict=True):
        shown = np.asarray(Image.open(path.parent / "files" / row["samples/fixed/path"]))
        assert shown.shape[:2] == (4, 6)
        assert (shown == row["_step"]).all()
    written = [record.config for record in records(first) if record.WhichOneof("record_type") == "config"]
    values = {update.key: json.loads(update.value_json) for one in written for update in one.update}
    assert values["optim"]["batch_size"] == 8
    assert values["made_by"] == {"seed": 1}
    assert all(line.startswith(f"wandb: offline run {run_id}; upload it with: wandb sync ") for line in lines)
    assert not list(tmp_path.glob("**/diff.patch"))
