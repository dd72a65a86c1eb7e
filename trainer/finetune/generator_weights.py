"""Reads the state dict of a generator from the graph of its generator file.

An export folds a BatchNorm that directly follows a convolution into its weights. What comes back is then another set of
weights of the same function: in evaluation mode exactly, and in training mode as far as statistics over
CALIBRATION_SEEDS are those of all images, because they take the place of the folded ones. Everything else is read as it
was. The images of the result are compared with those of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from artifacts.latents import seeds_to_latents
from trainer import networks
from trainer.config.schema import Config
from trainer.errors import TrainerError
from trainer.networks import Generator
from trainer.onnx_export import exporter
from trainer.onnx_export.graph_editing import GraphEditor, attributes_of
from trainer.plugins import require_user_code

if TYPE_CHECKING:
    import onnx

CALIBRATION_SEEDS = range(3_000_000, 3_000_512)
BATCH = 64
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)  # modules whose weights a node of the graph has


class UnreadableGraph(Exception):  # noqa: N818 (private to this module)
    """The graph is not that of the config's generator; the message says where."""


def read_weights(model: onnx.ModelProto, config: Config, path: Path, *, user_code: bool = False) -> dict[str, Tensor]:
    """Return the state dict of the generator in a generator file, float32 on the CPU.

    Args:
        model: The file's model, float32.
        config: The training config in its metadata.
        path: The file, for messages.
        user_code: Whether the module that the config names as its architecture may be imported.

    Raises:
        TrainerError: If the graph is not that of the config's generator, or its images are not those of the result.
    """
    plugins = [plugin for plugin in config.plugins() if plugin[0] == "model.architecture"]
    require_user_code(user_code, plugins, str(path))
    G = networks.build(config)[0].eval().requires_grad_(False)
    try:
        folded = _fill(G, GraphEditor(model))
        _calibrate(G, folded, config)
        exporter.verify(model, G, config)
    except MemoryError:
        raise
    except Exception as error:  # numpy, onnx and ONNX Runtime raise their own types for a malformed graph
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TrainerError(
            f"the weights in {path} cannot be read from its graph ({reason}); give the run or a checkpoint instead"
        ) from error
    return {name: tensor.detach().clone() for name, tensor in G.state_dict().items()}


@dataclass(frozen=True)
class _Node:
    """The weights of a node: as the module has them, and the bias [out] that is added, if any."""

    weight: np.ndarray
    bias: np.ndarray | None


def _fill(G: Generator, graph: GraphEditor) -> list[nn.BatchNorm2d]:
    """Write the graph's weights into G; return the BatchNorms with a scale that were folded.

    Modules and nodes are matched by their order: that of G's forward, which the exporter keeps.
    """
    graph.fold_reshaped_weights()
    executed = _executed_modules(G)
    layers = [module for module in executed if isinstance(module, LAYERS)]
    nodes = graph.layers()
    if len(layers) != len(nodes):
        raise UnreadableGraph(f"it has {len(nodes)} layers with weights, the config's network {len(layers)}")
    found = [_read_layer(graph, node, layer) for node, layer in zip(nodes, layers, strict=True)]
    for layer, read in zip(layers, found, strict=True):
        layer.weight.copy_(_tensor(read.weight, layer.weight))
    _fill_tables(graph, [module for module in executed if isinstance(module, nn.Embedding)])
    folded = _fill_norms(graph, executed, found)
    for index, layer in enumerate(layers):
        bias = None if index in folded else found[index].bias
        if layer.bias is not None:
            layer.bias.copy_(torch.zeros_like(layer.bias) if bias is None else _tensor(bias, layer.bias))
        elif bias is not None:
            raise UnreadableGraph("it has a bias where the config's network has none")
    return [norm for norm in folded.values() if norm.affine]


def _executed_modules(G: Generator) -> list[Any]:
    """Return the modules with weights in the order in which a forward calls them."""
    order: list[nn.Module] = []
    with _hooks(G, (*LAYERS, nn.BatchNorm2d, nn.Embedding), lambda module, _: order.append(module)), torch.no_grad():
        G(torch.zeros(1, G.z_dim), torch.zeros(1, dtype=torch.int64) if G.classes else None)
    if len(set(order)) != len(order):
        raise UnreadableGraph("the network uses a layer twice")
    return order


@contextmanager
def _hooks(network: nn.Module, kinds: tuple[type[nn.Module], ...], call: Any) -> Iterator[None]:
    """Call `call(module, inputs)` before each forward of the modules of these kinds."""
    handles = [module.register_forward_pre_hook(call) for module in network.modules() if isinstance(module, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _read_layer(graph: GraphEditor, node: onnx.NodeProto, layer: Any) -> _Node:
    """Return the weight of a node as its module has it, and the constant that is added per output channel."""
    value = graph.constants[node.input[1]]
    if isinstance(layer, nn.Linear) and not attributes_of(node).get("transB", 0):
        value = value.T
    if isinstance(layer, networks.DenseToFeatureMap) and value.size == layer.weight.numel():
        value = value.reshape(tuple(layer.weight.shape))
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    bias = graph.constants[node.input[2]] if len(node.input) > 2 and node.input[2] in graph.constants else None
    following = graph.consumer(node.output[0])
    while following is not None and following.op_type == "Reshape":
        following = graph.consumer(following.output[0])
    if bias is None and following is not None and following.op_type == "Add":
        added = [graph.constants[name] for name in following.input if name in graph.constants]
        bias = added[0].reshape(-1) if added and added[0].size == channels else None
    return _Node(value, bias)


def _fill_tables(graph: GraphEditor, tables: list[nn.Embedding]) -> None:
    """Write the rows per class of the conditional BatchNorms."""
    gathered = [node for node in graph.nodes if node.op_type == "Gather" and node.input[0] in graph.constants]
    if len(gathered) != len(tables):
        raise UnreadableGraph(f"it has {len(gathered)} tables of classes, the config's network {len(tables)}")
    for node, table in zip(gathered, tables, strict=True):
        table.weight.copy_(_tensor(graph.constants[node.input[0]], table.weight))


def _fill_norms(graph: GraphEditor, executed: list[Any], found: list[_Node]) -> dict[int, nn.BatchNorm2d]:
    """Write the statistics and scales of the BatchNorms; return those that were folded, by the index of their layer.

    A norm in the graph has as many layers before it as its module. Where there is none, it was folded into the last.
    """
    modules: dict[int, list[nn.BatchNorm2d]] = {}
    before = 0
    for module in executed:
        if isinstance(module, nn.BatchNorm2d):
            modules.setdefault(before, []).append(module)
        before += isinstance(module, LAYERS)
    nodes: dict[int, list[onnx.NodeProto]] = {}
    names, before = {node.name for node in graph.layers()}, 0
    for node in graph.nodes:
        if node.op_type == "BatchNormalization":
            nodes.setdefault(before, []).append(node)
        before += node.name in names
    folded: dict[int, nn.BatchNorm2d] = {}
    for before, norms in modules.items():
        present = nodes.pop(before, [])
        if len(present) == len(norms):
            for node, norm in zip(present, norms, strict=True):
                _read_norm(graph, node, norm)
        elif not present and len(norms) == 1 and before:
            folded[before - 1] = norms[0]
            _undo_fold(norms[0], found[before - 1].bias)
        else:
            raise UnreadableGraph(
                f"{len(present)} BatchNorms follow layer {before}, the network has {len(norms)} there"
            )
    if nodes:
        raise UnreadableGraph("it has a BatchNorm where the config's network has none")
    return folded


def _read_norm(graph: GraphEditor, node: onnx.NodeProto, norm: nn.BatchNorm2d) -> None:
    places = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    for name, place in zip(node.input[1:5], places, strict=True):
        if place is None:  # the scale of a conditional norm is in its tables
            continue
        if name not in graph.constants:
            raise UnreadableGraph("a BatchNorm's values are not constant")
        place.copy_(_tensor(graph.constants[name], place))


def _undo_fold(norm: nn.BatchNorm2d, bias: np.ndarray | None) -> None:
    """Make a folded norm return its input plus the bias that the fold left.

    For a conditional norm these statistics are the ones it had: what it normalized has mean 0 and variance 1 now.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    shift = torch.zeros_like(norm.running_mean) if bias is None else _tensor(bias, norm.running_mean)
    norm.running_var.fill_(1 - norm.eps)
    if norm.affine:
        norm.running_mean.zero_()
        norm.weight.fill_(1)
        norm.bias.copy_(shift)
    else:
        norm.running_mean.copy_(-shift)


@torch.no_grad()
def _calibrate(G: Generator, folded: list[nn.BatchNorm2d], config: Config) -> None:
    """Give folded norms the statistics of their inputs, and the scale and shift that undo these.

    The images of evaluation mode stay the same. In training mode, where a norm uses the statistics of its batch, a
    scale of 1 would shrink or stretch features that had another spread.
    """
    if not folded:
        return
    sums: dict[nn.Module, Tensor] = {}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0].double()  # [N, C, H, W]
        moments = torch.stack([torch.ones_like(features), features, features.square()]).sum(dim=(1, 3, 4))  # [3, C]
        sums[norm] = sums[norm] + moments if norm in sums else moments

    with _hooks(G, (nn.BatchNorm2d,), add):
        for first in range(CALIBRATION_SEEDS.start, CALIBRATION_SEEDS.stop, BATCH):
            seeds = range(first, first + BATCH)
            latents, labels = seeds_to_latents(seeds, G.z_dim, config.model.z_distribution, num_classes=G.classes)
            G(torch.from_numpy(latents), None if labels is None else torch.from_numpy(labels))
    for norm in folded:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        count, total, squares = sums[norm]
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _tensor(value: np.ndarray, place: Tensor) -> Tensor:
    """Return an array as a tensor for `place`, or raise UnreadableGraph for another shape."""
    if tuple(value.shape) != tuple(place.shape):
        raise UnreadableGraph(f"a weight is {tuple(value.shape)}, the config's network has {tuple(place.shape)}")
    return torch.from_numpy(np.array(value, dtype=np.float32))
