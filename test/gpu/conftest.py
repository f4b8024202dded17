"""A bundle that tracks a colour, a clip in memory, and stand-ins for driver and TensorRT.

Engines are built in this process: that builds have one of their own is tested in test/inference.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from siam_tracker_ros.bundle import load_bundle, write_bundle
from siam_tracker_ros.evaluation import gpu_speed
from siam_tracker_ros.evaluation.sequences import Sequence
from siam_tracker_ros.inference import cuda, opening
from siam_tracker_ros.inference.engine_cache import EngineCache
from siam_tracker_ros.inference.engines import build_engines, build_options

TESTS = Path(__file__).resolve().parents[1]


def colour_fixtures():
    spec = importlib.util.spec_from_file_location(
        "evaluation_fixtures", TESTS / "evaluation" / "conftest.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def colour(tmp_path_factory):
    """Function (name, wrong=False) -> the colour bundle with twins; wrong: that see another colour."""
    plain = load_bundle(colour_fixtures().write_colour_bundle(tmp_path_factory.mktemp("c") / "c"))
    made = tmp_path_factory.mktemp("bundles")

    def make(name="colour", wrong=False):
        files = {key: f"{key}.fp16.onnx" for key in plain.graphs}
        contents = {file: plain.read(file) for file in plain.files}
        twins = {files[key]: plain.read(graph.file) for key, graph in plain.graphs.items()}
        if wrong:
            twins[files["search"]] = blind(twins[files["search"]])
        return write_bundle(
            made / name,
            name=name,
            tracker="siam_stm",
            crop=plain.crop,
            graphs=plain.graphs,
            tuning=plain.tuning,
            presence=plain.presence,
            contents={**contents, **twins},
            precisions={"fp16": files},
        )

    return make


def blind(search):
    """The search graph with boxes in the crop's corner."""
    import onnx

    model = onnx.load_from_string(search)
    for tensor in model.graph.initializer:
        if tensor.name in ("columns", "rows"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((65, 65), "f4"), tensor.name))
    return model.SerializeToString()


@pytest.fixture(scope="session")
def clip():
    """Eight frames of 160 x 120: a red square that moves over noise."""
    random = np.random.default_rng(0)
    ground = random.integers(90, 150, (120, 160, 3), np.uint8)
    frames, boxes = [], []
    for index in range(8):
        x, y = 40 + 2 * index, 50 + index
        frames.append(ground.copy())
        frames[-1][y : y + 20, x : x + 20] = (30, 30, 220)
        boxes.append((x, y, 20, 20))
    return Sequence("square", frames, np.array(boxes, float), Path("square"))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(cuda, "LIBRARIES", ("libno-such-driver.so.1",))
    cuda.load_library.cache_clear()
    yield
    cuda.load_library.cache_clear()


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """(driver, behaviour of TensorRT 10.3): this machine has a GPU."""
    monkeypatch.syspath_prepend(str(TESTS / "inference"))
    from fake_cuda import FakeCuda
    from fake_tensorrt import Behaviour, make_tensorrt

    driver, behaviour = FakeCuda(), Behaviour()
    trt = make_tensorrt("10.3.0", driver, behaviour)

    class Build:
        """``EngineBuild`` without its process."""

        def __init__(self, bundle, precision, *, cache_dir, force=False, on_progress, say):
            self._given = bundle, build_options(bundle, precision), EngineCache(cache_dir)
            self._say = say

        def wait(self, cancelled=lambda: False):
            return build_engines(*self._given, trt, cuda.find_gpu(), say=self._say)

    monkeypatch.setattr(cuda, "load_library", lambda: driver)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(opening, "EngineBuild", Build)
    monkeypatch.setattr(gpu_speed, "EngineBuild", Build)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return driver, behaviour
