"""A painted world: one coloured target on noise, and trackers that look for that colour."""

from __future__ import annotations

import numpy as np
import pytest

from siam_tracker_ros.bundle import StepResult
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.tracking import (
    ColourFinder,
    FakeSession,
    Tracker,
    TrackerSettings,
    fake_bundle,
)

RED = (255, 0, 0)
SIZE = (320, 240)


def paint(*boxes, size=SIZE, seed=0):
    """A picture of dim noise with red boxes (xywh, whole pixels)."""
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    for x, y, w, h in boxes:
        x0, y0 = max(x, 0), max(y, 0)
        array[y0 : max(y + h, 0), x0 : max(x + w, 0)] = RED
    return ArrayPicture(array)


def answer(score=1.0, dx=0.0, dy=0.0, scale=1.0, runner_up=0.0):
    """A player: the previous box, moved by (dx, dy) crop px and scaled."""

    def play(search, previous_size):
        mid = (search.shape[0] - 1) / 2
        box = Box(mid + dx, mid + dy, previous_size[0] * scale, previous_size[1] * scale)
        return StepResult(box, score, runner_up, (box.cx, box.cy))

    return play


def make_tracker(trajectory, bundle=None, **settings):
    """A tracker on a fake session; returns both."""
    session = FakeSession(trajectory)
    tracker = Tracker(bundle or fake_bundle(), session, TrackerSettings(**settings))
    return tracker, session


@pytest.fixture
def world():
    """Function (xywh...) -> picture."""
    return paint


@pytest.fixture
def say():
    """Function (score, dx, dy, scale) -> what a fake session plays."""
    return answer


@pytest.fixture
def make():
    """Function (trajectory, bundle, **settings) -> tracker, session."""
    return make_tracker


@pytest.fixture
def red():
    """A player that finds the red target, wherever it is in the crop."""
    return ColourFinder(RED)
