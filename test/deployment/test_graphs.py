"""Exported graphs: the bundle's contract, and the same numbers as torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from onnx import helper

from siam_tracker_ros.deployment.contract import FORBIDDEN, ExportError, check_graph
from siam_tracker_ros.deployment.graphs import export_graphs, search_inputs
from siam_tracker_ros.networks.config import (
    BackboneConfig,
    CenterDecoderConfig,
    DenseHeadConfig,
    NetworkConfig,
    ResponseArmConfig,
    SVCCorrConfig,
)
from siam_tracker_ros.networks.tracker_network import SearchGraph, TemplateGraph

SHIPPED = Path(__file__).parents[2] / "config" / "training" / "siam_stm_resnet50.yaml"
PAPER = NetworkConfig.from_dict(yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["network"])


def run(graph, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    feed = {n: t.numpy() for n, t in zip(names, inputs, strict=True)}
    outputs = [o.name for o in session.get_outputs()]
    return dict(zip(outputs, session.run(outputs, feed), strict=True))


def noise(seed: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return (fine[0].permute(1, 2, 0) * 255).to(torch.uint8).contiguous()


def random_search(network, seed: int, first: float):
    """Inputs of a search graph as they might be in the middle of a track."""
    generator = torch.Generator().manual_seed(seed)
    crop, cells = network.config.crop, network.grid.cells
    with torch.no_grad():
        constant = TemplateGraph(network)(noise(seed + 100, crop.template))
    heat = torch.rand(cells, cells, generator=generator) * 0.9 + 0.01
    label = torch.rand(cells, cells, generator=generator)
    peak = torch.randint(0, cells, (2,), generator=generator).float()
    return (
        noise(seed, crop.search),
        torch.tensor([40.0 + seed, 70.0]),
        torch.tensor([first]),
        torch.tensor([0.3]),
        torch.tensor([0.2]),
        torch.tensor([1.0]),
        *constant,
        heat,
        label,
        peak,
    )


def test_names_dtypes_and_shapes_of_the_contract(light_graphs):
    template, search = light_graphs["template"].spec, light_graphs["search"].spec
    assert [(t.name, t.dtype, t.shape) for t in template.inputs] == [
        ("template", "uint8", (129, 129, 3))
    ]
    states = [("state.kernel", (1, 96, 9, 9)), ("state.descriptor", (1, 96, 1, 1))]
    assert [(t.name, t.shape) for t in template.outputs] == states
    assert [(t.name, t.shape) for t in search.inputs] == [
        ("search", (257, 257, 3)),
        ("previous_size", (2,)),
        ("first", (1,)),
        ("tuning.window", (1,)),
        ("tuning.penalty", (1,)),
        ("tuning.arm", (1,)),
        *states,
        ("state.heatmap", (25, 25)),
        ("state.label", (25, 25)),
        ("state.peak", (2,)),
    ]
    assert [(t.name, t.shape) for t in search.outputs] == [
        ("result.box", (4,)),
        ("result.score", (1,)),
        ("result.runner_up", (1,)),
        ("result.peak", (2,)),
        ("state.heatmap.next", (25, 25)),
        ("state.label.next", (25, 25)),
        ("state.peak.next", (2,)),
    ]
    assert search.inputs[0].dtype == "uint8"
    assert {t.dtype for t in (*search.inputs[1:], *search.outputs)} == {"float32"}


def test_operators_and_versions(light_graphs):
    for graph in light_graphs.values():
        model = onnx.load_from_string(graph.data)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
        assert model.ir_version == 8
        used = {node.op_type for node in model.graph.node}
        assert not used & FORBIDDEN
        assert "BatchNormalization" in FORBIDDEN and "Conv" in used
        for value in (*model.graph.input, *model.graph.output):
            assert all(side.dim_value > 0 for side in value.type.tensor_type.shape.dim)


def test_graphs_tell_nothing_about_the_machine(light_graphs):
    for graph in light_graphs.values():
        for path in (b"/home", b"/tmp", b"/root", b"/usr", b".py"):
            assert path not in graph.data


def test_export_is_reproducible(small):
    first, second = export_graphs(small), export_graphs(small)
    for name in first:
        assert first[name].data == second[name].data


@pytest.mark.parametrize("first", [0.0, 1.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_search_graph_equals_torch(light, light_graphs, seed, first):
    inputs = random_search(light, seed, first)
    with torch.no_grad():
        expected = SearchGraph(light).eval()(*inputs)
    got = run(light_graphs["search"], inputs)
    for (name, ours), theirs in zip(got.items(), expected, strict=True):
        assert np.abs(ours - theirs.numpy()).max() < 1e-3, name


def test_template_graph_equals_torch(light, light_graphs):
    inputs = (noise(3, 129),)
    with torch.no_grad():
        expected = TemplateGraph(light).eval()(*inputs)
    got = run(light_graphs["template"], inputs)
    for ours, theirs in zip(got.values(), expected, strict=True):
        assert np.abs(ours - theirs.numpy()).max() < 1e-4 * float(theirs.abs().max()) + 1e-5


VARIANTS = {
    "without channel term": {"matching": SVCCorrConfig(kernel=5, hidden=4, channel=False)},
    "without pixel term": {"matching": SVCCorrConfig(kernel=5, hidden=4, pixel=False)},
    "full convolutions": {
        "matching": SVCCorrConfig(kernel=5, hidden=4, separable=False),
        "head": DenseHeadConfig(width=8, depth=1, separable=False),
    },
    "convolution before correlation": {
        "matching": SVCCorrConfig(kernel=7, hidden=4, xcorr_pre_conv=True)
    },
    "padded phi1": {"matching": SVCCorrConfig(kernel=5, hidden=4, phi1_pad=True)},
    "literal update": {"temporal": ResponseArmConfig(update="literal")},
    "pixels, correlation criterion": {
        "temporal": ResponseArmConfig(peaks="pixels", criterion="corr")
    },
    "five candidates": {"temporal": ResponseArmConfig(candidates=5)},
    "linear size": {"decoder": CenterDecoderConfig(size="linear")},
    "efficientnet": {"backbone": BackboneConfig("tf_efficientnet_lite0")},
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_exports_and_equals_torch(make_network, small_config, change):
    network = make_network(dataclasses.replace(small_config, **change))
    graphs = export_graphs(network)
    for seed in (1, 2):
        inputs = random_search(network, seed, 0.0)
        with torch.no_grad():
            expected = SearchGraph(network).eval()(*inputs)
        got = run(graphs["search"], inputs)
        for (name, ours), theirs in zip(got.items(), expected, strict=True):
            assert np.abs(ours - theirs.numpy()).max() < 1e-3, name


def test_paper_configuration_exports_and_equals_torch(make_network):
    network = make_network(PAPER)
    graphs = export_graphs(network)
    inputs = random_search(network, 1, 0.0)
    with torch.no_grad():
        expected = SearchGraph(network).eval()(*inputs)
    got = run(graphs["search"], inputs)
    for (name, ours), theirs in zip(got.items(), expected, strict=True):
        # Untrained residual stages make large numbers: compare with their size.
        limit = 1e-3 * max(1.0, float(theirs.abs().max()))
        assert np.abs(ours - theirs.numpy()).max() < limit, name


def test_example_inputs_are_the_graphs_own(light, light_graphs):
    shapes = [tuple(t.shape) for t in search_inputs(light)]
    assert shapes == [t.shape for t in light_graphs["search"].spec.inputs]


# --- what check_graph refuses -----------------------------------------------------------------------------------------


def toy(nodes, outputs=("y",), opset=17, ir=8, extra=()):
    f32, shape = onnx.TensorProto.FLOAT, [1, 1, 4, 4]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", f32, shape), *extra],
        [helper.make_tensor_value_info(name, f32, shape) for name in outputs],
        [helper.make_tensor("one", f32, [1], [1.0])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


ADD = [helper.make_node("Add", ["x", "one"], ["y"])]


def test_toy_that_keeps_the_contract_passes():
    check_graph("toy", toy(ADD), ["x"], ["y"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (toy(ADD, opset=18), r"toy: opsets are \{'': 18\}, not 17"),
        (toy(ADD, ir=9), "IR version is 9, not 8"),
        (toy([helper.make_node("Add", ["x", "gone"], ["y"])]), "not a valid ONNX model"),
        (
            toy(
                [*ADD, helper.make_node("NonZero", ["y"], ["n"])],
            ),
            "contains NonZero",
        ),
        (
            toy(
                [helper.make_node("Conv", ["x", "k"], ["y"])],
                extra=[helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, [1, 1, 1, 1])],
            ),
            "kernel known only at run time",
        ),
        (
            toy([*ADD, helper.make_node("Mul", ["x", "one"], ["z"])], outputs=("y", "z")),
            r"outputs are \['y', 'z'\], not \['y'\]",
        ),
    ],
)
def test_graphs_outside_the_contract_are_refused(model, message):
    with pytest.raises(ExportError, match=message):
        check_graph("toy", model, ["x"], ["y"])


def test_operators_that_tensorrt_reads_in_part_are_refused_in_the_other():
    def flat(*nodes):
        model = toy([helper.make_node("Reshape", ["x", "all"], ["v"]), *nodes, *ADD])
        model.graph.initializer.append(helper.make_tensor("all", onnx.TensorProto.INT64, [1], [-1]))
        model.graph.initializer.append(helper.make_tensor("i", onnx.TensorProto.INT64, [1], [3]))
        return model

    with pytest.raises(ExportError, match="ArgMin of a vector, which TensorRT does not read"):
        check_graph("toy", flat(helper.make_node("ArgMin", ["v"], ["a"])), ["x"], ["y"])
    for reduction in ("none", "add"):
        inputs = ["v", "i", "one"]
        scatter = helper.make_node("ScatterElements", inputs, ["s"], reduction=reduction)
        if reduction == "none":
            check_graph("toy", flat(scatter), ["x"], ["y"])
            continue
        with pytest.raises(ExportError, match="ScatterElements with reduction add"):
            check_graph("toy", flat(scatter), ["x"], ["y"])


def test_open_shapes_and_other_dtypes_are_refused():
    open_shape = toy(ADD)
    open_shape.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ExportError, match="x has no fixed shape"):
        check_graph("toy", open_shape, ["x"], ["y"])
    half = toy([helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT16)])
    half.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    with pytest.raises(ExportError, match="y is float16, not float32"):
        check_graph("toy", half, ["x"], ["y"])
