"""Losses of SiamSTM (equations 1, 5 and 6), FP32."""

from __future__ import annotations

import torch
from torch import Tensor

from siam_tracker_ros.networks.grid import STRIDE
from siam_tracker_ros.networks.response_arm import HEAT_FLOOR, kl_to_product
from siam_tracker_ros.training.labels import CenterLabels

NEAR = 0.25
"""Cells with a label above this take part in the dense box loss."""


def center_focal(heat: Tensor, label: Tensor) -> Tensor:
    """Penalty-reduced focal loss (CenterNet): alpha 2, beta 4, divided by the number of positive cells (at least 1).

    Args:
        heat: predictions in (0, 1), any shape.
        label: Gaussian labels of the same shape; 1 exactly at positives.
    """
    heat = heat.float().clamp(HEAT_FLOOR, 1 - HEAT_FLOOR)
    positive = (label >= 1.0).float()
    gain = positive * (1 - heat) ** 2 * heat.log()
    cost = (1 - positive) * (1 - label) ** 4 * heat**2 * (1 - heat).log()
    return -(gain + cost).sum() / positive.sum().clamp(min=1)


def at_cells(maps: Tensor, cell: Tensor) -> Tensor:
    """Values ``[B,C]`` of ``[B,C,R,R]`` at (row, column) ``[B,2]``."""
    return maps[torch.arange(maps.shape[0], device=maps.device), :, cell[:, 0], cell[:, 1]]


def center_offset_size(
    offset: Tensor, size: Tensor, boxes: Tensor, labels: CenterLabels
) -> tuple[Tensor, Tensor]:
    """L_off and L_size: mean absolute error at the target's cell of visible targets.

    Args:
        offset: ``[B,2,R,R]`` in cells.
        size: ``[B,2,R,R]`` decoded (w, h) in crop px; compared in cells, as the paper does.
        boxes: ``[B,4]`` crop px.
        labels: from :func:`center_labels`.
    """
    count = labels.visible.sum().clamp(min=1) * 2
    seen = labels.visible[:, None]
    off = ((at_cells(offset.float(), labels.cell) - labels.offset).abs() * seen).sum() / count
    extent = (at_cells(size, labels.cell) - boxes[:, 2:]).abs() / STRIDE
    return off, (extent * seen).sum() / count


def dense_box(
    decoded: Tensor, boxes: Tensor, labels: CenterLabels
) -> tuple[Tensor, Tensor, Tensor]:
    """Box losses at all cells near the centre, weighted by the label.

    Args:
        decoded: ``[B,4,R,R]`` (cx, cy, w, h), crop px.
        boxes: ``[B,4]``.
        labels: from :func:`center_labels`.

    Returns:
        Mean relative centre error, mean absolute log size error, mean (1 - GIoU).
    """
    weight = labels.heat * (labels.heat > NEAR)
    total = weight.sum().clamp(min=1e-3)
    target = boxes[:, :, None, None]
    centre = ((decoded[:, :2] - target[:, :2]).abs() / target[:, 2:]).sum(1)
    size = (decoded[:, 2:].clamp(min=1e-2).log() - target[:, 2:].log()).abs().sum(1)
    giou = generalised_iou(decoded, target.expand_as(decoded))
    return tuple((value * weight).sum() / total for value in (centre, size, 1 - giou))  # type: ignore[return-value]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Overlap in [0, 1] of boxes (cx, cy, w, h) along dimension 1: ``[B,4,...]`` -> ``[B,...]``."""
    return _overlap(a, b)[0]


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU in (-1, 1] of boxes (cx, cy, w, h) along dimension 1: ``[B,4,...]`` -> ``[B,...]``."""
    overlap, union = _overlap(a, b)
    a1, a2, b1, b2 = _corners(a, b)
    hull = (torch.maximum(a2, b2) - torch.minimum(a1, b1)).prod(1).clamp(min=1e-6)
    return overlap - (hull - union) / hull


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and the union."""
    a1, a2, b1, b2 = _corners(a, b)
    inter = (torch.minimum(a2, b2) - torch.maximum(a1, b1)).clamp(min=0).prod(1)
    union = a[:, 2:].prod(1) + b[:, 2:].prod(1) - inter
    return inter / union.clamp(min=1e-6), union


def _corners(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (ac, aw), (bc, bw) = ((box[:, :2], box[:, 2:] / 2) for box in (a, b))
    return ac - aw, ac + aw, bc - bw, bc + bw


def _roll(maps: Tensor, shift: Tensor) -> Tensor:
    """Circular shift of each ``[R,R]`` map of ``[B,R,R]`` by its own (rows, columns) ``[B,2]``."""
    cells = maps.shape[-1]
    index = torch.arange(cells, device=maps.device)
    rows = torch.remainder(index[None] - shift[:, :1], cells)
    columns = torch.remainder(index[None] - shift[:, 1:], cells)
    batch = torch.arange(maps.shape[0], device=maps.device)[:, None, None]
    return maps[batch, rows[:, :, None], columns[:, None, :]]


def aberrance(a: Tensor, b: Tensor, label_a: Tensor, label_b: Tensor, mask: Tensor) -> Tensor:
    """L_arm of equation (5): KL(Y_b^2, A[D_ab] B) + KL(Y_a^2, B[D_ba] A), both sides normalised.

    D_ab takes the peak of A to the peak of B. Shifts are integers and carry no gradient.

    Args:
        a: ``[B,R,R]`` heatmap of one frame, in (0, 1).
        b: ``[B,R,R]`` heatmap of the other.
        label_a: ``[B,R,R]`` Gaussian label of the first frame.
        label_b: ``[B,R,R]`` Gaussian label of the second.
        mask: ``[B]`` 1 where both frames show the target.

    Returns:
        Mean over the unmasked pairs; 0 if there are none.
    """
    a = a.float().clamp(HEAT_FLOOR, 1 - HEAT_FLOOR)
    b = b.float().clamp(HEAT_FLOOR, 1 - HEAT_FLOOR)
    cells = a.shape[-1]
    peak_a, peak_b = (m.detach().flatten(1).argmax(1) for m in (a, b))
    shift = torch.stack([peak_b // cells - peak_a // cells, peak_b % cells - peak_a % cells], dim=1)
    forward = kl_to_product(_safe(label_b, mask).flatten(1), (_roll(a, shift) * b).flatten(1))
    backward = kl_to_product(_safe(label_a, mask).flatten(1), (_roll(b, -shift) * a).flatten(1))
    return ((forward + backward) * mask).sum() / mask.sum().clamp(min=1)


def _safe(label: Tensor, mask: Tensor) -> Tensor:
    """Give masked pairs a uniform label, so that their (unused) divergence is finite and has a finite gradient."""
    return torch.where(mask[:, None, None] > 0, label, torch.ones_like(label))


__all__ = [
    "aberrance",
    "at_cells",
    "center_focal",
    "center_offset_size",
    "dense_box",
    "generalised_iou",
    "iou",
]
