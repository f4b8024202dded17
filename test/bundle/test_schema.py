"""bundle.yaml: what is wrong is refused, and the message names file and field."""

from __future__ import annotations

import math

import pytest

from siam_tracker_ros.bundle import BundleError, load_bundle


def put(path, value):
    """Return a function that sets (or, with ..., removes) the field at a dotted path."""

    def change(data):
        *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
        for key in parents:
            data = data[key]
        if value is ...:
            del data[last]
        else:
            data[last] = value

    return change


def refused(toy, edit, change, *words):
    edit(change)
    with pytest.raises(BundleError) as caught:
        load_bundle(toy)
    message = str(caught.value)
    for word in (str(toy / "bundle.yaml"), *words):
        assert word in message
    assert "Traceback" not in message


def test_a_newer_schema_is_refused_before_anything_else(toy, edit):
    def newer(data):
        data.clear()
        data.update(schema=2, shape_of_things_to_come=True)

    refused(toy, edit, newer, "schema: 2 is newer", "install a newer version")


@pytest.mark.parametrize(
    "path",
    [
        "schema",
        "name",
        "tracker",
        "crop",
        "crop/template",
        "crop/padding",
        "graphs",
        "graphs/template",
        "graphs/search",
        "graphs/search/file",
        "graphs/search/inputs",
        "graphs/search/inputs/0/dtype",
        "tuning",
        "presence",
        "presence/kind",
        "presence/features",
        "presence/weights",
        "presence/found",
        "files",
        "files/search.onnx/sha256",
        "files/search.onnx/bytes",
        "precisions/fp16/search",
    ],
)
def test_missing_fields_are_named(toy, edit, path):
    refused(toy, edit, put(path, ...), path.split("/")[-1])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("colour", "colour: unknown field"),
        ("crop/colour", "crop.colour: unknown field"),
        ("graphs/colour", "graphs.colour: unknown field"),
        ("graphs/search/colour", "graphs.search.colour: unknown field"),
        ("graphs/search/inputs/0/colour", "graphs.search.inputs[0].colour: unknown field"),
        ("presence/colour", "presence.colour: unknown field"),
        ("files/search.onnx/colour", "files.search.onnx.colour: unknown field"),
        ("precisions/fp16/colour", "precisions.fp16.colour: unknown field"),
        ("provenance/colour", "provenance.colour: unknown field"),
    ],
)
def test_unknown_fields_are_named(toy, edit, path, said):
    refused(toy, edit, put(path, 1), said)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("schema", "one", "schema: must be a whole number"),
        ("schema", True, "schema: must be a whole number"),
        ("schema", 0, "schema: must be in [1"),
        ("name", "two words", "name: must be a name"),
        ("name", "../up", "name: must be a name"),
        ("name", 7, "name: must be a name"),
        ("tracker", "Siam STM", "tracker: must be a name"),
        ("crop", [127, 255], "crop: must be a mapping, got list"),
        ("crop/template", 128, "crop.template must be odd"),
        ("crop/search", 256, "crop.search must be odd"),
        ("crop/search", 255.0, "crop.search: must be a whole number"),
        ("crop/context", "half", "crop.context: must be a number"),
        ("crop/context", math.inf, "crop.context: must be a number in"),
        ("crop/context", math.nan, "crop.context: must be a number in"),
        ("crop/context", 10**400, "crop.context: must be a number in"),
        ("crop/context", -1, "crop.context must be in"),
        ("crop/padding", "black", "crop.padding: must be first_frame_mean"),
        ("graphs/search/file", "else.onnx", "graphs.search.file: else.onnx is not listed"),
        ("graphs/search/inputs", {}, "graphs.search.inputs: must be a list"),
        ("graphs/search/inputs/0/dtype", "uint16", "graphs.search.inputs[0].dtype: must be one of"),
        ("graphs/search/inputs/0/shape", [257, 0, 3], "graphs.search.inputs[0].shape"),
        ("graphs/search/inputs/0/shape", [257, "n", 3], "graphs.search.inputs[0].shape"),
        ("graphs/search/inputs/6/shape", [1 << 20, 1 << 20], "graphs.search.inputs[6].shape"),
        ("graphs/search/inputs/1/name", "search", "graphs.search.inputs[1].name: search is given"),
        ("graphs/search/inputs/1/name", "a b", "graphs.search.inputs[1].name: must be a name"),
        ("tuning/window", "wide", "tuning.window: must be a number"),
        ("tuning/window", 2.0, "tuning.window: must be in [0, 1]"),
        ("tuning/penalty", -1, "tuning.penalty: must be in [0, 10]"),
        ("tuning/unused", 1.0, "tuning.unused: is read by no graph"),
        ("presence/kind", "oracle", "presence.kind: must be uncalibrated or logistic"),
        ("presence/features", ["beauty", "score"], "presence.features: unknown feature 'beauty'"),
        ("presence/features", ["score", "score"], "presence.features"),
        ("presence/weights", [1.0], "presence.weights: must be one for each feature (2)"),
        ("presence/weights", [1.0, "x"], "presence.weights: must be a number"),
        ("presence/lost", 0.7, "presence.lost: must not be above found"),
        ("presence/found", 1.5, "presence.found: must be a number in [0, 1]"),
        ("files", [], "files: must be a mapping"),
        ("files/search.onnx/sha256", "ABC", "files.search.onnx.sha256: must be 64"),
        ("files/search.onnx/bytes", -1, "files.search.onnx.bytes: must be in"),
        ("files/search.onnx/bytes", 1 << 40, "files.search.onnx.bytes: must be in"),
        ("precisions", [], "precisions: must be a mapping"),
        ("precisions/fp16/search", "x.onnx", "precisions.fp16.search: x.onnx is not listed"),
        ("provenance", "mine", "provenance: must be a mapping"),
    ],
)
def test_wrong_values_are_named(toy, edit, path, value, said):
    refused(toy, edit, put(path, value), said)


def test_uncalibrated_presence_has_thresholds_only(toy, edit):
    refused(toy, edit, put("presence/kind", "uncalibrated"), "presence.features: unknown field")
    edit(put("presence", {"kind": "uncalibrated", "found": 0.5, "lost": 0.5}))
    assert load_bundle(toy).presence.weights == ()


INPUTS, OUTPUTS = "graphs/search/inputs", "graphs/search/outputs"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (f"{INPUTS}/0", ..., "graphs.search.inputs: search is missing"),
        ("graphs/template/inputs/0", ..., "graphs.template.inputs: template is missing"),
        (f"{INPUTS}/0/shape", [255, 255, 3], "search must be uint8 [257, 257, 3], got uint8 [255"),
        (f"{INPUTS}/0/dtype", "float32", "search must be uint8 [257, 257, 3], got float32"),
        (f"{INPUTS}/1/shape", [1, 2], "previous_size must be float32 [2], got float32 [1, 2]"),
        (f"{INPUTS}/2/dtype", "bool", "first must be float32 [1], got bool [1]"),
        (f"{INPUTS}/3/shape", [2], "tuning.window must be float32 [1], got float32 [2]"),
        (f"{INPUTS}/3/name", "tuning.speed", "tuning.speed has no default"),
        (f"{INPUTS}/3/name", "colour", "colour is no input that a search graph may have"),
        ("graphs/template/outputs/0/name", "z", "z: a template graph's outputs are called state."),
        ("graphs/template/outputs/0/name", "state.z.next", "a template graph's outputs are called"),
        (f"{OUTPUTS}/0", ..., "graphs.search.outputs: result.box is missing"),
        (f"{OUTPUTS}/3", ..., "graphs.search.outputs: result.peak is missing"),
        (f"{OUTPUTS}/0/shape", [1, 4], "result.box must be float32 [4], got float32 [1, 4]"),
        (f"{OUTPUTS}/1/dtype", "float16", "result.score must be float32 [1], got float16 [1]"),
        (f"{OUTPUTS}/4/name", "state.heat", "state.heat is no output that a search graph may have"),
        (f"{OUTPUTS}/4/name", "map", "map is no output that a search graph may have"),
        (f"{OUTPUTS}/4", ..., "state.heat is written neither by the template graph nor by"),
        (f"{OUTPUTS}/4/shape", [25, 25], "state.heat.next is float32 [25, 25], the search graph"),
        ("graphs/template/outputs/0/shape", [3], "state.z is float32 [3], the search graph reads"),
        (f"{INPUTS}/2", ..., "first is missing: state.heat has no value before the first frame"),
        (f"{INPUTS}/5", ..., "graphs.template.outputs: state.z is read by no graph"),
        (f"{INPUTS}/6", ..., "graphs.search.outputs: state.heat.next is read by no graph"),
    ],
)
def test_graphs_that_break_the_contract_are_named(toy, edit, path, value, said):
    refused(toy, edit, put(path, value), said)


def test_memory_is_a_search_crop(toy, edit):
    assert not load_bundle(toy).reads_memory
    memory = {"name": "memory", "dtype": "uint8", "shape": [257, 257, 3]}
    edit(lambda data: data["graphs"]["search"]["inputs"].append(memory))
    assert load_bundle(toy).reads_memory
    edit(put("graphs/search/inputs/7/shape", [129, 129, 3]))
    with pytest.raises(BundleError, match=r"memory must be uint8 \[257, 257, 3\]"):
        load_bundle(toy)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../search.onnx", "a/../../b.onnx", "C:\\x.onnx", "./a", "", "a//b"]
)
def test_files_outside_the_bundle_are_refused(toy, edit, name):
    def change(data):
        data["files"][name] = {"sha256": "0" * 64, "bytes": 1}

    refused(toy, edit, change, "files")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping, got nothing"),
        ("[1, 2]", "must be a mapping, got list"),
        ("schema: [1", "not readable as YAML"),
        ("schema: 1\nschema: 1\n", "given twice"),
        ("a: &x [1]\nb: *x\n", "aliases are not allowed"),
        ("a: !!python/object/apply:os.system [echo]\n", "not readable as YAML"),
        ("? [1, 2]\n: 3\n", "not readable as YAML"),
        ("1: 2\n", "keys must be text"),
        pytest.param("a: " + "[" * 5000, "not readable as YAML", id="deep"),
        ("a: 2001-99-99\n", "not readable as YAML"),
    ],
)
def test_texts_that_are_no_bundle(toy, text, said):
    (toy / "bundle.yaml").write_text(text)
    with pytest.raises(BundleError) as caught:
        load_bundle(toy)
    assert str(toy / "bundle.yaml") in str(caught.value)
    assert said in str(caught.value)


def test_text_that_is_not_utf8(toy):
    (toy / "bundle.yaml").write_bytes(b"schema: 1 \xff")
    with pytest.raises(BundleError, match="not UTF-8"):
        load_bundle(toy)
