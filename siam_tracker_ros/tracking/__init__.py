"""The tracker: states, presence, re-detection, and what it needs of a session."""

from __future__ import annotations

from siam_tracker_ros.tracking.fake_session import ColourFinder, FakeSession, fake_bundle
from siam_tracker_ros.tracking.presence import presence, presence_features
from siam_tracker_ros.tracking.size_rule import size_change, size_penalty, smoothed_size
from siam_tracker_ros.tracking.tracker import Tracker, selectable
from siam_tracker_ros.tracking.types import (
    SelectionError,
    StatefulSession,
    Timing,
    TrackerSettings,
    TrackResult,
    TrackState,
)

__all__ = [
    "ColourFinder",
    "FakeSession",
    "SelectionError",
    "StatefulSession",
    "Timing",
    "TrackResult",
    "TrackState",
    "Tracker",
    "TrackerSettings",
    "fake_bundle",
    "presence",
    "presence_features",
    "selectable",
    "size_change",
    "size_penalty",
    "smoothed_size",
]
