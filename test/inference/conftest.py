"""A bundle whose graphs are a few sums, so that what state does can be read off the results.

template: state.mean = mean of the template (constant); state.sum = 10 (carried).
search, with m = mean of the search crop:
    state.sum.next = state.sum + m
    state.seen.next = 1 if first else state.seen + 1
    result.box = (mid + state.sum, mid + state.mean, w + tuning.window, h + mean of the memory),
        w and h: previous_size
    result.score = m / 255, not a number for an all-white crop
    result.runner_up = state.seen.next / 1000
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from siam_tracker_ros.bundle import GraphSpec, PresenceSpec, TensorSpec, write_bundle
from siam_tracker_ros.geometry import CropSpec
from siam_tracker_ros.inference import building, cuda
from siam_tracker_ros.inference.tensorrt_session import TensorRTSession

sys.path.insert(0, str(Path(__file__).parent))  # the fakes beside this file

from fake_cuda import FakeCuda
from fake_tensorrt import Behaviour, make_plan, make_tensorrt

CROP = CropSpec(template=15, search=31)
MID = 15.0
FLOAT = 1  # onnx.TensorProto.FLOAT


def grey(size, value):
    return np.full((size, size, 3), value, dtype=np.uint8)


@pytest.fixture
def crops():
    """Function (template value, search value) -> the two crops."""
    return lambda template, search: (grey(CROP.template, template), grey(CROP.search, search))


@pytest.fixture
def search():
    """Function value -> search crop."""
    return lambda value: grey(CROP.search, value)


@pytest.fixture
def tiny(tmp_path):
    """Function (memory=False, **changes of write_bundle's parts) -> a loaded bundle."""

    def make(memory=False, name="tiny", **changes):
        parts = {
            "name": name,
            "tracker": "tiny",
            "crop": CROP,
            "graphs": graph_specs(memory),
            "tuning": {"window": 0.25, "penalty": 0.0, "size_rate": 1.0},
            "presence": PresenceSpec(),
            "contents": {
                "template.onnx": template_model(),
                "search.onnx": search_model(memory),
                "README.md": "tiny",
            },
        }
        parts.update(changes)
        return write_bundle(tmp_path / name, **parts)

    return make


@pytest.fixture
def gpu_machine(monkeypatch, tmp_path):
    """Function (version, **FakeCuda's parameters) -> (tensorrt, driver): this machine then has both.

    Engines are kept below ``tmp_path``.
    """

    def make(version="10.3.0", behaviour=None, **parameters):
        driver = FakeCuda(**parameters)
        trt = make_tensorrt(version, driver, behaviour or Behaviour())
        monkeypatch.setattr(cuda, "load_library", lambda: driver)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return trt, driver

    return make


@pytest.fixture
def build_child(monkeypatch):
    """Function (**Behaviour's fields): builds then run in processes that have the stand-ins."""
    here = Path(__file__).resolve().parent

    def make(**behaviour):
        monkeypatch.setattr(building, "MODULE", "fake_build_child")
        monkeypatch.setenv("PYTHONPATH", str(here))
        monkeypatch.setenv("FAKE_BEHAVIOUR", json.dumps(behaviour))

    return make


@pytest.fixture
def fake_session():
    """Function (bundle, **TensorRTSession's parameters) -> a session on the ``gpu_machine``."""

    def make(bundle, **parameters):
        trt = sys.modules["tensorrt"]
        engines = {
            n: make_plan(bundle.read(g.file), trt.__version__) for n, g in bundle.graphs.items()
        }
        return TensorRTSession(
            bundle, engines, precision="fp32", trt=trt, gpu=cuda.find_gpu(), **parameters
        )

    return make


@pytest.fixture
def parts():
    """Functions that make the tiny bundle's graphs: specs(memory), template(), search(memory)."""
    return {"specs": graph_specs, "template": template_model, "search": search_model}


def graph_specs(memory=False):
    def f32(name, n=1):
        return TensorSpec(name, "float32", (n,))

    template = GraphSpec(
        "template.onnx",
        inputs=(TensorSpec("template", "uint8", (CROP.template, CROP.template, 3)),),
        outputs=(f32("state.mean"), f32("state.sum")),
    )
    picture = TensorSpec("search", "uint8", (CROP.search, CROP.search, 3))
    search = GraphSpec(
        "search.onnx",
        inputs=(
            picture,
            *(
                (TensorSpec("memory", "uint8", picture.shape), f32("memory_size", 2))
                if memory
                else ()
            ),
            f32("previous_size", 2),
            f32("first"),
            f32("tuning.window"),
            f32("state.mean"),
            f32("state.sum"),
            f32("state.seen"),
        ),
        outputs=(
            f32("result.box", 4),
            f32("result.score"),
            f32("result.runner_up"),
            f32("result.peak", 2),
            f32("state.sum.next"),
            f32("state.seen.next"),
        ),
    )
    return {"template": template, "search": search}


def template_model():
    return model(
        graph_specs()["template"],
        [
            *mean_nodes("template", "state.mean"),
            node("Mul", ["state.mean", "zero"], ["nothing"]),
            node("Add", ["nothing", "ten"], ["state.sum"]),
        ],
        {"zero": [0.0], "ten": [10.0]},
    )


def search_model(memory=False):
    nodes = [
        *mean_nodes("search", "m"),
        node("Add", ["state.sum", "m"], ["state.sum.next"]),
        node("Sub", ["one", "first"], ["later"]),
        node("Mul", ["state.seen", "later"], ["seen_before"]),
        node("Add", ["seen_before", "one"], ["state.seen.next"]),
        node("Add", ["state.sum", "mid"], ["cx"]),
        node("Add", ["state.mean", "mid"], ["cy"]),
        node("Split", ["previous_size"], ["w", "h"], axis=0),
        node("Add", ["w", "tuning.window"], ["new_w"]),
        *(memory_nodes() if memory else [node("Mul", ["m", "zero"], ["mm"])]),
        node("Add", ["h", "mm"], ["new_h"]),
        node("Concat", ["cx", "cy", "new_w", "new_h"], ["result.box"], axis=0),
        node("Sub", ["white", "m"], ["from_white"]),
        node("Log", ["from_white"], ["log"]),
        node("Mul", ["log", "zero"], ["nan_if_white"]),
        node("Div", ["m", "white"], ["plain_score"]),
        node("Add", ["plain_score", "nan_if_white"], ["result.score"]),
        node("Div", ["state.seen.next", "thousand"], ["result.runner_up"]),
        node("Concat", ["mid", "mid"], ["result.peak"], axis=0),
    ]
    constants = {"zero": [0.0], "one": [1.0], "mid": [MID], "white": [255.0], "thousand": [1000.0]}
    constants["hundred"] = [100.0]
    return model(graph_specs(memory)["search"], nodes, constants)


def memory_nodes():
    """mm = mean of the memory + a hundredth of its target's width."""
    return [
        *mean_nodes("memory", "mean_of_memory"),
        node("Split", ["memory_size"], ["memory_w", "memory_h"], axis=0),
        node("Div", ["memory_w", "hundred"], ["width_part"]),
        node("Add", ["mean_of_memory", "width_part"], ["mm"]),
    ]


def model(spec, nodes, constants):
    """Build ONNX bytes with the names of ``spec``."""
    onnx = pytest.importorskip("onnx")
    types = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}

    def info(tensor):
        return onnx.helper.make_tensor_value_info(tensor.name, types[tensor.dtype], tensor.shape)

    graph = onnx.helper.make_graph(
        nodes,
        spec.file,
        [info(t) for t in spec.inputs],
        [info(t) for t in spec.outputs],
        [
            onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name)
            for name, value in constants.items()
        ],
    )
    made = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    return made.SerializeToString()


def node(operator, inputs, outputs, **attributes):
    onnx = pytest.importorskip("onnx")
    return onnx.helper.make_node(operator, inputs, outputs, **attributes)


def mean_nodes(picture, name):
    return [
        node("Cast", [picture], [f"{picture}.float"], to=FLOAT),
        node("Flatten", [f"{picture}.float"], [f"{picture}.flat"], axis=0),
        node("ReduceMean", [f"{picture}.flat"], [name], axes=[1], keepdims=0),
    ]
