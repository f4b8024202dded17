"""Boxes: the three spellings, overlap, the clip rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from siam_tracker_ros.geometry import MIN_SIDE, Box, iou_xywh

positions = st.floats(-5000, 5000)
sides = st.floats(0.5, 3000)
boxes = st.builds(Box, positions, positions, sides, sides)
lengths = st.integers(1, 4000)


def test_first_pixel_box_has_its_centre_at_the_origin():
    box = Box.from_xywh(0, 0, 1, 1)
    assert box == Box(0, 0, 1, 1)
    assert box.edges == (-0.5, -0.5, 0.5, 0.5)


def test_a_box_whose_first_pixel_is_column_x_starts_half_a_pixel_before_it():
    box = Box.from_xywh(10, 20, 30, 40)
    assert (box.cx, box.cy) == (24.5, 39.5)
    assert box.edges == (9.5, 19.5, 39.5, 59.5)


@given(boxes)
def test_spellings_round_trip(box):
    assert Box.from_xywh(*box.xywh).xywh == pytest.approx(box.xywh, abs=1e-9)
    assert tuple(Box.from_edges(*box.edges)) == pytest.approx(tuple(box), abs=1e-9)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_a_fraction(a, b):
    overlap = a.iou(b)
    assert 0 <= overlap <= 1
    assert overlap == pytest.approx(b.iou(a))
    assert a.iou(a) == pytest.approx(1)


def test_overlap_of_half_covered_boxes():
    assert Box(0, 0, 10, 10).iou(Box(5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert Box(0, 0, 10, 10).iou(Box(10, 0, 10, 10)) == 0
    assert Box(0, 0, 0, 0).iou(Box(0, 0, 0, 0)) == 0


@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=8))
def test_vectorised_overlap_is_the_boxes_overlap(pairs):
    a = np.array([pair[0].xywh for pair in pairs])
    b = np.array([pair[1].xywh for pair in pairs])
    assert iou_xywh(a, b) == pytest.approx([p.iou(q) for p, q in pairs], abs=1e-6)


def test_vectorised_overlap_of_empty_boxes_is_zero():
    assert iou_xywh(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [0.0]


@given(boxes, lengths, lengths)
def test_kept_in_image_holds_centre_and_sides_within_limits(box, width, height):
    kept = box.kept_in_image(width, height)
    assert 0 <= kept.cx <= width - 1
    assert 0 <= kept.cy <= height - 1
    assert MIN_SIDE <= kept.w <= max(width, MIN_SIDE)
    assert MIN_SIDE <= kept.h <= max(height, MIN_SIDE)
    assert kept.kept_in_image(width, height) == kept


@given(st.floats(0, 639), st.floats(0, 479), st.floats(4, 640), st.floats(4, 480))
def test_a_box_within_limits_is_kept_as_it_is(cx, cy, w, h):
    # Its edges may leave the picture: only centre and sides are limited.
    assert Box(cx, cy, w, h).kept_in_image(640, 480) == Box(cx, cy, w, h)


@given(boxes, lengths, lengths)
def test_clipped_to_image_is_the_intersection(box, width, height):
    clipped = box.clipped_to_image(width, height)
    x1, y1, x2, y2 = clipped.edges
    assert -0.5 - 1e-9 <= x1 <= x2 + 1e-9 <= width - 0.5 + 2e-9
    assert -0.5 - 1e-9 <= y1 <= y2 + 1e-9 <= height - 0.5 + 2e-9
    picture = Box.from_xywh(0, 0, width, height)
    assume(clipped.area > 1e-3)
    shared = box.iou(picture) / (1 + box.iou(picture)) * (box.area + picture.area)
    assert clipped.area == pytest.approx(shared, rel=1e-6)


def test_a_box_outside_the_image_is_clipped_to_nothing():
    assert Box.from_xywh(700, 10, 20, 20).clipped_to_image(640, 480).area == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", range(4))
def test_finite_means_all_four_numbers(value, index):
    numbers = [1.0, 2.0, 3.0, 4.0]
    assert Box(*numbers).is_finite()
    numbers[index] = value
    assert not Box(*numbers).is_finite()


def test_scaled_keeps_the_centre():
    assert Box(3, 4, 10, 20).scaled(1.5) == Box(3, 4, 15, 30)
