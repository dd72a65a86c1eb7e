"""Edits an ONNX graph: nodes, constants and shapes by name, and the folding of BatchNorm into weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

LAYERS = ("MatMul", "Gemm", "Conv", "ConvTranspose")  # nodes with weights


class GraphEditor:
    """Nodes in order (`nodes`), constants by name (float or int arrays), shapes ([None, 3, 64, 64]) by name.

    Nodes get names, which the quantizer requires. The given model is not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.shape_inference.infer_shapes(model)
        graph = self._model.graph
        self.nodes = list(graph.node)
        for index, node in enumerate(self.nodes):
            node.name = f"{index}_{node.op_type}"
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.inputs = {value.name for value in graph.input}
        self.outputs = {value.name for value in graph.output}
        self.shapes = {
            value.name: [
                dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
            ]
            for value in (*graph.value_info, *graph.input)
        }

    def add_constant(self, name: str, value: Any) -> str:
        """Add a constant, and return its name."""
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor; None for a constant or an input."""
        return next((node for node in self.nodes if name in node.output), None)

    def consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the only node that uses a tensor; None when there are several, or it is an output."""
        users = [node for node in self.nodes if name in node.input]
        return users[0] if len(users) == 1 and name not in self.outputs else None

    def layers(self) -> list[onnx.NodeProto]:
        """Return the nodes with weights, from the latents to the pixels."""
        return [
            node
            for node in self.nodes
            if node.op_type in LAYERS and len(node.input) > 1 and node.input[1] in self.constants
        ]

    def fold_reshaped_weights(self) -> None:
        """Replace each Reshape of a constant by its result."""
        for node in list(self.nodes):
            if node.op_type == "Reshape" and set(node.input) <= set(self.constants):
                weight, shape = (self.constants[name] for name in node.input)
                self.add_constant(node.output[0], weight.reshape(shape))
                self.nodes.remove(node)

    def fold_batch_norms(self) -> None:
        """Fold the scale and shift of each BatchNorm, and a bias before it, into the weights of its layer."""
        for norm in [node for node in self.nodes if node.op_type == "BatchNormalization"]:
            path = [norm]  # from the layer with the weights to the norm
            while path[0].op_type not in LAYERS and (before := self._only_input(path[0])) is not None:
                path.insert(0, before)
            if folded := self._fold(path):
                self.replace_nodes(path, folded)

    def _only_input(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the node before, when no other node uses its output."""
        return self.producer(node.input[0]) if self.consumer(node.input[0]) is node else None

    def _fold(self, path: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Return fewer nodes for MatMul and Reshape to [N, C, H, W] (or ConvTranspose), Add and BatchNorm, or []."""
        layer, *between, norm = path if len(path) > 1 else [path[0], path[0]]
        kinds = [node.op_type for node in between]
        added = [self.constants.get(node.input[1]) for node in between if node.op_type == "Add"]
        parameters = [self.constants.get(name) for name in (*layer.input[1:], *norm.input[1:])]
        if any(value is None for value in (*parameters, *added)):
            return []
        gamma, beta, mean, variance = (self.constants[name].astype(np.float64) for name in norm.input[1:5])
        c, output, weight = len(gamma), norm.output[0], self.constants[layer.input[1]]
        if any(value is not None and value.shape not in ((1, c, 1, 1), (c, 1, 1)) for value in added):
            return []
        scale = gamma / np.sqrt(variance + attributes_of(norm).get("epsilon", 1e-5))
        shift = beta + (sum(value.reshape(-1) for value in added if value is not None) - mean) * scale
        if layer.op_type == "ConvTranspose" and set(kinds) <= {"Add"} and weight.shape[1] == c:
            if len(layer.input) > 2:
                shift = shift + self.constants[layer.input[2]] * scale
            names = self._add_weights(output, weight * scale[:, None, None], shift)
            folded = helper.make_node("ConvTranspose", [layer.input[0], *names], [output], name=layer.name)
            folded.attribute.extend(layer.attribute)
            return [folded]
        if layer.op_type == "MatMul" and kinds[:1] == ["Reshape"] and set(kinds[1:]) <= {"Add"}:
            shape = self.shapes.get(between[0].output[0], [])
            if len(shape) != 4 or shape[1] != c:
                return []
            pixels = weight.shape[1] // c  # per channel; they are adjacent in the product
            names = self._add_weights(output, weight * np.repeat(scale, pixels), np.repeat(shift, pixels))
            product = helper.make_node("Gemm", [layer.input[0], *names], [f"{output}.product"], name=layer.name)
            reshape = helper.make_node("Reshape", [f"{output}.product", between[0].input[1]], [output])
            reshape.name = between[0].name
            reshape.attribute.extend(between[0].attribute)
            return [product, reshape]
        return []

    def _add_weights(self, name: str, weight: np.ndarray, bias: np.ndarray) -> tuple[str, str]:
        return (
            self.add_constant(f"{name}.weight", weight.astype(np.float32)),
            self.add_constant(f"{name}.bias", bias.astype(np.float32)),
        )

    def replace_nodes(self, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
        """Put `new` in the place of the last of `old`, and remove all of `old`."""
        at = next(index for index, node in enumerate(self.nodes) if node is old[-1])
        nodes = [*self.nodes[:at], *new, *self.nodes[at + 1 :]]
        self.nodes = [node for node in nodes if not any(node is other for other in old)]

    def to_model(self) -> onnx.ModelProto:
        """Return the model of the nodes that reach an output, with the constants that they use."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
        graph = self._model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self.constants.items() if name in needed
        )
        return self._model


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
