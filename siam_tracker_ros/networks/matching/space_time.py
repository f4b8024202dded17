"""Space-time memory read (STMTrack, section 3.3, equations 3 and 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.layers import unit_length

_GAIN = 10.0
"""Of cosines, at the start: cells unlike each other then differ by e^10 at most."""

_MASKED = -1e4  # added to logits: exp of it is zero, and it fits FP16


class SpaceTimeRead(nn.Module):
    """Every query cell gathers from all cells of all memory frames those that look like it.

    ::

        w_ij = exp(f_i^m . f_j^q / s) / sum_k exp(f_k^m . f_j^q / s),  s = sqrt(C)          (3)
        y_j  = concat( sum_i w_ij f_i^m , f_j^q )                                           (4)

    i and k run over all T frames and their cells. The paper prints the other order of the two
    halves of y; this is its code's, and nothing but the order of the head's weights hangs on it.

    Memory and query maps may differ in size.

    Args:
        cosine: compare unit vectors, times a learned gain, instead of f / sqrt(s) (ours).
    """

    def __init__(self, cosine: bool = False) -> None:
        super().__init__()
        self.cosine = cosine
        if cosine:
            self.gain = nn.Parameter(torch.tensor(_GAIN))

    def forward(self, memory: Tensor, query: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read.

        Args:
            memory: ``[B,T,C,S,S]``.
            query: ``[B,C,R,R]``.
            mask: ``[B,T]`` bool, the frames that are read (at least one); all if None.

        Returns:
            ``[B,2C,R,R]``.
        """
        batch, channels, rows, columns = (int(side) for side in query.shape)
        values = memory.transpose(1, 2).flatten(2)  # [B,C,T*S*S]
        weights = self.weights(memory, query, mask)
        found = torch.matmul(weights.to(values.dtype), values.transpose(1, 2))  # [B,R*R,C]
        found = found.transpose(1, 2).reshape(batch, channels, rows, columns)
        return torch.cat([found.to(query.dtype), query], dim=1)

    def weights(self, memory: Tensor, query: Tensor, mask: Tensor | None = None) -> Tensor:
        """The weights of equation (3), transposed: ``[B,R*R,T*S*S]``, rows sum to 1, FP32; arguments as ``forward``."""
        if self.cosine:
            memory = unit_length(memory.flatten(0, 1)).unflatten(0, tuple(memory.shape[:2]))
            query = unit_length(query) * self.gain
        else:
            query = query * (1 / math.sqrt(query.shape[1]))
        keys = memory.transpose(1, 2).flatten(2)
        cells = query.flatten(2).transpose(1, 2)
        with torch.autocast(query.device.type, enabled=False):
            logits = torch.matmul(cells.float(), keys.float())
        if mask is not None:
            out = torch.where(mask, 0.0, _MASKED)
            inner = int(memory.shape[-2]) * int(memory.shape[-1])
            out = out[:, :, None].expand(-1, -1, inner).flatten(1)
            logits = logits + out[:, None]
        return torch.softmax(logits, dim=-1)
