"""Engines built by a real process (over stand-ins for driver and TensorRT): what it says and stores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from siam_tracker_ros.inference import (
    BackendError,
    BuildCancelledError,
    CacheError,
    CudaError,
    EngineBuild,
    EngineError,
    building,
    cuda,
)
from siam_tracker_ros.inference.engine_build import BuildOptions
from siam_tracker_ros.inference.engine_cache import EngineCache
from siam_tracker_ros.inference.engines import find_engines

PATIENCE_S = 60


@pytest.fixture
def cached(gpu_machine, tmp_path):
    """Function bundle -> (engines, what is missing) as this machine would find them."""
    trt, _ = gpu_machine()

    def find(bundle):
        cache = EngineCache(tmp_path / "engines")
        return find_engines(bundle, BuildOptions(), cache, trt, cuda.find_gpu())

    return find


@pytest.fixture
def start(build_child, tmp_path):
    """Function (bundle, behaviour=None, **EngineBuild's parameters) -> a running build."""
    builds = []

    def make(bundle, behaviour=None, **parameters):
        build_child(**(behaviour or {}))
        builds.append(EngineBuild(bundle, cache_dir=tmp_path / "engines", **parameters))
        return builds[-1]

    yield make
    for build in builds:
        build.cancel()


def until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


def files(folder):
    """What is in the cache, but locks."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_both_engines_are_built_once(tiny, start, cached):
    bundle = tiny()
    said, progress = [], []
    build = start(bundle, say=said.append, on_progress=progress.append)
    assert build.wait() == {"template": "built", "search": "built"}
    engines, missing = cached(bundle)
    assert set(engines) == {"template", "search"} and not missing
    assert "building the fp32 engine of template (template.onnx): there is none yet" in said
    assert {p.graph for p in progress} == {"template", "search"}
    assert progress[-1].fraction == 1.0 == build.progress.fraction
    assert all(p.seconds >= 0 for p in progress)
    assert start(bundle).wait() == {"template": "there", "search": "there"}


def test_force_builds_again(tiny, start, cached):
    bundle = tiny()
    start(bundle).wait()
    said = []
    assert start(bundle, force=True, say=said.append).wait() == {
        "template": "built",
        "search": "built",
    }
    assert "building the fp32 engine of search (search.onnx): as asked" in said


def test_a_version_without_progress_gives_a_heartbeat(tiny, start, monkeypatch):
    monkeypatch.setenv("FAKE_VERSION", "8.6.1")
    progress = []
    build = start(tiny(), {"steps": 1, "step_seconds": 1.0}, on_progress=progress.append)
    build.wait()
    beats = [p for p in progress if p.graph == "search" and p.phase == "choosing kernels"]
    assert len(beats) >= 3
    assert all(p.fraction is None for p in beats)
    assert beats[-1].seconds > beats[0].seconds


def test_cancelling_ends_the_process_and_leaves_the_cache(tiny, start, cached, tmp_path):
    bundle = tiny()
    build = start(bundle, {"steps": 1000, "step_seconds": 1.0})
    until(lambda: build.progress is not None, "progress")
    with pytest.raises(BuildCancelledError, match="tiny: building its engines was cancelled"):
        build.wait(cancelled=lambda: True)
    assert build.done
    assert files(tmp_path / "engines") == []
    assert cached(bundle)[1] == {"template": "there is none yet", "search": "there is none yet"}
    assert start(bundle).wait()["search"] == "built"  # nobody holds the lock any more


def test_the_build_ends_when_its_parent_dies(tiny, start):
    build = start(tiny(), {"steps": 1000, "step_seconds": 1.0})
    until(lambda: build.progress is not None, "progress")
    # What the system does to the pipe of a process that is killed.
    build._process.stdin.close()
    until(lambda: build.done, "the end of the build")
    assert build._process.returncode == 3


def test_ctrl_c_while_waiting_ends_the_process(tiny, start):
    build = start(tiny(), {"steps": 1000, "step_seconds": 1.0})

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.wait(cancelled=interrupted)
    assert build.done


def test_by_hand_it_runs_without_anything_on_stdin(tiny, build_child, tmp_path):
    build_child()
    line = [sys.executable, "-m", building.MODULE, f"--bundle={tiny().path}"]
    done = subprocess.run(
        [*line, f"--cache-dir={tmp_path / 'engines'}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=building._environment(),
    )
    events = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    assert done.returncode == 0
    assert events[-1] == {"event": "done", "graphs": {"template": "built", "search": "built"}}


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("crash", r"the build crashed \(signal SIGSEGV\)"),
        ("killed", r"the build was killed \(most often: the machine ran out of memory\)"),
        ("fail", "cannot build it: Could not find any implementation for node /conv"),
        ("out of memory", "out of GPU memory while building"),
    ],
)
def test_a_build_that_dies_or_fails_is_explained(tiny, start, cached, tmp_path, kind, what):
    bundle = tiny()
    with pytest.raises(EngineError, match=what):
        start(bundle, {"build": kind}).wait()
    assert files(tmp_path / "engines") == []
    assert start(bundle).wait()["search"] == "built"


def test_an_operator_that_is_missing_is_named(tiny, start):
    parse = [["ScatterElements", "/scatter", "reduction is not supported"]]
    with pytest.raises(EngineError, match="operator ScatterElements of node /scatter: reduction"):
        start(tiny(), {"parse": parse}).wait()


def test_a_precision_that_the_bundle_lacks_is_said(tiny, start):
    with pytest.raises(EngineError, match=r"tiny has no fp16 graphs \(it has: fp32\)"):
        start(tiny(), precision="fp16").wait()


def test_a_folder_that_others_can_write_is_refused(tiny, build_child, tmp_path):
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    build_child()
    with pytest.raises(CacheError, match=f"refused: {open_folder}: everybody can write to it"):
        EngineBuild(tiny(), cache_dir=open_folder).wait()


def test_a_bundle_changed_meanwhile_is_refused(tiny, start, parts):
    bundle = tiny()
    (bundle.path / "search.onnx").write_bytes(parts["search"](memory=True))
    with pytest.raises(BackendError, match=r"search\.onnx"):
        start(bundle).wait()


def test_two_processes_build_once(tiny, start, cached):
    bundle = tiny()
    slow = {"steps": 2, "step_seconds": 1.0}
    said = []
    first = start(bundle, slow)
    until(lambda: first.progress is not None, "progress")
    second = start(bundle, slow, say=said.append)
    did, other_did = first.wait(), second.wait()
    assert (did["template"], other_did["template"]) == ("built", "there")
    assert {did["search"], other_did["search"]} == {"built", "there"}
    assert any(
        line.startswith(f"process {first._process.pid} is building the engine of template")
        for line in said
    )
    assert not cached(bundle)[1]


def test_a_builder_killed_while_another_waits_hands_over(tiny, start, cached):
    bundle = tiny()
    first = start(bundle, {"steps": 1000, "step_seconds": 1.0})
    until(lambda: first.progress is not None, "progress")
    waiting = threading.Event()
    second = start(bundle, say=lambda line: waiting.set() if "waiting" in line else None)
    assert waiting.wait(PATIENCE_S)
    os.kill(first._process.pid, signal.SIGKILL)
    assert second.wait() == {"template": "built", "search": "built"}
    assert not cached(bundle)[1]


def test_a_listener_that_fails_does_not_stop_the_build(tiny, start):
    def bad(_):
        raise RuntimeError("no")

    assert start(tiny(), on_progress=bad, say=bad).wait()["search"] == "built"


def test_without_a_driver_the_process_says_so(tiny):
    """The real module, as the command line and the node start it."""
    try:
        cuda.load_library()
    except CudaError as error:
        assert "no NVIDIA driver" in str(error)
    else:
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(BackendError, match="no NVIDIA driver on this machine"):
        EngineBuild(tiny()).wait()
