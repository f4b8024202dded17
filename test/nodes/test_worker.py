"""The worker's thread: opening and closing a model, busy times, calls from elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.bundle import Bundle, BundleError, PresenceSpec, StepResult
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.nodes.follower import Report
from siam_tracker_ros.nodes.frames import Frame
from siam_tracker_ros.nodes.parameters import ParameterError, TrackerParameters
from siam_tracker_ros.nodes.selection import Selection
from siam_tracker_ros.nodes.worker import Worker
from siam_tracker_ros.tracking import ColourFinder, FakeSession, fake_bundle

BOX = Box(50.0, 40.0, 20.0, 20.0)


class Outputs:
    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.threads: set[str] = set()
        self.values: dict[str, Any] = {}
        self.errors: list[str] = []

    def detection(self, report: Report) -> None:
        self.threads.add(threading.current_thread().name)
        self.reports.append(report)

    def picture(self, frame: Frame, report: Report | None) -> None: ...

    def caught_up(self, followed: int, skipped: int) -> None: ...

    def status(self, publish: bool, **changes: Any) -> None:
        self.values.update(changes)

    def info(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def error(self, text: str) -> None:
        self.errors.append(text)


def still(search: Any, size: Any) -> StepResult:
    mid = (search.shape[0] - 1) / 2
    return StepResult(Box(mid, mid, *size), 0.9, 0.0, (mid, mid))


def frame(number: int) -> Frame:
    picture = ArrayPicture(np.zeros((100, 120, 3), np.uint8))
    return Frame(number, number * 10**7, "", None, picture, time.perf_counter())


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[Worker, Outputs]]]:
    made: list[Worker] = []

    def start(session: FakeSession, bundle: Bundle | None = None) -> tuple[Worker, Outputs]:
        outputs = Outputs()
        worker = Worker(outputs, lambda parameters, log: (bundle or fake_bundle(), session))
        made.append(worker)
        return worker, outputs

    yield start
    for worker in made:
        assert worker.stop(5.0)


def test_it_follows_in_its_own_thread(make: Any) -> None:
    session = FakeSession(still)
    worker, outputs = make(session)
    assert worker.open(TrackerParameters()).result(5).startswith("fake on fake session")
    assert session.warm_ups == 2
    assert (outputs.values["model"], outputs.values["backend"]) == ("fake", "fake session")
    worker.activate().result(5)
    worker.frame(frame(1))
    worker.select(Selection(BOX)).result(5)
    worker.frame(frame(2))
    assert outputs.reports[0].box == BOX
    assert outputs.threads == {"tracker"}
    assert threading.current_thread().name != "tracker"


def test_a_zero_stamp_means_the_newest_when_it_was_given(make: Any) -> None:
    worker, outputs = make(FakeSession(still))
    worker.open(TrackerParameters()).result(5)
    worker.activate().result(5)
    worker.frame(frame(1))
    worker.frame(frame(2))
    worker.select(Selection(BOX)).result(5)
    assert [r.frame.number for r in outputs.reports] == [2]


def test_the_selections_image_is_not_counted_as_skipped(make: Any) -> None:
    """It may still lie in the mailbox when it is initialised on."""
    worker, outputs = make(FakeSession(still))
    worker.open(TrackerParameters()).result(5)
    worker.activate().result(5)
    gate = threading.Event()
    worker._mailbox.call(gate.wait, 5)  # the worker is busy while both arrive
    worker.frame(frame(1))
    chosen = worker.select(Selection(BOX))
    gate.set()
    chosen.result(5)
    assert worker.frame(frame(2)) is False
    assert outputs.reports[0].frame.number == 1


def test_a_busy_worker_skips_to_the_newest_frame(make: Any) -> None:
    gate = threading.Event()

    def slow(search: Any, size: Any) -> StepResult:
        assert gate.wait(5)
        return still(search, size)

    worker, outputs = make(FakeSession(slow))
    worker.open(TrackerParameters()).result(5)
    worker.activate().result(5)
    worker.frame(frame(1))
    worker.select(Selection(BOX)).result(5)
    worker.frame(frame(2))
    end = time.monotonic() + 5
    while worker._mailbox._frame is not None and time.monotonic() < end:
        time.sleep(0.001)
    assert [worker.frame(frame(n)) for n in (3, 4, 5)] == [False, True, True]
    gate.set()
    while len(outputs.reports) < 3 and time.monotonic() < end:
        time.sleep(0.001)
    worker.deactivate().result(5)
    assert [r.frame.number for r in outputs.reports] == [1, 2, 5]


def test_a_selection_without_an_image_is_refused_in_time(make: Any) -> None:
    worker, outputs = make(FakeSession(still))
    worker.open(TrackerParameters()).result(5)
    worker.activate().result(5)
    worker.select(Selection(BOX)).result(5)
    assert outputs.values["selection_verdict"] == "waits for its image"
    end = time.monotonic() + 5
    while "refused" not in outputs.values["selection_verdict"] and time.monotonic() < end:
        time.sleep(0.01)
    assert outputs.values["selection_verdict"] == "refused: no image has been received"


def test_not_active_nothing_is_followed(make: Any) -> None:
    worker, outputs = make(FakeSession(still))
    worker.open(TrackerParameters()).result(5)
    worker.frame(frame(1))
    worker.select(Selection(BOX)).result(5)
    assert outputs.values["selection_verdict"] == "refused: the node is not active"
    worker.activate().result(5)
    worker.frame(frame(2))
    worker.select(Selection(BOX)).result(5)
    worker.deactivate().result(5)
    worker.frame(frame(3))
    worker.activate().result(5)
    worker.select(Selection(BOX)).result(5)  # the image from before is forgotten
    assert [r.frame.number for r in outputs.reports] == [2]
    assert outputs.values["selection_verdict"] == "waits for its image"


def test_what_opening_raises_reaches_the_caller_and_leaves_nothing_open() -> None:
    def refuse(parameters: TrackerParameters, log: Any) -> Any:
        raise BundleError("models/x/bundle.yaml: crop: missing")

    worker = Worker(Outputs(), refuse)
    with pytest.raises(BundleError, match="crop: missing"):
        worker.open(TrackerParameters()).result(5)
    assert worker.bundle is None
    assert worker.stop(5.0)


def test_a_warm_up_that_fails_closes_the_session(make: Any) -> None:
    session = FakeSession(still)
    session.warm_up = lambda: 1 / 0  # type: ignore[assignment, method-assign]
    worker, _ = make(session)
    with pytest.raises(ZeroDivisionError):
        worker.open(TrackerParameters()).result(5)
    assert session.closed


def test_thresholds_that_do_not_fit_the_model_are_refused(make: Any) -> None:
    session = FakeSession(still)
    worker, _ = make(session, fake_bundle(presence=PresenceSpec(found=0.5, lost=0.2)))
    with pytest.raises(ParameterError, match="must not be above"):
        worker.open(TrackerParameters(presence_lost=0.6)).result(5)
    assert session.closed


def test_stopping_closes_the_session_and_takes_nothing_more(make: Any) -> None:
    session = FakeSession(still)
    worker, _ = make(session)
    worker.open(TrackerParameters()).result(5)
    assert worker.stop(5.0) and session.closed
    with pytest.raises(CancelledError):
        worker.clear("too late").result(1)


def test_a_failing_publish_does_not_end_the_thread(make: Any) -> None:
    worker, outputs = make(FakeSession(still))
    worker.open(TrackerParameters()).result(5)
    worker.activate().result(5)
    worker.frame(frame(1))
    publish = outputs.detection
    outputs.detection = lambda report: 1 / 0  # type: ignore[assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        worker.select(Selection(BOX)).result(5)
    outputs.detection = publish  # type: ignore[method-assign]
    assert outputs.errors == ["ZeroDivisionError: division by zero"]
    worker.frame(frame(2))
    end = time.monotonic() + 5
    while not outputs.reports and time.monotonic() < end:
        time.sleep(0.001)
    assert [r.frame.number for r in outputs.reports] == [2]


def moving(number: int) -> Frame:
    """A thing that moves 3 px an image."""
    pixels = np.full((100, 400, 3), 90, np.uint8)
    x = 20 + 3 * number
    pixels[30:50, x : x + 20] = (200, 30, 30)
    return Frame(number, number * 10**7, "", None, ArrayPicture(pixels), 0.0, pixels.nbytes)


def place(number: int) -> Box:
    return Box.from_xywh(20 + 3 * number, 30, 20, 20)


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + 5
    while not done():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_late_selection_is_caught_up_while_images_come_in(make: Any) -> None:
    worker, outputs = make(FakeSession(ColourFinder((200, 30, 30))))
    worker.open(TrackerParameters()).result(5)
    worker.activate().result(5)
    for number in range(1, 61):
        worker.frame(moving(number))
    worker.select(Selection(place(10), 10 * 10**7)).result(5)
    for number in range(61, 81):
        worker.frame(moving(number))
        time.sleep(0.002)
    until(lambda: outputs.reports[-1].frame.number == 80)
    assert outputs.reports[0].frame.number == 10
    assert all(report.frame.number > 30 for report in outputs.reports[1:])
    assert outputs.reports[-1].box.iou(place(80)) > 0.9


def test_calls_are_answered_on_the_way_to_the_present(make: Any) -> None:
    def slow(search: Any, size: Any) -> StepResult:
        time.sleep(0.02)
        return still(search, size)

    worker, outputs = make(FakeSession(slow))
    worker.open(TrackerParameters(catch_up_budget_ms=10_000.0)).result(5)
    worker.activate().result(5)
    for number in range(1, 200):
        worker.frame(frame(number))
    worker.select(Selection(BOX, 10**7)).result(5)
    begin = time.monotonic()
    assert worker.clear("asked for").result(5) == "target 1 is cleared: asked for"
    assert time.monotonic() - begin < 1.0
    worker.select(Selection(BOX, 10**7)).result(5)
    worker.deactivate().result(5)
    assert next(r.frame.number for r in outputs.reports if r.selected) == 1
    assert len(worker.history) == 0


def test_bounds_of_the_history_may_change(make: Any) -> None:
    worker, _ = make(FakeSession(still))
    worker.open(TrackerParameters(history_seconds=0.1)).result(5)
    worker.activate().result(5)
    for number in range(1, 101):
        worker.frame(frame(number))  # 10 ms apart
    assert len(worker.history) == 11
    worker.set_parameters(TrackerParameters(history_seconds=0.05)).result(5)
    assert len(worker.history) == 6
