"""Where to look for a lost target: near the last place first, then ever further, then again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from siam_tracker_ros.geometry import Box

OVERLAP = 0.5
"""Fraction of their side that neighbours share: a target cut by one is whole in the next."""

SAME = (1.0, 1.4, 0.8)
ROUNDS = (SAME, SAME, SAME, (1.0, 0.55, 2.0), SAME, (1.0, 0.35), SAME, (1.0, 0.25))
"""The target's sizes that successive rounds look for, as shares of the last one, again and again.

A network knows a target at about its own size only (at half the size its score is a tenth), and what is
lost for long has come nearer or, more often, gone away.
"""

LEAST = 8.0
"""Smaller targets are not looked for, image px (root of the area)."""


def places(last: Box, side: float, width: int, height: int) -> Iterator[Box]:
    """Yield boxes to search around, endlessly, each where and as large as the target may be.

    A scan visits rings of search regions around the last box, for one size. A round begins with the
    innermost ring for each of its sizes, then reaches twice as far each time, until it has covered
    the picture: near places come before far ones at all sizes, for far away a look-alike is as
    likely as the target.

    Args:
        last: the target's last confident box, image px.
        side: side of the search region around it, image px.
        width: columns of the picture.
        height: rows of the picture.
    """
    cx, cy = min(max(last.cx, 0.0), width - 1.0), min(max(last.cy, 0.0), height - 1.0)
    furthest = max(cx, cy, width - 1.0 - cx, height - 1.0 - cy)
    for sizes in itertools.cycle(ROUNDS):
        strides = {
            size: max(side * size * (1.0 - OVERLAP), 1.0)
            for size in sizes
            if size >= 1.0 or size * math.sqrt(last.area) >= LEAST
        }
        reach, todo = 1, strides
        while todo:
            for size, stride in todo.items():
                for ring in range(min(reach, _rings(furthest, stride)) + 1):
                    for i, j in _ring(ring):
                        x, y = cx + i * stride, cy + j * stride
                        # Half a stride beyond the border still sees the picture's edge; further
                        # out sees nothing new.
                        if (
                            abs(x - width / 2) <= (width + stride) / 2
                            and abs(y - height / 2) <= (height + stride) / 2
                        ):
                            x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
                            yield Box(x, y, size * last.w, size * last.h)
            todo = {z: stride for z, stride in todo.items() if _rings(furthest, stride) > reach}
            reach *= 2


def _rings(furthest: float, stride: float) -> int:
    """Return how many rings cover the picture, rounded up."""
    return math.ceil(furthest / stride)


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
