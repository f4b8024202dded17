"""The picture on ~/debug_image."""

from __future__ import annotations

import numpy as np

from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.nodes.drawing import COLOURS, annotated


def test_the_box_is_drawn_where_it_is() -> None:
    picture = ArrayPicture(np.zeros((240, 320, 3), np.uint8))
    for scale in (1.0, 0.5):
        canvas = annotated(picture, scale, Box(160.0, 140.0, 60.0, 40.0), "tracking", "")
        assert canvas.shape == (240 * scale, 320 * scale, 3)
        rows, columns = np.nonzero((canvas == COLOURS["tracking"]).all(axis=2))
        assert abs(columns.mean() - ((160.5 * scale) - 0.5)) < 1
        assert abs(rows.mean() - ((140.5 * scale) - 0.5)) < 1
        assert abs(np.ptp(columns) - 60 * scale) <= 3
        assert abs(np.ptp(rows) - 40 * scale) <= 3


def test_colours_are_bgr_and_the_picture_is_untouched() -> None:
    pixels = np.full((120, 160, 3), (10, 20, 200), np.uint8)
    canvas = annotated(ArrayPicture(pixels, "rgb"), 1.0, None, "idle", "no target")
    assert tuple(canvas[-1, -1]) == (200, 20, 10)
    assert len(np.unique(canvas.reshape(-1, 3), axis=0)) > 2  # the text
    assert (pixels == (10, 20, 200)).all()
