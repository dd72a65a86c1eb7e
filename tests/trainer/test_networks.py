from __future__ import annotations

import pytest
import torch

from trainer import config as configuration
from trainer import networks

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
}


@pytest.mark.parametrize("preset", PARAMETERS)
def test_a_preset_has_its_documents_parameters(preset: str) -> None:
    G, D = networks.build(configuration.resolve(preset))
    assert (networks.parameter_count(G), networks.parameter_count(D)) == PARAMETERS[preset]


def test_every_preset_of_the_sources_is_there() -> None:
    assert set(PARAMETERS) <= set(configuration.preset_names())


@pytest.mark.parametrize("preset", configuration.preset_names())
def test_latents_become_images_and_images_logits(preset: str) -> None:
    config = configuration.resolve(preset)
    G, D = networks.build(config)
    labels = torch.tensor([0, 1]) if config.model.conditional else None
    images = G(torch.randn(2, config.model.z_dim), labels)
    side = config.data.resolution
    assert images.shape == (2, config.data.channels, side, side)
    assert images.abs().max() <= 1
    assert D(images, labels).shape == (2,)


def test_project_is_the_transposed_convolution_it_stands_for() -> None:
    for memory_format in (torch.contiguous_format, torch.channels_last):
        project = networks.Project(5, 6, 4).to(memory_format=memory_format)
        plain = torch.nn.ConvTranspose2d(5, 6, 4)
        plain.load_state_dict(project.state_dict())
        z = torch.randn(3, 5)
        torch.testing.assert_close(project(z), plain(z[:, :, None, None]))


def test_score_is_the_convolution_it_stands_for() -> None:
    for memory_format in (torch.contiguous_format, torch.channels_last):
        score = networks.Score(6, 1, 4).to(memory_format=memory_format)
        plain = torch.nn.Conv2d(6, 1, 4)
        plain.load_state_dict(score.state_dict())
        features = torch.randn(3, 6, 4, 4).to(memory_format=memory_format)
        torch.testing.assert_close(score(features), plain(features).flatten(1))


def test_initialisation_is_the_dcgan_papers() -> None:
    torch.manual_seed(0)
    G, _ = networks.build(configuration.resolve("mnist-dcgan-64"))
    weights = torch.cat([m.weight.flatten() for m in G.modules() if isinstance(m, torch.nn.ConvTranspose2d)])
    scales = torch.cat([m.weight.flatten() for m in G.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert abs(weights.mean().item()) < 1e-4
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert scales.mean().item() == pytest.approx(1.0, abs=0.01)
    assert all((m.bias == 0).all() for m in G.modules() if isinstance(m, torch.nn.ConvTranspose2d))


@pytest.mark.parametrize("resolution", [8, 14, 16, 28, 32, 56, 64, 112, 128])
@pytest.mark.parametrize("extra", [0, 1])
def test_dcgan_reaches_every_size_with_both_endings(resolution: int, extra: int) -> None:
    doublings = (resolution // configuration.dcgan_base(resolution)).bit_length() - 1
    config = configuration.parse(
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


def conditional(**model: object) -> configuration.Config:
    sections = {"resolution": 8, "channels": 1, "class_names": ["a", "b", "c"]}
    fields = {"z_dim": 3, "g_widths": [4], "d_widths": [4], "conditional": True} | model
    return configuration.parse({"name": "x", "data": sections, "model": fields})


def test_a_label_changes_the_image_and_the_logit_alone() -> None:
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


def test_a_conditional_batch_norm_starts_as_a_plain_one() -> None:
    ours, plain = networks.ConditionalBatchNorm(4, classes=3), torch.nn.BatchNorm2d(4)
    features = torch.randn(5, 4, 6, 6)
    torch.testing.assert_close(ours(features, torch.tensor([0, 1, 2, 0, 1])), plain(features))


def test_projection_is_miyato_and_koyamas_inner_product() -> None:
    _, D = networks.build(conditional())
    D.eval()
    images, labels = torch.randn(2, 1, 8, 8), torch.tensor([2, 0])
    features = D.net(images)
    expected = D.score(features).flatten() + torch.stack(
        [D.projection.weight[y] @ h.sum(dim=(1, 2)) for y, h in zip(labels, features, strict=True)]
    )
    torch.testing.assert_close(D(images, labels), expected)


def test_a_discriminator_without_normalisation_has_biases_instead() -> None:
    def kinds(norm: str) -> list[str]:
        config = configuration.parse(
            {"name": "x", "data": {"resolution": 16}, "model": {"g_widths": [4, 4], "d_widths": [4, 4], "d_norm": norm}}
        )
        _, D = networks.build(config)
        return [type(layer).__name__ + "+bias" * (getattr(layer, "bias", None) is not None) for layer in D.net]

    assert kinds("batch") == ["Conv2d+bias", "LeakyReLU", "Conv2d", "BatchNorm2d+bias", "LeakyReLU"]
    assert kinds("none") == ["Conv2d+bias", "LeakyReLU", "Conv2d+bias", "LeakyReLU"]
