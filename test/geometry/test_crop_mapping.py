"""The mapping between image and crop: check values, and that nothing is rounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siam_tracker_ros.geometry import Box, Crop, CropSpec, context_side, search_crop, template_crop

odd_sizes = st.integers(7, 400).map(lambda half: 2 * half + 1)
crops = st.builds(
    Crop, st.floats(-4000, 4000), st.floats(-4000, 4000), st.floats(4, 8000), odd_sizes
)
boxes = st.builds(
    Box, st.floats(-4000, 4000), st.floats(-4000, 4000), st.floats(1, 4000), st.floats(1, 4000)
)


@given(crops, boxes)
def test_image_to_crop_to_image_is_the_identity(crop, box):
    there_and_back = crop.box_to_image(crop.box_to_crop(box))
    assert tuple(there_and_back) == pytest.approx(tuple(box), abs=1e-5)


@given(crops, st.floats(-500, 900), st.floats(-500, 900))
def test_crop_to_image_to_crop_is_the_identity(crop, u, v):
    points = np.array([[u, v]])
    assert crop.points_to_crop(crop.points_to_image(points)) == pytest.approx(points, abs=1e-5)


@given(crops, boxes)
def test_points_and_boxes_map_alike(crop, box):
    mapped = crop.points_to_crop(np.array([[box.cx, box.cy]]))
    in_crop = crop.box_to_crop(box)
    assert mapped[0] == pytest.approx((in_crop.cx, in_crop.cy), rel=1e-9, abs=1e-6)


@given(crops)
def test_the_crops_edges_map_onto_the_windows_edges(crop):
    whole = crop.box_to_image(Box.from_xywh(0, 0, crop.size, crop.size))
    assert tuple(whole) == pytest.approx((crop.cx, crop.cy, crop.side, crop.side), abs=1e-6)


@given(
    st.floats(-100, 4000),
    st.floats(-100, 4000),
    st.floats(4, 2000),
    st.floats(4, 2000),
    st.floats(1, 2),
    odd_sizes,
    odd_sizes,
)
def test_a_target_is_exactly_in_the_middle_of_its_crops(cx, cy, w, h, grow, template, search):
    spec = CropSpec(template=template, search=search)
    box = Box(cx, cy, w, h)
    for crop in (template_crop(box, spec), search_crop(box, spec, grow)):
        inside = crop.box_to_crop(box)
        assert (inside.cx, inside.cy) == ((crop.size - 1) / 2, (crop.size - 1) / 2)


@given(boxes, odd_sizes, odd_sizes)
def test_template_and_search_have_one_scale(box, template, search):
    spec = CropSpec(template=template, search=search)
    assert template_crop(box, spec).scale == pytest.approx(search_crop(box, spec).scale)


@pytest.mark.parametrize(
    ("w", "h", "s_z", "s_255", "s_271", "k", "target"),
    [
        (100, 100, 200.0, 401.5748, 426.7717, 0.635, (63.5, 63.5)),
        (80, 40, 118.3216, 237.5749, 252.4815, 1.073346, (85.868, 42.934)),
        (30, 120, 143.0909, 287.3085, 305.3357, 0.887548, (26.626, 106.506)),
    ],
)
def test_check_values(w, h, s_z, s_255, s_271, k, target):
    box = Box(50, 60, w, h)
    assert context_side(w, h) == pytest.approx(s_z, abs=1e-4)
    assert search_crop(box, CropSpec(127, 255)).side == pytest.approx(s_255, abs=1e-4)
    assert search_crop(box, CropSpec(127, 271)).side == pytest.approx(s_271, abs=1e-4)
    crop = template_crop(box, CropSpec(127, 255))
    assert crop.scale == pytest.approx(k, abs=1e-6)
    inside = crop.box_to_crop(box)
    assert (inside.w, inside.h) == pytest.approx(target, abs=1e-3)


def test_growing_widens_the_region_and_shrinks_the_target():
    spec, box = CropSpec(127, 255), Box(0, 0, 40, 30)
    plain, grown = search_crop(box, spec), search_crop(box, spec, 1.5)
    assert grown.side == pytest.approx(1.5 * plain.side)
    assert grown.box_to_crop(box).w == pytest.approx(plain.box_to_crop(box).w / 1.5)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"template": 128, "search": 255}, "crop.template"),
        ({"template": 127, "search": 256}, "crop.search"),
        ({"template": 127, "search": 4097}, "crop.search"),
        ({"template": 127, "search": 255, "context": -0.1}, "crop.context"),
        ({"template": 127, "search": 255, "context": math.nan}, "crop.context"),
    ],
)
def test_a_spec_names_what_is_wrong_with_it(arguments, field):
    with pytest.raises(ValueError, match=field):
        CropSpec(**arguments)
