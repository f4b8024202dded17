"""When a target is tracked, uncertain, lost; and that only surely seen frames are committed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from siam_tracker_ros.bundle import GraphSpec, PresenceSpec, TensorSpec
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import TrackState, fake_bundle

START = Box.from_xywh(100, 90, 60, 40)
LETTERS = {
    TrackState.IDLE: "I",
    TrackState.TRACKING: "T",
    TrackState.UNCERTAIN: "U",
    TrackState.LOST: "L",
}


def play(world, make, say, scores, **settings):
    """States after each frame, as letters; and the session."""
    tracker, session = make([say(score=score) for score in scores], **settings)
    tracker.initialize(world(), START)
    states = ""
    for _ in scores:
        result = tracker.update(world())
        assert result.state is tracker.state
        assert (result.box is None) == (result.state is TrackState.LOST)
        states += LETTERS[result.state]
    return states, session


# found = 0.6, lost = 0.3
@pytest.mark.parametrize(
    ("scores", "states"),
    [
        ([0.9, 0.7, 0.61], "TTT"),
        ([0.9, 0.5, 0.31, 0.5], "TTTT"),  # between the thresholds: as it was
        ([0.29, 0.5, 0.59, 0.6], "UUUT"),
        ([0.9, 0.2, 0.9, 0.2, 0.9], "TUTUT"),
        ([0.2, 0.2, 0.2, 0.2], "UUUL"),
        ([0.2, 0.2, 0.2, 0.5, 0.2, 0.2, 0.2, 0.2], "UUUUUUUL"),  # in a row
        ([0.2, 0.2, 0.2, 0.9, 0.2, 0.2, 0.2, 0.2], "UUUTUUUL"),
    ],
)
def test_hysteresis_and_dwell(world, make, say, scores, states):
    played, session = play(world, make, say, scores, lost_after=4)
    assert played == states
    assert session.commits == states.count("T")


def test_thresholds_are_the_settings_if_given(world, make, say):
    assert play(world, make, say, [0.5, 0.35, 0.45], found=0.45, lost=0.4)[0] == "TUT"


def test_lost_after_one_frame(world, make, say):
    assert play(world, make, say, [0.9, 0.1], lost_after=1)[0] == "TL"


def test_uncertain_frames_leave_the_sessions_state(world, make, say):
    _, session = play(world, make, say, [0.9, 0.1, 0.1, 0.9, 0.1])
    assert session.commits == session.state == 2


def test_the_search_region_grows_when_half_of_the_frames_to_a_loss_have_gone(world, make, say):
    scores = [0.9, *[0.1] * 8, 0.9, 0.9]
    _, session = play(world, make, say, scores, lost_after=10, grow_rate=0.2, grow_limit=1.45)
    widths = [size[0] for size in session.previous_sizes]
    grown = [widths[0] / width for width in widths]
    assert grown == pytest.approx([1, 1, 1, 1, 1, 1, 1, 1.2, 1.4, 1.45, 1.0], rel=1e-6)


def test_a_half_seen_target_is_looked_at_in_the_ordinary_region(world, make, say):
    scores = [0.9, 0.1, 0.1, 0.1, 0.45, 0.45]
    limits = {"found": 0.6, "lost": 0.4, "lost_after": 4, "grow_rate": 0.1}
    _, session = play(world, make, say, scores, **limits)
    widths = [size[0] for size in session.previous_sizes]
    assert [widths[0] / w for w in widths] == pytest.approx([1, 1, 1, 1, 1.1, 1.0], rel=1e-6)


def test_growing_does_not_change_the_box(world, make, say):
    tracker, _ = make(say(score=0.1), lost_after=20)
    tracker.initialize(world(), START)
    for _ in range(15):
        assert tuple(tracker.update(world()).box) == pytest.approx(tuple(START))


def test_the_score_is_the_logistic_presence_where_the_bundle_has_it(world, make, say):
    spec = PresenceSpec("logistic", ("score", "size_change"), (4.0, -100.0), -2.0, 0.6, 0.3)
    bundle = fake_bundle(presence=spec)
    tracker, _ = make([say(score=0.75), say(score=0.75, scale=2.0)], bundle)
    tracker.initialize(world(), START)
    certain = tracker.update(world())
    assert certain.score == pytest.approx(0.7310586)  # sigmoid(1)
    jumped = tracker.update(world())
    assert jumped.score < 0.01
    assert jumped.state is TrackState.UNCERTAIN


def tuned_bundle(*names):
    inputs = tuple(TensorSpec(f"tuning.{name}", "float32", (1,)) for name in names)
    tuning = {"window": 0.42, "penalty": 0.05, "size_rate": 1.0, "arm": 1.0}
    return replace(fake_bundle(), graphs={"search": GraphSpec("s", inputs, ())}, tuning=tuning)


def test_tuning_goes_to_the_graphs_that_read_it(world, make, say):
    tracker, session = make(say(), tuned_bundle("window", "arm"), penalty=0.2)
    tracker.initialize(world(), START)
    assert session.tuning == {"window": 0.42, "arm": 1.0}
    tracker.settings = tracker.settings.with_changes(window=0.3)
    tracker.update(world())
    assert session.tuning == {"window": 0.3, "arm": 1.0}


def test_there_is_no_window_while_lost(world, make, say):
    trajectory = [say(score=0.1), say(score=0.1), say(score=0.9), say(score=0.9), say()]
    tracker, session = make(
        trajectory, tuned_bundle("window"), lost_after=1, redetect_budget_ms=0.0
    )
    tracker.initialize(world(), START)
    windows = []
    for state in ("lost", "lost", "lost", "tracking", "tracking"):
        assert tracker.update(world()).state.value == state
        windows.append(session.tuning["window"])
    assert windows == [0.42, 0.0, 0.0, 0.0, 0.42]
