"""FID's Inception with random weights, and a cheap repetition of its export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from evaluation.extractors import extractor_export


def exported_once() -> Callable[..., onnx.ModelProto]:
    """In place of `export_network`, for builds of one network: exported for the first, copied for the rest."""
    export, exported = extractor_export.export_network, []

    def once(*arguments: Any) -> onnx.ModelProto:
        if not exported:
            exported.append(export(*arguments))
        copy = onnx.ModelProto()
        copy.CopyFrom(exported[0])
        return copy

    return once


def random_inception() -> dict[str, Any]:
    """A seeded state of FID's Inception. Features are near 0.7: a default one's are 1e-8, and agree with anything."""
    import torch

    from evaluation.extractors.inception import FidInception

    torch.manual_seed(0)
    network = FidInception()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return network.state_dict()
