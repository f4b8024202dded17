"""How far the box's size follows the network (trackers/README.md, section 5)."""

from __future__ import annotations

import math

from siam_tracker_ros.geometry import context_side

Size = tuple[float, float]


def size_change(size: Size, previous: Size) -> float:
    """Return change(aspect) * change(scale) between two (w, h), change(r) = max(r, 1/r).

    Scale is sz(w,h) = sqrt((w + (w+h)/2)(h + (w+h)/2)). Both sizes must be positive and in the same
    pixels. 1 means no change.
    """
    aspect = (previous[0] / previous[1]) / (size[0] / size[1])
    scale = context_side(*size) / context_side(*previous)
    return max(aspect, 1.0 / aspect) * max(scale, 1.0 / scale)


def size_penalty(size: Size, previous: Size, strength: float) -> float:
    """Return exp(-strength (size_change - 1)), in (0, 1]."""
    return math.exp(-strength * (size_change(size, previous) - 1.0))


def smoothed_size(
    size: Size,
    previous: Size,
    *,
    score: float,
    rate: float,
    penalty: float,
    by_score: float = 1.0,
) -> Size:
    """Return (1 - eta) previous + eta size, eta = rate * size_penalty * s held in [0, 1].

    s goes from 1 (``by_score`` 0) to the score itself (``by_score`` 1).
    """
    trust = 1.0 - by_score * (1.0 - score)
    eta = min(max(rate * size_penalty(size, previous, penalty) * trust, 0.0), 1.0)
    return (
        (1.0 - eta) * previous[0] + eta * size[0],
        (1.0 - eta) * previous[1] + eta * size[1],
    )
