"""What an operator points at: boxes from clicks, polygons, regions and a detector's boxes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.geometry.boxes import MIN_SIDE

Pixel = tuple[float, float]
Point3 = tuple[float, float, float]


class PickError(ValueError):
    """Nothing can be selected like that; the message says why, for people."""


@dataclass(frozen=True)
class Corner:
    """The first of two clicks.

    Attributes:
        pixel: where, image pixels.
        source: the topic it came on; the second click must come there too.
        since: when, seconds on a clock that never jumps.
    """

    pixel: Pixel
    source: str
    since: float


@dataclass(frozen=True)
class Candidate:
    """One box that a detector found.

    Attributes:
        box: image pixels.
        label: what the detector takes it for; may be empty.
        id: the detector's name for it; may be empty.
    """

    box: Box
    label: str = ""
    id: str = ""


def box_of_corners(first: Pixel, second: Pixel) -> Box:
    """Return the box between two places in the picture."""
    (ax, ay), (bx, by) = first, second
    return Box.from_edges(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))


def box_of_pixels(first: Pixel, second: Pixel) -> Box:
    """Return the box that covers two whole pixels and all between them."""
    box = box_of_corners(first, second)
    return Box(box.cx, box.cy, box.w + 1.0, box.h + 1.0)


def box_of_polygon(points: Sequence[Any]) -> Box:
    """Return the upright box around points with ``x``, ``y`` in pixels; two are opposite corners.

    Raises:
        PickError: fewer than two, or not finite.
    """
    if len(points) < 2:
        raise PickError(f"a polygon needs two points at least, got {len(points)}")
    x, y = [float(p.x) for p in points], [float(p.y) for p in points]
    if not all(math.isfinite(v) for v in (*x, *y)):
        raise PickError("the polygon has points that are not finite")
    return Box.from_edges(min(x), min(y), max(x), max(y))


def box_of_region(region: Any) -> Box:
    """Return the box of a sensor_msgs/RegionOfInterest."""
    return Box.from_xywh(
        float(region.x_offset), float(region.y_offset), float(region.width), float(region.height)
    )


def check_pixel(pixel: Pixel, size: tuple[int, int]) -> None:
    """Check that a pixel is in a picture of width and height ``size``.

    Raises:
        PickError: if it is not.
    """
    x, y = pixel
    width, height = size
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):  # NaN is outside too
        raise PickError(f"the click at ({x:g}, {y:g}) is outside the {width} x {height} picture")


def check_box(box: Box, size: tuple[int, int]) -> None:
    """Check that a box can be followed in a picture of width and height ``size``.

    Raises:
        PickError: not finite, too small, or outside.
    """
    if not box.is_finite():
        raise PickError("the box is not finite")
    x, y, w, h = box.xywh
    text = f"the box at ({x:.1f}, {y:.1f}) with {w:.1f} x {h:.1f} pixels"
    if min(w, h) < MIN_SIDE:
        raise PickError(f"{text} is too small: {MIN_SIDE:g} pixels a side are needed")
    seen = box.clipped_to_image(*size)
    if min(seen.w, seen.h) < MIN_SIDE:
        raise PickError(f"{text} is outside the {size[0]} x {size[1]} picture")


def candidate_at(candidates: Iterable[Candidate], pixel: Pixel) -> Candidate | None:
    """Return the smallest of the boxes around a pixel, None where there is none."""
    x, y = pixel
    around = [
        c
        for c in candidates
        if c.box.is_finite()
        and abs(x - c.box.cx) <= c.box.w / 2
        and abs(y - c.box.cy) <= c.box.h / 2
    ]
    return min(around, key=lambda c: c.box.area, default=None)


def read_candidates(message: Any) -> list[Candidate]:
    """Read a vision_msgs/Detection2DArray; the class with the highest score is the label."""
    found = []
    for detection in message.detections:
        centre, bbox = detection.bbox.center.position, detection.bbox
        best = max(detection.results, key=lambda r: r.hypothesis.score, default=None)
        found.append(
            Candidate(
                Box(centre.x, centre.y, float(bbox.size_x), float(bbox.size_y)),
                "" if best is None else best.hypothesis.class_id,
                detection.id,
            )
        )
    return found


def transformed(point: Point3, transform: Any) -> Point3:
    """Return a point moved by a geometry_msgs/Transform.

    Raises:
        PickError: if its rotation is none.
    """
    r, t = transform.rotation, transform.translation
    q = np.array([r.x, r.y, r.z])
    norm = math.sqrt(float(q @ q) + r.w * r.w)
    if not norm > 1e-9:
        raise PickError("the transform has a rotation of all zeros")
    q, w = q / norm, r.w / norm
    p = np.array(point, dtype=np.float64)
    turned = p + 2.0 * np.cross(q, np.cross(q, p) + w * p)
    x, y, z = (float(v) for v in turned + np.array([t.x, t.y, t.z]))
    return (x, y, z)
