"""The fake session keeps the session's contract, so that what passes with it can pass with a real one."""

from __future__ import annotations

import numpy as np
import pytest

from siam_tracker_ros.bundle import StepResult
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import ColourFinder, FakeSession

TEMPLATE, SEARCH = (np.zeros((n, n, 3), np.uint8) for n in (127, 255))
RESULT = StepResult(Box(120, 130, 50, 40), 0.8, 0.1, (119, 127))


def test_it_plays_its_trajectory_and_repeats_the_last():
    last = StepResult(Box(1, 2, 3, 4), 0.5, 0.2, (1, 2))
    session = FakeSession([RESULT, last])
    first = session.start(TEMPLATE, SEARCH, (50.0, 40.0))
    assert first == StepResult(Box(127, 127, 50, 40), 1.0, 0.0, (127, 127))
    assert [session.step(SEARCH, (50.0, 40.0)) for _ in range(3)] == [RESULT, last, last]
    assert (session.starts, session.steps, session.commits) == (1, 3, 0)


def test_exceptions_in_a_trajectory_are_raised():
    session = FakeSession([KeyError("lost my weights"), RESULT])
    session.start(TEMPLATE, SEARCH, (50.0, 40.0))
    with pytest.raises(KeyError):
        session.step(SEARCH, (50.0, 40.0))
    with pytest.raises(RuntimeError, match="commit without a step"):
        session.commit()
    assert session.step(SEARCH, (50.0, 40.0)) == RESULT


def test_calls_out_of_order_are_refused():
    session = FakeSession([RESULT])
    with pytest.raises(RuntimeError, match="step before start"):
        session.step(SEARCH, (50.0, 40.0))
    session.start(TEMPLATE, SEARCH, (50.0, 40.0))
    with pytest.raises(RuntimeError, match="commit without a step"):
        session.commit()
    session.step(SEARCH, (50.0, 40.0))
    session.commit()
    with pytest.raises(RuntimeError, match="commit without a step"):
        session.commit()
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.step(SEARCH, (50.0, 40.0))


def test_start_resets_its_state():
    session = FakeSession([RESULT])
    session.start(TEMPLATE, SEARCH, (50.0, 40.0))
    session.step(SEARCH, (50.0, 40.0))
    session.commit()
    assert session.state == 1
    session.start(TEMPLATE, SEARCH, (50.0, 40.0))
    assert (session.state, session.commits) == (0, 1)


def test_nothing_to_play_is_refused():
    with pytest.raises(ValueError, match="at least one result"):
        FakeSession([])


def test_the_colour_finder_boxes_its_colour():
    search = SEARCH.copy()
    search[100:140, 50:110] = (250, 10, 5)
    found = ColourFinder((255, 0, 0))(search, (9.0, 9.0))
    assert found.box.xywh == (50, 100, 60, 40)
    assert found.score == 1.0
    search[100:120] = 0
    assert ColourFinder((255, 0, 0))(search, (9.0, 9.0)).box.xywh == (50, 120, 60, 20)
    missing = ColourFinder((0, 255, 0))(search, (9.0, 8.0))
    assert (missing.box, missing.score) == (Box(127, 127, 9, 8), 0.0)
