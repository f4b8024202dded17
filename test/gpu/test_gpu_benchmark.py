"""The GPU program on stand-ins: every line but the hardware's, and every way in which a part ends."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np
import pytest

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.deployment.gpu_prepare import Subject, graph_work, prepare
from siam_tracker_ros.evaluation import gpu_benchmark, gpu_speed
from siam_tracker_ros.evaluation.agreement import RecordingError, load_steps, replay
from siam_tracker_ros.evaluation.gpu_benchmark import NO_GPU, OK, SOME_FAILED, Settings, run, spawn
from siam_tracker_ros.evaluation.gpu_inputs import (
    PreparedError,
    load_clip,
    load_walks,
    read_prepared,
)
from siam_tracker_ros.evaluation.reference_session import ReferenceSession

SIDE = 16


@pytest.fixture(scope="module")
def prepared(colour, clip, tmp_path_factory):
    """A folder as gpu-prepare makes it: a trained light bundle, and an untrained one."""
    subjects = [
        Subject(colour("light"), light=True, trained=True),
        Subject(colour("paper"), light=False, trained=False),
    ]
    out = tmp_path_factory.mktemp("gpu") / "prepared"
    return prepare(out, subjects, [clip], frames=6, recorded=4, product_side=SIDE)


@pytest.fixture
def settings(prepared, tmp_path):
    return Settings(prepared, tmp_path / "out", tmp_path / "work", 60.0, 12, copy_bytes=4096)


def here(command, limit_s):
    """A part without a process of its own."""
    assert command[:3] == [sys.executable, "-m", gpu_benchmark.MODULE] and limit_s > 0
    return gpu_benchmark.main(command[3:]), ""


def results(settings):
    content = json.loads((settings.out / "gpu.json").read_text())
    return content, (settings.out / "gpu.md").read_text()


def test_everything_is_measured_and_nothing_twice(gpu, settings):
    said = []
    assert run(settings, here, said.append) == OK, said
    content, table = results(settings)
    assert content["left_out"] == {}
    parts = content["parts"]
    assert list(parts) == [
        *("machine", "copy", "product-fp16", "light-fp16", "paper-fp16"),
        *("light-fp32", "paper-fp32", "product-fp32"),
    ]
    assert parts["machine"]["gpu"] == "Fake GPU 9000"
    assert parts["copy"]["bytes_per_s"] > 0
    assert parts["product-fp16"]["m_k_n"] == [SIDE, SIDE, SIDE]
    light = parts["light-fp16"]
    assert light["build"]["graphs"] == {"template": "built", "search": "built"}
    assert min(light["build"]["engine_bytes"].values()) > 100
    assert light["load"]["gpu_memory_mib"] > 0
    assert light["parity"]["frames"] == 4
    assert light["parity"]["max_difference"]["result.box"] == 0
    assert light["speed"]["gpu_ms"]["count"] == light["speed"]["call_ms"]["count"] == 12
    assert light["speed"]["cuda_graphs"] is True
    assert light["copies"]["state_stays"] is True
    assert [len(light["copies"]["bytes"][k]) for k in ("host to gpu", "gpu to host")] == [1, 1]
    assert light["copies"]["driver_calls"]["cuGraphLaunch"] == 1
    walk = light["trajectories"]["square"]
    assert walk["frames"] == 6 and walk["median_iou"] == 1.0 and walk["lost"] == 0
    assert "trajectories" not in parts["paper-fp16"]
    (row,) = [line for line in table.splitlines() if line.startswith("| light | fp16 |")]
    assert "| 1.0000 | 0 | 1/1 |" in row
    assert "Without figures" not in table
    said.clear()
    assert run(settings, here, said.append) == OK
    assert all(line.endswith("measured before") for line in said)


def test_without_a_gpu_it_stops_with_a_word_and_its_own_status(no_gpu, settings):
    said = []
    assert run(settings, here, said.append) == NO_GPU
    content, table = results(settings)
    assert "no NVIDIA driver on this machine" in content["stopped"] and content["stopped"] in table
    assert said[-1] == content["stopped"]
    assert list(content["parts"]) == ["machine"]


def test_a_failing_part_or_section_is_recorded_and_the_rest_goes_on(gpu, settings, monkeypatch):
    def broken(session, recording):
        raise RuntimeError("the counter broke")

    monkeypatch.setattr(gpu_speed, "measure_copies", broken)

    def spawner(command, limit_s):
        part = next((word for word in command if word.startswith("--part=")), "")
        if part == "--part=product-fp16":
            return -signal.SIGSEGV, "TensorRT said its last"
        gpu[1].build = "fail" if part == "--part=paper-fp16" else ""
        return here(command, limit_s)

    assert run(settings, spawner, lambda _: None) == SOME_FAILED
    content, table = results(settings)
    parts = content["parts"]
    assert parts["product-fp16"] == {"ended": "killed by signal 11: TensorRT said its last"}
    assert "cannot build it" in parts["paper-fp16"]["build"]["failed"]
    assert parts["paper-fp16"].keys() == {"build", "complete"}
    assert parts["light-fp16"]["copies"] == {"failed": "RuntimeError: the counter broke"}
    assert parts["light-fp16"]["trajectories"]["square"]["frames"] == 6
    assert parts["light-fp32"]["speed"]["gpu_ms"]["p50"] > 0
    assert "* product-fp16: killed by signal 11" in table
    assert "* light-fp16, copies: RuntimeError: the counter broke" in table


def test_what_there_is_no_time_for_is_left_out_and_said(gpu, settings):
    short = Settings(*(settings.prepared, settings.out, settings.work, 0.1, 12, 4096))
    assert run(short, here, lambda _: None) == SOME_FAILED
    content, table = results(short)
    assert content["parts"].keys() == {"machine"}
    assert content["left_out"]["light-fp16"] == "no time was left of 0.1 minutes"
    assert "* light-fp16: no time was left" in table


def test_torch_is_another_programs_part(gpu, settings, monkeypatch):
    monkeypatch.setattr(gpu_benchmark, "parts_of", lambda *_: [gpu_benchmark.Part("light-torch")])
    seen = []

    def spawner(command, limit_s):
        if command[0] != "python-with-torch":
            return here(command, limit_s)
        seen.append(command)
        into = next(word for word in command if word.startswith("--into=")).partition("=")[2]
        figures = {"eager_fp32": {"gpu_ms": {"p50": 1.5}}, "complete": True}
        with open(into, "w") as file:
            json.dump(figures, file)
        return 0, ""

    with_torch = Settings(
        *(settings.prepared, settings.out, settings.work, 60, 12), torch_python="python-with-torch"
    )
    assert run(with_torch, spawner, lambda _: None) == OK
    assert seen[0][1:3] == ["-m", "siam_tracker_ros.deployment.torch_speed"]
    assert results(with_torch)[0]["parts"]["light-torch"]["eager_fp32"]["gpu_ms"]["p50"] == 1.5


def test_a_process_that_hangs_is_stopped_and_one_that_dies_is_told_apart():
    status, said = spawn([sys.executable, "-c", "print('hm', flush=True); input(); 1/0"], 60)
    assert status == 1 and said.splitlines()[0] == "hm" and "EOFError" in said
    status, said = spawn([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert status == -signal.SIGKILL and said.endswith("stopped after 0 s")


def test_what_was_prepared_is_what_the_reference_saw(prepared, clip):
    listing = read_prepared(prepared)
    assert listing.clips == ("square",) and set(listing.bundles) == {"light", "paper"}
    stored = load_clip(prepared / "clips" / "square.npz")
    np.testing.assert_array_equal(stored.frames, np.stack(clip.frames[:6]))
    assert stored.first_box == clip.first_box
    walk, noise = load_walks(prepared / "walks" / "light.npz", ["square"])["square"]
    assert len(walk) == len(noise) == 6 and walk[0] != noise[0]
    recording = load_steps(prepared / "recordings" / "light.npz")
    same = replay(recording, ReferenceSession(load_bundle(prepared / "bundles" / "light")))
    assert same["frames"] == 4 and max(same["max_difference"].values()) == 0


def test_damaged_files_are_named(prepared, tmp_path):
    with pytest.raises(PreparedError, match=r"prepared\.json: not a prepared folder"):
        read_prepared(tmp_path)
    broken = tmp_path / "x.npz"
    broken.write_bytes((prepared / "recordings" / "light.npz").read_bytes()[:500])
    with pytest.raises(RecordingError, match=r"x\.npz"):
        load_steps(broken)
    with pytest.raises(PreparedError, match=r"x\.npz"):
        load_clip(broken)


def test_work_is_counted():
    import onnx
    from onnx import TensorProto, helper

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    weight = onnx.numpy_helper.from_array(np.zeros((6, 2, 3, 3), "f4"), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["y"], ["flat"], axis=2),
        helper.make_node("MatMul", ["flat", "v"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, 4, 5, 5), value("v", 25, 7)], [value("z", 6, 7)], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    work = graph_work(model.SerializeToString())
    assert work["flop"] == 2 * (6 * 25 * 2 * 9) + 2 * (6 * 7 * 25)
    assert work["bytes"] == 4 * ((100 + 108 + 150) + (150 + 175 + 42))
