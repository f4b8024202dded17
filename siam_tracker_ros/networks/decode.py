"""From maps to one box: decoding and the score fusion of the SiamRPN family, in crop pixels, FP32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from siam_tracker_ros.networks.grid import STRIDE, Grid
from siam_tracker_ros.networks.tracker_network import Decision

LOG_SIZE_LIMIT = 3.0
"""Log sizes are held within e^+-3 of 8 cells: a bad first iteration must not overflow."""


class CenterMaps(NamedTuple):
    """What a centre head predicts on an R x R grid.

    Attributes:
        heat: ``[B,1,R,R]`` logits of the centre heatmap.
        offset: ``[B,2,R,R]`` (x, y), in cells.
        size: ``[B,2,R,R]`` (w, h), coded as the decoder says.
    """

    heat: Tensor
    offset: Tensor
    size: Tensor


def decode_sizes(size: Tensor, coding: str) -> Tensor:
    """Size map ``[B,2,R,R]`` -> (w, h) in crop pixels.

    ``linear``: s = (w, h) / 8 (paper). ``log``: s = ln((w, h) / 64); 64 px is a square target's
    side in every crop with context 0.5.
    """
    size = size.float()
    if coding == "linear":
        return STRIDE * size
    return 8 * STRIDE * torch.exp(size.clamp(-LOG_SIZE_LIMIT, LOG_SIZE_LIMIT))


def decode_boxes(maps: CenterMaps, grid: Grid, coding: str) -> Tensor:
    """Boxes ``[B,4,R,R]`` (cx, cy, w, h) in crop pixels: px = origin + 8 (u + o)."""
    cells = torch.arange(grid.cells, dtype=torch.float32, device=maps.offset.device)
    offset = maps.offset.float()
    x = grid.origin + STRIDE * (cells.view(1, 1, -1) + offset[:, 0])
    y = grid.origin + STRIDE * (cells.view(1, -1, 1) + offset[:, 1])
    return torch.cat([x[:, None], y[:, None], decode_sizes(maps.size, coding)], dim=1)


def decode_points(distances: Tensor, grid: Grid) -> Tensor:
    """Boxes ``[B,4,R,R]`` (cx, cy, w, h) from distances ``[B,4,R,R]`` to the left, top, right and bottom edge.

    All in crop px: edges are (px - l, py - t, px + r, py + b) of the cell's centre (px, py).
    """
    left, top, right, bottom = distances.float().unbind(1)
    centers = grid.centers().to(distances.device)
    x = centers.view(1, 1, -1) + (right - left) / 2
    y = centers.view(1, -1, 1) + (bottom - top) / 2
    return torch.stack([x, y, left + right, top + bottom], dim=1)


def decide(
    score: Tensor,
    boxes: Tensor,
    grid: Grid,
    window: Tensor,
    fade: Tensor | None = None,
    ranked: Tensor | None = None,
) -> Decision:
    """Pick the best cell: final = (1 - lambda) penalty score + lambda window, arg-max of it.

    Args:
        score: ``[R,R]`` in [0, 1].
        boxes: ``[4,R,R]`` (cx, cy, w, h), crop px.
        grid: the R x R grid.
        window: ``[1]`` lambda, the share of the Hann window.
        fade: ``[R,R]`` penalty in (0, 1], see :func:`size_penalty`; none without.
        ranked: ``[R,R]`` what is ranked instead of the score, where a temporal module re-weighs it.
    """
    cells = grid.cells
    value = score if ranked is None else ranked
    if fade is not None:
        value = fade * value
    hann = hann_window(cells).to(score.device)
    fused = (1 - window) * value.flatten() + window * hann.flatten()
    best = torch.argmax(fused[None], dim=1)  # of two dimensions: TensorRT wants no fewer
    row, column = best // cells, torch.remainder(best, cells)
    centers = grid.centers().to(score.device)
    return Decision(
        boxes.flatten(1)[:, best].reshape(4),
        score.flatten()[best],
        runner_up(score, row, column),
        torch.cat([centers[column], centers[row]]),
    )


def runner_up(score: Tensor, row: Tensor, column: Tensor, reach: int = 3) -> Tensor:
    """Highest of ``score [R,R]`` further than ``reach`` cells (24 px) from (row, column): the best look-alike's."""
    index = torch.arange(score.shape[-1], device=score.device)
    far = torch.logical_or(
        (index - row).abs().view(-1, 1) > reach, (index - column).abs().view(1, -1) > reach
    )
    return torch.where(far, score, torch.zeros_like(score)).max().reshape(1)


def hann_window(cells: int) -> Tensor:
    """Outer product of two Hann windows ``[R,R]``: zero on the border, 1 in the middle."""
    hann = torch.hann_window(cells, periodic=False)
    return torch.outer(hann, hann)


def _change(ratio: Tensor) -> Tensor:
    return torch.maximum(ratio, 1 / ratio)


def _padded_size(w: Tensor, h: Tensor) -> Tensor:
    p = (w + h) / 2
    return torch.sqrt((w + p) * (h + p))


def size_penalty(w: Tensor, h: Tensor, previous: Tensor, strength: Tensor | float) -> Tensor:
    """Penalty in (0, 1] for a change of aspect and scale against ``previous`` = (w0, h0); 1 for no change.

    ``exp(-k (change((w0/h0)/(w/h)) change(sz(w,h)/sz(w0,h0)) - 1))``, change(r) = max(r, 1/r).
    """
    w, h = w.clamp(min=1e-3), h.clamp(min=1e-3)
    w0, h0 = previous[0], previous[1]
    aspect = _change((w0 / h0) / (w / h))
    scale = _change(_padded_size(w, h) / _padded_size(w0, h0))
    return torch.exp(-strength * (aspect * scale - 1))
