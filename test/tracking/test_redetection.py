"""A lost target: where it is looked for, how long, and when it counts as found."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import TrackState
from siam_tracker_ros.tracking.redetection import GROWS, places

START = Box.from_xywh(40, 30, 40, 30)


def lose(tracker, world):
    """Let the target disappear until it is lost."""
    for _ in range(30):
        if tracker.update(world()).state is TrackState.LOST:
            return
    raise AssertionError("never lost")


def test_a_target_that_comes_back_elsewhere_is_found(world, make, red):
    tracker, session = make(red, redetect_budget_ms=0.0)
    tracker.initialize(world((40, 30, 40, 30)), START)
    lose(tracker, world)
    commits = session.commits
    looks = session.steps
    for _ in range(60):
        result = tracker.update(world((250, 190, 40, 30)))
        if result.state is TrackState.TRACKING:
            break
        assert result.state is TrackState.LOST
        assert result.box is None
        assert session.commits == commits
    assert result.box.iou(Box.from_xywh(250, 190, 40, 30)) > 0.85
    assert session.steps - looks > 2  # it was out of reach of the first looks
    assert session.commits == commits + 1


def test_the_last_sure_box_is_looked_for(world, make, say):
    # While uncertain, the box follows whatever the network says; the search must not inherit that.
    astray = say(score=0.25, dx=30.0, scale=3.0)
    trajectory = [say(), *[astray] * 10, say(score=0.9), say(score=0.9)]
    tracker, _ = make(trajectory, redetect_budget_ms=0.0)
    tracker.initialize(world(), START)
    seen = tracker.update(world()).box
    lose(tracker, world)
    tracker.update(world())
    assert tuple(tracker.update(world()).box) == pytest.approx(tuple(seen))


def test_later_scans_look_at_other_scales(world, make, say):
    tracker, session = make(say(score=0.1), lost_after=1, redetect_budget_ms=0.0)
    tracker.initialize(world(), START)
    for _ in range(400):
        tracker.update(world())
    widths = [session.previous_sizes[0][0] / w for w, _ in session.previous_sizes[1:]]
    assert {round(grow, 3) for grow in widths} == set(GROWS)


def test_a_picture_that_grows_while_the_target_is_lost_is_searched_as_a_whole(world, make, red):
    tracker, _ = make(red, redetect_budget_ms=0.0)
    tracker.initialize(world((40, 30, 40, 30)), START)
    lose(tracker, world)
    tracker.update(world())
    for _ in range(200):
        if tracker.update(world((580, 430, 40, 30), size=(640, 480))).box is not None:
            return
    raise AssertionError("never found")


def test_one_look_is_not_enough(world, make, say):
    scores = [0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.9, 0.9]
    tracker, session = make(
        [say(score=score) for score in scores], lost_after=1, redetect_budget_ms=0.0
    )
    tracker.initialize(world(), START)
    states = [tracker.update(world()).state.value for _ in scores]
    assert states == ["lost"] * 7 + ["tracking"]
    assert session.commits == 1


def test_the_second_look_is_on_the_next_frame(world, make, say):
    # However large the budget, one frame's pixels are one piece of evidence.
    tracker, session = make([say(score=0.1), say(score=0.9)], lost_after=1, redetect_budget_ms=1e3)
    tracker.initialize(world(), START)
    assert tracker.update(world()).state is TrackState.LOST
    first = tracker.update(world())
    assert (first.state, first.box, session.steps) == (TrackState.LOST, None, 2)
    assert first.score == 0.9
    assert tracker.update(world()).state is TrackState.TRACKING
    assert session.steps == 3


@pytest.mark.parametrize("elsewhere", [{"dx": 120.0}, {"dy": -120.0}, {"scale": 2.5}])
def test_the_second_look_must_agree_with_the_first(world, make, say, elsewhere):
    trajectory = [say(score=0.1), say(score=0.9), say(score=0.9, **elsewhere), say(score=0.1)]
    tracker, session = make(trajectory, lost_after=1, redetect_budget_ms=0.0, penalty=0.0)
    tracker.initialize(world(), START)
    for _ in range(4):
        assert tracker.update(world()).state is TrackState.LOST
    assert session.commits == 0


def test_nothing_is_committed_while_lost(world, make, red):
    tracker, session = make(red)
    tracker.initialize(world((40, 30, 40, 30)), START)
    lose(tracker, world)
    for _ in range(10):
        tracker.update(world())
    assert session.commits == 0


def slow(answer, seconds):
    def play(search, previous_size):
        time.sleep(seconds)
        return answer(search, previous_size)

    return play


def test_the_budget_bounds_the_time_of_a_frame(world, make, say):
    tracker, session = make(slow(say(score=0.1), 0.005), lost_after=1, redetect_budget_ms=100.0)
    tracker.initialize(world(), START)
    lose(tracker, world)
    tracker.update(world())
    looks = []
    for _ in range(5):
        before = session.steps
        result = tracker.update(world())
        looks.append(session.steps - before)
        assert result.timing.step_ms >= 5 * looks[-1]
    # A busy machine makes looks slower, never cheaper than their 5 ms.
    assert max(looks) <= 20
    assert max(looks) >= 2


def test_one_place_is_looked_at_whatever_the_budget(world, make, say):
    tracker, session = make(slow(say(score=0.1), 0.005), lost_after=1, redetect_budget_ms=1.0)
    tracker.initialize(world(), START)
    lose(tracker, world)
    for expected in (2, 3, 4, 5):
        tracker.update(world())
        assert session.steps == expected


def test_giving_up_forgets_the_target(world, make, say):
    tracker, _ = make(say(score=0.1), lost_after=1, give_up_after=2.0)
    tracker.initialize(world(), START)
    states = [
        tracker.update(world(), stamp).state.value for stamp in (10.0, 11.0, 11.9, 12.0, 13.0)
    ]
    assert states == ["lost", "lost", "lost", "idle", "idle"]


def test_a_clock_that_jumps_back_restarts_the_wait(world, make, say):
    tracker, _ = make(say(score=0.1), lost_after=1, give_up_after=2.0)
    tracker.initialize(world(), START)
    stamps = (1000.0, 1000.5, 3.0, 4.9, 5.0)
    states = [tracker.update(world(), stamp).state.value for stamp in stamps]
    assert states == ["lost", "lost", "lost", "lost", "idle"]


def test_never_giving_up_is_the_default(world, make, say):
    tracker, _ = make(say(score=0.1), lost_after=1)
    tracker.initialize(world(), START)
    tracker.update(world(), 0.0)
    assert tracker.update(world(), 1e9).state is TrackState.LOST


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 639), st.floats(0, 479), st.floats(30, 300), st.floats(0, 639), st.floats(0, 479)
)
def test_every_place_of_the_picture_is_looked_at(cx, cy, side, x, y):
    # Some region of the first scan has the place within its middle half: the target is whole there.
    last = Box(cx, cy, side / 4, side / 4)
    first = itertools.takewhile(lambda item: item[1] == GROWS[0], places(last, side, 640, 480))
    nearest = min(max(abs(box.cx - x), abs(box.cy - y)) for box, _ in first)
    assert nearest <= side / 4 + 1e-6


def test_looking_begins_at_the_last_place_and_goes_outward():
    last = Box(300, 200, 20, 20)
    rings = []
    for box, _ in itertools.islice(places(last, 80, 640, 480), 9 + 25):
        rings.append(round(max(abs(box.cx - 300), abs(box.cy - 200)) / 40))
    # The innermost ring, then again from the beginning twice as far.
    assert rings == [0] + [1] * 8 + [0] + [1] * 8 + [2] * 16


def test_places_keep_the_targets_size_and_stay_in_the_picture():
    last = Box(630, 10, 33, 22)
    for box, _ in itertools.islice(places(last, 90, 640, 480), 500):
        assert (box.w, box.h) == (33, 22)
        assert 0 <= box.cx <= 639
        assert 0 <= box.cy <= 479


def test_scans_take_turns_in_the_regions_size():
    grows = [grow for _, grow in itertools.islice(places(Box(50, 50, 20, 20), 80, 200, 160), 2000)]
    order = [grow for grow, _ in itertools.groupby(grows)]
    assert order[:6] == [*GROWS, *GROWS]


def test_a_region_larger_than_the_picture_is_one_place_and_its_neighbours():
    assert len({box for box, _ in itertools.islice(places(Box(5, 5, 9, 9), 99, 8, 8), 50)}) <= 9
