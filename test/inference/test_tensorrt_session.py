"""What a frame costs on TensorRT, where the state lies, and what is said when the GPU fails.

That commit means the same as on ONNX Runtime is tested in test_commit.py. TensorRT and the driver
are stand-ins (see fake_tensorrt.py, fake_cuda.py): they compute, but only when the stream is
synchronised, and only on memory that was allocated.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_tensorrt import Behaviour, make_plan

from siam_tracker_ros.bundle import TensorSpec
from siam_tracker_ros.inference import BackendError, CudaError, EngineError, cuda, open_session
from siam_tracker_ros.inference.errors import UnusableEngineError
from siam_tracker_ros.inference.tensorrt_session import TensorRTSession

SIZE = (8.0, 6.0)
RESULT_BYTES = 4 * 256  # four results, each on a boundary that TensorRT wants
SEARCH_BYTES = 3072 + 3 * 256  # 31 x 31 x 3, previous_size, first, tuning.window


def play(session, crops, search, frames=6):
    """Results of a start, and of steps of which every other is committed."""
    results = [session.start(*crops(40, 7), SIZE)]
    for value in range(frames):
        results.append(session.step(search(3 * value), SIZE))
        if value % 2:
            session.commit()
    return results


def test_it_says_the_same_as_onnx_runtime(tiny, crops, search, gpu_machine, fake_session):
    bundle = tiny()
    gpu_machine()
    reference = open_session(bundle, "onnxruntime", intra_op_threads=1)
    session = fake_session(bundle)
    assert play(session, crops, search) == play(reference, crops, search)
    assert session.description == "TensorRT 10.3 fp32 on Fake GPU 9000"


def test_a_frame_is_one_copy_each_way_one_launch_and_one_wait(
    tiny, crops, search, gpu_machine, fake_session
):
    _, driver = gpu_machine()
    session = fake_session(tiny())
    session.start(*crops(40, 7), SIZE)
    for _ in range(3):
        driver.copies.clear()
        driver.calls.clear()
        session.step(search(5), SIZE)
        session.commit()
        assert driver.copies == [("in", SEARCH_BYTES), ("out", RESULT_BYTES)]
        counted = {n: driver.calls[n] for n in driver.calls if n != "cuCtxSetCurrent"}
        assert counted == {"cuGraphLaunch": 1, "cuStreamSynchronize": 1}


def test_without_cuda_graphs_it_is_still_one_copy_each_way_and_one_wait(
    tiny, crops, search, gpu_machine, fake_session
):
    _, driver = gpu_machine()
    session = fake_session(tiny(), cuda_graphs=False)
    session.start(*crops(40, 7), SIZE)
    driver.copies.clear()
    driver.calls.clear()
    session.step(search(5), SIZE)
    assert driver.copies == [("in", SEARCH_BYTES), ("out", RESULT_BYTES)]
    assert driver.calls["cuStreamSynchronize"] == 1
    assert driver.calls["cuMemcpyHtoDAsync_v2"] == driver.calls["cuMemcpyDtoHAsync_v2"] == 1


def test_on_memory_shared_with_the_host_nothing_is_copied(
    tiny, crops, search, gpu_machine, fake_session
):
    _, driver = gpu_machine(integrated=True)
    session = fake_session(tiny())
    assert play(session, crops, search)[1].box.cx == pytest.approx(15 + 10 + 7)
    assert driver.copies == []


def test_a_start_waits_once(tiny, crops, gpu_machine, fake_session):
    _, driver = gpu_machine()
    session = fake_session(tiny())
    driver.calls.clear()
    session.start(*crops(40, 7), SIZE)
    assert driver.calls["cuStreamSynchronize"] == 1


def test_steps_allocate_nothing_and_close_frees_everything(
    tiny, crops, search, gpu_machine, fake_session
):
    _, driver = gpu_machine()
    session = fake_session(tiny())
    there = set(driver.device)
    play(session, crops, search, frames=20)
    assert set(driver.device) == there
    session.close()
    session.close()
    assert not driver.device and not driver.host and not driver.streams
    assert not driver.graphs and not driver.execs
    assert driver.used == driver.contexts == 0


def test_each_direction_and_each_set_of_constants_has_its_graph(tiny, gpu_machine, fake_session):
    _, driver = gpu_machine()
    fake_session(tiny())
    assert len(driver.execs) == 4
    assert not driver.graphs  # what was captured is given back once it is instantiated


@pytest.mark.parametrize(
    ("behaviour", "driver_fails"),
    [
        (Behaviour(execute="fail in capture"), {}),
        (Behaviour(), {"cuStreamBeginCapture_v2": 801}),
        (Behaviour(), {"cuGraphInstantiateWithFlags": 801}),
    ],
)
def test_where_nothing_can_be_captured_it_runs_without_and_says_so(
    tiny, crops, search, gpu_machine, fake_session, behaviour, driver_fails
):
    bundle = tiny()
    _, driver = gpu_machine(behaviour=behaviour)
    driver.fail.update(driver_fails)
    lines = []
    session = fake_session(bundle, log=lines.append)
    assert session.cuda_graphs is False
    assert len(lines) == 1 and "CUDA graphs cannot be used" in lines[0]
    reference = open_session(bundle, "onnxruntime", intra_op_threads=1)
    assert play(session, crops, search) == play(reference, crops, search)
    assert driver.calls["cuGraphLaunch"] == 0


def test_integer_state_and_memory(tiny, parts, crops, search, gpu_machine, fake_session):
    onnx = pytest.importorskip("onnx")
    bundle = with_counter(tiny, parts, onnx)
    for version in ("8.6.1", "10.3.0"):
        gpu_machine(version)
        session = fake_session(bundle)
        reference = open_session(bundle, "onnxruntime", intra_op_threads=1)
        results = play(session, crops, search)
        assert results == play(reference, crops, search)
        # frames seen is counted in whole numbers: 1, then 2 until that is committed, ...
        assert [round(1000 * r.runner_up) for r in results] == [1, 2, 2, 3, 3, 4, 4]


def with_counter(tiny, parts, onnx):
    """The tiny bundle with state.seen as int32, and a ring index in int64 that nothing shows."""
    specs = parts["specs"]()
    kinds = {"state.seen": "int32", "state.ring": "int64"}
    search_spec = replace(
        specs["search"],
        inputs=(
            *(replace(t, dtype=kinds.get(t.name, t.dtype)) for t in specs["search"].inputs),
            TensorSpec("state.ring", "int64", (1,)),
        ),
        outputs=(
            *(
                replace(t, dtype="int32") if t.name == "state.seen.next" else t
                for t in specs["search"].outputs
            ),
            TensorSpec("state.ring.next", "int64", (1,)),
        ),
    )
    model = onnx.load_from_string(parts["search"]())
    graph = model.graph
    for value in (*graph.input, *graph.output):
        if value.name in ("state.seen", "state.seen.next"):
            value.type.tensor_type.elem_type = onnx.TensorProto.INT32
    for node in graph.node:
        if node.output[0] == "state.seen.next":
            node.output[0] = "seen_now"
        for index, name in enumerate(node.input):
            node.input[index] = {"state.seen": "seen", "state.seen.next": "seen_now"}.get(
                name, name
            )
    make = onnx.helper.make_node
    graph.node.insert(0, make("Cast", ["state.seen"], ["seen"], to=onnx.TensorProto.FLOAT))
    graph.node.append(make("Cast", ["seen_now"], ["state.seen.next"], to=onnx.TensorProto.INT32))
    graph.node.append(make("Add", ["state.ring", "step"], ["state.ring.next"]))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), "step"))
    for values, name in ((graph.input, "state.ring"), (graph.output, "state.ring.next")):
        values.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [1]))
    contents = {"template.onnx": parts["template"](), "search.onnx": model.SerializeToString()}
    return tiny(graphs={**specs, "search": search_spec}, contents=contents)


def test_every_output_of_the_last_search_can_be_read_and_disturbs_nothing(
    tiny, crops, search, gpu_machine, fake_session
):
    gpu_machine()
    session = fake_session(tiny())
    with pytest.raises(BackendError, match="no search yet"):
        _ = session.outputs
    first = session.start(*crops(40, 7), SIZE)
    assert session.outputs["state.sum.next"] == 10 + 7
    assert session.outputs["result.score"] == np.float32(first.score)
    session.step(search(5), SIZE)
    before = session.outputs
    assert before["state.sum.next"] == 17 + 5 and before["state.seen.next"] == 2
    assert {n: a.tolist() for n, a in session.outputs.items()} == {
        n: a.tolist() for n, a in before.items()
    }
    session.commit()
    session.step(search(1), SIZE)
    assert session.outputs["state.sum.next"] == 22 + 1 and before["state.sum.next"] == 22


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_steps_can_be_timed_and_end_the_track(
    tiny, crops, search, gpu_machine, fake_session, cuda_graphs
):
    _, driver = gpu_machine()
    session = fake_session(tiny(), cuda_graphs=cuda_graphs)
    with pytest.raises(BackendError, match="there is no target"):
        session.time_steps(3)
    session.start(*crops(40, 7), SIZE)
    driver.copies.clear()
    times = session.time_steps(5)
    assert len(times) == 5 and min(times) > 0
    assert driver.copies == 5 * [("in", SEARCH_BYTES), ("out", RESULT_BYTES)]
    # they take turns: what was 17 after the start grew by 7 five times
    assert session._results["result.box"][0] == 15 + 17 + 4 * 7
    assert not driver.events
    with pytest.raises(BackendError, match="there is no target"):
        session.step(search(1), SIZE)
    session.start(*crops(40, 7), SIZE)
    session.step(search(1), SIZE)


def test_a_step_can_be_looked_at_without_being_run(tiny, crops, gpu_machine, fake_session):
    _, driver = gpu_machine()
    session = fake_session(tiny())
    session.start(*crops(40, 7), SIZE)
    driver.copies.clear()
    assert session.inspect_step(lambda graph: graph in driver.graphs) is True
    assert not driver.graphs and not driver.copies


def test_the_session_may_be_used_from_another_thread(
    tiny, crops, search, gpu_machine, fake_session
):
    _, driver = gpu_machine()
    session = fake_session(tiny())
    driver.bound = None  # what CUDA has in a new thread
    bound = []

    def run():
        session.start(*crops(40, 7), SIZE)
        bound.append(driver.bound)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert bound == [0xC0DE]


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [b"", b"not an engine", make_plan(b"", "10.3.0")[:20]])
def test_bytes_that_are_no_engine_are_refused_and_nothing_is_left(tiny, gpu_machine, plan):
    trt, driver = gpu_machine()
    with pytest.raises(
        UnusableEngineError, match=r"engine of template\.onnx cannot be loaded: Ser"
    ):
        TensorRTSession(
            tiny(),
            {"template": plan, "search": plan},
            precision="fp32",
            trt=trt,
            gpu=cuda.find_gpu(),
        )
    assert not driver.device and not driver.host and driver.contexts == 0


def test_an_engine_of_another_version_is_refused(tiny, gpu_machine):
    trt, _ = gpu_machine("10.3.0")
    bundle = tiny()
    engines = {n: make_plan(bundle.read(g.file), "8.6.1") for n, g in bundle.graphs.items()}
    with pytest.raises(UnusableEngineError, match="not compatible with this version"):
        TensorRTSession(bundle, engines, precision="fp32", trt=trt, gpu=cuda.find_gpu())


def test_an_engine_of_another_graph_is_refused_by_its_names(tiny, parts, gpu_machine):
    trt, _ = gpu_machine()
    bundle = tiny()
    engines = {
        "template": make_plan(parts["template"](), "10.3.0"),
        "search": make_plan(parts["search"](memory=True), "10.3.0"),
    }
    with pytest.raises(UnusableEngineError, match="input memory is not in the bundle"):
        TensorRTSession(bundle, engines, precision="fp32", trt=trt, gpu=cuda.find_gpu())
    engines["search"] = engines["template"]
    with pytest.raises(UnusableEngineError, match=r"input search is not in the engine"):
        TensorRTSession(bundle, engines, precision="fp32", trt=trt, gpu=cuda.find_gpu())


@pytest.mark.parametrize("behaviour", [Behaviour(load="out of memory"), Behaviour(context="fail")])
def test_an_engine_that_finds_no_memory_is_not_called_damaged(
    tiny, gpu_machine, fake_session, behaviour
):
    gpu_machine(behaviour=behaviour)
    with pytest.raises(CudaError, match="not enough GPU memory, 1024 MiB are free"):
        fake_session(tiny())


def test_out_of_gpu_memory_says_how_much_was_wanted(tiny, gpu_machine, fake_session):
    _, driver = gpu_machine(memory=4000)
    with pytest.raises(CudaError, match=r"out of GPU memory: .* of 0 MiB free on Fake GPU 9000"):
        fake_session(tiny())
    assert driver.used == 0 and driver.contexts == 0


def test_a_failing_start_leaves_the_running_track(tiny, crops, search, gpu_machine, fake_session):
    trt, driver = gpu_machine()
    session = fake_session(tiny())
    session.start(*crops(40, 7), SIZE)
    before = session.step(search(5), SIZE)
    trt.behaviour.execute = "fail"
    with pytest.raises(EngineError, match=r"engine of template\.onnx failed: .*out of memory"):
        session.start(*crops(90, 9), SIZE)
    trt.behaviour.execute = ""
    driver.fail["cuStreamSynchronize"] = 700
    with pytest.raises(CudaError, match="illegal memory access"):
        session.start(*crops(90, 9), SIZE)
    driver.fail.clear()
    assert session.step(search(5), SIZE) == before


def test_a_failing_step_is_not_committed(tiny, crops, search, gpu_machine, fake_session):
    _, driver = gpu_machine()
    session = fake_session(tiny())
    session.start(*crops(40, 7), SIZE)
    before = session.step(search(5), SIZE)
    driver.fail["cuGraphLaunch"] = 700
    with pytest.raises(CudaError, match="illegal memory access"):
        session.step(search(6), SIZE)
    driver.fail.clear()
    with pytest.raises(BackendError, match="commit without a step"):
        session.commit()
    assert session.step(search(5), SIZE) == before


def test_closing_after_the_gpu_failed_does_not_raise(tiny, gpu_machine, fake_session):
    _, driver = gpu_machine()
    session = fake_session(tiny())
    driver.fail.update(dict.fromkeys(("cuCtxSetCurrent", "cuMemFree_v2"), 700))
    session.close()
    assert driver.contexts == 0


# --- the driver -----------------------------------------------------------------------------------


def test_a_gpu_is_described_without_a_context(gpu_machine):
    _, driver = gpu_machine()
    gpu = cuda.find_gpu()
    assert gpu.identity == cuda.GpuIdentity("Fake GPU 9000", "9.0", 132)
    assert (gpu.driver_cuda, gpu.total_bytes, gpu.integrated) == ("12.8", 1 << 30, False)
    assert driver.contexts == 0


def test_no_gpu_is_said(gpu_machine):
    gpu_machine(gpus=0)
    with pytest.raises(CudaError, match="GPU 0 is not there: the driver sees 0"):
        cuda.find_gpu()


def test_a_driver_without_what_is_needed_is_called_too_old(monkeypatch):
    monkeypatch.setattr(cuda, "LIBRARIES", ("libc.so.6",))
    cuda.load_library.cache_clear()
    try:
        with pytest.raises(CudaError, match="too old: it has no cuInit"):
            cuda.load_library()
    finally:
        cuda.load_library.cache_clear()


def test_importing_the_room_imports_neither_tensorrt_nor_onnx_runtime():
    program = (
        "import sys, siam_tracker_ros.inference, siam_tracker_ros.inference.tensorrt_session; "
        "sys.exit(' '.join({'tensorrt', 'onnxruntime', 'torch'} & set(sys.modules)) or 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
