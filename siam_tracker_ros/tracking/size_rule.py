"""How far the box's size follows the network (trackers/README.md, section 5)."""

from __future__ import annotations

import math

from siam_tracker_ros.geometry import Box, context_side

Size = tuple[float, float]

SAME_CENTRE = 0.25
"""The first look finds the target if its centre is off by no more, in sides of the box."""

BIAS_LIMIT = 0.25
"""Natural log of the correction of a side, at most."""


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


def first_bias(found: Box, box: Box, share: float) -> Size:
    """Return by which (w, h) later sizes are divided: ``share`` of how wrong the network's first size is.

    On the picture that the target was selected in, the true box is known. What the network makes too
    wide there (a box drawn with a margin, a part of an object, a tall target whose shape a square crop
    does not tell) it makes too wide later too. Only a share is taken, since one look is a noisy
    measurement; none where the look found something else (:data:`SAME_CENTRE`).

    Args:
        found: what the network finds in the first picture, without any smoothing.
        box: the selected box, in the same pixels.
        share: in [0, 1]; 0 for no correction.
    """
    off = max(abs(found.cx - box.cx) / box.w, abs(found.cy - box.cy) / box.h)
    if off > SAME_CENTRE:
        return (1.0, 1.0)
    width, height = (
        math.exp(min(max(share * math.log(a / b), -BIAS_LIMIT), BIAS_LIMIT))
        for a, b in ((found.w, box.w), (found.h, box.h))
    )
    return (width, height)
