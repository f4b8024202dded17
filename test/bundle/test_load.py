"""Loading: files are sized before they are read, and checked before they are believed."""

from __future__ import annotations

import hashlib
import os

import pytest

from siam_tracker_ros.bundle import BundleError, load_bundle


def test_a_bundle_comes_back_as_it_was_written(toy, parts):
    bundle = load_bundle(toy)
    for field in ("name", "tracker", "crop", "graphs", "tuning", "presence", "precisions"):
        assert getattr(bundle, field) == parts[field], field
    assert bundle.provenance == parts["provenance"]
    assert bundle.path == toy
    assert sorted(bundle.files) == [
        "search.fp16.onnx",
        "search.onnx",
        "template.fp16.onnx",
        "template.onnx",
    ]
    assert bundle.graph_tuning == {"window", "arm"}
    assert bundle.read("search.onnx") == b"the search graph"


def test_the_fingerprint_is_bundle_yamls_checksum(toy, edit):
    bundle = load_bundle(toy)
    assert bundle.fingerprint == hashlib.sha256((toy / "bundle.yaml").read_bytes()).hexdigest()
    edit(lambda data: data["tuning"].update(window=0.3))
    assert load_bundle(toy).fingerprint != bundle.fingerprint


def refused(toy, *words):
    with pytest.raises(BundleError) as caught:
        load_bundle(toy)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file(toy):
    (toy / "search.onnx").unlink()
    refused(toy, str(toy / "bundle.yaml"), "files.search.onnx", "the file is missing")


def test_a_file_of_another_size(toy):
    (toy / "search.onnx").write_bytes(b"half")
    refused(toy, "files.search.onnx", "has 4 bytes where 16 are listed")


def test_a_wrong_checksum(toy):
    (toy / "search.onnx").write_bytes(b"The search graph")
    refused(
        toy, "files.search.onnx", "wrong checksum", hashlib.sha256(b"The search graph").hexdigest()
    )


def test_a_file_that_grew_after_loading(toy):
    bundle = load_bundle(toy)
    (toy / "search.onnx").write_bytes(b"the search graph and more")
    with pytest.raises(BundleError, match="changed since the bundle was loaded"):
        bundle.read("search.onnx")
    (toy / "search.onnx").unlink()
    with pytest.raises(BundleError, match="No such file"):
        bundle.read("search.onnx")
    with pytest.raises(BundleError, match="not listed"):
        bundle.read("README.md")


def test_documents_need_no_checksum_and_may_be_missing(toy):
    (toy / "README.md").write_text("corrected")
    (toy / "LICENSE").unlink()
    load_bundle(toy)


def test_a_listed_document_is_checked(toy, edit):
    edit(lambda data: data["files"].update({"README.md": {"sha256": "0" * 64, "bytes": 6}}))
    refused(toy, "files.README.md", "wrong checksum")


def test_a_huge_bundle_yaml_is_not_read(toy):
    with open(toy / "bundle.yaml", "r+b") as stream:
        stream.truncate(40 << 30)  # sparse: takes no space, reading it would take minutes
    refused(toy, str(toy / "bundle.yaml"), "bytes, at most 1048576 are read")


def test_a_huge_graph_is_not_read(toy):
    with open(toy / "search.onnx", "r+b") as stream:
        stream.truncate(40 << 30)
    refused(toy, "files.search.onnx", f"has {40 << 30} bytes where 16 are listed")


def test_a_link_out_of_the_bundle_is_refused(toy, tmp_path):
    outside = tmp_path / "outside.onnx"
    outside.write_bytes((toy / "search.onnx").read_bytes())
    (toy / "search.onnx").unlink()
    (toy / "search.onnx").symlink_to(outside)
    refused(toy, "files.search.onnx", "leads out of the bundle's folder", str(outside))


def test_a_link_within_the_bundle_is_fine(toy):
    os.rename(toy / "search.onnx", toy / "real.onnx")
    (toy / "search.onnx").symlink_to("real.onnx")
    load_bundle(toy)


def test_a_bundle_installed_as_links_is_fine(toy, tmp_path):
    # What colcon build --symlink-install leaves in the package's share: every file a link.
    share = tmp_path / "share" / "toy"
    share.mkdir(parents=True)
    for file in toy.iterdir():
        (share / file.name).symlink_to(file)
    assert load_bundle(share).read("search.onnx") == b"the search graph"


def test_a_linked_folder_is_fine(toy, tmp_path):
    (tmp_path / "alias").symlink_to(toy)
    load_bundle(tmp_path / "alias")


def test_a_pipe_is_not_waited_for(toy):
    (toy / "search.onnx").unlink()
    os.mkfifo(toy / "search.onnx")
    refused(toy, "files.search.onnx", "is not a file")
