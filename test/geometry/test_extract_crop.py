"""Cutting crops: where pixels land, what fills the outside, what it costs."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siam_tracker_ros.geometry import (
    ArrayPicture,
    Box,
    Crop,
    CropSpec,
    extract_crop,
    search_crop,
)

FILL = (10, 200, 90)


class Watched(ArrayPicture):
    """A picture that remembers which windows were asked for."""

    def __init__(self, array, order="rgb"):
        super().__init__(array, order)
        self.windows = []

    def rgb_region(self, x0, y0, x1, y1):
        self.windows.append((x0, y0, x1, y1))
        assert 0 <= x0 < x1 <= self.width
        assert 0 <= y0 < y1 <= self.height
        return super().rgb_region(x0, y0, x1, y1)


class Ramp:
    """A picture whose red channel is the column and whose green channel is the row, as floats.

    Real-valued pixels show positions without the rounding of uint8.
    """

    width, height = 640, 480

    def rgb_region(self, x0, y0, x1, y1):
        ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        return np.ascontiguousarray(np.dstack([xs, ys, 0 * xs]))

    def mean_rgb(self):
        return (0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(150, 490), st.floats(150, 330), st.floats(20, 250), st.sampled_from([127, 129, 255])
)
def test_a_linear_ramp_is_reproduced(cx, cy, side, size):
    crop = Crop(cx, cy, side, size)
    out = _positions(crop)
    middle = np.arange(size)
    points = crop.points_to_image(np.stack([middle, middle], axis=1))
    assert np.abs(out[:, :, 0] - points[None, :, 0]).max() < 0.02
    assert np.abs(out[:, :, 1] - points[:, None, 1]).max() < 0.02


@settings(max_examples=30, deadline=None)
@given(st.floats(250, 400), st.floats(200, 280), st.floats(270, 410))
def test_a_linear_ramp_is_reproduced_by_reduced_crops(cx, cy, side):
    # 410 / 61 = 6.7: blocks of up to 6 x 6 pixels are averaged first.
    crop = Crop(cx, cy, side, 61)
    out = _positions(crop)
    points = crop.points_to_image(np.stack([np.arange(61)] * 2, axis=1))
    inside = (points > 8) & (points < (Ramp.width - 9, Ramp.height - 9))
    out = out[inside[:, 1]][:, inside[:, 0]]
    tolerance = 0.15  # 0.02 of a reduced pixel
    assert np.abs(out[:, :, 0] - points[inside[:, 0], 0][None, :]).max() < tolerance
    assert np.abs(out[:, :, 1] - points[inside[:, 1], 1][:, None]).max() < tolerance


def _positions(crop):
    """Cut a crop out of the ramp without the last rounding to uint8."""
    kept = {}
    warp = cv2.warpAffine

    def spy(*args, **kwargs):
        kept["out"] = warp(*args, **kwargs)
        return kept["out"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "warpAffine", spy)
        extract_crop(Ramp(), crop, (0, 0, 0))
    return kept["out"]


def test_an_integer_crop_is_a_copy():
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    out = extract_crop(ArrayPicture(array), Crop(70, 50, 63, 63), FILL)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, array[50 - 31 : 50 + 32, 70 - 31 : 70 + 32])


@pytest.mark.parametrize("order", ["rgb", "bgr", "gray"])
def test_channel_orders(order):
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    gray = rgb[:, :, 0].copy()
    array = {"rgb": rgb, "bgr": rgb[:, :, ::-1], "gray": gray}[order]
    wanted = np.dstack([gray] * 3) if order == "gray" else rgb
    out = extract_crop(ArrayPicture(array, order), Crop(30, 30, 21, 21), FILL)
    np.testing.assert_array_equal(out, wanted[20:41, 20:41])


def test_outside_is_filled_and_inside_is_not():
    array = np.full((40, 40, 3), 77, dtype=np.uint8)
    out = extract_crop(ArrayPicture(array), Crop(0, 0, 41, 41), FILL)
    assert (out[:20] == FILL).all()
    assert (out[:, :20] == FILL).all()
    assert (out[20:, 20:] == 77).all()


@pytest.mark.parametrize("side", [31.0, 400.0])
@pytest.mark.parametrize("centre", [(-500, 20), (900, 20), (20, -500), (20, 900), (900, 900)])
def test_a_crop_wholly_outside_is_all_fill_and_reads_nothing(side, centre):
    picture = Watched(np.zeros((40, 40, 3), dtype=np.uint8))
    out = extract_crop(picture, Crop(*centre, side, 31), FILL)
    assert (out == FILL).all()
    assert out.shape == (31, 31, 3)
    assert picture.windows == []


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.floats(-100, 150),
    st.floats(-100, 150),
    st.floats(0.5, 900),
    st.sampled_from([15, 31, 63]),
)
def test_any_crop_of_any_picture_has_its_shape_and_no_strange_colour(w, h, cx, cy, side, size):
    picture = Watched(np.full((h, w, 3), 100, dtype=np.uint8))
    out = extract_crop(picture, Crop(cx, cy, side, size), (100, 100, 100))
    assert out.shape == (size, size, 3)
    assert (out == 100).all()


@pytest.mark.parametrize("side", [63.0, 189.5, 252.0, 401.3, 777.7])
def test_no_fill_leaks_into_a_crop_that_lies_inside(side):
    array = np.full((1000, 1000, 3), 50, dtype=np.uint8)
    for shift in np.linspace(0, 13, 27):
        crop = Crop(480 + shift, 520 - shift, side, 63)
        assert (extract_crop(ArrayPicture(array), crop, (255, 255, 255)) == 50).all()


def test_large_targets_are_area_averaged():
    # A one-pixel chequerboard shrunk 6 times must come out grey; bilinear alone gives moire.
    rows, columns = np.indices((720, 720))
    board = ((rows + columns) % 2 * 255).astype(np.uint8)
    out = extract_crop(ArrayPicture(board, "gray"), Crop(360.3, 355.8, 61 * 6.4, 61), FILL)
    assert abs(float(out.mean()) - 127.5) < 2
    assert float(out.std()) < 3


def test_small_shrinking_is_plain_bilinear():
    rng = np.random.default_rng(2)
    array = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    picture = Watched(array)
    extract_crop(picture, Crop(100, 100, 100, 63), FILL)
    ((x0, y0, x1, y1),) = picture.windows
    assert x1 - x0 <= 100 + 8
    assert y1 - y0 <= 100 + 8


def test_the_averaging_blocks_do_not_move_with_the_crop():
    # The same pixels are averaged whatever the crop's position: a static scene does not flicker.
    picture = Watched(np.zeros((900, 900, 3), dtype=np.uint8))
    for shift in np.linspace(0, 9, 10):
        extract_crop(picture, Crop(400 + shift, 400, 61 * 5.5, 61), FILL)
    assert {window[0] % 5 for window in picture.windows} == {0}
    assert {window[1] % 5 for window in picture.windows} == {0}


def test_deformation_rotates_and_scales_about_the_centre():
    array = np.zeros((200, 200, 3), dtype=np.uint8)
    array[95:106, 130:141] = 255  # right of the centre
    quarter_turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    out = extract_crop(ArrayPicture(array), Crop(100, 100, 101, 101), FILL, quarter_turn)
    rows, columns = np.nonzero(out[:, :, 0] > 128)
    assert (rows.mean(), columns.mean()) == pytest.approx((50 + 35, 50), abs=0.1)
    closer = extract_crop(ArrayPicture(array), Crop(100, 100, 101, 101), FILL, 1.2 * np.eye(2))
    rows, columns = np.nonzero(closer[:, :, 0] > 128)
    assert (rows.mean(), columns.mean()) == pytest.approx((50, 50 + 1.2 * 35), abs=0.5)
    assert np.ptp(columns) + 1 == pytest.approx(1.2 * 11, abs=1)


def test_a_4k_picture_is_only_asked_for_the_window_of_its_crop():
    picture = Watched(np.zeros((2160, 3840, 3), dtype=np.uint8))
    crop = search_crop(Box(3000, 1500, 80, 40), CropSpec(127, 255))
    extract_crop(picture, crop, FILL)
    ((x0, y0, x1, y1),) = picture.windows
    assert x1 - x0 <= crop.side + 8
    assert y1 - y0 <= crop.side + 8
    assert x0 <= crop.cx - crop.side / 2 + 0.5
    assert x1 >= crop.cx + crop.side / 2 + 0.5


def test_a_4k_picture_costs_what_its_crop_costs():
    crop = Crop(200.4, 199.7, 240.0, 255)
    times = {}
    for name, shape in (("small", (400, 400, 3)), ("4k", (2160, 3840, 3))):
        picture = ArrayPicture(np.zeros(shape, dtype=np.uint8), "bgr")
        rounds = []
        for _ in range(30):
            begin = time.perf_counter()
            extract_crop(picture, crop, FILL)
            rounds.append(time.perf_counter() - begin)
        times[name] = min(rounds)
    assert times["4k"] < 3 * times["small"] + 1e-4


@pytest.mark.parametrize(
    "crop",
    [
        Crop(float("nan"), 0, 10, 31),
        Crop(0, float("inf"), 10, 31),
        Crop(0, 0, 0, 31),
        Crop(0, 0, -4, 31),
        Crop(0, 0, float("nan"), 31),
    ],
)
def test_a_crop_without_place_or_extent_is_refused(crop):
    with pytest.raises(ValueError, match="finite centre and a positive side"):
        extract_crop(ArrayPicture(np.zeros((9, 9, 3), np.uint8)), crop, FILL)
