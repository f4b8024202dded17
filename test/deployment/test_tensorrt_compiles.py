"""TensorRT's own parser and compiler take every graph that we ship and make, in FP32, FP16 and INT8.

Needs what scripts/setup_tensorrt_check.sh sets up (no GPU); see docs/quantisation.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.deployment.calibration import record_feeds
from siam_tracker_ros.deployment.compile_check import check_folder, compile_errors
from siam_tracker_ros.deployment.half import half_graph
from siam_tracker_ros.deployment.quantise import int8_graph
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence

pytestmark = pytest.mark.skipif(
    check_folder() is None, reason="needs the TensorRT check: make check-tensorrt"
)

MODELS = Path(__file__).parents[2] / "models"


def graph(node, shape, out_type=TensorProto.FLOAT, weights=()):
    """A graph of one node of ``x``; its output has no dimensions that anybody could rely on."""
    made = helper.make_graph(
        [node],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", out_type, None)],
        list(weights),
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()


def scattered(reduction):
    indices = onnx.numpy_helper.from_array(np.array([[0, 2]], np.int64), "i")
    updates = onnx.numpy_helper.from_array(np.ones((1, 2), np.float32), "u")
    node = helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=1, reduction=reduction)
    return graph(node, [1, 4], weights=[indices, updates])


@pytest.fixture(scope="module")
def answers(small_bundle):
    """What is said of every graph; one process compiles them all."""
    graphs = {
        "arg-min of a vector": graph(
            helper.make_node("ArgMin", ["x"], ["y"]), [9], TensorProto.INT64
        ),
        "arg-min of a row": graph(
            helper.make_node("ArgMin", ["x"], ["y"], axis=1), [1, 9], TensorProto.INT64
        ),
        "scattered sums": scattered("add"),
        "scattered": scattered("none"),
        "rubbish": b"no graph",
    }
    for folder in sorted(MODELS.iterdir()):
        bundle = load_bundle(folder)
        for name, spec in bundle.graphs.items():
            data = bundle.read(spec.file)
            graphs[f"{bundle.tracker} {name}"] = data
            shipped = bundle.precisions.get("fp16")
            graphs[f"{bundle.tracker} {name} fp16"] = (
                bundle.read(shipped[name]) if shipped else half_graph(name, data)
            )
    feeds = record_feeds(small_bundle, [synthetic_sequence(320, 240, 4)])
    for name, spec in small_bundle.graphs.items():
        graphs[f"small {name} int8"] = int8_graph(name, small_bundle.read(spec.file), feeds[name])
    return compile_errors(graphs)


def test_every_shipped_graph_compiles_in_fp32_and_fp16(answers):
    for tracker in ("siam_stm", "im_siam", "spm_tracker", "stm_track"):
        for name in ("template", "search"):
            for precision in ("", " fp16"):
                assert answers[f"{tracker} {name}{precision}"] is None


def test_int8_compiles(answers):
    assert answers["small template int8"] is None and answers["small search int8"] is None


def test_what_the_parser_lacks_is_refused_and_said(answers):
    assert answers["arg-min of a row"] is None and answers["scattered"] is None
    for name, words in (
        ("arg-min of a vector", "cannot read the graph"),
        ("scattered sums", "reduction"),
        ("rubbish", "cannot read the graph"),
    ):
        assert words in (answers[name] or ""), name
