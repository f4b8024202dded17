"""Selecting, refusing, clearing, failing: a running track survives all that is not a new target."""

from __future__ import annotations

import math

import pytest

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import SelectionError, TrackState

START = Box.from_xywh(100, 90, 60, 40)

REFUSED = [
    (Box(math.nan, 10, 20, 20), "not finite"),
    (Box(10, 10, math.inf, 20), "not finite"),
    (Box(10, 10, 0, 20), "has no size"),
    (Box(10, 10, 20, -5), "has no size"),
    (Box(400, 100, 20, 20), "outside the 320 x 240 picture"),
    (Box(100, -30, 20, 20), "outside the 320 x 240 picture"),
    (Box(100, 100, 3.9, 20), "too small: 3.9 x 20 px"),
    (Box(100, 100, 20, 3), "too small: 20 x 3 px"),
    (Box.from_xywh(317, 100, 20, 20), "too small: 3 x 20 px inside the 320 x 240 picture"),
]


@pytest.mark.parametrize(("box", "reason"), REFUSED)
def test_refused_selections_say_why(world, make, say, box, reason):
    tracker, session = make(say())
    with pytest.raises(SelectionError) as caught:
        tracker.initialize(world(), box)
    assert reason in caught.value.reason
    assert tracker.state is TrackState.IDLE
    assert session.starts == 0


@pytest.mark.parametrize(("box", "reason"), REFUSED)
def test_refused_selections_leave_the_running_track(world, make, say, box, reason):
    tracker, session = make(say(dx=2.0))
    tracker.initialize(world(), START)
    before = tracker.update(world())
    with pytest.raises(SelectionError, match=reason.split(":")[0]):
        tracker.initialize(world(), box)
    after = tracker.update(world())
    assert after.state is TrackState.TRACKING
    assert after.box.cx > before.box.cx
    assert session.starts == 1


@pytest.mark.parametrize("side", [4.0, 4.1, 4.9])
@pytest.mark.parametrize("x", [0.0, 0.1, 33.3, 300.7])
def test_four_pixels_are_enough(world, make, say, side, x):
    tracker, _ = make(say())
    box = Box.from_xywh(x, 10.1, side, side)
    assert tuple(tracker.initialize(world(), box).box) == pytest.approx(tuple(box))


def test_a_selection_is_clipped_to_the_picture(world, make, say):
    tracker, _ = make(say())
    box = tracker.initialize(world(), Box.from_xywh(-20, -10, 60, 40)).box
    assert box.xywh == pytest.approx((0, 0, 40, 30))


def test_a_new_selection_replaces_the_old_target(world, make, red):
    tracker, session = make(red)
    tracker.initialize(world((100, 90, 60, 40)), START)
    for _ in range(15):
        tracker.update(world())
    assert tracker.state is TrackState.LOST
    result = tracker.initialize(world((20, 20, 30, 30)), Box.from_xywh(20, 20, 30, 30))
    assert result.state is TrackState.TRACKING
    assert tracker.update(world((22, 20, 30, 30))).box.cx == pytest.approx(36.5, abs=1)
    assert session.starts == 2


def test_clear_forgets_the_target(world, make, say):
    tracker, session = make(say())
    tracker.initialize(world(), START)
    tracker.clear()
    result = tracker.update(world())
    assert (result.state, result.box, result.score) == (TrackState.IDLE, None, 0.0)
    assert session.steps == 0
    tracker.clear()
    tracker.initialize(world(), START)
    assert tracker.update(world()).state is TrackState.TRACKING


def test_idle_frames_cost_nothing(world, make, say):
    tracker, session = make(say())
    assert tracker.update(world()).state is TrackState.IDLE
    assert session.steps == 0


def snapshot(tracker):
    return tracker._track


@pytest.mark.parametrize("states_before", ["T", "TU", "L"])
def test_a_step_that_fails_leaves_everything_as_it_was(world, make, say, states_before):
    good, low = say(dx=3.0), say(score=0.1)
    error = RuntimeError("the graph failed")
    begin = {"T": [good], "TU": [good, low], "L": [low]}[states_before]
    tracker, session = make(
        [*begin, error, error, say()],
        lost_after=1 if states_before == "L" else 10,
        redetect_budget_ms=0.0,
    )
    tracker.initialize(world(), START)
    for _ in begin:
        tracker.update(world())
    before, commits, state = snapshot(tracker), session.commits, tracker.state
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the graph failed"):
            tracker.update(world())
        assert snapshot(tracker) is before
        assert (session.commits, tracker.state) == (commits, state)
    tracker.update(world())


def test_a_commit_that_fails_leaves_everything_as_it_was(world, make, say, monkeypatch):
    tracker, session = make(say(dx=5.0))
    tracker.initialize(world(), START)
    with monkeypatch.context() as patch:
        patch.setattr(session, "commit", lambda: 1 / 0)
        before = snapshot(tracker)
        with pytest.raises(ZeroDivisionError):
            tracker.update(world())
        assert snapshot(tracker) is before
    assert tracker.update(world()).box.cx > START.cx


def test_a_start_that_fails_leaves_the_running_track(world, make, say):
    tracker, session = make(say(dx=2.0))
    tracker.initialize(world(), START)
    session.first = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        tracker.initialize(world(), Box.from_xywh(10, 10, 20, 20))
    assert tracker.update(world()).box.cx > START.cx


def test_a_picture_that_fails_leaves_everything_as_it_was(world, make, say):
    class Torn:
        width, height = 320, 240

        def rgb_region(self, x0, y0, x1, y1):
            raise ValueError("data shorter than height x step")

        def mean_rgb(self):
            return (0, 0, 0)

    tracker, _ = make(say(dx=2.0))
    tracker.initialize(world(), START)
    before = snapshot(tracker)
    with pytest.raises(ValueError, match="data shorter"):
        tracker.update(Torn())
    with pytest.raises(ValueError, match="data shorter"):
        tracker.initialize(Torn(), START)
    assert snapshot(tracker) is before
