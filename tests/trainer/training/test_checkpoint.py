from __future__ import annotations

import hashlib
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.trainer.tiny_run import tensors
from trainer.config.loading import to_json
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError
from trainer.onnx_export import state_dict_file
from trainer.reports import pages
from trainer.training import checkpoint, loop
from trainer.training.state import TrainState

Tiny = Callable[..., Config]
BatchesOf = Callable[[Config], Batches]

FAMILIES = {
    "dcgan": {},
    "augmented": {"data": {"augment": ["color", "translation", "cutout"]}},
    "adaptive": {
        "data": {
            "augment": ["flip", "rotate90", "scale", "brightness", "contrast", "cutout"],
            "ada_target": 0.2,
            "ada_kimg": 0.2,
            "augment_p": 0.3,
        }
    },
    "conditional": {"model": {"conditional": True}, "data": {"class_names": ["a", "b", "c"]}},
    "penalized": {"objective": {"r1_gamma": 1.0, "r1_interval": 3}, "model": {"d_norm": "none"}},
    "bf16": {"run": {"precision": "bf16"}},
    "mlp": {"model": {"architecture": "mlp", "g_widths": [16], "d_widths": [16]}},
    "wgan": {
        "objective": {"name": "wasserstein", "clip": 0.01},
        "optim": {"algorithm": "rmsprop", "n_critic": 2},
    },
    "wgan-gp": {
        "objective": {"name": "wasserstein", "gradient_penalty": "wgan-gp"},
        "model": {"d_norm": "layer"},
        "data": {"flip": True},
    },
    "dragan": {"objective": {"name": "minimax", "gradient_penalty": "dragan"}, "run": {"precision": "bf16"}},
    "sndcgan": {
        "objective": {"name": "hinge"},
        "model": {"architecture": "sndcgan", "d_norm": "none", "d_widths": [4, 8], "d_spectral_norm": True},
        "optim": {"decay_kimg": [0.01, 0.2], "clip_grad_norm": 1.0},
        "run": {"precision": "bf16"},
    },
    "frozen": {
        "objective": {"r1_gamma": 1.0, "r1_interval": 2},
        "model": {"d_norm": "none", "d_widths": [8, 8], "d_spectral_norm": True},
        "optim": {"d_freeze": 1},
    },
    "fastgan": {
        "objective": {"name": "hinge", "r1_gamma": 1.0, "r1_interval": 2},
        "model": {"architecture": "fastgan", "g_widths": [8, 8, 8], "d_widths": [8, 8], "conditional": True},
        "data": {"resolution": 16, "class_names": ["a", "b"], "augment": ["translation"]},
    },
    "resnet": {
        "objective": {"name": "lsgan", "real_label": 0.9, "fake_label": 0.1},
        "model": {"architecture": "resnet", "g_widths": [8, 8], "d_widths": [8, 8]},
        "data": {"noise_std": 0.1, "noise_kimg": 0.1},
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_run_is_bit_identical(family: str, tiny: Tiny, batches_of: BatchesOf, tmp_path: Path) -> None:
    config = tiny(**FAMILIES[family])
    whole = TrainState.create(config)
    for _ in range(9):
        loop.train_iteration(whole, batches_of(config))

    state = TrainState.create(config)
    for _ in range(4):
        loop.train_iteration(state, batches_of(config))
    path = checkpoint.save(state, tmp_path, keep=1)
    torch.manual_seed(999)  # what happens in between must not matter
    resumed = checkpoint.restore(checkpoint.read(path), config)
    for _ in range(5):
        loop.train_iteration(resumed, batches_of(config))

    ours, theirs = tensors(resumed), tensors(whole)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert (resumed.steps, resumed.images_seen) == (whole.steps, whole.images_seen)


def test_cpu_seconds_grow_over_interruptions(tiny: Tiny, batches_of: BatchesOf, tmp_path: Path) -> None:
    state = TrainState.create(tiny())
    state.cpu_seconds = 1000.0
    resumed = checkpoint.restore(checkpoint.read(checkpoint.save(state, tmp_path, keep=1)), tiny())
    loop.train(resumed, batches_of(tiny()), loop.Callback(), lambda _: None)
    assert resumed.cpu_seconds is not None
    assert 1000 < resumed.cpu_seconds < 1000 + time.process_time()


def test_cpu_seconds_of_an_older_checkpoint_stay_unknown(tiny: Tiny, batches_of: BatchesOf, tmp_path: Path) -> None:
    content = checkpoint.read(checkpoint.save(TrainState.create(tiny()), tmp_path, keep=1))
    del content["cpu_seconds"]
    resumed = checkpoint.restore(content, tiny())
    loop.train(resumed, batches_of(tiny()), loop.Callback(), lambda _: None)
    assert resumed.seconds > 0
    assert resumed.cpu_seconds is None


def test_save_keeps_only_the_newest(tiny: Tiny, tmp_path: Path) -> None:
    state = TrainState.create(tiny())
    for step in (9, 10, 100):
        state.steps = step
        checkpoint.save(state, tmp_path, keep=2)
    assert [path.name for path in checkpoint.paths(tmp_path)] == ["checkpoint-00000010.pt", "checkpoint-00000100.pt"]
    assert not list(tmp_path.glob(".*partial"))


def test_load_latest_truncated_falls_back_and_reports(tiny: Tiny, tmp_path: Path) -> None:
    state = TrainState.create(tiny())
    first = checkpoint.save(state, tmp_path, keep=3)
    state.steps = 1
    newest = checkpoint.save(state, tmp_path, keep=3)
    newest.write_bytes(newest.read_bytes()[:1000])
    path, _, complaints = checkpoint.load_latest(tmp_path)
    assert path == first
    assert len(complaints) == 1
    assert "does not match" in complaints[0]


# the last four are of the unpickler's less known errors: struct.error, IndexError, TypeError, KeyError
JUNK = [b"", b"PK\x03\x04", b"not a checkpoint at all", b"\x80\x04N.", b"X", b"\x86", b"}]Khs", b"hX"]


@pytest.mark.parametrize("content", JUNK)
def test_read_of_another_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-00000001.pt"
    path.write_bytes(content)
    with pytest.raises(TrainerError) as error:
        checkpoint.read(path)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainerError, match="is not a state dict") as error:
        state_dict_file.read_state_dict(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", JUNK)
def test_load_latest_junk_without_digest_falls_back(content: bytes, tiny: Tiny, tmp_path: Path) -> None:
    first = checkpoint.save(TrainState.create(tiny()), tmp_path, keep=3)
    (tmp_path / "checkpoint-00000001.pt").write_bytes(content)
    path, _, complaints = checkpoint.load_latest(tmp_path)
    assert path == first
    assert "checkpoint-00000001.pt is truncated or not a checkpoint" in complaints[0]


def test_read_runs_no_code_of_a_pickle(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "owned",))  # type: ignore[return-value]

    torch.save({"format_version": 1, "config": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(TrainerError):
        checkpoint.read(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_read_of_a_newer_format_fails(tmp_path: Path) -> None:
    torch.save({"format_version": 2}, tmp_path / "new.pt")
    with pytest.raises(TrainerError, match="format version 2"):
        checkpoint.read(tmp_path / "new.pt")


def test_load_weights_of_another_architecture_names_them(tiny: Tiny) -> None:
    small, wide = TrainState.create(tiny()), TrainState.create(tiny(model={"g_widths": [16]}))
    with pytest.raises(TrainerError, match=r"net\.0\.weight is \(4, 16, 4, 4\), should be \(4, 8, 4, 4\)"):
        checkpoint.load_weights(small.G, wide.G.state_dict(), "the file's G")


def test_check_same_config_of_another_run_names_the_difference(tiny: Tiny, tmp_path: Path) -> None:
    path = checkpoint.save(TrainState.create(tiny()), tmp_path, keep=1)
    (tmp_path / "config.json").write_text(to_json(tiny(model={"z_dim": 9}, run={"total_kimg": 5})), encoding="utf-8")
    with pytest.raises(TrainerError, match=r"model\.z_dim: 9 → 4$"):
        checkpoint.check_same_config(tmp_path, checkpoint.read(path))


def test_load_latest_without_checkpoints_fails(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(TrainerError, match="is it a run folder"):
            checkpoint.load_latest(folder)


def test_content_is_plain_tensors_and_primitives(tiny: Tiny, tmp_path: Path) -> None:
    path = checkpoint.save(TrainState.create(tiny()), tmp_path, keep=1)
    payload = torch.load(path, weights_only=True)
    json.dumps(payload["config"])
    assert {"G", "D", "G_ema", "g_optimizer", "d_optimizer", "counters", "rng", "threads"} <= payload.keys()


def test_save_on_a_full_disk_keeps_the_old_ones(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = TrainState.create(tiny())
    first = checkpoint.save(state, tmp_path, keep=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    state.steps = 1
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(TrainerError, match="No space left"):
            checkpoint.save(state, tmp_path, keep=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (first.stat().st_size // 2, before[1]))
    try:  # as a full disk, the system refuses what passes the half: torch's own words of that say nothing
        with pytest.raises(TrainerError, match=r"\[Errno 27\] File too large"):
            checkpoint.save(state, tmp_path, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name for path in tmp_path.iterdir()} == {first.name, f"{first.name}.sha256"}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("G", None),
        ("G", {"net.0.weight": 3}),
        ("counters", {}),
        ("counters", {"steps": "x"}),
        ("sums", []),
        ("rng", 7),
        ("g_optimizer", {"state": {}, "param_groups": []}),
        ("best", {"step": 3}),
        ("best", "yes"),
        ("config", {"name": "x", "run": 3}),
    ],
)
def test_restore_of_a_damaged_part_is_one_line(part: str, value: object, tiny: Tiny, tmp_path: Path) -> None:
    path = checkpoint.save(TrainState.create(tiny()), tmp_path, keep=1)
    torch.save(torch.load(path, weights_only=True) | {part: value}, path)
    checkpoint.digest_path(path).unlink()

    def go_on() -> TrainState:
        payload = checkpoint.read(path)
        return checkpoint.restore(payload, checkpoint.config_of(payload))

    with pytest.raises(TrainerError) as error:
        go_on()
    assert "\n" not in str(error.value)


def test_save_writes_a_digest_that_sha256sum_reads(tiny: Tiny, tmp_path: Path) -> None:
    path = checkpoint.save(TrainState.create(tiny()), tmp_path, keep=1)
    digest, name = (tmp_path / f"{path.name}.sha256").read_text(encoding="utf-8").split()
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert name == path.name


def test_read_with_one_changed_bit_fails(tiny: Tiny, tmp_path: Path) -> None:
    path = checkpoint.save(TrainState.create(tiny()), tmp_path, keep=1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainerError, match="does not match"):
        checkpoint.read(path)


def test_read_of_a_moved_checkpoint_without_digest_works(tiny: Tiny, tmp_path: Path) -> None:
    path = checkpoint.save(TrainState.create(tiny()), tmp_path, keep=1)
    checkpoint.digest_path(path).unlink()
    assert checkpoint.read(path)["counters"]["steps"] == 0


@pytest.mark.parametrize("record", ["", "{}", '{"checkpoint": "../x.pt"}', '{"checkpoint": "checkpoint-9.pt"}'])
def test_best_path_without_a_record_is_one_line(record: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="was not measured"):
        checkpoint.best_path(tmp_path)
    (tmp_path / "best.json").write_text(record, encoding="utf-8")
    assert pages.early_end(tmp_path) is None
    with pytest.raises(TrainerError, match=r"best\.json"):
        checkpoint.best_path(tmp_path)
