"""Choosing a back end, and what is said when it does not work out."""

from __future__ import annotations

import builtins
import gc
import os
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from siam_tracker_ros.bundle import BundleError, GraphSpec, TensorSpec
from siam_tracker_ros.inference import BackendError, cuda, open_session


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """A machine without a driver, whatever this one has."""
    monkeypatch.setattr(cuda, "LIBRARIES", ("libno-such-driver.so.1",))
    cuda.load_library.cache_clear()
    yield
    cuda.load_library.cache_clear()


def test_the_description_says_what_runs(tiny):
    session = open_session(tiny(), "onnxruntime", intra_op_threads=1)
    assert session.description.startswith("ONNX Runtime ")
    assert session.description.endswith(" CPU, 1 thread")
    session.close()


def test_no_thread_number_means_every_cpu_of_this_process(tiny):
    session = open_session(tiny())
    assert f" {len(os.sched_getaffinity(0))} thread" in session.description
    session.close()


@pytest.mark.parametrize(
    ("backend", "why"), [("auto", "no NVIDIA driver on this machine"), ("onnxruntime", "as asked")]
)
def test_one_line_says_what_runs_and_why(tiny, backend, why):
    lines = []
    open_session(tiny(), backend, intra_op_threads=1, log=lines.append).close()
    assert len(lines) == 1
    assert "tiny on ONNX Runtime" in lines[0]
    assert why in lines[0]


def test_an_unknown_backend_lists_the_choices(tiny):
    with pytest.raises(BackendError, match="'openvino': choose one of auto, onnxruntime, tensorrt"):
        open_session(tiny(), "openvino")


def test_tensorrt_without_a_gpu_says_what_is_missing_and_what_to_use(tiny):
    with pytest.raises(BackendError, match=r"no NVIDIA driver.*backend auto or onnxruntime"):
        open_session(tiny(), "tensorrt")


def test_negative_threads_are_refused(tiny):
    with pytest.raises(BackendError, match="intra_op_threads must not be negative, got -1"):
        open_session(tiny(), intra_op_threads=-1)


def test_without_onnx_runtime_it_says_what_to_install(tiny, monkeypatch):
    bundle = tiny()
    real = builtins.__import__

    def no_onnxruntime(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "siam_tracker_ros.inference.onnx_session", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_onnxruntime)
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        open_session(bundle)


def test_cuda_that_does_not_load_falls_back_to_the_cpu_and_says_so(tiny, monkeypatch):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    lines = []
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        session = open_session(tiny(), intra_op_threads=1, log=lines.append)
    assert "CPU" in session.description
    assert "CUDA provider cannot be used, running on the CPU" in lines[0]
    session.close()


def changed(specs, graph, **fields):
    return {**specs, graph: replace(specs[graph], **fields)}


def test_a_graph_that_differs_from_the_bundle_is_named(tiny, parts):
    # What bundle.yaml says fits the contract, but not the file beside it.
    specs = parts["specs"]()
    wider = TensorSpec("state.mean", "float32", (3,))
    graphs = {
        "template": GraphSpec(
            "template.onnx", specs["template"].inputs, (wider, specs["template"].outputs[1])
        ),
        "search": replace(
            specs["search"],
            inputs=tuple(wider if t.name == "state.mean" else t for t in specs["search"].inputs),
        ),
    }
    with pytest.raises(BackendError) as caught:
        open_session(tiny(graphs=graphs))
    message = str(caught.value)
    assert "template.onnx" in message
    assert "output state.mean is float32 [1] in the file, float32 [3] in bundle.yaml" in message


def test_inputs_that_only_one_side_knows_are_named(tiny, parts):
    with pytest.raises(BackendError, match=r"input memory is not in bundle\.yaml"):
        open_session(
            tiny(
                graphs=parts["specs"](memory=False),
                contents={
                    "template.onnx": parts["template"](),
                    "search.onnx": parts["search"](memory=True),
                },
            )
        )
    with pytest.raises(BackendError, match="input memory is not in the file"):
        open_session(
            tiny(
                graphs=parts["specs"](memory=True),
                contents={
                    "template.onnx": parts["template"](),
                    "search.onnx": parts["search"](memory=False),
                },
            )
        )


def test_a_file_that_is_no_graph_is_named(tiny, parts):
    contents = {"template.onnx": parts["template"](), "search.onnx": b"not a graph"}
    with pytest.raises(BackendError, match=r"search\.onnx: ONNX Runtime cannot load it"):
        open_session(tiny(contents=contents))


def test_a_graph_changed_after_loading_is_refused(tiny, parts):
    bundle = tiny()
    path = bundle.path / "search.onnx"
    path.write_bytes(parts["search"](memory=True))
    with pytest.raises(BundleError, match=r"search\.onnx: changed since the bundle was loaded"):
        open_session(bundle)


def test_the_memory_that_states_are_in_lives_as_long_as_the_session(tiny, monkeypatch):
    """Bindings of ONNX Runtime 1.16 do not keep arrays alive: a freed one is somebody else's."""
    from siam_tracker_ros.inference import onnx_session

    made, real = [], onnx_session._zeros

    def zeros(tensor):
        array = real(tensor)
        made.append((tensor.name, weakref.ref(array)))
        return array

    monkeypatch.setattr(onnx_session, "_zeros", zeros)
    session = open_session(tiny(), "onnxruntime", intra_op_threads=1)
    gc.collect()
    assert sum(name.startswith("state.") for name, _ in made) == 2 + 3 * 2  # constants, carried
    assert not [name for name, array in made if array() is None]
    session.close()


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_selecting_again_and_again_does_not_grow_memory(tiny, crops, search):
    session = open_session(tiny(), intra_op_threads=1)

    def select(times):
        for value in range(times):
            session.start(*crops(value % 200, 7), (8.0, 6.0))
            session.step(search(5), (8.0, 6.0))
            session.commit()
        gc.collect()
        return resident_bytes()

    before = select(200)
    # Forgetting one search crop a selection would be 2000 x 2883 bytes = 5.8 MB.
    assert select(2000) - before < 2 << 20
    session.close()
