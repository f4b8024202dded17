"""Settings: ranges, the bundle's defaults, changes while running."""

from __future__ import annotations

import math

import pytest

from siam_tracker_ros.bundle import PresenceSpec
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import TrackerSettings, TrackState, fake_bundle

START = Box.from_xywh(100, 90, 60, 40)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"found": 1.1}, r"found must be in \[0, 1\], got 1.1"),
        ({"lost": -0.1}, "lost must be in"),
        ({"found": 0.3, "lost": 0.4}, "lost must not be above found"),
        ({"size_rate": 1.5}, "size_rate must be in"),
        ({"window": math.nan}, "window must be a number"),
        ({"penalty": "strong"}, "penalty must be a number, got 'strong'"),
        ({"lost_after": 0}, "lost_after must be in"),
        ({"lost_after": 2.5}, "lost_after must be a whole number"),
        ({"grow_limit": 2.5}, r"grow_limit must be in \[1, 2\]"),
        ({"grow_rate": True}, "grow_rate must be a number"),
        ({"redetect_budget_ms": -1}, "redetect_budget_ms must be in"),
        ({"give_up_after": math.inf}, "give_up_after must be a number"),
        ({"lost_after": None}, "lost_after must be a number, got None"),
        ({"speed": 3}, "no setting called speed; there are found, lost"),
    ],
)
def test_what_is_out_of_range_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        TrackerSettings().with_changes(**change)


def test_changes_leave_the_rest():
    settings = TrackerSettings(found=0.7).with_changes(window=0.3)
    assert (settings.found, settings.window, settings.lost) == (0.7, 0.3, None)


def test_thresholds_are_checked_against_the_bundles(make, say):
    with pytest.raises(ValueError, match="bundle fake"):
        make(say(), lost=0.61)  # the bundle's found is 0.6
    tracker, _ = make(say())
    with pytest.raises(ValueError, match="lost must not be above found"):
        tracker.settings = TrackerSettings(found=0.2)
    assert tracker.settings == TrackerSettings()


def test_settings_hold_from_the_next_frame_on(world, make, say):
    tracker, _ = make(say(score=0.5, scale=1.3), size_rate=0.0)
    tracker.initialize(world(), START)
    result = tracker.update(world())
    assert (result.box.w, result.state) == (pytest.approx(60), TrackState.TRACKING)
    tracker.settings = TrackerSettings(size_rate=1.0, penalty=0.0, found=0.8, lost=0.7)
    result = tracker.update(world())
    assert result.box.w == pytest.approx(60 * (1 + 0.3 * 0.5))
    assert result.state is TrackState.UNCERTAIN


def test_defaults_come_from_the_bundle(world, make, say):
    bundle = fake_bundle(presence=PresenceSpec(found=0.95, lost=0.92), tuning={"size_rate": 0.0})
    tracker, _ = make(say(score=0.9, scale=1.3), bundle)
    tracker.initialize(world(), START)
    result = tracker.update(world())
    assert (result.box.w, result.state) == (pytest.approx(60), TrackState.UNCERTAIN)
