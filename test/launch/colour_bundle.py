"""A bundle whose network finds the synthetic scene's orange thing: real ONNX files, no training.

The search graph boxes the pixels near one colour by their mean and variance; the score is how much of
that box has the colour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siam_tracker_ros.bundle import Bundle, GraphSpec, PresenceSpec, TensorSpec, write_bundle
from siam_tracker_ros.geometry import CropSpec

CROP = CropSpec(template=63, search=127)
ORANGE = (230.0, 120.0, 30.0)


def write_colour_bundle(folder: Path) -> Bundle:
    """Write the bundle into ``folder``; its name is that of the folder."""

    def f32(name: str, n: int = 1) -> TensorSpec:
        return TensorSpec(name, "float32", (n,))

    def crop(name: str, n: int) -> TensorSpec:
        return TensorSpec(name, "uint8", (n, n, 3))

    template = GraphSpec(
        "template.onnx", (crop("template", CROP.template),), (f32("state.frames"),)
    )
    search = GraphSpec(
        "search.onnx",
        (crop("search", CROP.search), f32("previous_size", 2), f32("first"), f32("state.frames")),
        (
            f32("result.box", 4),
            f32("result.score"),
            f32("result.runner_up"),
            f32("result.peak", 2),
            f32("state.frames.next"),
        ),
    )
    return write_bundle(
        folder,
        name=folder.name,
        tracker="colour",
        crop=CROP,
        graphs={"template": template, "search": search},
        tuning={"window": 0.0, "penalty": 0.0, "size_rate": 1.0},
        presence=PresenceSpec(found=0.6, lost=0.3),
        contents={"template.onnx": _template(template), "search.onnx": _search(search)},
    )


def _template(spec: GraphSpec) -> bytes:
    nodes = [
        helper.make_node("Cast", ["template"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["flat"]),
        helper.make_node("Mul", ["flat", "zero"], ["state.frames"]),
    ]
    return _model(spec, nodes, {"shape": np.array([1]), "zero": np.float32([0])})


def _search(spec: GraphSpec) -> bytes:
    n = CROP.search
    nodes = [
        helper.make_node("Cast", ["search"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["x", "orange"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("ReduceMax", ["distance"], ["worst"], axes=[2], keepdims=0),
        helper.make_node("LessOrEqual", ["worst", "tolerance"], ["near"]),
        helper.make_node("Cast", ["near"], ["hit"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["hit", "axis0"], ["columns"], keepdims=0),
        helper.make_node("ReduceSum", ["hit", "axis1"], ["rows"], keepdims=0),
        helper.make_node("ReduceSum", ["columns", "axis0"], ["mass"], keepdims=1),
        helper.make_node("Max", ["mass", "one"], ["safe"]),
        *_moments("columns", "x"),
        *_moments("rows", "y"),
        helper.make_node(
            "Concat", ["mean_x", "mean_y", "size_x", "size_y"], ["result.box"], axis=0
        ),
        helper.make_node("Concat", ["mean_x", "mean_y"], ["result.peak"], axis=0),
        helper.make_node("Mul", ["size_x", "size_y"], ["area"]),
        helper.make_node("Div", ["mass", "area"], ["filled"]),
        helper.make_node("Min", ["filled", "one"], ["at_most_one"]),
        helper.make_node("Div", ["mass", "few"], ["enough"]),
        helper.make_node("Min", ["enough", "one"], ["trust"]),
        helper.make_node("Mul", ["at_most_one", "trust"], ["result.score"]),
        helper.make_node("Mul", ["first", "zero"], ["result.runner_up"]),
        # previous_size takes part, so that it stays an input.
        helper.make_node("ReduceSum", ["previous_size", "axis0"], ["sizes"], keepdims=1),
        helper.make_node("Mul", ["sizes", "zero"], ["nothing"]),
        helper.make_node("Add", ["state.frames", "one"], ["counted"]),
        helper.make_node("Add", ["counted", "nothing"], ["state.frames.next"]),
    ]
    constants = {
        "orange": np.float32(ORANGE),
        "tolerance": np.float32(60),
        "axis0": np.array([0]),
        "axis1": np.array([1]),
        "one": np.float32([1]),
        "zero": np.float32([0]),
        "few": np.float32([16]),
        "twelve": np.float32([12]),
        "places": np.arange(n, dtype=np.float32),
        "squares": np.arange(n, dtype=np.float32) ** 2,
    }
    return _model(spec, nodes, constants)


def _moments(sums: str, axis: str) -> list[onnx.NodeProto]:
    """Mean and extent of a uniform bar: a bar of w pixels has variance (w^2 - 1) / 12."""
    return [
        helper.make_node("Mul", [sums, "places"], [f"first_{axis}"]),
        helper.make_node("ReduceSum", [f"first_{axis}", "axis0"], [f"m1_{axis}"], keepdims=1),
        helper.make_node("Div", [f"m1_{axis}", "safe"], [f"mean_{axis}"]),
        helper.make_node("Mul", [sums, "squares"], [f"second_{axis}"]),
        helper.make_node("ReduceSum", [f"second_{axis}", "axis0"], [f"m2_{axis}"], keepdims=1),
        helper.make_node("Div", [f"m2_{axis}", "safe"], [f"square_{axis}"]),
        helper.make_node("Mul", [f"mean_{axis}", f"mean_{axis}"], [f"mean2_{axis}"]),
        helper.make_node("Sub", [f"square_{axis}", f"mean2_{axis}"], [f"raw_{axis}"]),
        helper.make_node("Max", [f"raw_{axis}", "zero"], [f"variance_{axis}"]),
        helper.make_node("Mul", [f"variance_{axis}", "twelve"], [f"scaled_{axis}"]),
        helper.make_node("Add", [f"scaled_{axis}", "one"], [f"plus_{axis}"]),
        helper.make_node("Sqrt", [f"plus_{axis}"], [f"size_{axis}"]),
    ]


def _model(spec: GraphSpec, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    types = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}

    def info(tensor: TensorSpec) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor.name, types[tensor.dtype], tensor.shape)

    graph = helper.make_graph(
        nodes,
        spec.file.split(".")[0],
        [info(tensor) for tensor in spec.inputs],
        [info(tensor) for tensor in spec.outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
