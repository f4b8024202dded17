"""The certificate: what is here against FP32, what is kept, what is said where there is no GPU."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from siam_tracker_ros.bundle import BundleError, load_bundle
from siam_tracker_ros.deployment.certificate import (
    certify,
    entries,
    objections,
    read_parity,
    write_parity,
)

NO_DRIVER = "no NVIDIA driver on this machine"


def test_without_a_gpu_onnx_runtime_is_certified_and_the_rest_is_said(no_gpu, colour, clip):
    known = {"reference": "torch", "onnxruntime": {"version": "1", "outputs": [{"clip": "a"}]}}
    parity = certify(colour(), [clip], known=known)
    ((label, entry),) = entries(parity)
    assert label == "ONNX Runtime fp16"
    (outputs,), (walk,) = entry["outputs"], entry["trajectories"]
    assert outputs["frames"] == walk["frames"] == len(clip)
    assert outputs["max_difference"]["result.box"] == 0 and walk["median_iou"] == 1.0
    assert parity["tensorrt"] is None and NO_DRIVER in parity["tensorrt_reason"]
    assert parity["certificate"]["noise"][0]["clip"] == "square"
    # what was measured against torch at the export stays
    assert parity["onnxruntime"]["outputs"] == [{"clip": "a"}] and parity["reference"] == "torch"
    assert known["onnxruntime"].keys() == {"version", "outputs"}
    assert objections(parity) == []
    assert json.loads(json.dumps(parity)) == parity


def test_on_a_gpu_every_precision_is_certified(gpu, colour, clip):
    parity = certify(colour(), [clip], known={"tensorrt_reason": "not measured"})
    names = ["ONNX Runtime fp16", "TensorRT fp32", "TensorRT fp16"]
    assert [label for label, _ in entries(parity)] == names
    assert "tensorrt_reason" not in parity
    assert parity["tensorrt"]["version"] == "TensorRT 10.3.0"
    assert parity["tensorrt"]["device"] == "Fake GPU 9000, compute capability 9.0"
    for _, entry in entries(parity):
        assert entry["trajectories"][0]["min_iou"] == 1.0
    assert objections(parity) == []


def test_twins_that_do_something_else_are_objected_to(gpu, colour, clip):
    """A certificate that could not fail would certify nothing."""
    found = objections(certify(colour("wrong", wrong=True), [clip]))
    assert [line.split(":")[0] for line in found] == ["ONNX Runtime fp16", "TensorRT fp16"]
    assert all("square: " in line for line in found)


def test_an_engine_that_cannot_be_built_is_a_result(gpu, colour, clip):
    gpu[1].build = "fail"
    parity = certify(colour(), [clip])
    for precision in ("fp32", "fp16"):
        assert "cannot build it" in parity["tensorrt"]["precisions"][precision]["failed"]
    assert [line.split(":")[0] for line in objections(parity)] == ["TensorRT fp32", "TensorRT fp16"]


def test_a_gpus_certificate_stays_where_there_is_none_if_the_graphs_are_the_same(
    no_gpu, colour, clip
):
    bundle = colour()
    graphs = {name: entry.sha256 for name, entry in bundle.files.items()}
    kept = {"version": "TensorRT 8.6", "graphs": graphs, "precisions": {"fp32": {}}}
    assert certify(bundle, [clip], known={"tensorrt": kept})["tensorrt"] == kept
    other = {**kept, "graphs": {**graphs, "search.onnx": "0" * 64}}
    parity = certify(bundle, [clip], known={"tensorrt": other})
    assert parity["tensorrt"] is None and NO_DRIVER in parity["tensorrt_reason"]


def test_a_parity_file_is_replaced_as_a_whole(colour, tmp_path):
    bundle = replace(colour(), path=tmp_path)
    assert read_parity(bundle) == {}
    assert write_parity(bundle, {"a": 1}).read_text() == '{\n "a": 1\n}\n'
    assert read_parity(bundle) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["parity.json"]
    with pytest.raises(BundleError, match="cannot be written"):
        write_parity(replace(bundle, path=tmp_path / "gone"), {})
    (tmp_path / "parity.json").write_text("{")
    with pytest.raises(BundleError, match="delete it to start anew"):
        read_parity(bundle)


def test_the_verb_writes_into_the_bundle_or_elsewhere(no_gpu, colour, tmp_path):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from siam_tracker_ros.cli.main import app

    shutil.copytree(colour().path, tmp_path / "colour")
    options = ["certify", "--model", str(tmp_path / "colour"), "--frames", "4"]
    result = CliRunner().invoke(app, [*options, "--json", str(tmp_path / "c.json")])
    assert "ONNX Runtime fp16" in result.output and result.exit_code in (0, 1), result.output
    assert read_parity(load_bundle(tmp_path / "colour")) == {}
    result = CliRunner().invoke(app, options)
    assert NO_DRIVER in " ".join(result.output.split())
    assert read_parity(load_bundle(tmp_path / "colour"))["certificate"]["graphs"]
    (tmp_path / "colour" / "parity.json").write_text("[1]")
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 2 and "is no JSON object" in result.output
