"""Necks: from backbone maps to the one map that is matched, stride 8."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class AdjustNeck(nn.Module):
    """1x1 convolution and BatchNorm on the last map (SiamRPN++'s neck; no ReLU).

    Args:
        inputs: channels of the backbone's map.
        channels: channels matched.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """``[B,inputs,S,S]`` (last of ``maps``) -> ``[B,channels,S,S]``."""
        return self.norm(self.conv(maps[-1]))


class PyramidNeck(nn.Module):
    """Stride-16 features laid over stride-8 ones: context from the one, position from the other.

    No BatchNorm: template and search batches differ in statistics. Upsampling with aligned corners
    keeps feature i of stride 16 on feature 2 i of stride 8 (both maps have odd sizes).

    Args:
        inputs: channels at strides 8 and 16.
        channels: channels matched.
    """

    def __init__(self, inputs: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(inputs[0], channels, 1)
        self.top = nn.Conv2d(inputs[1], channels, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """``([B,C8,S,S], [B,C16,(S+1)/2,..])`` -> ``[B,channels,S,S]``."""
        at8, at16 = maps
        size = [int(at8.shape[-2]), int(at8.shape[-1])]
        top = F.interpolate(self.top(at16), size=size, mode="bilinear", align_corners=True)
        return self.lateral(at8) + top
