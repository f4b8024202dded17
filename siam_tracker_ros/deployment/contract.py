"""What an ONNX graph must be like to go into a bundle: the checks of every graph that is written.

Nothing here needs torch: graphs in other precisions can be made where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from siam_tracker_ros.bundle import TensorSpec

OPSET = 17
"""What TensorRT 8.5 to 11 and every ONNX Runtime of the last years read."""

IR_VERSION = 8

FORBIDDEN = frozenset(
    (
        "If",
        "Loop",
        "Scan",
        "NonZero",
        "NonMaxSuppression",
        "RoiAlign",
        "BatchNormalization",
        "InstanceNormalization",
    )
)
"""Control flow, data-dependent shapes, what TensorRT lacks or needs cuDNN for, normalisation that should be folded."""


class ExportError(RuntimeError):
    """A network whose graph does not keep the bundle's contract."""


def check_graph(name: str, model: Any, reads: Sequence[str], writes: Sequence[str]) -> None:
    """Refuse a graph that does not keep the bundle's contract.

    Args:
        name: of the graph, for messages.
        model: an ``onnx.ModelProto``.
        reads: names of the inputs, in order.
        writes: names of the outputs, in order.

    Raises:
        ExportError: naming what is wrong.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{name}: not a valid ONNX model: {error}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(f"{name}: opsets are {opsets}, not {OPSET} of ONNX alone")
    if model.ir_version != IR_VERSION:
        raise ExportError(f"{name}: IR version is {model.ir_version}, not {IR_VERSION}")
    forbidden = sorted({node.op_type for node in model.graph.node} & FORBIDDEN)
    if forbidden:
        raise ExportError(f"{name}: contains {', '.join(forbidden)}")
    _check_parser_limits(name, model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ExportError(f"{name}: {node.name} is of the domain {node.domain}")
        if node.op_type == "Constant" or (
            node.op_type == "DequantizeLinear" and node.input[0] in constants
        ):
            constants.add(node.output[0])
        elif node.op_type == "Conv" and node.input[1] not in constants:
            raise ExportError(f"{name}: {node.name} convolves with a kernel known only at run time")
    for kind, tensors, names in (
        ("inputs", model.graph.input, reads),
        ("outputs", model.graph.output, writes),
    ):
        found = [tensor.name for tensor in tensors]
        if found != list(names):
            raise ExportError(f"{name}: {kind} are {found}, not {list(names)}")
        for spec in tensor_specs(name, tensors):
            wanted: tuple[str, ...] = ("float32",)
            if spec.name in ("template", "search", "memory"):
                wanted = ("uint8",)
            if spec.name.startswith("state."):
                wanted = ("float32", "int32")  # counters must stay exact for ever
            if spec.dtype not in wanted:
                raise ExportError(f"{name}: {spec.name} is {spec.dtype}, not {wanted[0]}")


def _check_parser_limits(name: str, model: Any) -> None:
    """Refuse what no version of TensorRT's parser reads, although the operator itself is known to it."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    for node in model.graph.node:
        if node.op_type in ("ArgMax", "ArgMin") and ranks.get(node.input[0]) == 1:
            raise ExportError(
                f"{name}: {node.name} is {node.op_type} of a vector, which TensorRT does not read: "
                "give it a second dimension"
            )
        for attribute in node.attribute:
            if attribute.name == "reduction" and attribute.s not in (b"", b"none"):
                raise ExportError(
                    f"{name}: {node.name} is {node.op_type} with reduction {attribute.s.decode()}, "
                    "which TensorRT does not read"
                )


def tensor_specs(graph: str, tensors: Any) -> tuple[TensorSpec, ...]:
    """Return names, types and shapes of a graph's inputs or outputs, as bundle.yaml tells them.

    Raises:
        ExportError: if a shape is not fixed.
    """
    specs = []
    for tensor in tensors:
        kind = tensor.type.tensor_type
        shape = tuple(side.dim_value for side in kind.shape.dim)
        if not shape or 0 in shape:
            raise ExportError(f"{graph}: {tensor.name} has no fixed shape")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        specs.append(TensorSpec(tensor.name, dtype, shape))
    return tuple(specs)
