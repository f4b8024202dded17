"""Opening a bundle where there is a GPU (a stand-in): cache, builds, choice and fallback."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest
from fake_tensorrt import Behaviour

from siam_tracker_ros.inference import (
    BackendError,
    BuildCancelledError,
    CacheError,
    EngineBuild,
    EngineError,
    EnginesMissingError,
    open_session,
)

SIZE = (8.0, 6.0)


@pytest.fixture
def machine(gpu_machine, build_child, tmp_path):
    """Function (behaviour here, **behaviour of the build) -> (tensorrt, driver, cache folder)."""

    def make(here=None, **building):
        trt, driver = gpu_machine(behaviour=here)
        build_child(**building)
        return trt, driver, tmp_path / "cache" / "siam_tracker_ros" / "engines"

    return make


def why_to_build(bundle, backend="auto", **parameters):
    """Why engines would be built, or None; nothing is."""
    try:
        open_session(bundle, backend, build=False, intra_op_threads=1, **parameters).close()
    except EnginesMissingError as error:
        return str(error).removeprefix(f"{bundle.name}: engines have to be built: ")
    return None


def engines(folder):
    return sorted(folder.glob("*.engine"))


def spoil(folder, change):
    for path in engines(folder):
        path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(("backend", "why"), [("auto", "there is a GPU"), ("tensorrt", "as asked")])
def test_engines_are_built_once_then_come_from_the_cache(tiny, crops, machine, backend, why):
    _, _, folder = machine()
    bundle, lines = tiny(), []
    assert why_to_build(bundle, backend) == "there is none yet"
    first = open_session(bundle, backend, log=lines.append)
    assert lines[0] == "tiny: building TensorRT engines (fp32), once: there is none yet"
    assert any(line.startswith("building the engine of search:") for line in lines)
    assert lines[-1] == (
        f"tiny on TensorRT 10.3 fp32 on Fake GPU 9000, engines just built (backend {backend}: {why})"
    )
    assert len(engines(folder)) == 3  # two graphs, and the builder's measurements
    assert why_to_build(bundle, backend) is None
    lines.clear()
    second = open_session(bundle, backend, log=lines.append)
    assert lines == [
        f"tiny on TensorRT 10.3 fp32 on Fake GPU 9000, engines from the cache "
        f"(backend {backend}: {why})"
    ]
    assert first.start(*crops(40, 7), SIZE) == second.start(*crops(40, 7), SIZE)
    assert first.fallback is second.fallback is None
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:-7], "bytes where"),
        (lambda data: b"", "its file has 0 bytes"),
        (lambda data: bytes(len(data)), "wrong checksum"),
    ],
)
def test_damaged_engines_are_built_again(tiny, crops, machine, change, why):
    _, _, folder = machine()
    bundle, lines = tiny(), []
    open_session(bundle, "tensorrt").close()
    spoil(folder, change)
    assert why in why_to_build(bundle, "tensorrt")
    session = open_session(bundle, "tensorrt", log=lines.append)
    assert why in lines[0] and "engines just built" in lines[-1]
    assert session.start(*crops(40, 7), SIZE).score == pytest.approx(7 / 255)
    session.close()


def test_an_engine_that_fits_its_side_car_but_does_not_load_is_built_again(tiny, machine):
    _, _, folder = machine()
    bundle, lines = tiny(), []
    open_session(bundle, "tensorrt").close()
    # Somebody with this user's rights put something else there, side-car and all.
    import hashlib
    import json

    spoil(folder, lambda data: b"hostile")
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        content.update(bytes=7, sha256=hashlib.sha256(b"hostile").hexdigest())
        path.write_text(json.dumps(content))
    session = open_session(bundle, "tensorrt", log=lines.append)
    assert "cannot be loaded" in lines[0] and "removed from the cache and built again" in lines[0]
    assert "engines just built" in lines[-1]
    session.close()
    assert why_to_build(bundle, "tensorrt") is None


def test_an_upgrade_is_noticed_and_said(tiny, machine, gpu_machine, monkeypatch):
    machine()
    bundle, lines = tiny(), []
    open_session(bundle).close()
    gpu_machine("11.4.0")
    monkeypatch.setenv("FAKE_VERSION", "11.4.0")
    session = open_session(bundle, log=lines.append)
    assert "it was built for something else: tensorrt: 10.3.0, now 11.4.0" in lines[0]
    assert "tiny on TensorRT 11.4 fp32" in lines[-1]
    session.close()


def test_force_rebuild(tiny, machine):
    _, _, folder = machine()
    bundle, lines = tiny(), []
    open_session(bundle).close()
    before = {p: p.stat().st_mtime_ns for p in folder.glob("tiny*.engine")}
    assert why_to_build(bundle, force_rebuild=True) == "as asked"
    open_session(bundle, force_rebuild=True, log=lines.append).close()
    assert lines[0].endswith("once: as asked")
    assert all(p.stat().st_mtime_ns > before[p] for p in folder.glob("tiny*.engine"))


def test_another_cache_folder(tiny, machine, tmp_path):
    _, _, folder = machine()
    open_session(tiny(), cache_dir=tmp_path / "mine").close()
    assert len(engines(tmp_path / "mine")) == 3
    assert not folder.exists()


def test_progress_goes_where_it_is_asked_to(tiny, machine):
    machine()
    seen = []
    open_session(tiny(), on_progress=seen.append).close()
    assert {p.graph for p in seen} == {"template", "search"}
    assert str(seen[-1]).startswith("building the engine of search: 100 % Building engine (")


# --- fallback -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fail", "crash", "out of memory"])
def test_a_failing_build_falls_back_only_if_allowed(tiny, machine, kind):
    machine(build=kind)
    bundle, lines = tiny(), []
    with pytest.raises(EngineError):
        open_session(bundle, "tensorrt")
    with pytest.raises(EngineError):
        open_session(bundle, "auto", allow_fallback=False)
    for backend, allowed in (("auto", None), ("tensorrt", True)):
        lines.clear()
        session = open_session(
            bundle, backend, allow_fallback=allowed, intra_op_threads=1, log=lines.append
        )
        assert session.description.startswith("ONNX Runtime")
        assert session.fallback
        assert any(line.startswith("TensorRT cannot be used: ") for line in lines)
        assert lines[-1].endswith(f"(backend {backend}: TensorRT cannot be used)")
        session.close()


def test_out_of_gpu_memory_when_opening_keeps_the_cache(tiny, machine):
    _, driver, folder = machine()
    bundle = tiny()
    open_session(bundle).close()
    before = [(p, p.stat().st_mtime_ns) for p in engines(folder)]
    driver.total = driver.used + 100
    with pytest.raises(BackendError, match="out of GPU memory"):
        open_session(bundle, "tensorrt")
    session = open_session(bundle, "auto", intra_op_threads=1)
    assert "out of GPU memory" in session.fallback
    session.close()
    assert [(p, p.stat().st_mtime_ns) for p in engines(folder)] == before


def test_a_cache_folder_that_others_can_write_is_refused(tiny, machine, tmp_path):
    machine()
    wide = tmp_path / "wide"
    wide.mkdir()
    wide.chmod(0o777)
    with pytest.raises(CacheError, match="everybody can write to it"):
        open_session(tiny(), "tensorrt", cache_dir=wide)
    session = open_session(tiny(), "auto", cache_dir=wide, intra_op_threads=1)
    assert "everybody can write to it" in session.fallback
    session.close()
    assert list(wide.iterdir()) == []


def test_tensorrt_that_is_not_installed(tiny, machine, monkeypatch):
    machine()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bundle, lines = tiny(), []
    with pytest.raises(BackendError, match=r"TensorRT cannot be imported.*auto or onnxruntime"):
        open_session(bundle, "tensorrt")
    auto = open_session(bundle, allow_fallback=False, log=lines.append, intra_op_threads=1)
    assert "(backend auto: TensorRT cannot be imported" in lines[0] and len(lines) == 1
    assert auto.fallback is None  # auto asks for what is there
    asked = open_session(bundle, "tensorrt", allow_fallback=True, intra_op_threads=1)
    assert "cannot be imported" in asked.fallback
    assert why_to_build(bundle) is None
    auto.close()
    asked.close()


def test_a_precision_that_the_bundle_lacks(tiny, machine):
    machine()
    with pytest.raises(EngineError, match="tiny has no fp16 graphs"):
        open_session(tiny(), "tensorrt", precision="fp16")
    with pytest.raises(BackendError, match="unknown precision 'half'"):
        open_session(tiny(), precision="half")


@pytest.mark.parametrize(("backend", "allowed"), [("auto", True), ("tensorrt", False)])
def test_not_to_build_is_no_reason_to_fall_back(tiny, machine, backend, allowed):
    _, _, folder = machine()
    with pytest.raises(EnginesMissingError, match="tiny: engines have to be built: there is none"):
        open_session(tiny(), backend, build=False, allow_fallback=allowed)
    assert engines(folder) == []


def test_engines_that_do_not_load_are_removed_where_none_are_to_be_built(tiny, machine):
    trt, _, folder = machine()
    bundle = tiny()
    open_session(bundle).close()
    load = trt.Runtime.deserialize_cuda_engine
    trt.Runtime.deserialize_cuda_engine = lambda self, plan: load(self, b"foreign")
    with pytest.raises(EnginesMissingError, match="there is none yet"):
        open_session(bundle, build=False)
    assert [p.name for p in engines(folder) if p.name.startswith("tiny")] == []


def test_cancelling_a_build_is_no_reason_to_fall_back(tiny, machine):
    machine(steps=1000, step_seconds=1.0)
    with pytest.raises(BuildCancelledError):
        open_session(tiny(), "auto", cancelled=lambda: True)


def test_no_runtime_before_the_driver_was_asked(tiny, machine):
    """The stand-in stops the test, as TensorRT 8.6 stops the process."""
    _, driver, _ = machine()
    open_session(tiny()).close()
    assert driver.initialised


def test_tracking_goes_on_while_engines_are_built(tiny, crops, search, machine):
    """What a node does with build_in_background."""
    machine(step_seconds=0.2)
    bundle = tiny()
    assert why_to_build(bundle) == "there is none yet"
    slow = open_session(bundle, "onnxruntime", intra_op_threads=1)
    slow.start(*crops(40, 7), SIZE)
    held = set(os.listdir("/proc/self/fd"))
    build = EngineBuild(bundle)
    steps = 0
    while not build.done:
        slow.step(search(5), SIZE)
        steps += 1
        time.sleep(0.01)
    assert steps > 10
    build.result()
    assert set(os.listdir("/proc/self/fd")) == held
    assert not [t for t in threading.enumerate() if t.name.startswith("build")]
    lines = []
    fast = open_session(bundle, log=lines.append)
    assert "engines from the cache" in lines[-1] and len(lines) == 1
    assert fast.start(*crops(40, 7), SIZE) == slow.start(*crops(40, 7), SIZE)
    slow.close()
    fast.close()


def test_a_gpu_without_cuda_graphs_still_runs(tiny, crops, machine):
    machine(Behaviour(execute="fail in capture"))
    lines = []
    session = open_session(tiny(), log=lines.append)
    assert any("CUDA graphs cannot be used" in line for line in lines)
    assert session.start(*crops(40, 7), SIZE).score == pytest.approx(7 / 255)
    session.close()
