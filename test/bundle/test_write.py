"""Writing: all of a bundle, or nothing of it."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from siam_tracker_ros.bundle import BundleError, load_bundle, write_bundle


def test_the_text_is_the_documented_schema(toy):
    data = yaml.safe_load((toy / "bundle.yaml").read_text())
    assert list(data) == [
        "schema",
        "name",
        "tracker",
        "crop",
        "graphs",
        "precisions",
        "tuning",
        "presence",
        "files",
        "provenance",
    ]
    assert data["crop"] == {
        "template": 129,
        "search": 257,
        "context": 0.5,
        "padding": "first_frame_mean",
    }
    assert data["graphs"]["template"]["inputs"] == [
        {"name": "template", "dtype": "uint8", "shape": [129, 129, 3]}
    ]
    assert data["files"]["search.onnx"] == {
        "sha256": hashlib.sha256(b"the search graph").hexdigest(),
        "bytes": 16,
    }
    assert "README.md" not in data["files"]


def test_files_may_be_given_as_paths(tmp_path, parts):
    source = tmp_path / "exported.onnx"
    source.write_bytes(b"from a file")
    parts["contents"]["search.onnx"] = source
    bundle = write_bundle(tmp_path / "toy", **parts)
    assert bundle.read("search.onnx") == b"from a file"
    assert source.exists()


def test_a_bundle_is_replaced_as_a_whole(toy, parts):
    parts["contents"]["search.onnx"] = b"a better graph"
    del parts["contents"]["parity.json"]
    assert write_bundle(toy, **parts) == load_bundle(toy)
    assert load_bundle(toy).read("search.onnx") == b"a better graph"
    assert not (toy / "parity.json").exists()
    assert [p.name for p in toy.parent.iterdir()] == ["toy"]


def test_parts_that_make_no_bundle_leave_the_old_one(toy, parts):
    before = load_bundle(toy)
    parts["tuning"]["unused"] = 1.0
    with pytest.raises(BundleError, match=r"tuning\.unused"):
        write_bundle(toy, **parts)
    assert load_bundle(toy) == before
    assert [p.name for p in toy.parent.iterdir()] == ["toy"]


def test_a_graph_without_its_file_is_refused(tmp_path, parts):
    del parts["contents"]["search.fp16.onnx"]
    with pytest.raises(BundleError, match=r"precisions\.fp16\.search: search\.fp16\.onnx is not"):
        write_bundle(tmp_path / "toy", **parts)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_something_else_is_not_replaced(tmp_path, parts):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(BundleError, match="is not a model bundle: it is not replaced"):
        write_bundle(tmp_path / "thesis", **parts)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


@pytest.mark.parametrize("name", ["../out.onnx", "/tmp/out.onnx", "bundle.yaml"])
def test_contents_stay_in_the_folder(tmp_path, parts, name):
    parts["contents"][name] = b"x"
    with pytest.raises(BundleError, match="no name for a file of a bundle"):
        write_bundle(tmp_path / "models" / "toy", **parts)
    assert not (tmp_path / "models" / "toy").exists()


def test_numbers_of_other_kinds_are_written_plainly(tmp_path, parts):
    import numpy as np

    parts["tuning"]["window"] = np.float32(0.5)
    assert write_bundle(tmp_path / "toy", **parts).tuning["window"] == 0.5


def test_values_that_yaml_cannot_hold_are_refused(tmp_path, parts):
    parts["provenance"]["metrics"] = {"auc": object()}
    with pytest.raises(BundleError, match="cannot hold <object"):
        write_bundle(tmp_path / "toy", **parts)
    assert list(tmp_path.iterdir()) == []
