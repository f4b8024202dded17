"""Aberrance repressed module at test time (SiamSTM, section 3.3 and algorithm 1), as a pure function of its state.

All FP32: the smallest products of two heatmaps (1e-8) do not exist in FP16.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from siam_tracker_ros.networks.config import ResponseArmConfig
from siam_tracker_ros.networks.grid import STRIDE

HEAT_FLOOR = 1e-4
"""Heatmaps are held in [1e-4, 1 - 1e-4] before they are multiplied, so that logarithms stay finite."""

_NEVER = 1e9
_MIN_OVERLAP = 0.7


class ArmState(NamedTuple):
    """What ARM remembers: heatmap ``[R,R]``, label ``[R,R]`` and peak ``[2]`` (row, column), all FP32."""

    heatmap: Tensor
    label: Tensor
    peak: Tensor


class ArmResult(NamedTuple):
    """Re-ranked heatmap ``[R,R]``, the new state, the chosen candidate's index and the candidates' losses ``[K]``."""

    heat: Tensor
    state: ArmState
    chosen: Tensor
    losses: Tensor


def gaussian_sigma(w: Tensor, h: Tensor) -> Tensor:
    """Label width in cells of a w x h (crop px) target: (2 r + 1) / 6, r = CenterNet's radius at overlap 0.7.

    CenterNet takes the least of three radii with the quadratic formula's denominator 2 throughout;
    so do we (the textbook denominator gives r = 0 for ordinary targets).
    """
    w, h = torch.ceil(w / STRIDE), torch.ceil(h / STRIDE)
    t = _MIN_OVERLAP
    total, product = w + h, w * h
    r1 = (total + torch.sqrt(total**2 - 4 * product * (1 - t) / (1 + t))) / 2
    r2 = (2 * total + torch.sqrt(4 * total**2 - 16 * (1 - t) * product)) / 2
    r3 = (-2 * t * total + torch.sqrt(4 * t**2 * total**2 - 16 * t * (t - 1) * product)) / 2
    radius = torch.floor(torch.minimum(torch.minimum(r1, r2), r3)).clamp(min=0)
    return (2 * radius + 1) / 6


def gaussian_label(row: Tensor, column: Tensor, sigma: Tensor, cells: int) -> Tensor:
    """Gaussian ``[..., R, R]`` with value 1 at the integer cell (row, column)."""
    index = torch.arange(cells, dtype=torch.float32, device=sigma.device)
    dy = index.view(-1, 1) - row[..., None, None]
    dx = index.view(1, -1) - column[..., None, None]
    return torch.exp(-(dx**2 + dy**2) / (2 * sigma[..., None, None] ** 2))


def shift_indices(shift: Tensor, cells: int) -> Tensor:
    """Flat source indices ``[K, R*R]`` of circular shifts ``[K,2]`` (rows, columns): ``torch.roll`` as a gather."""
    index = torch.arange(cells, device=shift.device)
    rows = torch.remainder(index[None] - shift[:, :1] + 2 * cells, cells)
    columns = torch.remainder(index[None] - shift[:, 1:] + 2 * cells, cells)
    return (rows[:, :, None] * cells + columns[:, None, :]).reshape(shift.shape[0], -1)


def kl_to_product(label: Tensor, product: Tensor) -> Tensor:
    """KL(P, Q) of P = label^2 / sum and Q = product / sum, over the last dimension.

    Both are normalised; on raw products the history would cancel out of the comparison (spec,
    section 3).
    """
    p = label.square()
    p = p / p.sum(-1, keepdim=True)
    log_q = torch.log(product) - torch.log(product.sum(-1, keepdim=True))
    entropy = torch.where(p > 0, p * torch.log(p.clamp(min=1e-38)), torch.zeros_like(p))
    return (entropy - p * log_q).sum(-1)


def repress_aberrance(heat: Tensor, state: ArmState, config: ResponseArmConfig) -> ArmResult:
    """One step of algorithm 1, lines 7 to 16.

    Args:
        heat: ``[R,R]`` heatmap of this frame, in [1e-4, 1 - 1e-4].
        state: what the last committed frame left.
        config: number of candidates, how they are found, what is remembered.
    """
    cells = heat.shape[-1]
    if config.peaks == "maxima":
        pooled = F.max_pool2d(heat[None, None], 3, stride=1, padding=1)[0, 0]
        ranked = torch.where(pooled == heat, heat, torch.zeros_like(heat))
    else:
        ranked = heat
    values, flat = torch.topk(ranked.flatten(), config.candidates)
    peaks = torch.stack([flat // cells, torch.remainder(flat, cells)], dim=1)  # [K,2]
    source = shift_indices(peaks - state.peak.to(torch.int64)[None], cells)
    heatmaps = state.heatmap.flatten()[source]  # [K,R*R]
    labels = state.label.flatten()[source]
    now = heat.flatten()[None]
    if config.criterion == "kl":
        losses = kl_to_product(labels, heatmaps * now)
    else:
        norm = torch.sqrt(heatmaps.square().sum(-1) * now.square().sum(-1))
        losses = 1 - (heatmaps * now).sum(-1) / norm
    losses = torch.where(values > 0, losses, torch.full_like(losses, _NEVER))
    chosen = torch.argmin(losses[None], dim=1)  # of two dimensions: TensorRT wants no fewer
    aberrant = (chosen != 0).reshape(1, 1)
    heatmap = heatmaps[chosen].view(cells, cells)
    label = labels[chosen].view(cells, cells)
    reranked = torch.where(aberrant, (1 + heatmap) * heat, heat)
    # Line 15 as printed only ever translates the first frame's maps; the text says "previous
    # frame". "previous" follows the text, "literal" the listing.
    remembered = heatmap if config.update == "literal" else torch.where(aberrant, heatmap, heat)
    new = ArmState(remembered, label, peaks[chosen].reshape(2).float())
    return ArmResult(reranked, new, chosen, losses)
