"""The node's rules, one by one, without threads and without ROS: what is published for which image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.bundle import StepResult
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.nodes.encodings import Lazy
from siam_tracker_ros.nodes.errors import ImageError
from siam_tracker_ros.nodes.follower import Follower, Report
from siam_tracker_ros.nodes.frames import Frame
from siam_tracker_ros.nodes.history import History
from siam_tracker_ros.nodes.selection import Selection, SelectionRules
from siam_tracker_ros.tracking import (
    ColourFinder,
    FakeSession,
    Tracker,
    TrackerSettings,
    TrackState,
    fake_bundle,
)

MS = 1_000_000
RED = (200, 30, 30)
WIDTH, HEIGHT = 320, 240
START = Box(100.0, 80.0, 30.0, 20.0)


class Recorded:
    """Outputs that remember."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.pictures: list[tuple[int, bool]] = []
        self.values: dict[str, Any] = {}
        self.published: list[dict[str, Any]] = []
        self.said: list[tuple[str, str]] = []
        self.replayed: list[tuple[int, int]] = []

    def detection(self, report: Report) -> None:
        self.reports.append(report)

    def picture(self, frame: Frame, report: Report | None) -> None:
        self.pictures.append((frame.number, report is not None))

    def caught_up(self, followed: int, skipped: int) -> None:
        self.replayed.append((followed, skipped))

    def status(self, publish: bool, **changes: Any) -> None:
        self.values.update(changes)
        if publish:
            self.published.append(dict(self.values))

    def info(self, text: str) -> None:
        self.said.append(("info", text))

    def warn(self, text: str) -> None:
        self.said.append(("warn", text))

    def error(self, text: str) -> None:
        self.said.append(("error", text))

    def warnings(self) -> list[str]:
        return [text for level, text in self.said if level != "info"]


def pixels(box: Box | None, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    image = np.full((height, width, 3), 90, np.uint8)
    if box is not None:
        x1, y1, x2, y2 = (round(edge + 0.5) for edge in box.edges)
        image[max(0, y1) : y2, max(0, x1) : x2] = RED
    return image


class Stage:
    """A follower, the images it gets, and a clock that stands still."""

    def __init__(self, session: FakeSession | None = None, **settings: Any) -> None:
        self.out = Recorded()
        self.now = 50.0
        self.session = session or FakeSession(ColourFinder(RED))
        settings = {"lost_after": 2, "redetect_budget_ms": 10.0, **settings}
        # A busy machine changes nothing: whenever the tracker asks for the time, 0.1 ms have passed.
        ticks = itertools.count()
        self.tracker = Tracker(
            fake_bundle(), self.session, TrackerSettings(**settings), lambda: 1e-4 * next(ticks)
        )
        self.history = History()
        self.follower = Follower(self.tracker, self.out, self.history, clock=lambda: self.now)
        self.count = 0

    def make(self, stamp_ms: int, box: Box | None = START, **options: Any) -> Frame:
        self.count += 1
        size = options.pop("size", (WIDTH, HEIGHT))
        picture = options.pop("picture", None) or ArrayPicture(pixels(box, *size))
        values = {"frame_id": "camera", "header": object(), "received": 0.0, **options}
        frame = Frame(number=self.count, stamp=stamp_ms * MS, picture=picture, **values)
        self.history.add(frame)  # as the image's callback does
        return frame

    def catch_up(self) -> None:
        """As the worker does before it takes the next frame."""
        while self.follower.behind:
            self.follower.catch_up()

    def show(self, stamp_ms: int, box: Box | None = START, **options: Any) -> Frame:
        frame = self.make(stamp_ms, box, **options)
        self.follower.frame(frame)
        self.catch_up()
        return frame

    def select(self, box: Box = START, stamp_ms: int = 0, **options: Any) -> None:
        self.follower.select(Selection(box, stamp_ms * MS, **options))
        self.catch_up()

    @property
    def last(self) -> Report:
        return self.out.reports[-1]

    @property
    def verdict(self) -> str:
        return str(self.out.values.get("selection_verdict", ""))


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def tracking(stage: Stage) -> Stage:
    """Tracking target "1" since the image of 100 ms."""
    stage.show(100)
    stage.select()
    assert stage.tracker.state is TrackState.TRACKING
    return stage


# --- what is published ------------------------------------------------------------------------


def test_idle_publishes_nothing(stage: Stage) -> None:
    for stamp in (100, 133, 166):
        stage.show(stamp)
    assert stage.out.reports == []
    assert stage.out.pictures == [(1, False), (2, False), (3, False)]


def test_the_selections_image_gets_the_given_box(stage: Stage) -> None:
    frame = stage.show(100)
    stage.select(label="duck")
    assert len(stage.out.reports) == 1
    assert (stage.last.box, stage.last.id, stage.last.label) == (START, "1", "duck")
    assert stage.last.frame is frame
    assert stage.verdict == "accepted"
    assert stage.out.published[-1]["state"] == "tracking"


def test_the_given_box_is_clipped_to_the_image(stage: Stage) -> None:
    stage.show(100)
    stage.select(Box.from_edges(-10.5, -20.5, 29.5, 19.5))
    assert stage.last.box.edges == pytest.approx((-0.5, -0.5, 29.5, 19.5))


def test_every_later_image_gets_one_detection_with_its_header(tracking: Stage) -> None:
    shown = [
        tracking.show(100 + 33 * i, Box(100.0 + 4 * i, 80.0 + 2 * i, 30.0, 20.0))
        for i in range(1, 6)
    ]
    reports = tracking.out.reports[1:]
    assert [r.frame for r in reports] == shown
    assert {r.id for r in reports} == {"1"}
    assert reports[-1].box.iou(Box(120.0, 90.0, 30.0, 20.0)) > 0.9
    assert all(r.result.state is TrackState.TRACKING and r.result.score > 0.6 for r in reports)
    assert tracking.out.values["stamp"] == shown[-1].stamp


def test_lost_and_found_again_keep_the_id(tracking: Stage) -> None:
    for i in range(1, 5):
        tracking.show(100 + 33 * i, None)
    assert tracking.last.result.state is TrackState.LOST
    assert tracking.last.result.box is None
    assert tuple(tracking.last.box) == (0.0, 0.0, 0.0, 0.0)
    assert tracking.last.id == "1"
    assert tracking.out.published[-1]["state"] == "lost"
    assert any("target 1 is lost" in text for text in tracking.out.warnings())
    shown = 5
    while tracking.last.result.state is TrackState.LOST and shown < 100:
        tracking.show(100 + 33 * shown, Box(200.0, 150.0, 30.0, 20.0))
        shown += 1
    assert tracking.last.result.state is TrackState.TRACKING
    assert tracking.last.id == "1"
    assert tracking.last.box.iou(Box(200.0, 150.0, 30.0, 20.0)) > 0.8
    assert len(tracking.out.reports) == shown  # one for every image since the selection
    assert any("found again" in text for _, text in tracking.out.said)


def test_giving_up_is_idle_again() -> None:
    stage = Stage(give_up_after=0.1)
    stage.show(100)
    stage.select()
    for i in range(1, 12):
        stage.show(100 + 33 * i, None)
    assert stage.tracker.state is TrackState.IDLE
    published = len(stage.out.reports)
    stage.show(900)
    assert len(stage.out.reports) == published
    assert stage.out.values["state"] == "idle" and stage.out.values["id"] == ""
    assert any("given up" in text for _, text in stage.out.said)


def test_ids_are_the_selections_or_counted(stage: Stage) -> None:
    stage.show(100)
    ids = []
    for name in ("", "left hand", "", ""):
        stage.select(id=name)
        ids.append(stage.last.id)
    assert ids == ["1", "left hand", "2", "3"]


def test_a_new_selection_replaces_the_old_target(tracking: Stage) -> None:
    two = pixels(START)
    two[150:180, 200:240] = RED
    tracking.show(133, picture=ArrayPicture(two))
    tracking.select(Box.from_xywh(200, 150, 40, 30))
    tracking.show(166, picture=ArrayPicture(two))
    assert [r.id for r in tracking.out.reports] == ["1", "1", "2", "2"]
    assert tracking.last.box.cx > 180


# --- which image a selection means ------------------------------------------------------------


def test_a_selection_waits_for_the_first_image(stage: Stage) -> None:
    stage.select()
    assert stage.verdict == "waits for its image"
    assert stage.follower.deadline() == 50.5
    stage.now += 0.4
    stage.follower.expire()
    stage.show(100)
    assert (stage.verdict, stage.last.frame.stamp) == ("accepted", 100 * MS)
    assert stage.follower.deadline() is None


def test_without_an_image_it_is_refused(stage: Stage) -> None:
    stage.select()
    stage.now += 0.51
    stage.follower.expire()
    assert stage.verdict == "refused: no image has been received"
    stage.show(100)
    assert stage.out.reports == []


def test_a_stamped_selection_waits_for_exactly_its_image(stage: Stage) -> None:
    stage.show(100)
    stage.select(stamp_ms=166)
    stage.show(133)
    assert stage.out.reports == []
    stage.show(166)
    assert [r.frame.stamp // MS for r in stage.out.reports] == [166]


def test_when_its_image_was_skipped_the_nearest_is_taken(stage: Stage) -> None:
    stage.show(100)
    stage.select(stamp_ms=133)
    stage.show(180)
    assert [r.frame.stamp // MS for r in stage.out.reports] == [100, 180]
    assert stage.out.values["stamp"] == 180 * MS


def test_the_image_that_is_still_in_the_mailbox_counts(stage: Stage) -> None:
    stage.show(100)
    waiting = stage.make(133)
    stage.follower.select(Selection(START), newest=waiting)
    assert stage.last.frame is waiting
    stage.follower.frame(waiting)  # the worker takes it from the mailbox afterwards
    assert len(stage.out.reports) == 1
    stage.show(166)
    assert [r.frame.stamp // MS for r in stage.out.reports] == [133, 166]


def test_an_exact_older_image_in_hand_is_taken(stage: Stage) -> None:
    stage.show(100)
    waiting = stage.make(133)
    stage.follower.select(Selection(START, 100 * MS), newest=waiting)
    stage.catch_up()
    stage.follower.frame(waiting)
    assert [r.frame.stamp // MS for r in stage.out.reports] == [100, 133]


@pytest.mark.parametrize(
    ("stamp", "words"),
    [
        (40, "0.060 s older than the oldest image kept"),
        (1000, "0.900 s newer"),
        (151, "0.051 s newer"),
    ],
)
def test_no_image_near_enough(tracking: Stage, stamp: int, words: str) -> None:
    tracking.select(stamp_ms=stamp)
    tracking.now += 0.6
    tracking.follower.expire()
    assert tracking.verdict.startswith("refused: its stamp") and words in tracking.verdict
    assert tracking.out.values["selection_stamp"] == stamp * MS
    assert tracking.tracker.state is TrackState.TRACKING


def test_within_the_tolerance_the_newest_does_when_no_later_one_comes(stage: Stage) -> None:
    stage.show(100)
    stage.select(stamp_ms=149)
    stage.now += 0.6
    stage.follower.expire()
    assert stage.verdict == "accepted"


def test_the_tolerance_may_change(tracking: Stage) -> None:
    tracking.follower.set_settings(tracking.tracker.settings, SelectionRules(tolerance=0.001))
    tracking.select(stamp_ms=98)
    assert "older" in tracking.verdict
    tracking.follower.set_settings(tracking.tracker.settings, SelectionRules(tolerance=0.002))
    tracking.select(stamp_ms=98)
    assert tracking.verdict == "accepted"


def test_a_second_selection_replaces_one_that_waits(stage: Stage) -> None:
    stage.select(id="first")
    stage.select(id="second")
    stage.show(100)
    assert [r.id for r in stage.out.reports] == ["second"]


# --- selections on images of the past ---------------------------------------------------------


def at(i: int) -> Box:
    """Where the thing is in the i-th image of :func:`shown`."""
    return Box(60.0 + 4.0 * i, 80.0, 30.0, 20.0)


def shown(stage: Stage, count: int, period_ms: int = 33) -> list[Frame]:
    """Show a thing that moves by more than its width in eight images."""
    return [stage.show(1000 + period_ms * i, at(i)) for i in range(count)]


@pytest.mark.parametrize("late", [0, 1, 3, 30])
def test_a_late_selection_is_applied_where_it_was_made_and_caught_up(
    stage: Stage, late: int
) -> None:
    frames = shown(stage, 40)
    stage.select(at(39 - late), 1000 + 33 * (39 - late))
    assert stage.verdict == "accepted"
    assert stage.out.reports[0].frame is frames[39 - late] and stage.out.reports[0].selected
    assert stage.out.reports[0].box == at(39 - late)
    # The newest image is the present; those before it are of the past and say nothing.
    assert [r.frame.number for r in stage.out.reports] == ([40] if late == 0 else [40 - late, 40])
    assert stage.last.box.iou(at(39)) > 0.9
    assert stage.out.replayed == ([(late - 1, 0)] if late > 1 else [])
    stage.show(3000, at(40))
    assert stage.last.frame.stamp == 3000 * MS and stage.last.box.iou(at(40)) > 0.9
    assert {r.id for r in stage.out.reports} == {"1"}


def test_the_image_that_comes_next_is_left_to_come(stage: Stage) -> None:
    shown(stage, 5)
    waiting = stage.make(2000, at(5))  # received, but not taken by the worker
    stage.follower.select(Selection(at(1), 1033 * MS), newest=waiting)
    stage.catch_up()
    assert [r.frame.number for r in stage.out.reports] == [2]
    assert stage.out.replayed == [(3, 0)]
    stage.follower.frame(waiting)
    assert stage.last.frame is waiting and stage.last.box.iou(at(5)) > 0.9


def test_images_that_the_busy_worker_skipped_are_caught_up_with(stage: Stage) -> None:
    stage.show(1000, at(0))
    for i in range(1, 12):
        stage.make(1000 + 33 * i, at(i))  # replaced in the mailbox before they were taken
    stage.show(2000, at(12))
    stage.select(at(0), 1000)
    assert stage.out.replayed == [(11, 0)]
    assert stage.last.frame.number == 13 and stage.last.box.iou(at(12)) > 0.9


def test_stamps_never_go_back_for_a_selection_on_the_past(tracking: Stage) -> None:
    """The target before was followed in images newer than the selection's."""
    shown(tracking, 10)
    published = [r.frame.stamp for r in tracking.out.reports]
    tracking.select(at(4), 1000 + 33 * 4, id="other")
    after = tracking.out.reports[len(published) :]
    assert [(r.id, r.frame.number) for r in after] == [("other", 11)]
    assert after[0].box.iou(at(9)) > 0.9
    assert tracking.verdict == "accepted"
    assert tracking.out.values["selection_stamp"] == (1000 + 33 * 4) * MS
    stamps = [r.frame.stamp for r in tracking.out.reports]
    assert stamps == sorted(stamps)


class Slow:
    """A network that takes its time on the stage's clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.stage: Stage | None = None
        self.seen = 0
        self._find = ColourFinder(RED)

    def __call__(self, search: Any, size: Any) -> StepResult:
        self.seen += 1
        if self.stage is not None:
            self.stage.now += self.seconds
        return self._find(search, size)


def test_what_does_not_fit_into_the_budget_is_left_out_evenly() -> None:
    network = Slow(0.05)
    stage = Stage(FakeSession(network))
    network.stage = stage
    for i in range(60):
        stage.show(1000 + 33 * i, at(i))
    begin = stage.now
    followed: list[int] = []
    follow = stage.follower._follow

    def noted(frame: Frame, silent: bool = False) -> None:
        followed.append(frame.number)
        follow(frame, silent)

    stage.follower._follow = noted  # type: ignore[method-assign]
    stage.select(at(9), 1000 + 33 * 9)
    assert stage.now - begin < 0.05 + 0.5 + 2 * 0.05  # selection, budget, and the present image
    steps = np.diff([10, *followed])
    assert followed[-1] == 60
    assert 8 <= len(followed) <= 11
    # The first is a guess of the time that one takes.
    assert steps[1:-1].max() - steps[1:-1].min() <= 1
    (replayed,) = stage.out.replayed
    assert replayed[0] == len(followed) - 1
    assert sum(replayed) == 49
    assert any(f"{replayed[1]} were left out" in text for _, text in stage.out.said)


def test_without_a_budget_it_goes_on_in_the_present(stage: Stage) -> None:
    stage.follower.set_settings(stage.tracker.settings, SelectionRules(catch_up_budget=0.0))
    shown(stage, 5)
    stage.select(at(2), 1066)
    assert [r.frame.number for r in stage.out.reports] == [3, 5]
    assert stage.out.replayed == [(0, 1)]


def test_a_refused_selection_on_the_past_leaves_the_track(tracking: Stage) -> None:
    shown(tracking, 6)
    before = tracking.last.box
    tracking.select(Box(1000.0, 80.0, 30.0, 20.0), 1033, id="other")
    assert "outside" in tracking.verdict
    tracking.show(2000, at(6))
    assert tracking.last.id == "1" and tracking.last.box.cx == pytest.approx(before.cx + 4, abs=1)


def test_a_selection_during_the_way_to_the_present_replaces_it(stage: Stage) -> None:
    shown(stage, 20)
    stage.follower.select(Selection(at(2), 1066 * MS, id="first"))
    for _ in range(3):
        stage.follower.catch_up()
    stage.follower.select(Selection(at(10), 1330 * MS, id="second"))
    stage.catch_up()
    assert [(r.id, r.frame.number) for r in stage.out.reports] == [
        ("first", 3),
        ("second", 11),
        ("second", 20),
    ]


def test_a_refused_selection_during_the_way_does_not_end_it(stage: Stage) -> None:
    shown(stage, 20)
    stage.follower.select(Selection(at(2), 1066 * MS, id="first"))
    stage.follower.catch_up()
    stage.follower.select(Selection(Box(0.0, 0.0, 0.0, 0.0), id="second"))
    stage.catch_up()
    assert (stage.last.id, stage.last.frame.number) == ("first", 20)
    assert stage.last.box.iou(at(19)) > 0.9


@pytest.mark.parametrize("what", ["clear", "pause"])
def test_clear_and_pause_end_the_way_to_the_present(stage: Stage, what: str) -> None:
    shown(stage, 20)
    stage.follower.select(Selection(at(2), 1066 * MS))
    stage.follower.catch_up()
    if what == "clear":
        stage.follower.clear("asked for")
    else:
        stage.follower.pause(True)
    assert not stage.follower.behind
    stage.follower.catch_up()
    assert len(stage.out.reports) == 1


def test_the_stamps_jump_back_on_the_way_to_the_present(stage: Stage) -> None:
    shown(stage, 20)
    stage.follower.select(Selection(at(2), 1066 * MS))
    stage.follower.catch_up()
    fresh = stage.make(10, at(0))
    stage.catch_up()
    assert len(stage.out.reports) == 1
    stage.follower.frame(fresh)
    assert stage.tracker.state is TrackState.IDLE
    assert any("jumped back" in text for text in stage.out.warnings())


def test_a_target_that_is_lost_on_the_way_is_said_to_be(stage: Stage) -> None:
    for i in range(30):
        stage.show(1000 + 33 * i, at(i) if i < 5 else None)
    stage.select(at(4), 1000 + 33 * 4)
    assert stage.last.result.state is TrackState.LOST
    assert any("is lost" in text for text in stage.out.warnings())


def test_an_image_of_the_past_that_cannot_be_read_is_passed_over(stage: Stage) -> None:
    def damaged() -> ArrayPicture:
        raise ImageError("the compressed image cannot be decoded (5 bytes)")

    stage.show(1000, at(0))
    stage.show(1033, at(1), picture=Lazy(WIDTH, HEIGHT, damaged))
    stage.show(1066, at(2))
    stage.show(1099, at(3))
    stage.select(at(0), 1000)
    assert stage.last.frame.number == 4 and stage.last.box.iou(at(3)) > 0.9


def test_a_selection_older_than_all_that_is_kept(stage: Stage) -> None:
    stage.history.set_bounds(1 << 30, 0.1)
    shown(stage, 20)
    stage.select(at(2), 1066)
    assert stage.verdict.startswith("refused: its stamp 1.066000000 is 0.462 s older than the olde")
    rules = SelectionRules(stale="oldest")
    stage.follower.set_settings(stage.tracker.settings, rules)
    stage.select(at(16), 1066)
    assert stage.verdict == "accepted on the oldest image kept, 0.462 s after its stamp"
    assert stage.out.reports[0].frame.number == 17


def test_a_stamp_for_images_without_any(stage: Stage) -> None:
    stage.show(0)
    stage.select(stamp_ms=500)
    stage.now += 0.6
    stage.follower.expire()
    assert "the images carry none (zero)" in stage.verdict


# --- refused selections -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (Box(math.nan, 80.0, 30.0, 20.0), "not finite"),
        (Box(100.0, 80.0, math.inf, 20.0), "not finite"),
        (Box(0.0, 0.0, 0.0, 0.0), "no size"),
        (Box(100.0, 80.0, -5.0, 20.0), "no size"),
        (Box(1000.0, 80.0, 30.0, 20.0), "outside"),
        (Box(100.0, 80.0, 3.0, 20.0), "too small"),
        (Box(-14.0, 80.0, 30.0, 20.0), "too small"),
    ],
)
def test_refused_boxes(tracking: Stage, box: Box, words: str) -> None:
    tracking.select(box, id="other")
    assert tracking.verdict.startswith("refused: ") and words in tracking.verdict
    assert any(words in text for text in tracking.out.warnings())
    assert tracking.out.published[-1]["selection_verdict"] == tracking.verdict
    tracking.show(133)
    assert [r.id for r in tracking.out.reports] == ["1", "1"]


def test_refused_while_idle_it_stays_idle(stage: Stage) -> None:
    stage.show(100)
    stage.select(Box(0.0, 0.0, 0.0, 0.0))
    stage.show(133)
    assert stage.out.reports == [] and stage.tracker.state is TrackState.IDLE


def test_another_frame_id_is_refused(tracking: Stage) -> None:
    tracking.select(frame_id="other_camera", id="x")
    assert tracking.verdict == "refused: its frame_id is 'other_camera', the image's is 'camera'"
    tracking.select(frame_id="camera", id="x")
    assert tracking.verdict == "accepted"


def test_a_turned_box_is_said_once(tracking: Stage) -> None:
    for _ in range(2):
        tracking.select(rotated=True)
    assert len([t for t in tracking.out.warnings() if "turned" in t]) == 1
    assert tracking.verdict == "accepted"


def test_its_own_output_is_ignored(tracking: Stage) -> None:
    for i in range(1, 4):
        tracking.show(100 + 33 * i, Box(100.0 + 4 * i, 80.0, 30.0, 20.0))
    starts, verdict = tracking.session.starts, tracking.verdict
    for report in list(tracking.out.reports):
        tracking.follower.select(
            Selection(report.box, report.frame.stamp, "camera", report.id, report.label)
        )
    assert tracking.session.starts == starts
    assert tracking.verdict == verdict
    assert len([t for t in tracking.out.warnings() if "own detection" in t]) == 1


def test_a_network_that_fails_at_a_selection_keeps_the_track(tracking: Stage) -> None:
    start = tracking.session.start

    def fail(*arguments: Any) -> StepResult:
        raise RuntimeError("out of memory")

    tracking.session.start = fail  # type: ignore[method-assign]
    tracking.select(id="other")
    assert tracking.verdict == "refused: the network failed: RuntimeError: out of memory"
    tracking.session.start = start  # type: ignore[method-assign]
    tracking.show(133)
    assert tracking.last.id == "1"


# --- clear, pause, time -----------------------------------------------------------------------


def test_clear(tracking: Stage) -> None:
    assert tracking.follower.clear("asked for") == "target 1 is cleared: asked for"
    assert tracking.out.published[-1]["state"] == "idle"
    tracking.show(133)
    assert len(tracking.out.reports) == 1
    assert tracking.follower.clear("asked for") == "there was no target"
    tracking.select()
    assert tracking.last.id == "2"


def test_clear_withdraws_a_waiting_selection(stage: Stage) -> None:
    stage.select()
    stage.follower.clear("asked for")
    stage.show(100)
    assert stage.verdict == "refused: asked for" and stage.out.reports == []


def test_pause_keeps_the_target(tracking: Stage) -> None:
    tracking.follower.pause(True)
    assert tracking.out.published[-1]["state"] == "paused"
    tracking.show(133)
    assert len(tracking.out.reports) == 1
    tracking.follower.pause(False)
    tracking.show(166)
    assert [r.frame.stamp // MS for r in tracking.out.reports] == [100, 166]
    assert tracking.last.id == "1"


def test_one_may_select_while_paused(stage: Stage) -> None:
    stage.show(100)
    stage.follower.pause(True)
    stage.show(133)
    stage.select()
    stage.show(166)
    stage.follower.pause(False)
    stage.show(200)
    assert [r.frame.stamp // MS for r in stage.out.reports] == [133, 200]


def test_stamps_that_jump_back_clear_the_target_and_are_said_once(tracking: Stage) -> None:
    tracking.show(133)
    tracking.show(20)
    tracking.show(53)
    said = [t for t in tracking.out.warnings() if "jumped back" in t]
    assert len(said) == 1 and "0.113 s" in said[0] and "target 1 is cleared" in said[0]
    assert len(tracking.out.reports) == 2
    tracking.select()
    assert tracking.last.frame.stamp == 53 * MS


def test_after_a_jump_old_detections_are_not_taken_for_its_own(tracking: Stage) -> None:
    tracking.show(10)
    tracking.show(100)
    tracking.follower.select(Selection(START, 100 * MS, "", "1"))
    assert tracking.verdict == "accepted"


def test_a_jump_seen_by_a_selection_first(tracking: Stage) -> None:
    """The selection is bound to an image that the follower has not seen, from after the jump."""
    late = tracking.make(30)
    tracking.follower.select(Selection(START, 0, "", "new"), newest=late)
    assert tracking.last.frame is late and tracking.last.id == "new"
    tracking.follower.frame(late)
    assert len(tracking.out.reports) == 2


def test_the_clock_jumps_back(tracking: Stage) -> None:
    tracking.follower.time_jumped_back(40 * MS)
    assert tracking.tracker.state is TrackState.IDLE
    tracking.show(41)
    assert len([t for t in tracking.out.warnings() if "jumped back" in t]) == 1
    tracking.select()
    tracking.follower.time_jumped_back(50 * MS)  # of no image in hand
    assert tracking.tracker.state is TrackState.TRACKING


def test_images_without_stamps_are_followed(stage: Stage) -> None:
    stage.show(0)
    stage.select()
    for i in range(3):
        stage.show(0, Box(103.0 + 3 * i, 80.0, 30.0, 20.0))
    assert len(stage.out.reports) == 4 and stage.last.box.cx > 105


def test_a_camera_that_restarts(tracking: Stage) -> None:
    tracking.show(60_100, Box(110.0, 80.0, 30.0, 20.0))
    assert tracking.last.result.state is TrackState.TRACKING


def test_forgotten_images_are_of_the_past(tracking: Stage) -> None:
    tracking.follower.clear("the node is deactivated")
    tracking.follower.forget_images()
    tracking.select()
    tracking.now += 1.0
    tracking.follower.expire()
    assert tracking.verdict == "refused: no image has been received"


# --- sizes and bad images ---------------------------------------------------------------------


def test_another_size_that_still_holds_the_target(tracking: Stage) -> None:
    for i in range(1, 4):
        tracking.show(100 + 33 * i, START, size=(200, 150))
    assert len(tracking.out.reports) == 4
    assert tracking.last.result.state is TrackState.TRACKING
    said = [t for t in tracking.out.warnings() if "size changed to 200 x 150" in t]
    assert len(said) == 1 and "followed on" in said[0]


def test_another_size_without_the_target(stage: Stage) -> None:
    far = Box(290.0, 220.0, 30.0, 20.0)
    stage.show(100, far)
    stage.select(far)
    stage.show(133, None, size=(160, 120))
    stage.show(166, None, size=(160, 120))
    assert stage.tracker.state is TrackState.IDLE and len(stage.out.reports) == 1
    said = [t for t in stage.out.warnings() if "size changed to 160 x 120" in t]
    assert len(said) == 1 and "cleared" in said[0]


def test_bad_images_are_said_once_in_a_while(tracking: Stage) -> None:
    for i in range(4):
        tracking.follower.bad_image(f"step = {i} is shorter than a row")
    tracking.follower.bad_image("encoding 'x' is not supported")
    assert tracking.out.warnings() == [
        "an image is ignored: step = 0 is shorter than a row",
        "an image is ignored: encoding 'x' is not supported",
    ]
    assert tracking.out.published[-1]["problem"].endswith("'x' is not supported")
    tracking.now += 5.1
    tracking.follower.bad_image("step = 9 is shorter than a row")
    assert len(tracking.out.warnings()) == 3
    tracking.show(133)
    assert tracking.last.frame.stamp == 133 * MS and tracking.last.id == "1"
    assert tracking.out.values["problem"]  # still to be read
    tracking.now += 2.1
    tracking.show(166)
    assert tracking.out.published[-1]["problem"] == ""


def test_an_image_that_turns_out_damaged_when_read(tracking: Stage) -> None:
    def damaged() -> ArrayPicture:
        raise ImageError("the compressed image cannot be decoded (5 bytes)")

    tracking.show(133, picture=Lazy(WIDTH, HEIGHT, damaged))
    assert len(tracking.out.reports) == 1
    assert "cannot be decoded" in tracking.out.published[-1]["problem"]
    tracking.show(166)
    assert tracking.last.frame.stamp == 166 * MS
    tracking.show(200, picture=Lazy(WIDTH, HEIGHT, damaged))
    tracking.select(id="other")
    assert "its image cannot be read" in tracking.verdict
    assert tracking.tracker.state is TrackState.TRACKING


def test_a_network_that_fails_on_an_image_is_said_and_tried_again() -> None:
    find = ColourFinder(RED)
    play: list[Callable[..., StepResult] | Exception] = [find, RuntimeError("CUDA error 700"), find]
    stage = Stage(FakeSession(play))
    stage.show(100)
    stage.select()
    for i in range(1, 4):
        stage.show(100 + 33 * i)
    assert [r.frame.stamp // MS for r in stage.out.reports] == [100, 133, 199]
    assert [t for level, t in stage.out.said if level == "error"] == [
        "the network failed on an image: RuntimeError: CUDA error 700"
    ]
