"""A bundle that really tracks, small enough for tests: it follows the template's colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

TEMPLATE, SEARCH = 33, 65


def write_colour_bundle(folder: Path) -> Path:
    """Write a bundle whose graphs find the centre of the pixels that have the template's colour."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto as T
    from onnx import helper as h
    from onnx import numpy_helper

    from siam_tracker_ros.bundle import GraphSpec, PresenceSpec, TensorSpec, write_bundle
    from siam_tracker_ros.geometry import CropSpec

    def constant(name: str, value: np.ndarray):
        return numpy_helper.from_array(value, name)

    def f32(*values: float) -> np.ndarray:
        return np.array(values, np.float32)

    def model(nodes, inputs, outputs, constants) -> bytes:
        graph = h.make_graph(nodes, "colour", inputs, outputs, [constant(*c) for c in constants])
        made = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        return made.SerializeToString()

    middle = np.array([TEMPLATE // 2 - 2] * 2), np.array([TEMPLATE // 2 + 3] * 2)
    template = model(
        [
            h.make_node("Slice", ["template", "from", "to", "axes"], ["cut"]),
            h.make_node("Cast", ["cut"], ["pixels"], to=T.FLOAT),
            h.make_node("ReduceMean", ["pixels"], ["state.colour"], axes=[0, 1], keepdims=0),
        ],
        [h.make_tensor_value_info("template", T.UINT8, [TEMPLATE, TEMPLATE, 3])],
        [h.make_tensor_value_info("state.colour", T.FLOAT, [3])],
        [("from", middle[0]), ("to", middle[1]), ("axes", np.array([0, 1]))],
    )
    columns = np.tile(np.arange(SEARCH, dtype=np.float32), (SEARCH, 1))
    search = model(
        [
            h.make_node("Cast", ["search"], ["pixels"], to=T.FLOAT),
            h.make_node("Sub", ["pixels", "state.colour"], ["difference"]),
            h.make_node("Abs", ["difference"], ["distance"]),
            h.make_node("ReduceMax", ["distance"], ["worst"], axes=[2], keepdims=0),
            h.make_node("Less", ["worst", "tolerance"], ["same"]),
            h.make_node("Cast", ["same"], ["mask"], to=T.FLOAT),
            h.make_node("ReduceSum", ["mask"], ["area"], keepdims=0),
            h.make_node("Max", ["area", "one"], ["count"]),
            h.make_node("Mul", ["mask", "columns"], ["by_column"]),
            h.make_node("Mul", ["mask", "rows"], ["by_row"]),
            h.make_node("ReduceSum", ["by_column"], ["sum_x"], keepdims=0),
            h.make_node("ReduceSum", ["by_row"], ["sum_y"], keepdims=0),
            h.make_node("Div", ["sum_x", "count"], ["x"]),
            h.make_node("Div", ["sum_y", "count"], ["y"]),
            h.make_node("Unsqueeze", ["x", "axis"], ["x1"]),
            h.make_node("Unsqueeze", ["y", "axis"], ["y1"]),
            h.make_node("Concat", ["x1", "y1"], ["result.peak"], axis=0),
            h.make_node("Concat", ["x1", "y1", "previous_size"], ["result.box"], axis=0),
            h.make_node("ReduceProd", ["previous_size"], ["expected"], keepdims=0),
            h.make_node("Div", ["area", "expected"], ["share"]),
            h.make_node("Min", ["share", "one"], ["score"]),
            h.make_node("Unsqueeze", ["score", "axis"], ["result.score"]),
            h.make_node("Mul", ["result.score", "none"], ["result.runner_up"]),
        ],
        [
            h.make_tensor_value_info("search", T.UINT8, [SEARCH, SEARCH, 3]),
            h.make_tensor_value_info("previous_size", T.FLOAT, [2]),
            h.make_tensor_value_info("state.colour", T.FLOAT, [3]),
        ],
        [
            h.make_tensor_value_info(f"result.{name}", T.FLOAT, [length])
            for name, length in (("box", 4), ("score", 1), ("runner_up", 1), ("peak", 2))
        ],
        [
            ("tolerance", np.float32(60)),
            ("one", np.float32(1)),
            ("none", f32(0)),
            ("axis", np.array([0])),
            ("columns", columns),
            ("rows", columns.T.copy()),
        ],
    )
    colour = TensorSpec("state.colour", "float32", (3,))
    results = tuple(
        TensorSpec(f"result.{name}", "float32", (length,))
        for name, length in (("box", 4), ("score", 1), ("runner_up", 1), ("peak", 2))
    )
    write_bundle(
        folder,
        name="colour",
        tracker="colour",
        crop=CropSpec(TEMPLATE, SEARCH, 0.5),
        graphs={
            "template": GraphSpec(
                "template.onnx",
                (TensorSpec("template", "uint8", (TEMPLATE, TEMPLATE, 3)),),
                (colour,),
            ),
            "search": GraphSpec(
                "search.onnx",
                (
                    TensorSpec("search", "uint8", (SEARCH, SEARCH, 3)),
                    TensorSpec("previous_size", "float32", (2,)),
                    colour,
                ),
                results,
            ),
        },
        tuning={},
        presence=PresenceSpec(),
        contents={"template.onnx": template, "search.onnx": search},
    )
    return folder


def write_square_clip(path: Path, frames: int = 20, visible: int | None = None) -> Path:
    """Write NAME.mp4 and NAME.txt: a red square moving over grey; gone after ``visible`` frames."""
    from siam_tracker_ros.evaluation.video import VideoFile

    boxes = []
    with VideoFile(path, 160, 120, 25.0) as video:
        for index in range(frames):
            frame = np.full((120, 160, 3), 120, np.uint8)
            x, y = 40 + 2 * index, 50 + index
            if visible is None or index < visible:
                frame[y : y + 20, x : x + 20] = (30, 30, 220)
                boxes.append(f"{x},{y},20,20")
            else:
                boxes.append("nan,nan,nan,nan")
            video.write(frame)
    path.with_suffix(".txt").write_text("\n".join(boxes) + "\n")
    return path


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that follows the template's colour."""
    pytest.importorskip("onnxruntime")
    return write_colour_bundle(tmp_path_factory.mktemp("models") / "colour")


@pytest.fixture(scope="session")
def square_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of a moving square, with its true boxes beside it."""
    return write_square_clip(tmp_path_factory.mktemp("clips") / "square.mp4")
