"""A network's two ONNX graphs: exported, simplified and checked against the bundle's contract.

ONNX knows every value of a graph by one name, so a state that the search graph both reads and writes cannot carry
the same name twice: it is read as ``state.<name>`` and written as ``state.<name>.next``.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxscript.optimizer
import torch
from torch import Tensor

from siam_tracker_ros.bundle import GraphSpec, TensorSpec
from siam_tracker_ros.networks.tracker_network import (
    SearchGraph,
    TemplateGraph,
    TrackerNetwork,
)

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


@dataclass(frozen=True)
class Graph:
    """An exported graph: its specification for bundle.yaml and its bytes."""

    spec: GraphSpec
    data: bytes


def export_graphs(network: TrackerNetwork) -> dict[str, Graph]:
    """Export ``template`` and ``search`` of a network.

    Args:
        network: on the CPU; it is left as it is, in evaluation mode.

    Raises:
        ExportError: if a graph does not keep the contract; names the operator or tensor.
    """
    network.eval()
    return {
        "template": _export("template", TemplateGraph(network), template_inputs(network)),
        "search": _export("search", SearchGraph(network), search_inputs(network)),
    }


def template_inputs(network: TrackerNetwork) -> tuple[Tensor, ...]:
    """Example inputs of the template graph: a grey crop, and a target's size where it is read."""
    side = network.config.crop.template
    crop = torch.full((side, side, 3), 128, dtype=torch.uint8)
    size = torch.tensor([side / 2, side / 2])
    return (crop, size)[: len(network.template_reads)]


def search_inputs(network: TrackerNetwork) -> tuple[Tensor, ...]:
    """Example inputs of the search graph: grey crops, with the states of a grey template."""
    crop = network.config.crop
    grey = torch.full((crop.search, crop.search, 3), 128, dtype=torch.uint8)
    size = torch.tensor([crop.template / 2, crop.template / 2])
    given = {
        "search": grey,
        "memory": grey,
        "previous_size": size,
        "memory_size": size,
        "first": torch.zeros(1),
    }
    with torch.no_grad():
        states = TemplateGraph(network).eval()(*template_inputs(network))
    return (
        *(given[name] for name in network.search_reads),
        *(torch.zeros(1) for _ in network.tuning),
        *states,
        *network.carried_states().values(),
    )


def _export(name: str, graph: TemplateGraph | SearchGraph, inputs: tuple[Tensor, ...]) -> Graph:
    reads, writes = graph.reads, graph.writes
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        file = Path(folder) / f"{name}.onnx"
        # The tracing exporter: the newer one does not write opset 17. Its warnings are about the tool and about
        # shapes that are constants here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            inputs,
            file,
            input_names=reads,
            output_names=writes,
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnxscript.optimizer.optimize(onnx.load(file))
    model.producer_name, model.producer_version, model.doc_string = "siam_tracker_ros", "", ""
    model.graph.name = name
    for node in model.graph.node:
        node.doc_string = ""
    check_graph(name, model, reads, writes)
    spec = GraphSpec(
        f"{name}.onnx", _specs(name, model.graph.input), _specs(name, model.graph.output)
    )
    return Graph(spec, model.SerializeToString(deterministic=True))


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
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ExportError(f"{name}: {node.name} is of the domain {node.domain}")
        if node.op_type == "Constant":
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
        for spec in _specs(name, tensors):
            wanted: tuple[str, ...] = ("float32",)
            if spec.name in ("template", "search", "memory"):
                wanted = ("uint8",)
            if spec.name.startswith("state."):
                wanted = ("float32", "int32")  # counters must stay exact for ever
            if spec.dtype not in wanted:
                raise ExportError(f"{name}: {spec.name} is {spec.dtype}, not {wanted[0]}")


def _specs(graph: str, tensors: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for tensor in tensors:
        kind = tensor.type.tensor_type
        shape = tuple(side.dim_value for side in kind.shape.dim)
        if not shape or 0 in shape:
            raise ExportError(f"{graph}: {tensor.name} has no fixed shape")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        specs.append(TensorSpec(tensor.name, dtype, shape))
    return tuple(specs)
