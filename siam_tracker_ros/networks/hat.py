"""Hat functions: bilinear sampling and integral pooling as products with small weight vectors.

A map F on integer cells, interpolated bilinearly and zero outside, is f(x, y) = sum_ij F[i,j] h(x - j) h(y - i) with
the hat h(t) = max(0, 1 - |t|). A sample, or the integral over a box, then separates into ``a_y^T F a_x``: two small
matrix products, no gather, differentiable in the coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hat(c: Tensor, n: int) -> Tensor:
    """Point sample weights ``max(0, 1 - |c - n|)`` of cells 0 .. n-1: ``[...]`` -> ``[..., n]``, FP32 (or FP64)."""
    c = _precise(c)[..., None]
    return (1 - (c - _cells(c, n)).abs()).clamp(min=0)


def hat_integral(x1: Tensor, x2: Tensor, n: int) -> Tensor:
    """Weights of the integral from x1 to x2: ``G(x2 - j) - G(x1 - j)``, ``[...]`` -> ``[..., n]``, FP32 (or FP64).

    They sum up to x2 - x1 where the interval is inside [0, n-1].
    """
    x1, x2 = _precise(x1)[..., None], _precise(x2)[..., None]
    cells = _cells(x1, n)
    return _hat_primitive(x2 - cells) - _hat_primitive(x1 - cells)


def _hat_primitive(t: Tensor) -> Tensor:
    """G(t), the integral of the hat from -infinity to t: 1/2 + c (1 - |c|/2), c = clip(t, -1, 1)."""
    c = t.clamp(-1, 1)
    return 0.5 + c * (1 - c.abs() / 2)


def _precise(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _cells(like: Tensor, n: int) -> Tensor:
    return torch.arange(n, dtype=like.dtype, device=like.device)
