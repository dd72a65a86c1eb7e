from __future__ import annotations

import pytest
import torch

from trainer import networks
from trainer.config import loading
from trainer.config.image_shape import num_upsamples
from trainer.config.schema import Config
from trainer.networks import layers, resnet

# Trainable parameters of G and D, from the source documents (001 prints its own) and by hand.
PARAMETERS = {
    "mnist-gan": (1_486_352, 1_460_225),
    "mnist-gan-2": (1_526_288, 1_460_225),
    "mnist-dcgan": (1_911_681, 659_905),
    "mnist-dcgan-2g": (1_911_681, 659_905),
    "cifar10-dcgan": (12_658_435, 2_765_633),
    "cifar10-wgan": (12_658_435, 2_765_633),
    "mnist-dcgan-64": (3_575_617, 2_764_481),
    "celeba-dcgan": (3_576_704, 2_765_568),
    # our own, by hand from their widths
    "mnist-best": (1_919_297, 662_081),
    "mnist-best-unconditional": (1_911_233, 165_921),
    "cifar10-best": (3_822_019, 2_940_993),
    "cifar10-small": (300_931, 376_561),
    "celeba-best": (12_204_355, 10_141_441),
    "folder-small": (1_363_571, 1_743_635),
}


@pytest.mark.parametrize("preset", PARAMETERS)
def test_preset_has_its_documents_parameters(preset: str) -> None:
    G, D = networks.build(loading.resolve(preset))
    assert (networks.parameter_count(G), networks.parameter_count(D)) == PARAMETERS[preset]


def test_presets_of_the_sources_all_exist() -> None:
    assert set(PARAMETERS) <= set(loading.preset_names())


@pytest.mark.parametrize("preset", loading.preset_names())
def test_build_maps_latents_to_images_and_images_to_logits(preset: str) -> None:
    config = loading.resolve(preset)
    G, D = networks.build(config)
    labels = torch.tensor([0, 1]) if config.model.conditional else None
    images = G(torch.randn(2, config.model.z_dim), labels)
    side = config.data.resolution
    assert images.shape == (2, config.data.channels, side, side)
    assert images.abs().max() <= 1
    assert D(images, labels).shape == (2,)


def test_dense_to_feature_map_equals_a_transposed_convolution() -> None:
    for memory_format in (torch.contiguous_format, torch.channels_last):
        project = networks.DenseToFeatureMap(5, 6, 4).to(memory_format=memory_format)
        plain = torch.nn.ConvTranspose2d(5, 6, 4)
        plain.load_state_dict(project.state_dict())
        z = torch.randn(3, 5)
        torch.testing.assert_close(project(z), plain(z[:, :, None, None]))


def test_transposed_conv_has_the_output_and_gradients_of_torchs() -> None:
    ours = networks.TransposedConv(4, 6, 4, stride=2, padding=1).double()
    plain = torch.nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1).double()
    plain.load_state_dict(ours.state_dict())
    inputs = [torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).double() for _ in range(2)]
    outputs = [layer(x.requires_grad_()) for layer, x in zip((ours, plain), inputs, strict=True)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad)  # type: ignore[arg-type]
    assert torch.equal(ours.weight.grad, plain.weight.grad)  # type: ignore[arg-type]
    torch.testing.assert_close(ours.bias.grad, plain.bias.grad, rtol=1e-12, atol=1e-12)  # type: ignore[union-attr]
    assert torch.autograd.gradgradcheck(ours, inputs[0])


def test_score_head_equals_a_convolution() -> None:
    for memory_format in (torch.contiguous_format, torch.channels_last):
        score = networks.FullConvHead(6, 1, 4).to(memory_format=memory_format)
        plain = torch.nn.Conv2d(6, 1, 4)
        plain.load_state_dict(score.state_dict())
        features = torch.randn(3, 6, 4, 4).to(memory_format=memory_format)
        torch.testing.assert_close(score(features), plain(features).flatten(1))


def test_dcgan_initialization_is_the_papers() -> None:
    torch.manual_seed(0)
    G, _ = networks.build(loading.resolve("mnist-dcgan-64"))
    weights = torch.cat([m.weight.flatten() for m in G.modules() if isinstance(m, torch.nn.ConvTranspose2d)])
    scales = torch.cat([m.weight.flatten() for m in G.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert abs(weights.mean().item()) < 1e-4
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert scales.mean().item() == pytest.approx(1.0, abs=0.01)
    assert all((m.bias == 0).all() for m in G.modules() if isinstance(m, torch.nn.ConvTranspose2d))


@pytest.mark.parametrize("resolution", [8, 14, 16, 28, 32, 56, 64, 112, 128])
@pytest.mark.parametrize("extra", [0, 1])
def test_dcgan_reaches_every_size_with_both_endings(resolution: int, extra: int) -> None:
    doublings = num_upsamples(resolution)
    config = loading.parse(
        {
            "name": "x",
            "data": {"resolution": resolution, "channels": 3},
            "model": {"z_dim": 3, "g_widths": [4] * (doublings + extra), "d_widths": [4] * doublings},
        }
    )
    G, D = networks.build(config)
    images = G(torch.randn(2, 3))
    assert images.shape == (2, 3, resolution, resolution)
    assert D(images).shape == (2,)


def conditional(**model: object) -> Config:
    sections = {"resolution": 8, "channels": 1, "class_names": ["a", "b", "c"]}
    fields = {"z_dim": 3, "g_widths": [4], "d_widths": [4], "conditional": True} | model
    return loading.parse({"name": "x", "data": sections, "model": fields})


def test_conditional_label_changes_image_and_logit_only() -> None:
    G, D = networks.build(conditional())
    with torch.no_grad():
        for module in G.modules():
            if isinstance(module, networks.ConditionalBatchNorm):
                module.scale.weight.normal_(1.0, 0.5)
    G.eval(), D.eval()
    z, labels = torch.randn(1, 3).expand(3, -1), torch.tensor([0, 1, 2])
    images = G(z, labels)
    assert not torch.allclose(images[0], images[1])
    logits = D(images[:1].expand(3, -1, -1, -1), labels)
    assert len(logits.unique()) == 3


def test_conditional_batch_norm_starts_as_a_plain_one() -> None:
    ours, plain = networks.ConditionalBatchNorm(4, classes=3), torch.nn.BatchNorm2d(4)
    features = torch.randn(5, 4, 6, 6)
    torch.testing.assert_close(ours(features, torch.tensor([0, 1, 2, 0, 1])), plain(features))


def test_projection_equals_miyato_and_koyamas_inner_product() -> None:
    _, D = networks.build(conditional())
    D.eval()
    images, labels = torch.randn(2, 1, 8, 8), torch.tensor([2, 0])
    features = D.net(images)
    expected = D.score(features).flatten() + torch.stack(
        [D.projection.weight[y] @ h.sum(dim=(1, 2)) for y, h in zip(labels, features, strict=True)]
    )
    torch.testing.assert_close(D(images, labels), expected)


@pytest.mark.parametrize(("init", "std"), [("normal", 0.02), ("xavier", (2 / (256 + 3)) ** 0.5), ("default", 1.0)])
def test_projection_starts_like_the_other_weights(init: str, std: float) -> None:
    torch.manual_seed(0)
    _, D = networks.build(conditional(init=init, d_widths=[256]))
    assert D.projection.weight.std().item() == pytest.approx(std, rel=0.1)


def test_discriminator_without_normalization_has_biases() -> None:
    def kinds(norm: str) -> list[str]:
        config = loading.parse(
            {"name": "x", "data": {"resolution": 16}, "model": {"g_widths": [4, 4], "d_widths": [4, 4], "d_norm": norm}}
        )
        _, D = networks.build(config)
        return [type(layer).__name__ + "+bias" * (getattr(layer, "bias", None) is not None) for layer in D.net]

    assert kinds("batch") == ["Conv2d+bias", "LeakyReLU", "Conv2d", "BatchNorm2d+bias", "LeakyReLU"]
    assert kinds("none") == ["Conv2d+bias", "LeakyReLU", "Conv2d+bias", "LeakyReLU"]


def test_minibatch_std_is_that_of_groups_of_four() -> None:
    features = torch.randn(8, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    found = layers.MinibatchStd()(features)
    assert torch.equal(found[:, :5], features)
    for first in (0, 4):
        group = features[first : first + 4].numpy()
        assert found[first : first + 4, 5].unique().item() == pytest.approx(group.std(axis=0).mean(), rel=1e-5)
    pairs = layers.MinibatchStd()(features[:6])[:, 5, 0, 0]
    assert pairs[0].item() == pytest.approx(features[:2].numpy().std(axis=0).mean(), rel=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "dcgan", "d_widths": [4, 8], "g_widths": [8, 4]},
        {"architecture": "sndcgan", "d_widths": [4, 8], "g_widths": [8, 4]},
        {"architecture": "resnet", "d_widths": [4, 8], "g_widths": [8, 4, 4]},
    ],
    ids=["dcgan", "sndcgan", "resnet"],
)
def test_discriminator_with_minibatch_std_sees_a_collapse(model: dict[str, object]) -> None:
    """An image's logit depends on how different its group is, and on no other group."""
    settings = [f"model.{name}={value}" for name, value in model.items()]
    settings += ["model.d_minibatch_std=true", "model.d_norm=none", "model.init=default", "data.resolution=16"]
    _, D = networks.build(loading.resolve("digits-dcgan", [*settings, "model.conditional=false"]))
    assert D.mixes_images
    different, copies = torch.randn(4, 1, 16, 16), torch.randn(1, 1, 16, 16).expand(4, -1, -1, -1)
    logits = D(torch.cat([copies, different]))
    torch.testing.assert_close(logits[4:], D(different))
    among_others = D(torch.cat([copies[:1], different[1:]]))[0]
    assert abs(among_others - logits[0]) > 1e-4


def test_discriminator_with_layer_norm_has_group_norm_layers() -> None:
    _, D = networks.build(conditional(d_norm="layer", d_widths=[4, 8]))
    D.eval()
    features = D.net(torch.randn(3, 1, 8, 8))
    assert [type(layer).__name__ for layer in D.net] == ["Conv2d", "LeakyReLU", "Conv2d", "GroupNorm", "LeakyReLU"]
    assert features.shape == (3, 8, 2, 2)


MIYATO = {
    # table 3 (z 128): G by layer 128·512·16 + (512·256 + 256·128 + 128·64)·16 + (64·3·9 + 3), and 2(512+256+128+64) for
    # BatchNorm; D 3x3 and 4x4 by turns
    "sndcgan": (
        {"g_widths": [512, 256, 128, 64], "d_widths": [64, 128, 256, 512]},
        128 * 512 * 16 + (512 * 256 + 256 * 128 + 128 * 64) * 16 + 64 * 3 * 9 + 3 + 2 * (512 + 256 + 128 + 64),
        sum(
            a * b * k * k + b
            for a, b, k in [(3, 64, 3), (64, 64, 4), (64, 128, 3), (128, 128, 4), (128, 256, 3), (256, 256, 4)]
        )
        + (256 * 512 * 9 + 512 + 512 * 16 + 1),
    ),
    # table 4: G by hand 4,276,739, with biases before three BatchNorms, which ours leaves out, and with a bias for each
    # of the projection's 4096 units, where ours has one for each of its 256 channels
    "resnet": (
        {"g_widths": [256] * 4, "d_widths": [128] * 4, "d_downsamples": 2},
        4_276_739 - 3 * 256 - (4096 - 256),
        (3 * 128 * 9 + 128) + 7 * (128 * 128 * 9 + 128) + (3 * 128 + 128) + (128 * 128 + 128) + 128 + 1,
    ),
}


@pytest.mark.parametrize("architecture", MIYATO)
def test_sndcgan_has_the_papers_parameters(architecture: str) -> None:
    widths, g_count, d_count = MIYATO[architecture]
    config = loading.parse(
        {
            "name": "x",
            "data": {"resolution": 32, "channels": 3},
            "model": {"architecture": architecture, "z_dim": 128, "d_norm": "none", "d_spectral_norm": True, **widths},
        }
    )
    G, D = networks.build(config)
    assert (networks.parameter_count(G), networks.parameter_count(D)) == (g_count, d_count)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [28, 32, 64, 128])
@pytest.mark.parametrize("architecture", ["sndcgan", "resnet"])
def test_other_families_reach_every_size(architecture: str, resolution: int, channels: int) -> None:
    steps = num_upsamples(resolution)
    config = loading.parse(
        {
            "name": "x",
            "data": {"resolution": resolution, "channels": channels, "class_names": ["a", "b"]},
            "model": {
                "architecture": architecture,
                "conditional": True,
                "z_dim": 3,
                "g_widths": [4] * (steps + 1),
                "d_widths": [4] * 3,
                "d_spectral_norm": True,
            },
        }
    )
    G, D = networks.build(config)
    labels = torch.tensor([0, 1])
    images = G(torch.randn(2, 3), labels)
    assert images.shape == (2, channels, resolution, resolution)
    assert D(images, labels).shape == (2,)


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "sndcgan", "resnet"])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (48, 16), (96, 64), (36, 64), (16, 256)])
def test_networks_of_rectangles_have_their_shape(architecture: str, height: int, width: int) -> None:
    steps = num_upsamples(f"{height}x{width}")
    config = loading.parse(
        {
            "name": "x",
            "data": {"resolution": [height, width], "channels": 4},
            "model": {
                "architecture": architecture,
                "z_dim": 3,
                "g_widths": [4] * (steps + (architecture == "resnet")),
                "d_widths": [4] * 3,
            },
        }
    )
    G, D = networks.build(config)
    images = G(torch.randn(2, 3))
    assert images.shape == (2, 4, height, width)
    assert (G.height, G.width) == (height, width)
    assert D(images).shape == (2,)


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "sndcgan", "resnet"])
def test_spectral_norm_largest_singular_value_is_1(architecture: str) -> None:
    widths = {"mlp": ([8], [8, 8]), "dcgan": ([8], [8, 8]), "sndcgan": ([8], [8, 8]), "resnet": ([8, 8], [8, 8])}
    g_widths, d_widths = widths[architecture]
    torch.manual_seed(0)
    config = loading.parse(
        {
            "name": "x",
            "data": {"resolution": 8},
            "model": {
                "architecture": architecture,
                "g_widths": g_widths,
                "d_widths": d_widths,
                "d_spectral_norm": True,
            },
        }
    )
    _, D = networks.build(config)
    for _ in range(100):
        D(torch.randn(2, 1, 8, 8))
    D.eval()
    weights = [m.weight for m in D.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(weights) >= 3
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), ord=2).item() == pytest.approx(1.0, abs=1e-3)


def test_spectral_norm_equals_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Conv2d(3, 5, 3), torch.nn.Conv2d(3, 5, 3)
    theirs.load_state_dict(ours.state_dict())
    layers.add_spectral_norm(ours)
    torch.nn.utils.parametrizations.spectral_norm(theirs)
    for _ in range(60):
        weight, expected = ours.weight, theirs.weight
    torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6)
    grown = torch.randn_like(weight)
    for value in (weight, expected):
        (value * grown).sum().backward()
    torch.testing.assert_close(
        ours.parametrizations.weight.original.grad, theirs.parametrizations.weight.original.grad, rtol=1e-3, atol=1e-5
    )


def test_spectral_norm_is_the_same_in_any_memory_format() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 5, 3)
    last = torch.nn.Conv2d(3, 5, 3)
    last.load_state_dict(plain.state_dict())
    for layer in (plain, last):
        torch.manual_seed(1)
        layers.add_spectral_norm(layer)
    last.to(memory_format=torch.channels_last)
    grown = torch.randn(5, 3, 3, 3)
    for _ in range(2):
        weights = [layer.weight for layer in (plain, last)]
        torch.testing.assert_close(weights[1], weights[0])
    for weight in weights:
        (weight * grown).sum().backward()
    gradients = [layer.parametrizations.weight.original.grad for layer in (plain, last)]
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[1], gradients[0])


def test_spectral_norm_gradient_is_the_derivative() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    u, v = (torch.nn.functional.normalize(torch.randn(n, dtype=torch.float64), dim=0) for n in (3, 8))

    def by_hand(weight: torch.Tensor) -> torch.Tensor:
        return weight / torch.dot(u, weight.flatten(1) @ v)

    def ours(weight: torch.Tensor) -> torch.Tensor:
        return layers.SpectralNormFn.apply(weight, u, v, torch.dot(u, weight.detach().flatten(1) @ v))

    torch.testing.assert_close(ours(weight), by_hand(weight))
    grown = torch.randn_like(weight)
    expected, found = (torch.autograd.grad((way(weight) * grown).sum(), weight)[0] for way in (by_hand, ours))
    torch.testing.assert_close(found, expected)


def test_spectral_norm_round_iterates_each_weight_once() -> None:
    torch.manual_seed(0)
    network = layers.add_spectral_norm(torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)))
    norms = [module for module in network.modules() if isinstance(module, layers.SpectralNorm)]
    rounds = []
    for step in range(3):
        network.eval() if step == 2 else network.train()
        network(torch.randn(2, 6))
        rounds.append([norm.u.clone() for norm in norms])
    assert not any(torch.equal(a, b) for a, b in zip(rounds[0], rounds[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(rounds[1], rounds[2], strict=True))


def test_spectral_norm_weight_read_separately_is_not_stale() -> None:
    torch.manual_seed(0)
    network = layers.add_spectral_norm(torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)))
    _ = network[1].weight  # what was iterated for the first layer waits
    with torch.no_grad():
        network[0].parametrizations.weight.original.mul_(3)
    assert torch.linalg.matrix_norm(network[0].weight, ord=2).item() == pytest.approx(1.0, abs=0.01)


def test_spectral_norm_evaluation_can_be_differentiated_later() -> None:
    torch.manual_seed(0)
    layer = layers.add_spectral_norm(torch.nn.Linear(6, 5)).eval()
    evaluated = layer.weight.sum()
    _ = layer.train().weight
    evaluated.backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()


def test_spectral_norm_keeps_its_digits_under_autocast() -> None:
    torch.manual_seed(0)
    layer = layers.add_spectral_norm(torch.nn.Linear(40, 30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = layer.weight
    assert weight.dtype == torch.float32


@pytest.mark.parametrize("init", ["xavier", "orthogonal"])
def test_init_of_each_kind_has_its_distribution(init: str) -> None:
    torch.manual_seed(0)
    sections = {"name": "x", "data": {"resolution": 8}, "model": {"z_dim": 32, "g_widths": [64], "init": init}}
    _, D = networks.build(loading.parse(sections | {"model": sections["model"] | {"d_widths": [16, 32]}}))
    convolution = D.net[2].weight
    if init == "xavier":
        bound = 2**0.5 * (6 / ((16 + 32) * 16)) ** 0.5
        assert convolution.abs().max().item() == pytest.approx(bound, rel=0.01)
    else:
        matrix = convolution.flatten(1)
        torch.testing.assert_close(matrix @ matrix.t(), torch.eye(32), atol=1e-5, rtol=0)
    assert all((module.bias == 0).all() for module in D.modules() if getattr(module, "bias", None) is not None)


def test_residual_skip_upsampled_after_its_1x1_is_equal() -> None:
    block = resnet.UpBlock(4, 6, 0, hidden_bias=True, end_bias=True)
    features = torch.randn(2, 4, 5, 5)
    late, early = resnet._double(block.skip(features)), block.skip(resnet._double(features))
    torch.testing.assert_close(late, early)
    assert block(features).shape == (2, 6, 10, 10)
