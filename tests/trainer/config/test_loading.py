from __future__ import annotations

from pathlib import Path

import pytest

from trainer import devices
from trainer.config import loading
from trainer.config.schema import Ema
from trainer.errors import TrainerError


def test_set_overrides_the_preset() -> None:
    config = loading.resolve("mnist-dcgan", ["optim.g_lr=1e-3", "data.source=mnist@train", "run.seed=7"])
    assert config.optim.g_lr == 1e-3
    assert config.data.source == "mnist@train"
    assert config.run.seed == 7
    assert config.optim.d_lr == 2e-4


def test_source_is_taken_as_written() -> None:
    assert loading.resolve("digits-dcgan", ["data.source=folder:a # b: c"]).data.source == "folder:a # b: c"


@pytest.mark.parametrize(
    ("preset", "overrides", "channels"),
    [
        ("digits-dcgan", [], 1),
        ("digits-dcgan", ["data.source=folder:x"], None),
        ("cifar10-dcgan", ["data.source=folder:x"], None),
        ("digits-dcgan", ["data.source=cifar10"], None),
        ("cifar10-dcgan", ["data.source=mnist"], 3),
        ("digits-dcgan", ["data.source=folder:x", "data.channels=1"], 1),
        ("digits-dcgan", ["data.channels=3"], 3),
    ],
)
def test_channels_follow_the_source_that_is_set(preset: str, overrides: list[str], channels: int | None) -> None:
    data = loading.resolve(preset, overrides).data
    assert (data.channels if "channels" in data.model_fields_set else None) == channels


def test_presets_all_have_channels() -> None:
    for name in loading.preset_names():
        assert "channels" in loading.resolve(name).data.model_fields_set, name


def test_config_round_trips_through_json() -> None:
    import json

    for name in loading.preset_names():
        config = loading.resolve(name)
        assert loading.parse(json.loads(loading.to_json(config))) == config
        assert config.name == ("photos" if name == "folder-small" else name)  # that of the user's images


def test_preset_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {z_dim: 12}\n", encoding="utf-8")
    config = loading.resolve(str(path))
    assert (config.name, config.model.z_dim) == ("mine", 12)


ADAPTIVE = ["data.augment=[flip]", "data.ada_target=0.6"]


@pytest.mark.parametrize(
    ("preset", "overrides", "says"),
    [
        ("mnist-dcgam", [], "did you mean mnist-dcgan"),
        ("nowhere.yaml", [], "no preset file"),
        ("digits-dcgan", ["optim.bach_size=3"], "did you mean optim.batch_size"),
        ("digits-dcgan", ["optim.n_critic=0"], "optim.n_critic"),
        ("digits-dcgan", ["optim.g_lr=nan"], "optim.g_lr"),
        ("digits-dcgan", ["optim.batch_size=1e9"], "optim.batch_size"),
        ("digits-dcgan", ["run.total_kimg=-1"], "run.total_kimg"),
        ("digits-dcgan", ["model.z_dim"], "--set takes section.field=value"),
        ("digits-dcgan", ["name.x=1"], "unknown field name.x"),
        ("digits-dcgan", ["model={z_dim: 8}"], "model is a section; set its fields one by one: model.architecture"),
        ("digits-dcgan", ["data.class_names=[a, a]"], "a name twice"),
        ("digits-dcgan", ["data.augment=[color, color]"], "a policy twice"),
        ("digits-dcgan", ["data.ada_target=0.6"], "data.ada_target has no effect without policies; set data.augment"),
        ("digits-dcgan", ["data.augment_p=0.5"], "data.augment_p has no effect without policies; set data.augment"),
        ("digits-dcgan", ["data.augment=[scale]", "data.ada_kimg=5"], "no effect without data.ada_target"),
        ("digits-dcgan", ["data.augment=[rotate90]"], "rotate90 would show in G's images if always applied"),
        ("digits-dcgan", ["data.augment=[rotate90]", "data.augment_p=0.9"], "rotate90 would show in G's images"),
        ("digits-dcgan", [*ADAPTIVE, "data.augment_p=0.9"], "data.augment_p is where p starts, at most 0.8"),
        ("cifar10-wgan", ADAPTIVE, "a wasserstein critic's scores have no zero"),
        ("digits-dcgan", ["data.max_images=1"], "data.max_images"),
        ("digits-dcgan", ["data.resolution=30"], "cannot make 30 px"),
        ("digits-dcgan", ["model.g_widths=[8]"], "model.g_widths needs 3 widths"),
        ("digits-dcgan", ["model.d_widths=[1,1,1,1,1,1,1]"], "model.d_widths"),
        ("digits-dcgan", ["objective.name=wasserstein"], "needs a bounded critic: objective.clip=0.01"),
        ("cifar10-wgan", ["objective.real_label=0.9"], "wasserstein scores have none"),
        ("digits-dcgan", ["objective.name=hinge", "objective.fake_label=0.1"], "hinge scores have none"),
        ("digits-dcgan", ["objective.name=lsgan", "objective.g_label=0.9"], "non-saturating only, not with lsgan"),
        ("cifar10-wgan", ["objective.gradient_penalty=wgan-gp"], "bounds a critic already"),
        ("cifar10-wgan", ["objective.clip=null", "objective.gradient_penalty=wgan-gp"], "model.d_norm=layer or none"),
        ("digits-dcgan", ["optim.decay_kimg=[50, 20]"], "is [from, to] with from below to"),
        ("mnist-gan", ["model.d_minibatch_std=true"], "model.d_minibatch_std adds a feature map"),
        ("digits-dcgan", ["model.d_minibatch_std=true", "optim.batch_size=6"], "optim.batch_size a multiple of 4"),
        ("mnist-dcgan", ["objective.penalty_method=finite-differences"], "objective.penalty_method has no effect"),
        ("digits-dcgan", ["optim.schedule=cosine"], "no effect without optim.decay_kimg"),
        ("digits-dcgan", ["optim.decay_kimg=[0, 20]"], "ends at 20, before run.total_kimg=100"),
        ("digits-dcgan", ["data.noise_kimg=10"], "no effect while data.noise_std is 0"),
        ("digits-dcgan", ["model.architecture=resnet"], "a resnet's model.g_widths needs 4 widths"),
        ("digits-dcgan", ["model.d_downsamples=2"], "model.d_downsamples applies to a resnet's D"),
        ("digits-dcgan", ["model.architecture=sndcgan", "model.d_widths=[1,1,1,1,1,1,1]"], "halve 32 px 6 times"),
        ("digits-dcgan", ["objective.gradient_penalty=r1"], "objective.gradient_penalty"),
        ("digits-dcgan", ["objective.name=relativistic", "objective.real_label=0.9"], "relativistic scores have none"),
        ("cifar10-wgan", ["objective.r2_gamma=1"], "objective.r2_gamma is for an unbounded discriminator"),
        ("digits-dcgan", ["objective.clip=0.01"], "belongs to the wasserstein objective"),
        ("digits-dcgan", ["data.augment=[blur]"], "data.augment"),
        ("mnist-gan", ["model.conditional=true"], "needs BatchNorm"),
        ("cifar10-wgan", ["objective.r1_gamma=1"], "clipping bounds this critic already"),
        ("mnist-gan", ["model.g_widths=[]"], "at least one width"),
        ("digits-dcgan", ["name=../x"], "name"),
    ],
)
def test_load_invalid_config_is_one_line(preset: str, overrides: list[str], says: str) -> None:
    with pytest.raises(TrainerError) as error:
        loading.resolve(preset, overrides)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_preset_file_without_a_mapping_fails(tmp_path: Path) -> None:
    for text in ("- 1\n", "{", "\xff"):
        path = tmp_path / "bad.yaml"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(TrainerError):
            loading.resolve(str(path))


def test_differences_name_the_fields() -> None:
    a = loading.resolve("digits-dcgan", ["model.z_dim=9", "run.seed=1"])
    b = loading.resolve("digits-dcgan", ["model.z_dim=8", "run.seed=3"])
    assert loading.differences(a, b) == ["model.z_dim: 9 → 8", "run.seed: 1 → 3"]
    assert loading.differences(a, a) == []


def test_resolve_auto_chooses_what_is_available() -> None:
    config = devices.resolve_auto(loading.resolve("digits-dcgan"))
    assert config.run.device in {"cuda", "mps", "cpu"}
    assert config.run.precision in {"bf16", "fp32"}
    assert config.run.threads


def test_resolve_missing_device_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(TrainerError, match="no such device"):
        devices.resolve_auto(loading.resolve("digits-dcgan", ["run.device=cuda"]))


def test_config_empty_section_has_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    preset = (loading.PRESETS / "digits-dcgan.yaml").read_text(encoding="utf-8")
    path.write_text(
        "\n".join("ema:" if line.startswith("ema:") else line for line in preset.splitlines()), encoding="utf-8"
    )
    assert loading.resolve(str(path)).ema == Ema()
    assert loading.resolve(str(path), ["ema.halflife_kimg=3"]).ema.halflife_kimg == 3


@pytest.mark.parametrize("section", ["model: 3", "model: [8]", "model: dcgan"])
def test_config_section_without_a_mapping_is_one_line(section: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"data: {{source: digits}}\n{section}\n", encoding="utf-8")
    for overrides in ([], ["model.z_dim=8"]):
        with pytest.raises(TrainerError, match="model is a section and must contain fields, not") as refused:
            loading.resolve(str(path), overrides)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("setting", ["model.z_dim=true", "optim.g_lr=true", "run.seed=false", "run.tick_kimg=1e9"])
def test_config_numbers_reject_booleans_and_infinity(setting: str) -> None:
    field = setting.partition("=")[0]
    with pytest.raises(TrainerError, match=f"^{field}: Input should (not be true or false|be less than or equal to)"):
        loading.resolve("digits-dcgan", [setting])


def test_config_booleans_are_accepted() -> None:
    config = loading.resolve("digits-dcgan", ["data.flip=true", "run.cuda_graphs=false"])
    assert config.data.flip
    assert config.run.cuda_graphs is False


def test_class_names_of_a_preset_apply_to_its_source_only() -> None:
    theirs = loading.resolve("digits-dcgan", ["data.source=folder:photos", "model.conditional=false"])
    assert theirs.data.class_names == ()
    given = loading.resolve("digits-dcgan", ["data.source=folder:photos", "data.class_names=[a, b]"])
    assert given.data.class_names == ("a", "b")
    assert len(loading.resolve("digits-dcgan").data.class_names) == 10


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("wandb", ("wandb",)),
        ("tensorboard, mlflow", ("tensorboard", "mlflow")),
        ("[trackio, wandb]", ("trackio", "wandb")),
        ("none", ()),
        ("[none]", ()),
        ("[]", ()),
    ],
)
def test_run_track_accepts_lists_commas_and_none(value: str, names: tuple[str, ...]) -> None:
    config = loading.resolve("digits-dcgan", [f"run.track={value}"])
    assert config.run.track == names
    assert loading.parse(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("wandbb", "run.track: Input should be tensorboard, trackio, mlflow, wandb or none"),
        ("wandb,wandb", "run.track: wandb is listed twice"),
        ("none,wandb", "run.track: none means no tracker"),
        ("3", "run.track: Input should be a list"),
        ("[3]", "run.track: Input should be a list"),
        ("", "run.track: Input should be a list"),
    ],
)
def test_run_track_wrong_value_is_one_line(value: str, says: str) -> None:
    with pytest.raises(TrainerError) as refused:
        loading.resolve("digits-dcgan", [f"run.track={value}"])
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)
