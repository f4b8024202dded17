"""Labels of anchors and proposals, and which of them take part in a loss. Vectorised over the batch.

A label is 1 (target), 0 (something else) or -1 (neither: ignored). Boxes are (cx, cy, w, h) in crop
pixels along the last dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from siam_tracker_ros.networks.anchors import overlap

POSITIVE, BACKGROUND, IGNORED = 1, 0, -1


class AnchorLabels(NamedTuple):
    """What every anchor should say.

    Attributes:
        label: int64 ``[N,A]``.
        boxes: ``[N,A,4]`` the object that an anchor overlaps most.
    """

    label: Tensor
    boxes: Tensor


def anchor_labels(
    anchors: Tensor,
    objects: Tensor,
    mask: Tensor,
    positive: float = 0.6,
    negative: float = 0.3,
    best: bool = False,
) -> AnchorLabels:
    """Label anchors by their overlap with any of the objects (generalised training: all of the category).

    Args:
        anchors: ``[A,4]``.
        objects: ``[N,K,4]``.
        mask: ``[N,K]`` 1 for an object, 0 for padding.
        positive: above this overlap an anchor is positive.
        negative: below this one it is background.
        best: an object's best anchor is positive whatever its overlap.
    """
    shared = overlap(anchors[None, :, None], objects[:, None]) * mask[:, None]  # [N,A,K]
    most, which = shared.max(dim=2)
    label = torch.full_like(which, IGNORED)
    label = torch.where(most < negative, BACKGROUND, label)
    label = torch.where(most > positive, POSITIVE, label)
    if best:
        top = shared.max(dim=1, keepdim=True).values
        label = torch.where(
            torch.logical_and(shared == top, shared > 0).any(dim=2), POSITIVE, label
        )
    matched = objects.gather(1, which[..., None].expand(-1, -1, 4))
    return AnchorLabels(label, matched)


def proposal_labels(
    proposals: Tensor, boxes: Tensor, visible: Tensor, positive: float = 0.5
) -> Tensor:
    """Labels ``[N,P]`` of proposals ``[N,P,4]``: positive only where the target itself is seen and overlapped.

    Args:
        proposals: what the fine stage is shown.
        boxes: ``[N,4]`` of the target (or of what stands in its place).
        visible: ``[N]`` 1 where that is the target.
        positive: from this overlap on.
    """
    hit = overlap(proposals, boxes[:, None]) >= positive
    return torch.logical_and(hit, visible[:, None] > 0).long()


def sample(label: Tensor, positives: int, total: int, background: int | None = None) -> Tensor:
    """Draw positives and background of every row at random.

    Args:
        label: ``[N,A]``.
        positives: at most this many.
        total: of both together.
        background: at most this many of it, if given.

    Returns:
        Mask ``[N,A]``, 1 for what takes part.
    """
    key = torch.rand(label.shape, device=label.device)
    chosen = torch.logical_and(label == POSITIVE, _rank(key, label == POSITIVE) < positives)
    left = total - chosen.sum(dim=1, keepdim=True)
    if background is not None:
        left = left.clamp(max=background)
    rest = torch.logical_and(label == BACKGROUND, _rank(key, label == BACKGROUND) < left)
    return torch.logical_or(chosen, rest).float()


def _rank(key: Tensor, among: Tensor) -> Tensor:
    """Place of every entry in the descending order of ``key`` ``[N,A]`` in (0, 1) among those of its row."""
    order = torch.where(among, key, key - 2).argsort(dim=1, descending=True)
    return order.argsort(dim=1)


def jittered(boxes: Tensor, count: int) -> Tensor:
    """``[N,count,4]`` boxes like ``[N,4]``: centre off by up to 10 % of the size, sides x .8 to 1.25."""
    shape = (boxes.shape[0], count, 2)
    shift = 0.2 * torch.rand(shape, device=boxes.device) - 0.1
    stretch = 1.25 ** (2 * torch.rand(shape, device=boxes.device) - 1)
    size = boxes[:, None, 2:]
    return torch.cat([boxes[:, None, :2] + shift * size, size * stretch], dim=2)
