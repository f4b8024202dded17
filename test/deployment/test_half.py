"""FP16 twins of exported graphs: what is FP16, what stays FP32, and that they still say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from siam_tracker_ros.deployment.contract import ExportError
from siam_tracker_ros.deployment.graphs import export_graphs, search_inputs, template_inputs
from siam_tracker_ros.deployment.half import LAYERS, exact_nodes, half_graph, half_layers
from siam_tracker_ros.networks.build import TRACKERS, make_network
from siam_tracker_ros.training.config import load_config

CONFIGS = Path(__file__).parents[2] / "config" / "training"


@pytest.fixture(scope="module", params=list(TRACKERS))
def made(request, light_tracker):
    """A light network, its graphs, and their twins."""
    network, exported = light_tracker(request.param)
    graphs = {name: graph.data for name, graph in exported.items()}
    return network, graphs, {name: half_graph(name, data) for name, data in graphs.items()}


def session(data: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def test_inputs_and_outputs_are_the_same(made):
    _, graphs, halves = made
    for name, data in graphs.items():
        full, half = session(data), session(halves[name])
        for a, b in (
            (full.get_inputs(), half.get_inputs()),
            (full.get_outputs(), half.get_outputs()),
        ):
            assert [(x.name, x.type, x.shape) for x in a] == [(x.name, x.type, x.shape) for x in b]


def test_the_layers_are_fp16_and_take_half_the_room(made):
    _, graphs, halves = made
    model = onnx.load_from_string(halves["search"])
    layers = [n.name for n in model.graph.node if n.op_type in LAYERS]
    assert len(half_layers(model)) == len(layers) > 40
    assert len(halves["search"]) < 0.62 * len(graphs["search"])


def test_what_sums_up_or_exponentiates_is_fp32(made):
    _, _, halves = made
    for data in halves.values():
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
        types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
        types.update((v.name, v.type.tensor_type.elem_type) for v in model.graph.output)
        exact = [
            n
            for n in model.graph.node
            if n.op_type in ("ReduceSum", "ReduceMean", "Exp", "Softmax")
        ]
        for node in exact:
            assert types[node.output[0]] == onnx.TensorProto.FLOAT, node.name


def test_they_say_the_same(made):
    network, graphs, halves = made
    rng = np.random.default_rng(0)
    for name, inputs in (
        ("template", template_inputs(network)),
        ("search", search_inputs(network)),
    ):
        feed = {}
        full, half = session(graphs[name]), session(halves[name])
        for argument, value in zip(full.get_inputs(), inputs, strict=True):
            array = value.numpy()
            noise = rng.integers(0, 255, array.shape).astype(np.uint8)
            feed[argument.name] = noise if array.dtype == np.uint8 else array
        for a, b in zip(full.run(None, feed), half.run(None, feed), strict=True):
            scale = max(1.0, float(np.abs(a).max()))
            assert np.abs(a.astype(np.float64) - b).max() < 2e-2 * scale
            if name == "template":
                assert not np.array_equal(a, b)  # otherwise it would not be FP16


def test_group_norms_stay_fp32():
    torch.manual_seed(0)
    config = load_config(
        CONFIGS / "im_siam_mobilenetv2.yaml",
        ["network.head.norm=group", "network.head.width=32"],
    )
    data = export_graphs(make_network(config.network).eval())["search"].data
    model = onnx.load_from_string(data)
    exact = exact_nodes(model)
    statistics = [n for n in model.graph.node if n.op_type == "ReduceMean"]
    assert len(statistics) >= 4
    scopes = {n.output[0].rpartition("/")[0] for n in statistics}
    inside = [n for n in model.graph.node if n.output[0].rpartition("/")[0] in scopes]
    assert {"Sub", "Mul"} <= {n.op_type for n in inside}
    assert {n.name for n in inside} <= exact


def test_a_weight_that_fp16_cannot_hold_is_named():
    weight = onnx.numpy_helper.from_array(np.full((4, 3), 1e5, np.float32), "/head/weight")
    node = onnx.helper.make_node(
        "MatMul", ["x", "/head/weight"], ["/head/out/y"], name="/head/out/m"
    )
    last = onnx.helper.make_node("Identity", ["/head/out/y"], ["y"], name="/Identity")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node, last],
        "g",
        [value("x", onnx.TensorProto.FLOAT, [2, 4])],
        [value("y", onnx.TensorProto.FLOAT, [2, 3])],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    with pytest.raises(ExportError, match=r"g: /head/weight holds 100000, more than FP16 can"):
        half_graph("g", model.SerializeToString())
