from __future__ import annotations

import math

import numpy as np
import pytest

from siam_tracker_ros.nodes.follow_scene import (
    CAMERA_HEIGHT,
    FIRST_HIDING,
    HIDINGS,
    MOVING,
    TARGET_HEIGHT,
    FollowScene,
    Place,
)
from siam_tracker_ros.nodes.synthetic_scene import ORANGE

SCENE = FollowScene(60.0, seed=3)


def test_the_box_is_where_the_target_is_painted_and_its_depth_is_true() -> None:
    x, y = SCENE.target(4.0)
    robot = Place(x - 2.2, y - 0.3, 0.1)
    view = SCENE.view(4.0, robot)
    ahead, left = robot.seen(x, y)
    assert view.box is not None and view.visible == pytest.approx(1.0)
    orange = (np.abs(view.pixels.astype(int) - ORANGE) < 45).all(axis=2)
    rows, columns = np.flatnonzero(orange.any(axis=1)), np.flatnonzero(orange.any(axis=0))
    painted = (columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5)
    assert painted == pytest.approx(view.box.edges, abs=1.5)
    assert view.box.cx == pytest.approx(SCENE.cx - SCENE.focal * left / ahead)
    middle = SCENE.cy + SCENE.focal * (CAMERA_HEIGHT - TARGET_HEIGHT / 2) / ahead
    assert view.box.cy == pytest.approx(middle)
    inside = view.depth[orange]
    assert np.median(inside[inside > 0]) == pytest.approx(1000 * ahead, rel=0.005)
    assert 0.01 < (inside == 0).mean() < 0.2


def test_the_ground_stays_where_it_is() -> None:
    """A metre forward shows the same spot a metre nearer: the picture below the horizon scales."""
    scene = FollowScene(10.0, hiding=False, seed=1)
    here, there = (scene.view(0.0, Place(x, 9.0, 1.5)).pixels for x in (0.0, 8.0))
    assert np.abs(here.astype(int) - there).max() <= 1  # the pattern repeats every 8 m
    other = scene.view(0.0, Place(3.0, 9.0, 1.5)).pixels
    assert np.abs(here.astype(int) - other)[300:].mean() > 3


def test_the_wall_hides_the_target_when_it_says() -> None:
    t = FIRST_HIDING + MOVING + HIDINGS[0] / 2
    x, y = SCENE.target(t)
    hidden = SCENE.view(t, Place(x - 2, y, 0.0))
    assert hidden.visible == 0.0
    assert not (np.abs(hidden.pixels.astype(int) - ORANGE) < 45).all(axis=2).any()
    assert SCENE.wall(FIRST_HIDING - 0.1) is None
    before = SCENE.view(FIRST_HIDING + 0.1, Place(x - 2, y, 0.0))
    assert before.visible > 0.9
    assert FollowScene(60.0, hiding=False).wall(t) is None


def test_out_of_sight_there_is_no_box() -> None:
    x, y = SCENE.target(1.0)
    view = SCENE.view(1.0, Place(x - 2, y, math.pi))
    assert view.box is None and view.visible == 0.0


def test_the_target_walks_at_half_a_metre_a_second_at_most() -> None:
    places = np.array([SCENE.target(t) for t in np.arange(0, 60, 0.1)])
    speeds = np.hypot(*np.diff(places, axis=0).T) / 0.1
    assert 0.4 < speeds.max() <= 0.51
    assert SCENE.target(1e9) == SCENE.target(60.0)


def test_the_same_seed_gives_the_same_pixels() -> None:
    a, b = (FollowScene(10.0, seed=7).view(2.0, Place(-2, 0, 0.1)) for _ in range(2))
    assert (a.pixels == b.pixels).all() and (a.depth == b.depth).all()
    assert (a.pixels != FollowScene(10.0, seed=8).view(2.0, Place(-2, 0, 0.1)).pixels).any()
