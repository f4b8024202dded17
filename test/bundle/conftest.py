"""A valid bundle to break: graphs are a few bytes, since nothing here runs them."""

from __future__ import annotations

import pytest
import yaml

from siam_tracker_ros.bundle import GraphSpec, PresenceSpec, TensorSpec, write_bundle
from siam_tracker_ros.geometry import CropSpec


def f32(name, *shape):
    return TensorSpec(name, "float32", shape or (1,))


def graphs():
    return {
        "template": GraphSpec(
            "template.onnx",
            inputs=(TensorSpec("template", "uint8", (129, 129, 3)),),
            outputs=(f32("state.z", 96, 9, 9),),
        ),
        "search": GraphSpec(
            "search.onnx",
            inputs=(
                TensorSpec("search", "uint8", (257, 257, 3)),
                f32("previous_size", 2),
                f32("first"),
                f32("tuning.window"),
                f32("tuning.arm"),
                f32("state.z", 96, 9, 9),
                f32("state.heat", 17, 17),
            ),
            outputs=(
                f32("result.box", 4),
                f32("result.score"),
                f32("result.runner_up"),
                f32("result.peak", 2),
                f32("state.heat.next", 17, 17),
            ),
        ),
    }


@pytest.fixture
def parts():
    """The parts of a valid bundle, as write_bundle takes them."""
    return {
        "name": "toy",
        "tracker": "siam_stm",
        "crop": CropSpec(template=129, search=257, context=0.5),
        "graphs": graphs(),
        "tuning": {"window": 0.42, "penalty": 0.05, "size_rate": 0.38, "arm": 1.0},
        "presence": PresenceSpec(
            "logistic", ("score", "size_change"), (4.0, -1.5), -2.0, found=0.6, lost=0.3
        ),
        "contents": {
            "template.onnx": b"the template graph",
            "search.onnx": b"the search graph",
            "template.fp16.onnx": b"the template graph, half",
            "search.fp16.onnx": b"the search graph, half",
            "README.md": "# toy\n",
            "LICENSE": "as you like",
            "parity.json": "{}",
        },
        "precisions": {"fp16": {"template": "template.fp16.onnx", "search": "search.fp16.onnx"}},
        "provenance": {"config": "toy.yaml", "metrics": {"auc": 0.5}, "teachers": []},
    }


@pytest.fixture
def toy(tmp_path, parts):
    """The folder of a valid bundle."""
    return write_bundle(tmp_path / "models" / "toy", **parts).path


@pytest.fixture
def edit(toy):
    """Function that changes the toy's bundle.yaml: edit(lambda data: ...)."""

    def change(function):
        path = toy / "bundle.yaml"
        data = yaml.safe_load(path.read_text())
        function(data)
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    return change
