"""Targets of the centre head, on the response grid (SiamSTM section 3.1, after CenterNet)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from siam_tracker_ros.networks.grid import STRIDE, Grid
from siam_tracker_ros.networks.response_arm import gaussian_label, gaussian_sigma


class CenterLabels(NamedTuple):
    """Labels of B search crops.

    Attributes:
        heat: ``[B,R,R]`` Gaussian with exactly one 1 where the target is visible, zero elsewhere.
        cell: ``[B,2]`` long (row, column) of the target's centre.
        offset: ``[B,2]`` (x, y) in [0, 1), in cells; 0.5 is the cell's centre.
        visible: ``[B]`` 1 or 0.
    """

    heat: Tensor
    cell: Tensor
    offset: Tensor
    visible: Tensor


def center_labels(boxes: Tensor, visible: Tensor, grid: Grid) -> CenterLabels:
    """Encode boxes.

    Cell u covers crop px [origin + 8 u, origin + 8 (u + 1)); o = (px - origin) / 8 - u.

    Args:
        boxes: ``[B,4]`` (cx, cy, w, h), crop px; centres inside the grid where visible.
        visible: ``[B]`` 1 or 0.
        grid: the response grid.
    """
    position = (boxes[:, :2].float() - grid.origin) / STRIDE  # (x, y) in cells
    cell = position.floor().clamp(0, grid.cells - 1)
    sigma = gaussian_sigma(boxes[:, 2].float(), boxes[:, 3].float())
    heat = gaussian_label(cell[:, 1], cell[:, 0], sigma, grid.cells)
    visible = visible.float()
    return CenterLabels(
        heat * visible[:, None, None], cell.flip(1).long(), position - cell, visible
    )
