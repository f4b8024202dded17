"""Pictures: what an array in memory hands out."""

from __future__ import annotations

import numpy as np
import pytest

from siam_tracker_ros.geometry import ArrayPicture, mean_colour


def test_an_rgb_picture_hands_out_views():
    array = np.zeros((40, 50, 3), dtype=np.uint8)
    picture = ArrayPicture(array)
    assert (picture.width, picture.height) == (50, 40)
    assert np.shares_memory(picture.rgb_region(5, 5, 20, 20), array)


@pytest.mark.parametrize("order", ["rgb", "bgr", "gray"])
def test_mean_colour_is_rgb(order):
    array = np.zeros((300, 700, 3), dtype=np.uint8)
    array[:] = (10, 20, 31)
    if order == "gray":
        picture, wanted = ArrayPicture(array[:, :, 0], "gray"), (10, 10, 10)
    else:
        picture = ArrayPicture(array, order)
        wanted = (10, 20, 31) if order == "rgb" else (31, 20, 10)
    assert picture.mean_rgb() == wanted


def test_mean_colour_is_rounded_not_cut():
    assert mean_colour(np.array([[[1, 1, 1], [2, 2, 2], [2, 2, 2]]], dtype=np.uint8)) == (2, 2, 2)


def test_windows_of_strided_arrays():
    # A camera's rows may be padded: the array is then a view with a longer step.
    padded = np.arange(20 * 32 * 3, dtype=np.uint8).reshape(20, 32, 3)
    view = padded[:, :25]
    window = ArrayPicture(view, "bgr").rgb_region(3, 4, 9, 8)
    np.testing.assert_array_equal(window, view[4:8, 3:9, ::-1])


@pytest.mark.parametrize(
    ("array", "order"),
    [
        (np.zeros((4, 4, 3), np.float32), "rgb"),
        (np.zeros((4, 4, 4), np.uint8), "rgb"),
        (np.zeros((4, 4), np.uint8), "bgr"),
        (np.zeros((4, 4, 3), np.uint8), "gray"),
        (np.zeros((0, 4, 3), np.uint8), "rgb"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array, order):
    with pytest.raises(ValueError, match="picture"):
        ArrayPicture(array, order)
