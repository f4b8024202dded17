"""Centre decoding and the score fusion of the SiamRPN family, in crop pixels, FP32."""

from __future__ import annotations

import torch
from torch import Tensor

from siam_tracker_ros.networks.grid import STRIDE, Grid
from siam_tracker_ros.networks.heads import CenterMaps

LOG_SIZE_LIMIT = 3.0
"""Log sizes are held within e^+-3 of 8 cells: a bad first iteration must not overflow."""


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
