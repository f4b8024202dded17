"""A network's two ONNX graphs: exported, simplified and checked against the bundle's contract.

ONNX knows every value of a graph by one name, so a state that the search graph both reads and writes cannot carry
the same name twice: it is read as ``state.<name>`` and written as ``state.<name>.next``.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxscript.optimizer
import torch
from torch import Tensor

from siam_tracker_ros.bundle import GraphSpec
from siam_tracker_ros.deployment.contract import OPSET, check_graph, tensor_specs
from siam_tracker_ros.networks.tracker_network import (
    SearchGraph,
    TemplateGraph,
    TrackerNetwork,
)


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
        f"{name}.onnx",
        tensor_specs(name, model.graph.input),
        tensor_specs(name, model.graph.output),
    )
    return Graph(spec, model.SerializeToString(deterministic=True))
