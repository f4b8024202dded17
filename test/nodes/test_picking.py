from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.picking import (
    Candidate,
    PickError,
    box_of_corners,
    box_of_pixels,
    box_of_polygon,
    box_of_region,
    candidate_at,
    check_box,
    check_pixel,
    read_candidates,
    transformed,
)


def points(*places: tuple[float, float]) -> list[Any]:
    return [SimpleNamespace(x=x, y=y, z=0.0) for x, y in places]


@pytest.mark.parametrize(
    ("first", "second"),
    [((10, 20), (50, 80)), ((50, 80), (10, 20)), ((10, 80), (50, 20)), ((50, 20), (10, 80))],
)
def test_any_two_opposite_corners(first: Any, second: Any) -> None:
    assert box_of_corners(first, second) == Box.from_edges(10, 20, 50, 80)
    # Whole pixels: columns 10 to 50, rows 20 to 80, all of them covered.
    assert box_of_pixels(first, second).xywh == (10, 20, 41, 61)


def test_polygons() -> None:
    assert box_of_polygon(points((3, 4), (30, 40))) == Box.from_edges(3, 4, 30, 40)
    turned = points((20, 0), (40, 20), (20, 40), (0, 20))
    assert box_of_polygon(turned) == Box.from_edges(0, 0, 40, 40)
    with pytest.raises(PickError, match="two points at least, got 1"):
        box_of_polygon(points((1, 1)))
    with pytest.raises(PickError, match="two points at least, got 0"):
        box_of_polygon([])
    with pytest.raises(PickError, match="not finite"):
        box_of_polygon(points((1, 1), (math.nan, 3)))


def test_a_region_of_interest_counts_pixels() -> None:
    region = SimpleNamespace(x_offset=12, y_offset=34, width=50, height=60)
    assert box_of_region(region).xywh == (12, 34, 50, 60)


@pytest.mark.parametrize("pixel", [(-0.5, -0.5), (639.5, 479.5), (320, 240)])
def test_pixels_inside(pixel: Any) -> None:
    check_pixel(pixel, (640, 480))


@pytest.mark.parametrize("pixel", [(-0.6, 0), (0, 480), (640, 0), (math.nan, 3), (3, math.inf)])
def test_pixels_outside(pixel: Any) -> None:
    with pytest.raises(PickError, match="outside the 640 x 480 picture"):
        check_pixel(pixel, (640, 480))


@pytest.mark.parametrize(
    ("box", "word"),
    [
        (Box(math.nan, 3, 40, 40), "not finite"),
        (Box(100, 100, math.inf, 40), "not finite"),
        (Box(100, 100, 3.9, 40), "too small: 4 pixels a side"),
        (Box(100, 100, 40, 0), "too small"),
        (Box.from_xywh(700, 10, 40, 40), "outside the 640 x 480 picture"),
        (Box.from_xywh(638, 10, 40, 40), "outside"),
        (Box.from_xywh(10, -60, 40, 40), "outside"),
    ],
)
def test_boxes_that_cannot_be_followed(box: Box, word: str) -> None:
    with pytest.raises(PickError, match=word):
        check_box(box, (640, 480))


def test_a_box_may_reach_over_the_edge() -> None:
    check_box(Box.from_xywh(620, 460, 100, 100), (640, 480))


def test_of_several_boxes_the_smallest_is_meant() -> None:
    room, person, hat = Box(100, 100, 180, 180), Box(90, 100, 40, 120), Box(90, 50, 20, 16)
    found = [Candidate(room, "room"), Candidate(hat, "hat"), Candidate(person, "person")]
    for pixel, label in (((95, 52), "hat"), ((80, 110), "person"), ((150, 110), "room")):
        picked = candidate_at(found, pixel)
        assert picked is not None and picked.label == label
    assert candidate_at(found, (300, 10)) is None
    assert candidate_at([], (3, 3)) is None
    assert candidate_at([Candidate(Box(math.nan, 3, 9, 9))], (3, 3)) is None


def test_detections_are_read_with_their_best_class() -> None:
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    bare, full = Detection2D(), Detection2D(id="7")
    full.bbox.center.position.x, full.bbox.center.position.y = 40.0, 30.0
    full.bbox.size_x, full.bbox.size_y = 20.0, 10.0
    for label, score in (("dog", 0.3), ("cat", 0.6), ("hen", 0.1)):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = label, score
        full.results.append(result)
    found = read_candidates(Detection2DArray(detections=[bare, full]))
    assert found == [Candidate(Box(0, 0, 0, 0)), Candidate(Box(40, 30, 20, 10), "cat", "7")]


def test_points_are_moved_as_by_a_matrix() -> None:
    half = math.sqrt(0.5)  # a quarter turn about z: x becomes y
    transform = SimpleNamespace(
        rotation=SimpleNamespace(x=0.0, y=0.0, z=half, w=half),
        translation=SimpleNamespace(x=1.0, y=2.0, z=3.0),
    )
    assert transformed((1.0, 0.0, 0.5), transform) == pytest.approx((1.0, 3.0, 3.5))
    rng = np.random.default_rng(1)
    q = rng.normal(size=4)
    x, y, z, w = q / np.linalg.norm(q)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    transform.rotation = SimpleNamespace(x=q[0], y=q[1], z=q[2], w=q[3])  # any length
    p = np.array([0.3, -2.0, 5.0])
    assert transformed(tuple(p), transform) == pytest.approx(tuple(matrix @ p + [1, 2, 3]))
    transform.rotation = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=0.0)
    with pytest.raises(PickError, match="all zeros"):
        transformed((0.0, 0.0, 0.0), transform)
