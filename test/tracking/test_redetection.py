"""A lost target: where it is looked for, how long, and when it counts as found."""

from __future__ import annotations

import itertools
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import TrackState
from siam_tracker_ros.tracking.redetection import LEAST, ROUNDS, SAME, places

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


def test_later_scans_look_for_other_sizes(world, make, say):
    tracker, _ = make(say(score=0.0), lost_after=1, redetect_budget_ms=0.0)
    tracker.initialize(world(), START)
    cut, picture = record_crops(tracker), world()
    for _ in range(60):
        tracker.update(picture)
    widths = [side / cut[0] for side in cut[1:]]
    assert {round(size, 2) for size in widths} >= set(SAME)


def test_a_picture_that_grows_while_the_target_is_lost_is_searched_as_a_whole(world, make, red):
    tracker, _ = make(red, redetect_budget_ms=0.0)
    tracker.initialize(world((40, 30, 40, 30)), START)
    lose(tracker, world)
    tracker.update(world())
    grown = world((360, 280, 40, 30), size=(420, 320))
    for _ in range(400):
        if tracker.update(grown).box is not None:
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
    # Some region of the first rounds has the place within its middle half: the target is whole there.
    last = Box(cx, cy, side / 4, side / 4)
    near = (0.6, 1.5)  # the sizes of the first rounds
    first = itertools.takewhile(
        lambda box: near[0] < box.w / last.w < near[1], places(last, side, 640, 480)
    )
    nearest = min(max(abs(b.cx - x), abs(b.cy - y)) for b in first if b.w == last.w)
    assert nearest <= side / 4 + 1e-6


def test_looking_begins_at_the_last_place_and_goes_outward():
    last = Box(300, 200, 20, 20)
    rings = []
    same = (box for box in places(last, 80, 640, 480) if box.w == last.w)
    for box in itertools.islice(same, 9 + 25):
        rings.append(round(max(abs(box.cx - 300), abs(box.cy - 200)) / 40))
    # The innermost ring, then again from the beginning twice as far.
    assert rings == [0] + [1] * 8 + [0] + [1] * 8 + [2] * 16


def test_places_keep_the_targets_shape_and_stay_in_the_picture():
    last = Box(630, 10, 33, 22)
    for box in itertools.islice(places(last, 90, 640, 480), 500):
        assert box.w / box.h == pytest.approx(33 / 22)
        assert math.sqrt(box.area) >= LEAST
        assert 0 <= box.cx <= 639
        assert 0 <= box.cy <= 479


def test_a_round_looks_near_for_all_its_sizes_before_it_looks_further():
    found = places(Box(50, 50, 50, 50), 200, 200, 160)
    scans = itertools.groupby(found, key=lambda box: round(box.w / 50, 2))
    sizes = [size for size, _ in itertools.islice(scans, 200)]
    # Two rings are the picture for the sizes of the first three rounds.
    assert sizes[:18] == [*SAME] * 6
    assert sizes[18:21] == [*ROUNDS[3]]
    assert set(sizes) == {size for sizes in ROUNDS for size in sizes}


def test_no_smaller_target_is_looked_for_than_can_be_seen():
    sizes = {box.w / 12 for box in itertools.islice(places(Box(50, 50, 12, 12), 48, 99, 99), 999)}
    assert min(sizes) * 12 >= LEAST
    tiny = places(Box(50, 50, 5, 5), 20, 99, 99)
    assert {box.w for box in itertools.islice(tiny, 5000)} == {5, 7, 10}


def test_a_region_larger_than_the_picture_is_one_place_and_its_neighbours():
    boxes = {(b.cx, b.cy) for b in itertools.islice(places(Box(5, 5, 9, 9), 99, 8, 8), 50)}
    assert len(boxes) <= 9


def record_crops(tracker):
    """The sides, image px, of all regions that ``tracker`` will look at."""
    sides, cut = [], tracker._cut

    def recorded(picture, crop, fill, clock):
        sides.append(crop.side)
        return cut(picture, crop, fill, clock)

    tracker._cut = recorded
    return sides


def test_what_is_half_seen_is_looked_at_from_where_it_is(world, make, say):
    """Each look that is clearer than the one before leads to the next; the scan then goes on."""
    looks = [say(score=0.1), say(score=0.35, dx=20.0), say(score=0.5, dx=5.0), say(score=0.9)]
    tracker, session = make([*looks, say(score=0.9)], lost_after=1, redetect_budget_ms=0.0)
    tracker.initialize(world(), START)
    states = [tracker.update(world()).state.value for _ in range(5)]
    assert states == ["lost"] * 4 + ["tracking"]
    fading = [say(score=0.1), say(score=0.5), say(score=0.4), say(score=0.0)]
    tracker, session = make(fading, lost_after=1, redetect_budget_ms=0.0)
    tracker.initialize(world(), START)
    for _ in range(30):
        assert tracker.update(world()).state is TrackState.LOST
    assert session.commits == 0
