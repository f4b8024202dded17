"""Anchors: boxes of a few shapes at every cell, their coding, and the choice of a few proposals among them.

Boxes are (cx, cy, w, h) in crop pixels along the last dimension; all arithmetic is FP32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from siam_tracker_ros.networks.grid import STRIDE, Grid

LOG_SIZE_MAX = math.log(255 / 32)
"""Largest log size ratio that is decoded (2.0755)."""

LOG_SIZE_MIN = -6.0
"""Smallest one: below a pixel for every anchor; a collapsed box would have no logarithm."""

FINE_SCALE = (5.0, 5.0, 10.0, 10.0)
"""The fine stage's deltas are this much larger than what they say: proposals are nearly right."""

SAME = 0.8
"""A box that overlaps the previous one more than this may be the near box."""

WEAK = 0.1
"""Candidates below this share of the best one's score are no proposals."""

SUPPRESSED = 0.5
"""Overlap from which on a weaker candidate is the same proposal."""


def anchor_sizes(ratios: tuple[float, ...]) -> list[tuple[int, int]]:
    """(w, h) of anchors with an area of about 64 px squared and h / w = ratio, multiples of the stride.

    Rounded half to even, w first and h from the rounded w: .33, .5, 1, 2, 3 give (112,40), (88,48),
    (64,64), (48,96), (40,120).
    """
    sizes = []
    for ratio in ratios:
        columns = round(math.sqrt(64 / ratio))
        sizes.append((STRIDE * columns, STRIDE * max(1, round(columns * ratio))))
    return sizes


def make_anchors(grid: Grid, ratios: tuple[float, ...]) -> Tensor:
    """Anchors ``[R*R*A,4]`` in the order (row, column, anchor)."""
    centers = grid.centers()
    sizes = torch.tensor(anchor_sizes(ratios), dtype=torch.float32)
    shape = (grid.cells, grid.cells, len(ratios))
    x = centers.view(1, -1, 1).expand(shape)
    y = centers.view(-1, 1, 1).expand(shape)
    w, h = (sizes[:, side].view(1, 1, -1).expand(shape) for side in (0, 1))
    return torch.stack([x, y, w, h], dim=-1).reshape(-1, 4)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Deltas (dx, dy, dw, dh) that :func:`decode` turns back into ``boxes``; shapes broadcast."""
    boxes, anchors = boxes.float(), anchors.float()
    shift = (boxes[..., :2] - anchors[..., :2]) / anchors[..., 2:]
    return torch.cat([shift, torch.log(boxes[..., 2:] / anchors[..., 2:])], dim=-1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes from deltas: c = d wa + ca, w = wa exp(min(dw, ln(255/32))); shapes broadcast."""
    deltas, anchors = deltas.float(), anchors.float()
    centre = deltas[..., :2] * anchors[..., 2:] + anchors[..., :2]
    size = anchors[..., 2:] * torch.exp(deltas[..., 2:].clamp(LOG_SIZE_MIN, LOG_SIZE_MAX))
    return torch.cat([centre, size], dim=-1)


def decode_fine(deltas: Tensor, proposals: Tensor) -> Tensor:
    """Boxes of the fine stage, whose deltas are larger by :data:`FINE_SCALE`."""
    return decode(deltas.float() / deltas.new_tensor(FINE_SCALE, dtype=torch.float32), proposals)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes ``[...,4]``; shapes broadcast."""
    half_a, half_b = a[..., 2:] / 2, b[..., 2:] / 2
    low = torch.maximum(a[..., :2] - half_a, b[..., :2] - half_b)
    high = torch.minimum(a[..., :2] + half_a, b[..., :2] + half_b)
    sides = (high - low).clamp(min=0)
    inter = sides[..., 0] * sides[..., 1]
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - inter
    return inter / union.clamp(min=1e-6)


def suppress(
    boxes: Tensor, value: Tensor, count: int, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy non-maximum suppression, the ``count`` best: as many arg-max picks, unrolled.

    Greedy suppression visits candidates in descending order, so that the first picks are all of it.

    Args:
        boxes: ``[B,N,4]``.
        value: ``[B,N]``; what is not above 0 is no candidate.
        count: how many.
        threshold: overlap from which on a weaker box is dropped.

    Returns:
        Index ``[B,count]``, boxes ``[B,count,4]`` and value ``[B,count]`` of the picks; where the
        value is not above 0, candidates had run out.
    """
    number = int(boxes.shape[1])
    index = torch.arange(number, device=boxes.device)[None]
    picks, kept, values = [], [], []
    for _ in range(count):
        best = torch.argmax(value, dim=1)
        values.append(take(value, best[:, None]))
        picks.append(best)
        box = take(boxes, best[:, None])
        kept.append(box)
        gone = torch.logical_or(overlap(box, boxes) >= threshold, index == best[:, None])
        value = torch.where(gone, -torch.ones_like(value), value)
    return torch.stack(picks, dim=1), torch.cat(kept, dim=1), torch.cat(values, dim=1)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index [B,K]`` of ``[B,N,...]``: ``[B,K,...]`` (a plain Gather in a graph of batch 1)."""
    batch, number = int(values.shape[0]), int(values.shape[1])
    start = number * torch.arange(batch, device=values.device)[:, None]
    return values.flatten(0, 1)[(index + start).flatten()].reshape(
        batch, int(index.shape[1]), *values.shape[2:]
    )


class Proposals(NamedTuple):
    """A few boxes out of all anchors'.

    Attributes:
        anchor: ``[B,K]`` index of the anchor.
        boxes: ``[B,K,4]``.
        score: ``[B,K]`` of the coarse stage; not above 0 in a slot that is empty.
    """

    anchor: Tensor
    boxes: Tensor
    score: Tensor


def near_box(boxes: Tensor, score: Tensor, previous: Tensor) -> Tensor:
    """Index ``[B]`` of the box that continues the track.

    If several boxes overlap the previous one by more than .8, the best-scored of them, else the one
    that overlaps most.

    Args:
        boxes: ``[B,N,4]``.
        score: ``[B,N]`` in [0, 1].
        previous: ``[B,4]``.
    """
    shared = overlap(boxes, previous[:, None])
    same = (shared > SAME).float()
    several = (same.sum(dim=1, keepdim=True) > 1).float()
    # Above every overlap, and ordered by the score alone among themselves.
    return torch.argmax((1 - same * several) * shared + 10 * (1 + score) * same * several, dim=1)


def propose(boxes: Tensor, score: Tensor, count: int, previous: Tensor | None = None) -> Proposals:
    """Choose ``count`` proposals; with ``previous [B,4]`` the near box is the last of them.

    The others: candidates of at least a tenth of their best score, greedy suppression at an overlap
    of .5, the best. Slots that stay empty have a score that is not above 0.

    Args:
        boxes: ``[B,N,4]``.
        score: ``[B,N]`` in (0, 1].
        count: K.
        previous: the box of the last frame.
    """
    value, none = score, -torch.ones_like(score)
    if previous is None:
        return _strongest(boxes, value, count)
    near = near_box(boxes, score, previous)[:, None]
    index = torch.arange(int(boxes.shape[1]), device=boxes.device)[None]
    others = _strongest(boxes, torch.where(index == near, none, value), count - 1)
    return Proposals(
        torch.cat([others.anchor, near], dim=1),
        torch.cat([others.boxes, take(boxes, near)], dim=1),
        torch.cat([others.score, take(score, near)], dim=1),
    )


def _strongest(boxes: Tensor, value: Tensor, count: int) -> Proposals:
    best = value.max(dim=1, keepdim=True).values
    value = torch.where(value < WEAK * best, -torch.ones_like(value), value)
    return Proposals(*suppress(boxes, value, count, SUPPRESSED))


def fuse(
    coarse_score: Tensor,
    fine_score: Tensor,
    coarse: Tensor,
    fine: Tensor,
    class_weight: float,
    box_weight: float,
) -> tuple[Tensor, Tensor]:
    """Equation (2): u = (1 - W_cls) u_c + W_cls u_f, B = (u_c B_c + W_box u_f B_f) / (u_c + W_box u_f).

    The mean of corners is the mean of centres and sizes.

    Args:
        coarse_score: ``[...]`` u_c in [0, 1].
        fine_score: ``[...]`` u_f in [0, 1].
        coarse: ``[...,4]`` B_c.
        fine: ``[...,4]`` B_f.
        class_weight: W_cls.
        box_weight: W_box.
    """
    score = (1 - class_weight) * coarse_score + class_weight * fine_score
    total = (coarse_score + box_weight * fine_score).clamp(min=1e-5)
    share = (box_weight * fine_score / total)[..., None]
    return score, coarse + share * (fine - coarse)


def place_window(boxes: Tensor, crop: int) -> Tensor:
    """Equation (3): a Hann window ``[...]`` over the crop, at the boxes' centres ``[...,4]``."""
    place = (boxes[..., :2] / (crop - 1)).clamp(0, 1)
    height = 0.5 - 0.5 * torch.cos(2 * math.pi * place)
    return height[..., 0] * height[..., 1]
