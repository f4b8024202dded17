"""A worker on TensorRT (stand-ins that compute): what runs when, and what becomes of the target."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.bundle import Bundle, load_bundle
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.inference import (
    BackendError,
    BuildProgress,
    CacheError,
    CudaError,
    EngineError,
    cuda,
)
from siam_tracker_ros.inference.engine_cache import EngineCache
from siam_tracker_ros.inference.engines import build_engines, build_options
from siam_tracker_ros.nodes import model_session
from siam_tracker_ros.nodes.follower import Report
from siam_tracker_ros.nodes.frames import Frame
from siam_tracker_ros.nodes.model_session import ModelSession, Opening
from siam_tracker_ros.nodes.parameters import TrackerParameters
from siam_tracker_ros.nodes.selection import Selection
from siam_tracker_ros.nodes.worker import Worker
from siam_tracker_ros.tracking import FakeSession, TrackState, fake_bundle

pytestmark = pytest.mark.once

TEST = Path(__file__).resolve().parents[1]
OUT_OF_MEMORY = 2
SIZE = (20.0, 20.0)


class Outputs:
    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.values: dict[str, Any] = {}
        self.infos: list[str] = []
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.info, self.warn = self.infos.append, self.warnings.append
        self.error = self.errors.append

    def detection(self, report: Report) -> None:
        self.reports.append(report)

    def picture(self, frame: Frame, report: Report | None) -> None: ...

    def caught_up(self, followed: int, skipped: int) -> None: ...

    def status(self, publish: bool, **changes: Any) -> None:
        self.values.update(changes)


class StubBuild:
    """In the place of EngineBuild: ends when the test says so."""

    def __init__(self, bundle: Bundle, precision: str, **more: Any) -> None:
        self.more = more
        self.done = self.cancelled = False
        self.error: Exception | None = None

    def end(self, error: Exception | None = None) -> None:
        self.error, self.done = error, True

    def result(self) -> dict[str, str]:
        if self.error is not None:
            raise self.error
        return {}

    def cancel(self) -> None:
        self.cancelled = self.done = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that finds orange things."""
    pytest.importorskip("onnx")
    sys.path[:0] = [str(TEST / "launch"), str(TEST / "inference")]
    from colour_bundle import write_colour_bundle

    return write_colour_bundle(tmp_path_factory.mktemp("models") / "colour").path


class Machine:
    """This process as if it had a GPU and TensorRT; engines are built when a test says so."""

    def __init__(self, bundle: Path, cache: Path) -> None:
        from fake_cuda import FakeCuda
        from fake_tensorrt import Behaviour, make_tensorrt

        self.driver, self.behaviour = FakeCuda(), Behaviour(steps=1)
        self.trt = make_tensorrt("10.3.0", self.driver, self.behaviour)
        self.bundle, self.cache = load_bundle(str(bundle)), cache
        self.builds: list[StubBuild] = []
        self.workers: list[Worker] = []

    def begin_build(self, *arguments: Any, **more: Any) -> StubBuild:
        self.builds.append(StubBuild(*arguments, **more))
        return self.builds[-1]

    def store_engines(self) -> None:
        options = build_options(self.bundle, "auto")
        build_engines(self.bundle, options, EngineCache(self.cache), self.trt, cuda.find_gpu())

    def start(self, **parameters: Any) -> tuple[Worker, Outputs]:
        outputs = Outputs()
        worker = Worker(outputs)
        self.workers.append(worker)
        self.opened = worker.open(
            TrackerParameters(
                model=str(self.bundle.path),
                cache_dir=str(self.cache),
                intra_op_threads=1,
                **parameters,
            )
        ).result(20)
        worker.activate().result(20)
        return worker, outputs


@pytest.fixture
def machine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(folder, tmp_path / "engines")
    monkeypatch.setattr(cuda, "load_library", lambda: made.driver)
    monkeypatch.setitem(sys.modules, "tensorrt", made.trt)
    monkeypatch.setattr(model_session, "EngineBuild", made.begin_build)
    yield made
    for worker in made.workers:
        assert worker.stop(20.0)
    assert made.driver.contexts == 0 and not made.driver.device  # nothing is left on the GPU


def place(number: int) -> Box:
    return Box.from_xywh(20 + 3 * number, 30, 20, 20)


def frame(number: int) -> Frame:
    """An orange thing that moves 3 px an image."""
    pixels = np.full((100, 400, 3), 90, np.uint8)
    x = 20 + 3 * number
    pixels[30:50, x : x + 20] = (230, 120, 30)
    return Frame(number, number * 10**7, "", None, ArrayPicture(pixels), 0.0, pixels.nbytes)


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def select(worker: Worker, number: int) -> None:
    """Select the thing in an image."""
    worker.frame(frame(number))
    worker.select(Selection(place(number))).result(20)


def follow(worker: Worker, outputs: Outputs, number: int) -> Report:
    """Follow into an image; what was published of it."""
    worker.frame(frame(number))
    until(lambda: outputs.reports and outputs.reports[-1].frame.number == number)
    return outputs.reports[-1]


def test_engines_that_are_there_run_at_once(machine: Machine) -> None:
    machine.store_engines()
    worker, outputs = machine.start()
    assert machine.opened.startswith("colour on TensorRT 10.3 fp32 on Fake GPU 9000")
    why = "engines from the cache (backend auto: there is a GPU)"
    assert outputs.infos == [f"colour on TensorRT 10.3 fp32 on Fake GPU 9000, {why}"]
    assert machine.builds == [] and outputs.values["engine_build"] == ""
    select(worker, 1)
    assert follow(worker, outputs, 2).box.iou(place(2)) > 0.95


def test_without_a_target_engines_run_as_soon_as_they_are_there(machine: Machine) -> None:
    _, outputs = machine.start()
    (build,) = machine.builds
    assert outputs.values["backend"].startswith("ONNX Runtime")
    assert outputs.values["engine_build"] == "begins"
    assert "colour: engines have to be built: there is none yet; that is done beside tracking" in (
        outputs.infos
    )
    build.more["on_progress"](BuildProgress("search", "Tactics", 0.42, 12.0))
    assert outputs.values["engine_build"] == "search fp32 42 %: Tactics, 12 s"
    assert "building the engine of search: 42 % Tactics (12 s)" in outputs.infos
    machine.store_engines()
    build.end()
    until(lambda: outputs.values["backend"].startswith("TensorRT"))
    assert outputs.values["engine_build"] == outputs.values["backend_problem"] == ""


def test_under_a_target_engines_wait_for_the_next_selection(machine: Machine) -> None:
    worker, outputs = machine.start()
    select(worker, 1)
    machine.store_engines()
    machine.builds[0].end()
    until(lambda: outputs.values["engine_build"].startswith("ready: used from the next selection"))
    assert follow(worker, outputs, 2).box.iou(place(2)) > 0.95
    # A selection that is refused takes nothing over, and nothing away.
    worker.select(Selection(Box(-500.0, 0.0, 20.0, 20.0))).result(20)
    assert outputs.values["selection_verdict"].startswith("refused")
    assert follow(worker, outputs, 3).id == "1"
    assert outputs.values["backend"].startswith("ONNX Runtime")
    select(worker, 4)
    assert outputs.values["selection_verdict"] == "accepted"
    assert outputs.values["backend"].startswith("TensorRT")
    assert outputs.values["engine_build"] == ""
    after = follow(worker, outputs, 5)
    assert after.id == "2" and after.box.iou(place(5)) > 0.95


def test_engines_run_once_the_target_is_cleared(machine: Machine) -> None:
    worker, outputs = machine.start()
    select(worker, 1)
    machine.store_engines()
    machine.builds[0].end()
    until(lambda: outputs.values["engine_build"].startswith("ready"))
    worker.clear("asked for").result(20)
    until(lambda: outputs.values["backend"].startswith("TensorRT"))


def test_a_build_that_fails_leaves_onnx_runtime_and_the_target(machine: Machine) -> None:
    worker, outputs = machine.start()
    select(worker, 1)
    machine.builds[0].end(EngineError("operator ScatterElements of node /s: not supported"))
    until(lambda: outputs.values["engine_build"] == "failed")
    assert "operator ScatterElements" in outputs.values["backend_problem"]
    assert outputs.errors[0].endswith("not supported; it stays on ONNX Runtime")
    assert follow(worker, outputs, 2).result.state is TrackState.TRACKING


def test_a_build_that_fails_where_nothing_may_stand_in_ends_the_track(machine: Machine) -> None:
    worker, outputs = machine.start(backend="tensorrt")
    select(worker, 1)
    machine.builds[0].end(EngineError("out of GPU memory while building"))
    until(lambda: outputs.values["state"] == "idle")
    assert outputs.values["failed"] and outputs.values["id"] == ""
    assert "out of GPU memory while building" in outputs.values["backend_problem"]
    assert any(text.startswith("target 1 is cleared: ") for text in outputs.errors)
    select(worker, 2)
    assert "refused: the network failed" in outputs.values["selection_verdict"]
    assert "ONNX Runtime may not stand in (allow_fallback)" in outputs.values["selection_verdict"]


def test_engines_that_find_no_gpu_memory_do_not_cost_a_selection(machine: Machine) -> None:
    worker, outputs = machine.start()
    select(worker, 1)
    machine.store_engines()
    machine.builds[0].end()
    until(lambda: outputs.values["engine_build"].startswith("ready"))
    machine.driver.total = machine.driver.used + 100
    select(worker, 2)
    assert outputs.values["selection_verdict"] == "accepted"
    assert "out of GPU memory" in outputs.values["backend_problem"]
    assert outputs.values["backend"].startswith("ONNX Runtime")
    assert follow(worker, outputs, 3).box.iou(place(3)) > 0.95


def test_a_gpu_that_fails_while_following_is_left_with_the_target(machine: Machine) -> None:
    machine.store_engines()
    worker, outputs = machine.start()
    select(worker, 1)
    follow(worker, outputs, 2)
    machine.driver.fail["cuGraphLaunch"] = OUT_OF_MEMORY
    after = follow(worker, outputs, 3)
    assert after.id == "1" and after.box.iou(place(3)) > 0.95
    assert outputs.values["backend"].startswith("ONNX Runtime")
    assert "TensorRT failed while running: CUDA: out of memory" in outputs.values["backend_problem"]
    (error,) = outputs.errors
    assert error.endswith("ONNX Runtime goes on, with the target as it was when it was selected")


def test_a_gpu_that_fails_where_nothing_may_stand_in_ends_the_track(machine: Machine) -> None:
    machine.store_engines()
    worker, outputs = machine.start(backend="tensorrt")
    select(worker, 1)
    machine.driver.fail["cuGraphLaunch"] = OUT_OF_MEMORY
    worker.frame(frame(2))
    until(lambda: outputs.values["state"] == "idle")
    assert outputs.values["failed"] and outputs.values["id"] == ""
    assert [report.frame.number for report in outputs.reports] == [1]
    assert any("target 1 is cleared: TensorRT failed while running" in e for e in outputs.errors)


def test_a_gpu_that_fails_at_a_selection_does_not_cost_it(machine: Machine) -> None:
    machine.store_engines()
    worker, outputs = machine.start()
    select(worker, 1)
    machine.behaviour.execute = "fail"
    select(worker, 2)
    assert outputs.values["selection_verdict"] == "accepted" and outputs.values["id"] == "2"
    assert outputs.values["backend"].startswith("ONNX Runtime")
    assert follow(worker, outputs, 3).box.iou(place(3)) > 0.95


def test_a_gpu_that_fails_when_it_is_warmed_up(machine: Machine) -> None:
    machine.store_engines()
    machine.behaviour.execute = "fail"
    _, outputs = machine.start()
    assert outputs.values["backend"].startswith("ONNX Runtime")
    assert "Cuda Runtime (out of memory)" in outputs.values["backend_problem"]
    assert outputs.errors[0].endswith("ONNX Runtime goes on")
    with pytest.raises(EngineError, match=r"Cuda Runtime \(out of memory\)"):
        machine.start(backend="tensorrt")


def test_a_cache_that_others_can_write_to(machine: Machine) -> None:
    machine.cache.mkdir()
    machine.cache.chmod(0o777)
    _, outputs = machine.start()
    assert "everybody can write to it" in outputs.values["backend_problem"]
    assert outputs.values["engine_build"] == "failed" and machine.builds == []
    with pytest.raises(CacheError, match="everybody can write to it"):
        machine.start(backend="tensorrt")


def test_deactivate_stops_a_build_and_activate_begins_it_again(machine: Machine) -> None:
    worker, outputs = machine.start()
    worker.deactivate().result(20)
    assert [build.cancelled for build in machine.builds] == [True]
    assert outputs.values["engine_build"].startswith("stopped with deactivate")
    worker.activate().result(20)
    assert [build.cancelled for build in machine.builds] == [True, False]
    assert worker.stop(20.0)
    assert [build.cancelled for build in machine.builds] == [True, True]


def test_deactivate_forgets_no_engines_that_are_ready(machine: Machine) -> None:
    worker, outputs = machine.start()
    select(worker, 1)
    machine.store_engines()
    machine.builds[0].end()
    worker.deactivate().result(20)
    until(lambda: outputs.values["backend"].startswith("TensorRT"))
    assert len(machine.builds) == 1


def no_driver() -> Any:
    raise CudaError("no NVIDIA driver on this machine (libcuda.so.1 is not there)")


def test_without_a_driver_tensorrt_says_what_is_missing_and_what_helps(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "load_library", no_driver)
    with pytest.raises(BackendError, match=r"no NVIDIA driver.*backend auto or onnxruntime runs"):
        machine.start(backend="tensorrt")
    _, outputs = machine.start(backend="tensorrt", allow_fallback="always")
    assert "no NVIDIA driver" in outputs.values["backend_problem"]
    _, outputs = machine.start(allow_fallback="never")  # auto takes what is there
    assert outputs.values["backend_problem"] == ""
    assert "(backend auto: no NVIDIA driver" in outputs.infos[0]


def test_a_build_that_cannot_even_start(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **more: Any) -> Any:
        raise EngineError("the build cannot be started: no such file")

    monkeypatch.setattr(model_session, "EngineBuild", refuse)
    _, outputs = machine.start()
    assert outputs.values["engine_build"] == "failed"
    assert "cannot be started" in outputs.values["backend_problem"]
    with pytest.raises(EngineError, match="cannot be started"):
        machine.start(backend="tensorrt")


def test_without_onnx_runtime_nothing_can_run_meanwhile(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, said = model_session.open_session, Outputs()

    def open_session(bundle: Bundle, **given: Any) -> Any:
        if given["backend"] == "onnxruntime":
            raise BackendError("ONNX Runtime cannot be imported")
        if given.get("build", True):
            machine.store_engines()  # configure waits for that
        return opened(bundle, **given)

    monkeypatch.setattr(model_session, "open_session", open_session)
    parameters = TrackerParameters(cache_dir=str(machine.cache), allow_fallback="never")
    session = ModelSession(machine.bundle, parameters, Opening(said))
    assert session.description.startswith("TensorRT")
    assert any("nothing can run before the engines are there" in text for text in said.infos)
    session.close()


def test_tuning_and_what_was_begun_go_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ONNX Runtime, from a GPU that fails in the third step."""
    from siam_tracker_ros.bundle import StepResult

    result = StepResult(Box(63.0, 63.0, *SIZE), 0.9, 0.0, (63.0, 63.0))
    gpu = FakeSession([result, CudaError("gone"), result])
    onnx = FakeSession([result])
    gpu.fallback = onnx.fallback = None  # type: ignore[attr-defined]

    def open_session(bundle: Bundle, **given: Any) -> Any:
        return onnx if given["backend"] == "onnxruntime" else gpu

    monkeypatch.setattr(model_session, "open_session", open_session)
    session = ModelSession(fake_bundle(), TrackerParameters(), Opening(Outputs()))
    session.set_tuning("window", 0.3)
    crops = [np.zeros((n, n, 3), np.uint8) for n in (127, 255)]
    session.start(*crops, SIZE)
    session.step(crops[1], SIZE)
    session.commit()
    session.step(crops[1], SIZE)
    session.commit()
    assert (gpu.steps, gpu.closed) == (2, True)
    assert (onnx.starts, onnx.steps, onnx.commits) == (1, 1, 1)
    assert onnx.tuning == {"window": 0.3}
    session.close()
    assert onnx.closed
