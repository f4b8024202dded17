"""Building for 8.6, 10 and 11: flags, types, progress, timing cache, and what the builder complains of.

The stand-ins have each version's names and no others (fake_tensorrt.MATRIX); the last tests check that
table, and the calls, against what real bindings have.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import real_bindings
from fake_tensorrt import MATRIX, VERSIONS, Behaviour, make_tensorrt

from siam_tracker_ros.inference import BuildCancelledError, EngineError
from siam_tracker_ros.inference.engine_build import BuildOptions, Progress, build_engine
from siam_tracker_ros.inference.trt_module import import_tensorrt, short_version

ROOT = Path(__file__).resolve().parents[2]
BINDINGS = "SIAM_TRACKER_TENSORRT_BINDINGS"
SET_UP = ROOT / ".tools" / "tensorrt_check"
NAMES = json.loads(real_bindings.NAMES.read_text())


@pytest.fixture
def build(parts):
    """Function (version, behaviour, **build_engine's parameters) -> (engine, what was seen)."""

    def make(version="10.3.0", behaviour=None, options=None, **parameters):
        behaviour = behaviour or Behaviour()
        trt = make_tensorrt(version, None, behaviour)
        built = build_engine(
            trt, parts["search"](), options or BuildOptions(), name="search.onnx", **parameters
        )
        return built, behaviour.seen

    return make


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds(build, version):
    built, seen = build(version)
    assert built.plan.startswith(b"FAKE ENGINE")
    assert seen["flags"] == set()  # TF32 is off: FP32 means FP32
    assert seen["tactics"] == {"EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"}
    assert seen["limits"] == {"WORKSPACE": 1 << 30}
    assert seen["strong"] == (version != "8.6.1")


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_from_10_on_types_come_from_the_graph_alone(build, version):
    _, seen = build(version, options=BuildOptions("fp16"))
    assert seen["strong"] and seen["flags"] == set()


def test_on_8_every_layer_is_pinned_to_its_type_in_the_graph(build):
    layers = {
        "convolution": ("CONVOLUTION", ["HALF"], ["HALF"]),
        "softmax": ("SOFTMAX", ["FLOAT"], ["FLOAT"]),
        "compare": ("ELEMENTWISE", ["FLOAT", "FLOAT"], ["BOOL"]),
        "gather": ("GATHER", ["FLOAT", "INT32"], ["FLOAT"]),
        "cast": ("CAST", ["HALF"], ["FLOAT"]),
        "constant": ("CONSTANT", [], ["FLOAT"]),
        "shape": ("SHAPE", ["FLOAT"], ["INT32"]),
        "indices": ("GATHER", ["INT32"], ["INT32"]),
    }
    _, seen = build("8.6.1", Behaviour(layers=list(layers.values())), BuildOptions("fp16"))
    assert seen["flags"] == {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    by_name = dict(zip(layers, seen["layers"], strict=True))

    def names(layer):
        outputs = {i: d.name for i, d in layer.output_types.items()}
        return getattr(layer.pinned, "name", None), outputs

    assert {name: names(layer) for name, layer in by_name.items()} == {
        "convolution": ("HALF", {0: "HALF"}),
        "softmax": ("FLOAT", {0: "FLOAT"}),
        "compare": ("FLOAT", {}),
        "gather": ("FLOAT", {0: "FLOAT"}),
        "cast": (None, {}),
        "constant": (None, {}),
        "shape": (None, {}),
        "indices": (None, {}),
    }


def test_on_8_fp32_sets_nothing_and_int8_only_its_flag(build):
    layer = ("CONVOLUTION", ["FLOAT"], ["FLOAT"])
    for precision, flags in (("fp32", set()), ("int8", {"INT8"})):
        _, seen = build("8.6.1", Behaviour(layers=[layer]), BuildOptions(precision))
        assert seen["flags"] == flags
        assert seen["layers"][0].pinned is None
    with pytest.raises(EngineError, match=r"8\.6\.1 cannot be told to use precision bf16"):
        build("8.6.1", options=BuildOptions("bf16"))


def test_the_fingerprint_tells_typing_and_options_apart():
    def of(version, **options):
        return BuildOptions(**options).to_json(make_tensorrt(version))

    assert of("8.6.1") != of("10.3.0") == of("11.4.0")
    assert of("10.3.0") != of("10.3.0", precision="fp16")
    assert of("10.3.0") != of("10.3.0", workspace_mib=64)
    assert of("10.3.0") != of("10.3.0", optimization_level=5)
    json.dumps(of("10.3.0"))


# --- timing cache, progress -----------------------------------------------------------------------


def test_the_timing_cache_is_used_again(build):
    first, seen = build()
    assert seen["timing cache"] == b""
    assert first.timing_cache == b"TIMES of 10.3.0"
    _, seen = build(timing_cache=first.timing_cache)
    assert seen["timing cache"] == first.timing_cache


def test_a_timing_cache_that_is_refused_is_left_out(build):
    built, seen = build(timing_cache=b"rubbish")
    assert seen["timing cache"] == b"" and built.plan


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_progress_goes_up_to_one(build, version):
    said = []
    build(version, on_progress=lambda phase, fraction: said.append((phase, fraction)))
    assert said[0] == ("reading the graph", None)
    numbers = [fraction for _, fraction in said if fraction is not None]
    assert numbers == sorted(numbers) and numbers[-1] == 1.0


def test_cancelling_stops_the_builder(build):
    with pytest.raises(BuildCancelledError, match=r"search\.onnx: the build was cancelled"):
        build(cancelled=lambda: True)


def test_nested_phases_make_one_number_that_never_goes_back(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    said = []
    progress = Progress(lambda phase, fraction: said.append(fraction))
    progress.start("all", None, 2)
    progress.start("tactics", "all", 4)
    progress.step("tactics", 1)
    assert said[-1] == pytest.approx(0.25)  # half of the first half
    progress.finish("tactics")
    progress.step("all", 0)
    assert said[-1] == pytest.approx(0.5)
    progress.start("more", "all", 10)
    assert said[-1] == pytest.approx(0.5)
    progress.step("unknown", 3)
    progress.finish("unknown")
    progress.finish("more")
    progress.finish("all")
    assert said[-1] == 1.0 and said == sorted(said)


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_missing_operator_is_said_in_the_parsers_words(build, version):
    error = ("RoiAlign", "/head/roi", "No importer registered for op: RoiAlign")
    with pytest.raises(EngineError) as caught:
        build(version, Behaviour(parse=[error, error]))
    message = str(caught.value)
    assert message.startswith(f"search.onnx: TensorRT {version} cannot read the graph: ")
    assert message.count("No importer registered for op: RoiAlign") == 1
    # 8.6 gives neither operator nor node
    assert ("operator RoiAlign of node /head/roi" in message) == (version != "8.6.1")


def test_a_damaged_graph_is_said(parts):
    trt = make_tensorrt("10.3.0")
    for onnx in (b"", b"not a graph", parts["search"]()[:200]):
        with pytest.raises(EngineError, match=r"x\.onnx: TensorRT 10\.3\.0 cannot read the graph"):
            build_engine(trt, onnx, BuildOptions(), name="x.onnx")


def test_the_builders_reason_is_passed_on(build):
    with pytest.raises(EngineError, match="cannot build it: Could not find any implementation"):
        build(behaviour=Behaviour(build="fail"))
    with pytest.raises(EngineError, match=r"out of GPU memory while building .* close what else"):
        build(behaviour=Behaviour(build="out of memory"))


def test_a_builder_that_cannot_be_made_is_said():
    trt = make_tensorrt("10.3.0")

    def refuse(logger):
        logger.log(1, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Builder = refuse
    with pytest.raises(EngineError, match="no builder here: CUDA initialization failure"):
        build_engine(trt, b"", BuildOptions(), name="x.onnx")


def test_tensorrt_that_is_absent_broken_or_too_old_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"cannot be imported .* JetPack"):
        import_tensorrt()
    old = make_tensorrt("8.6.1")
    old.__version__ = "8.2.0"
    del old.IExecutionContext.execute_async_v3
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(EngineError, match=r"TensorRT 8\.2\.0 is too old: 8\.6 is needed"):
        import_tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt", make_tensorrt("10.3.0"))
    assert short_version(import_tensorrt()) == "10.3"


# --- against real bindings ------------------------------------------------------------------------


@pytest.mark.parametrize("version", NAMES)
def test_names_and_calls_are_those_of_each_version(version):
    assert not real_bindings.differences({"version": version, **NAMES[version]}, MATRIX)


def test_a_name_that_is_gone_or_called_otherwise_is_seen():
    real = {"version": "10.3.0", **NAMES["10.3.0"]}
    real["BuilderFlag.FP16"] = None
    real["IExecutionContext.set_tensor_address"] = "set_tensor_address(self, index: int)"
    assert [line.split(":")[0] for line in real_bindings.differences(real, MATRIX)] == [
        "BuilderFlag.FP16",
        "IExecutionContext.set_tensor_address",
    ]


def test_every_name_that_the_code_writes_out_is_among_those():
    known = {*MATRIX, *real_bindings.CALLS, *real_bindings.MONITOR_CALLS}
    known |= {name.split(".")[0] for name in known}
    code = [
        file.read_text() for file in sorted((ROOT / "siam_tracker_ros" / "inference").glob("*.py"))
    ]
    used = {name for text in code for name in re.findall(r"\btrt\.([A-Za-z][\w.]*)", text)}
    assert "BuilderFlag.TF32" in used and "MemoryPoolType.WORKSPACE" in used
    plain = {"__version__", "ILogger", "ILogger.__init__", "IProgressMonitor.__init__"}
    assert not used - known - plain


def bindings():
    """Folders that the variable names, or that scripts/setup_tensorrt_check.sh made."""
    named = [Path(p) for p in os.environ.get(BINDINGS, "").split(os.pathsep) if p]
    return named or sorted(p.parent for p in SET_UP.glob("*/tensorrt_bindings"))


@pytest.mark.skipif(not bindings(), reason="needs real bindings: make check-tensorrt")
@pytest.mark.parametrize("folder", bindings(), ids=lambda folder: folder.name)
def test_real_bindings_have_what_the_stand_ins_have(folder):
    names = [*MATRIX, *real_bindings.CALLS, *real_bindings.MONITOR_CALLS]
    real = real_bindings.look(folder, names)
    assert not real_bindings.differences(real, MATRIX)
    assert real_bindings.look(folder, ["Builder.nonsense"])["Builder.nonsense"] is None
