"""A graph's FP16 twin: convolutions and products in FP16, what needs the range or the digits in FP32.

The types are in the graph (Cast nodes), so that a strongly typed TensorRT network, TensorRT 8 with pinned layers
and ONNX Runtime all compute the same. Inputs and outputs, the state included, stay as they are.

FP32 stay: whatever is outside of the network's layers (decoding, penalty, window, temporal modules, box arithmetic),
image normalisation, operators that sum up or exponentiate, and layers that do (a GroupNorm's differences and squares,
not only its means). The converters that exist cannot leave single nodes alone: they cast twice or out of order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siam_tracker_ros.deployment.contract import ExportError, check_graph

EXACT_OPERATORS = frozenset(
    (
        *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "Softmax", "LogSoftmax", "Exp"),
        *("Log", "Pow", "Sqrt", "Reciprocal", "Sigmoid", "LRN", "GridSample", "TopK", "ArgMax"),
        *("ArgMin", "CumSum", "Cast", "Constant", "ConstantOfShape", "Range"),
    )
)
"""Statistics, exponentials and choices, and what only makes types and shapes."""

LAYERS = frozenset(("Conv", "Gemm", "MatMul", "ConvTranspose"))
"""What FP16 is for."""

FUNCTIONAL = frozenset(("backbone", "memory_backbone", "matching", "relation"))
"""Modules whose own arithmetic, beside their layers, is normalisation or comparison: FP32 but for products."""

_FIRST_INPUT_ALONE = frozenset(("Resize",))
_LARGEST = 65504.0


def half_graph(name: str, data: bytes) -> bytes:
    """Return the FP16 twin of an exported graph.

    Args:
        name: of the graph, for messages.
        data: the FP32 graph.

    Raises:
        ExportError: if a weight does not fit into FP16, nothing would be FP16, or what comes out does not keep the
            bundle's contract.
    """
    model = onnx.load_from_string(data)
    half = _Typing(name, model).run(exact_nodes(model))
    check_graph(
        name, half, [t.name for t in model.graph.input], [t.name for t in model.graph.output]
    )
    if not half_layers(half):
        raise ExportError(f"{name}: no layer of its FP16 twin is FP16")
    return half.SerializeToString(deterministic=True)


def exact_nodes(model: Any) -> set[str]:
    """Return the names of the nodes of an ``onnx.ModelProto`` that stay FP32.

    The exporter names a node's values by the modules that it is in: ``/head/classification/classification.0/Conv``;
    what no module's forward pass computes is ``/Mul_3``. (Names of nodes themselves do not survive all rewriting.)
    """
    statistics = {_scope(n) for n in model.graph.node if n.op_type.startswith("Reduce")}
    exact = set()
    for node in model.graph.node:
        path = node.output[0].strip("/").split("/")
        own = len(path) == 2 and path[0] in FUNCTIONAL and node.op_type not in LAYERS
        whole_layer = len(path) > 2 and _scope(node) in statistics
        if len(path) == 1 or own or whole_layer or node.op_type in EXACT_OPERATORS:
            exact.add(node.name)
    return exact


def half_layers(model: Any) -> list[str]:
    """Return the names of the layers of an ``onnx.ModelProto`` that compute in FP16."""
    types = _types(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in LAYERS and types.get(node.output[0]) == TensorProto.FLOAT16
    ]


class _Typing:
    """Rewrites a graph: every value exists in the precision that its readers want."""

    def __init__(self, name: str, model: Any) -> None:
        self.name, self.model = name, model
        self.types = _types(model)
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self.nodes: list[Any] = []
        self.added: list[Any] = []
        self.full = {t.name for t in (*model.graph.input, *model.graph.initializer)}
        self.half: set[str] = set()

    def run(self, exact: set[str]) -> Any:
        for node in self.model.graph.node:
            if node.name in exact or self.types.get(node.output[0]) != TensorProto.FLOAT:
                self._exact(node)
            else:
                self._half(node)
        for tensor in self.model.graph.output:
            self._in_full(tensor.name)
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        del result.graph.node[:], result.graph.value_info[:]
        result.graph.node.extend(self.nodes)
        result.graph.initializer.extend(self.added)
        _drop_unused(result)
        return result

    def _exact(self, node: Any) -> None:
        for value in node.input:
            if value:
                self._in_full(value)
        self.nodes.append(node)
        self.full.update(node.output)

    def _half(self, node: Any) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, value in enumerate(node.input):
            wanted = index == 0 or node.op_type not in _FIRST_INPUT_ALONE
            if wanted and value and self.types.get(value) == TensorProto.FLOAT:
                copy.input[index] = self._in_half(value)
            elif value:
                self._in_full(value)
        for index, value in enumerate(node.output):
            copy.output[index] = _twin(value)
            self.half.add(value)
        self.nodes.append(copy)

    def _in_full(self, value: str) -> None:
        if value in self.half and value not in self.full:
            self.nodes.append(_cast(_twin(value), value, TensorProto.FLOAT))
            self.full.add(value)

    def _in_half(self, value: str) -> str:
        twin = _twin(value)
        if value in self.half:
            return twin
        self.half.add(value)
        if value in self.constants:
            array = self.constants[value]
            if array.size and float(np.abs(array).max()) > _LARGEST:
                raise ExportError(
                    f"{self.name}: {value} holds {np.abs(array).max():g}, more than FP16 can"
                )
            self.added.append(numpy_helper.from_array(array.astype(np.float16), twin))
        else:
            self.nodes.append(_cast(value, twin, TensorProto.FLOAT16))
        return twin


def _types(model: Any) -> dict[str, int]:
    """Return the element type of every value of a model."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {t.name: t.data_type for t in inferred.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        types.setdefault(value.name, value.type.tensor_type.elem_type)
    return types


def _drop_unused(model: Any) -> None:
    """Remove constants and weights that nothing reads any more."""
    read = {value for node in model.graph.node for value in node.input}
    kept = [n for n in model.graph.node if n.op_type != "Constant" or n.output[0] in read]
    weights = [t for t in model.graph.initializer if t.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(weights)


def _cast(value: str, into: str, kind: int) -> Any:
    return helper.make_node("Cast", [value], [into], name=f"{into}.cast", to=kind)


def _twin(value: str) -> str:
    return f"{value}.half"


def _scope(node: Any) -> str:
    return str(node.output[0].rpartition("/")[0])
