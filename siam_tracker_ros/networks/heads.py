"""Dense heads: towers of convolutions over the response map."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.config import HeadConfig
from siam_tracker_ros.networks.layers import conv_bn_relu, separable_conv


class CenterMaps(NamedTuple):
    """What the centre head predicts on an R x R grid.

    Attributes:
        heat: ``[B,1,R,R]`` logits of the centre heatmap.
        offset: ``[B,2,R,R]`` (x, y), in cells.
        size: ``[B,2,R,R]`` (w, h), coded as the decoder says.
    """

    heat: Tensor
    offset: Tensor
    size: Tensor


class CenterHead(nn.Module):
    """CenterNet's outputs on two towers: heat from the first, offset and size from the second.

    Args:
        inputs: channels of the response map.
        config: width and depth of the towers.
    """

    def __init__(self, inputs: int, config: HeadConfig) -> None:
        super().__init__()
        make = separable_conv if config.separable else lambda i, o: conv_bn_relu(i, o, 3)
        widths = [inputs] + [config.width] * config.depth
        self.classification = nn.Sequential(*(make(i, o) for i, o in pairwise(widths)))
        self.regression = nn.Sequential(*(make(i, o) for i, o in pairwise(widths)))
        self.heat = nn.Conv2d(widths[-1], 1, 1)
        self.offset = nn.Conv2d(widths[-1], 2, 1)
        self.size = nn.Conv2d(widths[-1], 2, 1)
        for layer in (self.heat, self.offset, self.size):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.heat.bias, -2.19)  # sigmoid = 0.1: CenterNet's prior

    def forward(self, response: Tensor) -> CenterMaps:
        """``[B,inputs,R,R]`` -> :class:`CenterMaps`."""
        regression = self.regression(response)
        return CenterMaps(
            self.heat(self.classification(response)), self.offset(regression), self.size(regression)
        )

    def set_size_prior(self, prior: float) -> None:
        """Start the size map at ``prior`` (coded) instead of zero."""
        with torch.no_grad():
            self.size.bias.fill_(prior)
