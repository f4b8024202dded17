"""The one box type, in continuous pixel-centre coordinates.

The centre of the first pixel of an image is (0, 0), as in ``sensor_msgs/CameraInfo``; an image of
width ``W`` spans x in [-0.5, W - 0.5]. Three spellings of the same box exist:

* ``cx, cy, w, h``: the state (:class:`Box`);
* ``xywh``: data sets and results; x, y is the index of the first covered pixel, so
  ``cx = x + (w - 1) / 2``;
* ``edges``: ``x1 = cx - w / 2`` ... ``x2 = cx + w / 2``, so a box whose first pixel is column x has
  ``x1 = x - 0.5``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

MIN_SIDE = 4.0
"""The smallest side, in image pixels, that can be selected or tracked."""


@dataclass(frozen=True)
class Box:
    """An upright box: centre ``(cx, cy)`` and size ``(w, h)``, pixels, pixel-centre coordinates."""

    cx: float
    cy: float
    w: float
    h: float

    @classmethod
    def from_xywh(cls, x: float, y: float, w: float, h: float) -> Box:
        """Return the box whose first covered pixel is (x, y) and which covers w x h pixels."""
        return cls(x + (w - 1) / 2, y + (h - 1) / 2, w, h)

    @classmethod
    def from_edges(cls, x1: float, y1: float, x2: float, y2: float) -> Box:
        """Return the box between the edges x1 < x2 and y1 < y2."""
        return cls((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """First covered pixel and number of covered pixels, ``(x, y, w, h)``."""
        return (self.cx - (self.w - 1) / 2, self.cy - (self.h - 1) / 2, self.w, self.h)

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Edges ``(x1, y1, x2, y2)`` with ``w = x2 - x1``."""
        return (
            self.cx - self.w / 2,
            self.cy - self.h / 2,
            self.cx + self.w / 2,
            self.cy + self.h / 2,
        )

    @property
    def area(self) -> float:
        """Area in square pixels; zero for a box without extent."""
        return max(self.w, 0.0) * max(self.h, 0.0)

    def __iter__(self) -> Iterator[float]:
        """Yield cx, cy, w, h."""
        return iter((self.cx, self.cy, self.w, self.h))

    def is_finite(self) -> bool:
        """Tell whether all four numbers are finite."""
        return all(math.isfinite(value) for value in self)

    def scaled(self, factor: float) -> Box:
        """Return the box with the same centre and ``factor`` times the size."""
        return Box(self.cx, self.cy, self.w * factor, self.h * factor)

    def iou(self, other: Box) -> float:
        """Intersection over union with ``other``, in [0, 1]; 0 where both are empty."""
        ax1, ay1, ax2, ay2 = self.edges
        bx1, by1, bx2, by2 = other.edges
        inter = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
        union = self.area + other.area - inter
        # Rounding of edges far from the origin can leave the union a hair below the intersection.
        return min(inter / union, 1.0) if union > 0 else 0.0

    def clipped_to_image(self, width: int, height: int) -> Box:
        """Return the part of the box inside a ``width`` x ``height`` image (size 0 if none)."""
        x1, y1, x2, y2 = self.edges
        x1, x2 = (min(max(v, -0.5), width - 0.5) for v in (x1, x2))
        y1, y2 = (min(max(v, -0.5), height - 0.5) for v in (y1, y2))
        return Box.from_edges(x1, y1, x2, y2)

    def kept_in_image(self, width: int, height: int, min_side: float = MIN_SIDE) -> Box:
        """Return the box with its centre held inside the image and its sides within limits.

        The trackers' clip rule: cx in [0, W - 1], cy in [0, H - 1], w in [min_side, W],
        h in [min_side, H].
        """
        return Box(
            min(max(self.cx, 0.0), width - 1.0),
            min(max(self.cy, 0.0), height - 1.0),
            min(max(self.w, min_side), max(float(width), min_side)),
            min(max(self.h, min_side), max(float(height), min_side)),
        )


def iou_xywh(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the intersection over union, ``[N]`` in [0, 1], of ``a[N,4]`` and ``b[N,4]`` (xywh).

    Differences of first pixels equal differences of edges, so no offset enters.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    inter = np.prod(np.clip(high - low, 0.0, None), axis=1)
    union = np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - inter
    return np.where(union > 0, np.minimum(inter / np.maximum(union, 1e-12), 1.0), 0.0)
