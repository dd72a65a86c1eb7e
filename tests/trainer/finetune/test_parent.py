"""What `--init-from` names: found by path, name and number, read without running code, refused in one line."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT
from tests.support.trainer.parents import config_of
from trainer.config.loading import to_json
from trainer.errors import TrainerError
from trainer.finetune import record
from trainer.finetune.config import inherit_config
from trainer.finetune.parent import find, read_parent
from trainer.training import checkpoint
from trainer.training.state import TrainState

FIRST_RELEASE = ROOT / "tests" / "fixtures" / "first_release" / "0001-small"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder with two checkpoints."""
    folder = tmp_path / "runs" / "0012-tiny"
    folder.mkdir(parents=True)
    state = TrainState.create(config_of("dcgan"))
    (folder / "config.json").write_text(to_json(state.config), encoding="utf-8")
    for step in (5, 9):
        state.steps, state.images_seen = step, 100 * step
        with torch.no_grad():
            next(state.G_ema.parameters()).fill_(step)
        checkpoint.save(state, folder, keep=3)
    return folder


def test_find_by_path_name_and_number(run_dir: Path) -> None:
    runs = run_dir.parent
    assert find(str(run_dir), Path("elsewhere")) == run_dir
    assert [find(text, runs) for text in ("0012-tiny", "12", "0012")] == [run_dir] * 3
    shutil.copytree(run_dir, runs / "0012-other")
    with pytest.raises(TrainerError, match="have the number 12: 0012-other, 0012-tiny"):
        find("12", runs)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("0012-tin", "finds no run, checkpoint or generator file 0012-tin; did you mean 0012-tiny?"),
        ("13", "finds no run, checkpoint or generator file 13; give a path, or the name of a run in "),
        ("https://x.org/a.pt", "reads files of this machine; download https://x.org/a.pt first"),
        ("a" * 5000, "cannot read"),
        ("nothing.onnx", "finds no run, checkpoint or generator file nothing.onnx"),
    ],
)
def test_find_of_nothing_is_one_line(location: str, message: str, run_dir: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        read_parent(location, run_dir.parent)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_parent_of_a_run_takes_its_latest_readable_checkpoint(run_dir: Path) -> None:
    latest, first = run_dir / "checkpoint-00000009.pt", run_dir / "checkpoint-00000005.pt"
    parent = read_parent(run_dir)
    assert parent.path == latest
    assert parent.record == {
        "kind": "checkpoint",
        "name": "tiny",
        "path": str(latest),
        "digest": checkpoint.sha256(latest),
        "images_seen": 900,
        "dataset": "digits",
    }
    assert next(iter(parent.G.values())).eq(9).all()
    assert read_parent(first).record["images_seen"] == 500

    latest.write_bytes(latest.read_bytes()[:999])
    parent = read_parent(run_dir)
    assert parent.path == first
    assert [line for line in parent.notes if "does not match" in line and "using checkpoint-00000005.pt" in line]
    with pytest.raises(TrainerError, match="is damaged: it does not match"):
        read_parent(latest)


def test_read_parent_of_the_first_release(tmp_path: Path) -> None:
    parent = read_parent(FIRST_RELEASE)
    assert (parent.config.model.z_dim, parent.config.optim.d_freeze) == (4, 0)
    assert parent.D is not None


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


Change = Callable[[dict], object]
BROKEN: dict[str, tuple[Change, str]] = {
    "another format": (lambda content: content.update(format_version=0), "has format version 0, this trainer reads 1"),
    "without D": (lambda content: content.pop("D"), "lacks D"),
    "G_ema is a list": (lambda content: content.update(G_ema=[1]), "its G is not a state dict of tensors"),
    "D of numbers": (lambda content: content.update(D={"a": 1}), "its D is not a state dict of tensors"),
    "D without names": (
        lambda content: content.update(D={1: torch.ones(1)}),
        "its D is not a state dict of tensors",
    ),
    "NaN": (
        lambda content: content["G_ema"].update({"net.0.weight": torch.full((4, 8, 4, 4), float("nan"))}),
        "of a training that diverged: G's net.0.weight is not finite",
    ),
    "config": (lambda content: content.update(config={"name": "x", "what": 1}), "unknown field what"),
    **{
        f"p of {name}": (lambda content, p=p: content.update(adaptive=p), "the p of its adaptive augmentation is not a")
        for name, p in {
            "nothing": {},
            "a list": [1.0],
            "text": {"p": "0.5"},
            "integers": {"p": torch.tensor([1, 0])},
            "NaN": {"p": torch.tensor(float("nan"))},
            "2": {"p": torch.tensor(2.0)},
        }.items()
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_read_parent_of_a_damaged_checkpoint_is_one_line(name: str, run_dir: Path, tmp_path: Path) -> None:
    change, message = BROKEN[name]
    content = checkpoint.read(run_dir / "checkpoint-00000009.pt")
    change(content)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(TrainerError, match=message) as caught:
        read_parent(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("saved", [0.25, [0.25, 0.25]], ids=["one process", "two processes"])
def test_read_parent_knows_the_p_of_its_augmentation(saved: object, run_dir: Path, tmp_path: Path) -> None:
    content = checkpoint.read(run_dir / "checkpoint-00000009.pt")
    assert read_parent(run_dir).augment_p is None
    torch.save(content | {"adaptive": {"p": torch.tensor(saved)}}, tmp_path / "x.pt")
    assert read_parent(tmp_path / "x.pt").augment_p == 0.25


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x04N."])
@pytest.mark.parametrize("suffix", ["pt", "onnx", "safetensors", "txt"])
def test_read_parent_of_another_file_is_one_line(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(content)
    with pytest.raises(TrainerError) as caught:
        read_parent(tmp_path / f"x.{suffix}")
    assert f"x.{suffix}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_parent_runs_no_code_of_a_pickle(tmp_path: Path) -> None:
    torch.save({"format_version": Evil(tmp_path / "owned")}, tmp_path / "x.pt")
    with pytest.raises(TrainerError, match="truncated or not a checkpoint"):
        read_parent(tmp_path / "x.pt")
    assert not (tmp_path / "owned").exists()


def test_read_parent_of_other_code_names_the_import(tmp_path: Path) -> None:
    torch.save({"main.0.weight": torch.zeros(4, 8, 4, 4)}, tmp_path / "netG.pth")
    with pytest.raises(
        TrainerError, match="trainer import FILE --architecture dcgan --output models, then --init-from"
    ):
        read_parent(tmp_path / "netG.pth")


def test_inherit_config_takes_networks_and_training(run_dir: Path) -> None:
    parent = read_parent(run_dir)
    optim = {"g_lr": 0.5, "decay_kimg": (1, 200), "schedule": "cosine", "d_freeze": 1}
    config = config_of("dcgan", optim=optim, ema={"halflife_kimg": 7}, data={"flip": True, "resolution": 8})
    parent = type(parent)(config, parent.G, parent.D, parent.record)
    other = inherit_config(parent, ["data.source=mnist"])
    assert other.model == config.model
    assert other.ema == config.ema
    assert (other.optim.g_lr, other.optim.decay_kimg, other.optim.schedule) == (0.5, (0.5, 100), "cosine")
    assert (other.optim.d_freeze, other.optim.batch_size) == (0, 8)
    assert (other.data.source, other.data.resolution, other.data.flip) == ("mnist", 8, False)
    assert "channels" not in other.data.model_fields_set  # those of the images
    assert (other.run.total_kimg, other.run.device, other.name) == (100, "auto", "tiny-mnist")

    same = inherit_config(parent, {"optim.g_lr": 0.25, "run.total_kimg": 3, "optim.d_freeze": 2})
    assert same.data == config.data
    assert (same.optim.g_lr, same.run.total_kimg, same.optim.d_freeze) == (0.25, 3, 2)
    names = [inherit_config(parent, [], name="a"), inherit_config(parent, ["name=b"]), inherit_config(parent)]
    assert [config.name for config in names] == ["a", "b", "tiny-digits"]
    assert inherit_config(parent, ["data.source=folder:/x/My Cats"], default="c").name == "c"
    assert inherit_config(parent, ["data.source=folder:/x/My Cats"]).name == "my-cats"
    assert inherit_config(parent, ["data.source=cifar10@test"]).name == "tiny-cifar10"


@pytest.mark.parametrize("total", [0.1, 0.7, 3, 50, 1e6 / 3])
def test_inherit_config_scales_the_decay_to_the_new_length(run_dir: Path, total: float) -> None:
    parent = read_parent(run_dir)
    config = config_of("dcgan", optim={"decay_kimg": (150, 300)})
    parent = type(parent)(config, parent.G, parent.D, parent.record)
    optim = inherit_config(parent, {"run.total_kimg": total}).optim
    assert optim.decay_kimg == (pytest.approx(total / 2), total)
    for given in ("null", "[1, 2e6]"):
        theirs = inherit_config(parent, [f"run.total_kimg={total}", f"optim.decay_kimg={given}"]).optim
        assert theirs.decay_kimg == (None if given == "null" else (1, 2e6))
    with pytest.raises(TrainerError, match=r"run\.total_kimg"):
        inherit_config(parent, ["run.total_kimg=-1"])
    constant = type(parent)(config_of("dcgan"), parent.G, parent.D, parent.record)
    assert inherit_config(constant, {"run.total_kimg": total}).optim.decay_kimg is None


@pytest.mark.parametrize(
    ("theirs", "overrides", "p"),
    [
        ({"ada_target": 0.6, "augment_p": 0.1}, [], None),
        ({"ada_target": 0.6, "augment_p": 0.1}, ["data.augment_p=0.2"], 0.2),
        ({"augment_p": 0.1}, [], 0.1),
    ],
)
def test_inherit_config_leaves_out_where_the_parents_p_started(
    theirs: dict[str, float], overrides: list[str], p: float | None, run_dir: Path
) -> None:
    parent = read_parent(run_dir)
    data = parent.config.data.model_copy(update={"augment": ("brightness",), **theirs})
    parent = dataclasses.replace(parent, config=parent.config.model_copy(update={"data": data}))
    assert inherit_config(parent, overrides).data.augment_p == p


def test_inherit_config_imports_no_module_of_the_parent(run_dir: Path) -> None:
    parent = read_parent(run_dir)
    config = config_of("dcgan", model={"architecture": "nowhere:NET"}, objective={"name": "nowhere:LOSS"})
    parent = type(parent)(config, parent.G, parent.D, parent.record)
    with pytest.raises(TrainerError, match=r"names model\.architecture=nowhere:NET, whose code runs only with"):
        inherit_config(parent)
    own = ["model.architecture=dcgan", "objective.name=nowhere:LOSS"]  # the user's own words allow it
    assert inherit_config(parent, own).objective.name == "nowhere:LOSS"
    assert inherit_config(parent, user_code=True).model.architecture == "nowhere:NET"


def test_record_for_others_has_no_folders() -> None:
    found = record.make_record(
        "checkpoint",
        name="a",
        path=Path("/home/me/runs/0001-a/checkpoint-00000001.pt"),
        digest="ab" * 32,
        images_seen=12_500,
        dataset="folder:/home/me/cats",
    )
    text = record.to_public_json(found, "folder:cats")
    assert "/home" not in text
    assert '"path": "0001-a/checkpoint-00000001.pt"' in text
    assert record.describe(found) == (
        "a, 12.5 kimg of folder:/home/me/cats (0001-a/checkpoint-00000001.pt, sha256 abababababab…)"
    )
