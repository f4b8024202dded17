"""FP16 and INT8 graphs for a bundle that is there: what is quantised, what ranges come from, that it still follows."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import tarfile

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.main import app
from siam_tracker_ros.deployment.calibration import CalibrationError, record_feeds
from siam_tracker_ros.deployment.export import export_bundle
from siam_tracker_ros.deployment.precisions import add_precision
from siam_tracker_ros.deployment.quantise import LAYERS, int8_graph, int8_layers
from siam_tracker_ros.evaluation.agreement import follow, in_precision
from siam_tracker_ros.evaluation.reference_session import ReferenceSession
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.inference.engines import choose_precision, graph_file
from siam_tracker_ros.training.set_clips import set_clips
from siam_tracker_ros.training.tar_sets import DataError


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch, tmp_path):
    """Compiling is test_tensorrt_compiles.py's."""
    monkeypatch.setenv("SIAM_TRACKER_TENSORRT_CHECK", str(tmp_path))


@pytest.fixture(scope="module")
def clip():
    return synthetic_sequence(320, 240, 12)


@pytest.fixture(scope="module")
def plain(following, tmp_path_factory, clip):
    folder = tmp_path_factory.mktemp("precisions") / "plain"
    bundle, _ = export_bundle(following, folder, name="plain", clips=[clip], half=False)
    return bundle


@pytest.fixture(scope="module")
def quantised(plain, tmp_path_factory, clip):
    folder = tmp_path_factory.mktemp("quantised") / "plain"
    shutil.copytree(plain.path, folder)
    return add_precision(load_bundle(folder), "int8", [clip])


@pytest.fixture
def copy(plain, tmp_path):
    folder = tmp_path / "models" / "plain"
    shutil.copytree(plain.path, folder)
    return load_bundle(folder)


def test_layers_of_backbone_neck_and_head_are_int8_and_nothing_else(quantised):
    for graph, parts in (
        ("template", {"backbone", "neck"}),
        ("search", {"backbone", "neck", "head"}),
    ):
        full = onnx.load_from_string(quantised.read(f"{graph}.onnx"))
        names = set(int8_layers(full))
        assert {n.output[0].split("/")[1] for n in full.graph.node if n.name in names} == parts
        twin = onnx.load_from_string(quantised.read(f"{graph}.int8.onnx"))
        weights = {t.name: numpy_helper.to_array(t) for t in twin.graph.initializer}
        makers = {out: node for node in twin.graph.node for out in node.output}
        quantised_layers = 0
        for node in twin.graph.node:
            sources = [makers.get(value) for value in node.input]
            from_int8 = [s is not None and s.op_type == "DequantizeLinear" for s in sources]
            if not any(from_int8):
                continue
            if node.op_type == "Add":  # a block's shortcut reads what its first layer reads
                assert node.output[0].split("/")[1] == "backbone"
                continue
            assert (
                node.op_type in LAYERS and from_int8[:2] == [True, True] and not any(from_int8[2:])
            )
            quantised_layers += 1
            picture, weight = sources[:2]
            assert weights[picture.input[2]] == 0 and weights[picture.input[2]].dtype == np.int8
            assert not weights[weight.input[2]].any()
            assert weights[weight.input[1]].shape == (weights[weight.input[0]].shape[0],)
        assert quantised_layers == len(names) > 20


def test_the_bundle_keeps_all_else_and_opens_in_int8(plain, quantised):
    assert quantised.graphs == plain.graphs and quantised.tuning == plain.tuning
    assert quantised.read("search.onnx") == plain.read("search.onnx")
    for document in ("README.md", "LICENSE", "parity.json"):
        assert (quantised.path / document).read_text() == (plain.path / document).read_text()
    assert choose_precision(quantised, "int8") == "int8"
    assert graph_file(quantised, "search", "int8") == "search.int8.onnx"
    assert choose_precision(quantised, "auto") == "fp32"
    assert quantised.files["search.int8.onnx"].bytes < 0.5 * quantised.files["search.onnx"].bytes


def test_int8_follows_what_fp32_follows(quantised, clip):
    exact, coarse = (
        follow(b, ReferenceSession(b), clip, clip.first_box)
        for b in (quantised, in_precision(quantised, "int8"))
    )
    overlaps = [a.iou(b) for a, b in zip(exact, coarse, strict=True)]
    assert np.median(overlaps) > 0.8
    assert exact != coarse  # or nothing was quantised


def test_feeds_are_spread_over_the_clips_and_hold_every_input(plain, clip):
    feeds = record_feeds(plain, [clip, clip], 8)
    assert len(feeds["template"]) == 2 and len(feeds["search"]) == 8
    for graph, spec in plain.graphs.items():
        for feed in feeds[graph]:
            assert {n: (v.dtype.name, v.shape) for n, v in feed.items()} == {
                t.name: (t.dtype, t.shape) for t in spec.inputs
            }
    pictures = [feed["search"] for feed in feeds["search"][:4]]
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(pictures))
    with pytest.raises(CalibrationError, match="no clips"):
        record_feeds(plain, [])
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        int8_graph("search", plain.read("search.onnx"), [])


def write_set(path, objects):
    rng = np.random.default_rng(1)
    pictures = {
        f"images/{i}.jpg": cv2.imencode(".jpg", rng.integers(0, 255, (120, 160, 3), np.uint8))[1]
        for i in range(len(objects))
    }
    lines = [
        json.dumps(
            {
                "image": name,
                "width": 160,
                "height": 120,
                "objects": [{"box": [40, 30, 50, 40], "category": "x", "track": track}],
                "video": video,
                "frame": index,
                "pseudo": False,
            }
        )
        for index, (name, (video, track)) in enumerate(zip(pictures, objects, strict=True))
    ]
    files = {"annotations.jsonl": "\n".join(lines).encode()}
    files.update({name: data.tobytes() for name, data in pictures.items()})
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def test_a_training_set_gives_tracks_and_stills(tmp_path, plain):
    write_set(tmp_path / "own.tar", [("v", 0), ("v", 0), ("v", 0), (None, None)])
    clips = set_clips(tmp_path / "own.tar")
    assert [len(clip) for clip in clips] == [3, 2]
    assert clips[0].first_box == (40, 30, 50, 40)
    assert {frame.shape for clip in clips for frame in clip} == {(120, 160, 3)}
    assert len(record_feeds(plain, clips, 4)["search"]) == 4
    (tmp_path / "broken.tar").write_bytes(b"no tar")
    with pytest.raises(DataError, match=r"broken\.tar: not a readable tar"):
        set_clips(tmp_path / "broken.tar")


def test_the_command_adds_fp16_and_says_what_int8_needs(copy, tmp_path):
    def run(*words):
        return CliRunner().invoke(app, ["add-precision", "--model", str(copy.path), *words])

    before = (copy.path / "bundle.yaml").read_bytes()
    for words, message in (
        (["--precision", "int8"], "INT8 needs --calibration"),
        (["--precision", "bf16"], "--precision is fp16 or int8, got 'bf16'"),
        (["--calibration", "x.tar"], "--calibration is for INT8"),
        (["--precision", "int8", "--calibration", str(tmp_path / "x.tar")], "x.tar"),
    ):
        result = run(*words)
        assert result.exit_code == 2 and message in result.output, result.output
    assert (copy.path / "bundle.yaml").read_bytes() == before
    result = run()
    assert result.exit_code == 0, result.output
    assert choose_precision(load_bundle(copy.path), "auto") == "fp16"
    assert run().exit_code == 0  # again: they are replaced
