"""Square crops: the one mapping between image and network coordinates, on robot and in training.

A crop is a centre ``c``, a side ``s`` in image pixels and an output size ``n``.
With ``k = n / s``::

    image -> crop:  u = (n - 1) / 2 + k (x - cx)
    crop -> image:  x = cx + (u - (n - 1) / 2) / k

that is, the crop's edges [-0.5, n - 0.5] map exactly onto [cx - s/2, cx + s/2]. Neither centre nor
side is ever rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np

from siam_tracker_ros.geometry.boxes import Box, FloatArray
from siam_tracker_ros.geometry.pictures import Picture, Rgb, UInt8Array

MAX_REDUCTION = 2.0
"""A crop that shrinks the image by more than this is area-averaged first, against aliasing."""


@dataclass(frozen=True)
class CropSpec:
    """Crop sizes of a tracker: output sizes in pixels (odd) and the context around the box.

    ``context`` is the fraction of ``(w + h) / 2 * 2`` added around the box (0.5 in the SiamFC
    family). ``rule`` says how: ``context`` as :func:`context_side`; ``area`` by the box's area
    alone, f sqrt(w h) with f = 1 + 2 context (STMTrack). Both are the same for a square.
    """

    template: int
    search: int
    context: float = 0.5
    rule: Literal["context", "area"] = "context"

    def __post_init__(self) -> None:
        for name, size in (("template", self.template), ("search", self.search)):
            if not 15 <= size <= 1023 or size % 2 == 0:
                raise ValueError(f"crop.{name} must be odd and in [15, 1023], got {size}")
        if not 0.0 <= self.context <= 4.0:
            raise ValueError(f"crop.context must be in [0, 4], got {self.context}")
        if self.rule not in ("context", "area"):
            raise ValueError(f"crop.rule must be context or area, got {self.rule!r}")


@dataclass(frozen=True)
class Crop:
    """A square window of an image: centre (image px), side (image px), output size n (crop px)."""

    cx: float
    cy: float
    side: float
    size: int

    @property
    def scale(self) -> float:
        """Crop pixels per image pixel, k = n / s."""
        return self.size / self.side

    def box_to_crop(self, box: Box) -> Box:
        """Map a box from image to crop pixels."""
        k, mid = self.scale, (self.size - 1) / 2
        return Box(mid + k * (box.cx - self.cx), mid + k * (box.cy - self.cy), k * box.w, k * box.h)

    def box_to_image(self, box: Box) -> Box:
        """Map a box from crop to image pixels."""
        k, mid = self.scale, (self.size - 1) / 2
        return Box(self.cx + (box.cx - mid) / k, self.cy + (box.cy - mid) / k, box.w / k, box.h / k)

    def points_to_crop(self, points: FloatArray) -> FloatArray:
        """Map points ``[N,2]`` (x, y) from image to crop pixels."""
        return (np.asarray(points) - (self.cx, self.cy)) * self.scale + (self.size - 1) / 2

    def points_to_image(self, points: FloatArray) -> FloatArray:
        """Map points ``[N,2]`` (x, y) from crop to image pixels."""
        return (np.asarray(points) - (self.size - 1) / 2) / self.scale + (self.cx, self.cy)


def context_side(w: float, h: float, context: float = 0.5) -> float:
    """Return the side of the square with context: sqrt((w + p)(h + p)), p = context (w + h)."""
    p = context * (w + h)
    return math.sqrt((w + p) * (h + p))


def box_side(w: float, h: float, spec: CropSpec) -> float:
    """Return the side of the template's crop of a w x h box, in the box's pixels."""
    if spec.rule == "area":
        return (1.0 + 2.0 * spec.context) * math.sqrt(w * h)
    return context_side(w, h, spec.context)


def template_crop(box: Box, spec: CropSpec) -> Crop:
    """Return the template's crop of ``box`` (image px)."""
    return Crop(box.cx, box.cy, box_side(box.w, box.h, spec), spec.template)


def search_crop(box: Box, spec: CropSpec, grow: float = 1.0) -> Crop:
    """Return the search region around ``box`` (image px): the template's scale, ``search`` px wide.

    ``grow`` > 1 widens the region (and so shrinks the target in it) while the target is uncertain.
    """
    side = box_side(box.w, box.h, spec) * spec.search / spec.template * grow
    return Crop(box.cx, box.cy, side, spec.search)


def extract_crop(
    picture: Picture, crop: Crop, fill: Rgb, deformation: FloatArray | None = None
) -> UInt8Array:
    """Cut ``crop`` out of ``picture``: bilinear, at real-valued positions.

    Args:
        picture: what to cut from; only the window under the crop is read and converted.
        crop: which window.
        fill: colour outside the picture (the first frame's mean).
        deformation: optional ``[2,2]`` matrix D applied about the crop's centre (training's
            rotation, shear and stretch): ``u = (n-1)/2 + k D (x - c)``. Identity on a robot.

    Returns:
        ``uint8 [n,n,3]`` RGB, C-contiguous.

    Raises:
        ValueError: if the crop is not finite or has no extent.
    """
    if not (math.isfinite(crop.cx) and math.isfinite(crop.cy) and 0 < crop.side < math.inf):
        raise ValueError(f"a crop needs a finite centre and a positive side, got {crop}")
    n, mid = crop.size, (crop.size - 1) / 2
    linear = np.eye(2) if deformation is None else np.asarray(deformation, dtype=np.float64)
    inverse = np.linalg.inv(linear) / crop.scale  # crop px -> image px
    shrink = float(np.sqrt(abs(np.linalg.det(inverse))))
    factor = int(shrink) if shrink > MAX_REDUCTION else 1
    # Half extent of the window under the crop, image px: bilinear sampling reads one (reduced)
    # pixel beyond the outermost position.
    reach = np.abs(inverse).sum(axis=1) * n / 2 + factor + 1
    x0, x1 = _window(crop.cx, float(reach[0]), picture.width, factor)
    y0, y1 = _window(crop.cy, float(reach[1]), picture.height, factor)
    if x1 <= x0 or y1 <= y0:
        return np.full((n, n, 3), fill, dtype=np.uint8)
    window = picture.rgb_region(x0, y0, x1, y1)
    if factor > 1:
        window = _reduced(window, factor)
    if window.shape[:2] == (1, 1):  # OpenCV 4.5.4 refuses a single pixel of three channels
        window = np.concatenate([window, np.full((1, 1, 3), fill, dtype=window.dtype)], axis=1)
    # Pixel i of the reduced window is centred on image column x0 + factor i + (factor - 1) / 2.
    origin = np.array([x0, y0]) + (factor - 1) / 2
    to_window = inverse / factor
    offset = (np.array([crop.cx, crop.cy]) - origin) / factor - to_window @ np.array([mid, mid])
    out = cv2.warpAffine(
        window,
        np.hstack([to_window, offset[:, None]]),
        (n, n),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    return np.ascontiguousarray(out, dtype=np.uint8)


def _window(centre: float, reach: float, length: int, factor: int) -> tuple[int, int]:
    """Return first and last + 1 column (row) of a window, in whole blocks of ``factor``.

    Blocks are counted from the image's first pixel, not the crop's: the same pixels are averaged
    together from frame to frame.
    """
    first = math.floor(min(max(centre - reach, 0), length))
    last = math.ceil(min(max(centre + reach + 1, 0), length))
    if last <= first:
        return first, first
    return first - first % factor, min(last + -last % factor, length)


def _reduced(window: UInt8Array, factor: int) -> UInt8Array:
    """Average blocks of factor x factor pixels; one cut by the image's border repeats its edge."""
    height, width = window.shape[:2]
    below, right = -height % factor, -width % factor
    if height == width == 1:
        return window
    padded: cv2.typing.MatLike = window
    if below or right:
        padded = cv2.copyMakeBorder(window, 0, below, 0, right, cv2.BORDER_REPLICATE)
    size = ((width + right) // factor, (height + below) // factor)
    return cast(UInt8Array, cv2.resize(padded, size, interpolation=cv2.INTER_AREA))
