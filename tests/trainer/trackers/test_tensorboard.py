"""What the event files hold: the tags, steps, pictures and texts that TensorBoard shows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imagesets.types import ImageSet
from tests.support.trainer import runs
from trainer.config import loading
from trainer.config.schema import Config
from trainer.training import checkpoint


def train(config: Config, run_dir: Path, noise: np.ndarray) -> None:
    images = ImageSet("noise", noise, None, (), {"n": len(noise)})
    run_dir.mkdir()
    (run_dir / "config.json").write_text(loading.to_json(config), encoding="utf-8")
    assert runs.start(config, images, run_dir, Console(file=io.StringIO()))


def events(run_dir: Path) -> EventAccumulator:
    found = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    found.Reload()
    return found


def test_tensorboard_events_hold_metrics_grids_and_config(
    tmp_path: Path, tiny: Callable[..., Config], noise: np.ndarray
) -> None:
    config = tiny(run={"quality_ticks": 0})
    run_dir = tmp_path / "run"
    train(config, run_dir, noise)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = events(run_dir)
    names = set(lines[0]) - {"step", "images_seen", "seconds", "cpu_seconds"}
    finals = {f"final/{name}" for name in names if "/" in name}
    assert set(found.Tags()["scalars"]) == names | finals
    for name in names:
        values = [(event.step, np.float32(event.value)) for event in found.Scalars(name)]
        assert values == [(line["images_seen"], np.float32(line[name])) for line in lines]

    kinds = ("fixed", "random", "real-beside-fake")
    assert set(found.Tags()["images"]) == {f"samples/{kind}" for kind in kinds}
    for kind in kinds:
        pictures = found.Images(f"samples/{kind}")
        assert [picture.step for picture in pictures] == [40, 80, 120, 160]
        for picture in pictures:
            shown = Image.open(io.BytesIO(picture.encoded_image_string))
            written = Image.open(run_dir / "samples" / f"{kind}-{picture.step:09d}.png")
            small = written.resize(shown.size, Image.Resampling.NEAREST)
            assert np.array_equal(np.asarray(shown.convert("L")), np.asarray(small.convert("L")))

    (text,) = found.Tensors("config/text_summary")
    assert text.step == 0
    assert text.tensor_proto.string_val[0].decode() == f"```json\n{loading.to_json(config)}```"


def test_tensorboard_resumed_run_has_no_step_twice(
    tmp_path: Path, tiny: Callable[..., Config], noise: np.ndarray
) -> None:
    config = tiny(run={"quality_ticks": 0})
    run_dir = tmp_path / "run"
    train(config, run_dir, noise)
    images = ImageSet("noise", noise, None, (), {"n": len(noise)})
    # From the checkpoint of 80 images, which is before the last event of the first life.
    content = checkpoint.read(sorted(run_dir.glob("checkpoint-*.pt"))[-3])
    assert content["counters"]["images_seen"] == 80
    assert runs.resume(run_dir, content, config, images, Console(file=io.StringIO()))
    found = events(run_dir)
    assert [event.step for event in found.Scalars("loss/G")] == [40, 80, 120, 160]
    assert len(found.Tensors("config/text_summary")) == 1


def test_track_none_writes_no_events(tmp_path: Path, tiny: Callable[..., Config], noise: np.ndarray) -> None:
    train(tiny(run={"track": []}), tmp_path / "run", noise)
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert not (tmp_path / "run" / "trackers.json").exists()
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
