"""Targets of trackers that predict distances to the box's edges at every cell (IMSiam, STMTrack)."""

from __future__ import annotations

import torch
from torch import Tensor

from siam_tracker_ros.networks.grid import Grid

POSITIVE, BACKGROUND, IGNORED = 1, 0, -1


def point_distances(boxes: Tensor, grid: Grid) -> Tensor:
    """Distances of every cell's centre to the left, top, right and bottom edge (IMSiam, equation 8).

    Args:
        boxes: ``[B,4]`` (cx, cy, w, h), crop px.
        grid: the response grid.

    Returns:
        ``[B,4,R,R]``, crop px; negative beyond an edge.
    """
    cx, cy, w, h = (value.view(-1, 1, 1) for value in boxes.float().unbind(1))
    centers = grid.centers().to(boxes.device)
    x, y = centers.view(1, 1, -1), centers.view(1, -1, 1)
    sides = (x - (cx - w / 2), y - (cy - h / 2), (cx + w / 2) - x, (cy + h / 2) - y)
    shape = (len(boxes), grid.cells, grid.cells)
    return torch.stack([side.expand(shape) for side in sides], dim=1)


def centerness(distances: Tensor) -> Tensor:
    """``sqrt(min(l,r)/max(l,r) min(t,b)/max(t,b))`` (IMSiam, equation 9); 0 on the edges and outside.

    Args:
        distances: ``[B,4,R,R]``.

    Returns:
        ``[B,R,R]`` in [0, 1].
    """
    left, top, right, bottom = distances.float().clamp(min=0).unbind(1)
    across = torch.minimum(left, right) / torch.maximum(left, right).clamp(min=1e-6)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom).clamp(min=1e-6)
    return torch.sqrt(across * down)


def point_labels(boxes: Tensor, visible: Tensor, grid: Grid, shrink: float) -> Tensor:
    """Label every cell by where its centre lies (IMSiam, equation 7).

    Positive in the box shrunk by ``shrink`` about its centre, ignored between that and the box,
    background elsewhere. Where the target is not visible, positives become background and the ring
    stays ignored.

    Args:
        boxes: ``[B,4]`` (cx, cy, w, h), crop px.
        visible: ``[B]`` 1 or 0.
        grid: the response grid.
        shrink: 0.75 (IMSiam) or 1 (strictly inside the box; nothing is ignored).

    Returns:
        ``[B,R,R]`` int64: 1 positive, 0 background, -1 ignored.
    """
    distances = point_distances(boxes, grid)
    inside = distances.amin(dim=1) > 0
    # |px - cx| < shrink w/2, and the half width is (l + r)/2, |px - cx| = |l - r|/2.
    left, top, right, bottom = distances.unbind(1)
    near = ((left - right).abs() < shrink * (left + right)) & (
        (top - bottom).abs() < shrink * (top + bottom)
    )
    core = inside & near
    labels = torch.where(inside & ~core, IGNORED, BACKGROUND)
    positive = core & (visible.view(-1, 1, 1) > 0)
    return torch.where(positive, POSITIVE, labels)
