"""Where to look for a lost target: near the last place first, then ever further, then again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from siam_tracker_ros.geometry import Box

OVERLAP = 0.5
"""Fraction of their side that neighbours share: a target cut by one is whole in the next."""

GROWS = (1.0, 1.4, 0.8)
"""Region sizes of successive scans: the target may come back nearer or further."""


def places(last: Box, side: float, width: int, height: int) -> Iterator[tuple[Box, float]]:
    """Yield places to search, endlessly: (box to centre a region on, the region's ``grow``).

    A scan visits rings of search regions around the last box. The first scan is the innermost ring
    alone, each next one reaches twice as far; the one that covers the whole picture is followed by
    the innermost again, with the next region size of :data:`GROWS`.

    Args:
        last: the target's last confident box, image px; only its centre moves, its size stays.
        side: side of an ungrown search region, image px.
        width: columns of the picture.
        height: rows of the picture.
    """
    cx, cy = min(max(last.cx, 0.0), width - 1.0), min(max(last.cy, 0.0), height - 1.0)
    for grow in itertools.cycle(GROWS):
        stride = max(side * grow * (1.0 - OVERLAP), 1.0)
        furthest = max(cx, cy, width - 1.0 - cx, height - 1.0 - cy)
        whole = int(-(-furthest // stride))  # rings that cover the picture, rounded up
        reach = 1
        while True:
            for ring in range(min(reach, whole) + 1):
                for i, j in _ring(ring):
                    x, y = cx + i * stride, cy + j * stride
                    # Half a stride beyond the border still sees the picture's edge; further out
                    # sees nothing new.
                    if (
                        abs(x - width / 2) <= (width + stride) / 2
                        and abs(y - height / 2) <= (height + stride) / 2
                    ):
                        x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
                        yield Box(x, y, last.w, last.h), grow
            if reach >= whole:
                break
            reach *= 2


def _ring(radius: int) -> Iterator[tuple[int, int]]:
    """Yield the grid points with max(|i|, |j|) = radius, the four nearest first."""
    if radius == 0:
        yield 0, 0
        return
    points = {
        point
        for k in range(-radius, radius + 1)
        for point in ((k, -radius), (k, radius), (-radius, k), (radius, k))
    }
    yield from sorted(points, key=lambda p: (p[0] ** 2 + p[1] ** 2, p))
