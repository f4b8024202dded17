"""The picture on ``~/debug_image``."""

from __future__ import annotations

import cv2
import numpy as np

from siam_tracker_ros.geometry import Box, Picture
from siam_tracker_ros.geometry.pictures import UInt8Array

COLOURS = {
    "tracking": (80, 220, 80),
    "uncertain": (0, 190, 255),
    "lost": (60, 60, 255),
}
"""Blue, green, red of the box and the text, by state."""


def colour_of(state: str) -> tuple[int, int, int]:
    """Return blue, green, red for a state."""
    return COLOURS.get(state, (200, 200, 200))


def annotated(picture: Picture, scale: float, box: Box | None, state: str, text: str) -> UInt8Array:
    """Return ``uint8 [h,w,3]`` BGR of the picture at ``scale`` with a box (image px) and a line."""
    rgb = picture.rgb_region(0, 0, picture.width, picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if size != (picture.width, picture.height):
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    canvas = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), dtype=np.uint8)
    colour = colour_of(state)
    if box is not None:
        # Pixel-centre coordinates scale about (-0.5, -0.5).
        x1, y1, x2, y2 = ((edge + 0.5) * scale - 0.5 for edge in box.edges)
        fine = 16  # OpenCV takes fixed-point coordinates with four bits of fraction
        first, second = ((round(x * fine), round(y * fine)) for x, y in ((x1, y1), (x2, y2)))
        cv2.rectangle(canvas, first, second, colour, 2, cv2.LINE_AA, shift=4)
    height = max(0.4, size[1] / 720 * 0.8)
    place = (round(12 * height), round(28 * height))
    for ink, thickness in (((0, 0, 0), 4), (colour, 1)):
        cv2.putText(
            canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, height, ink, thickness, cv2.LINE_AA
        )
    return canvas
