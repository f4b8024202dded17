"""The response grid: cell i of an R x R map and crop pixels (trackers' common geometry)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STRIDE = 8


@dataclass(frozen=True)
class Grid:
    """An R x R grid of stride 8, centred on an n x n crop.

    Cell i is centred on crop pixel ``p(i) = (n - 1) / 2 + 8 (i - (R - 1) / 2)`` and covers 8 px
    around it; the edge of cell 0 is ``origin``.
    """

    cells: int
    crop: int

    @property
    def origin(self) -> float:
        """Crop pixel of the left edge of cell 0 (27 for R = 25, n = 255)."""
        return (self.crop - 1) / 2 - STRIDE * self.cells / 2

    def centers(self) -> Tensor:
        """Crop pixels ``[R]`` of the cell centres."""
        return self.origin + STRIDE * (torch.arange(self.cells, dtype=torch.float32) + 0.5)
