"""Necks: from backbone maps to the maps that are matched, stride 8."""

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

    No BatchNorm: template and search batches differ in statistics.

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
        return self.lateral(at8) + onto_stride_8(self.top(at16))


class LevelsNeck(nn.Module):
    """A neck of its own for every level; stride 16 is laid onto the grid of stride 8 (IMSiam).

    Args:
        inputs: channels of each level.
        strides: 8 or 16, of each level.
        channels: channels matched, on every level.
        norm: 1x1 convolution and BatchNorm (the paper's), or a 1x1 convolution with bias: template
            and search batches differ in statistics, and a small batch's are noisy.
    """

    def __init__(
        self, inputs: tuple[int, ...], strides: tuple[int, ...], channels: int, norm: bool
    ) -> None:
        super().__init__()
        self.strides = strides
        self.levels = nn.ModuleList(
            AdjustNeck(width, channels) if norm else nn.Conv2d(width, channels, 1)
            for width in inputs
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One ``[B,C,S,S]``, or ``[B,C,(S+1)/2,..]`` at stride 16, a level -> as many ``[B,channels,S,S]``."""
        out = []
        for level, stride, features in zip(self.levels, self.strides, maps, strict=True):
            features = level((features,) if isinstance(level, AdjustNeck) else features)
            out.append(onto_stride_8(features) if stride == 16 else features)
        return tuple(out)


class ConvNeck(nn.Module):
    """Cuts ``margin`` cells off on every side of the last map, then a bare 3x3 convolution (STMTrack).

    Args:
        inputs: channels of the backbone's map.
        channels: channels matched.
        margin: cells cut off on every side.
        relu: a ReLU at the end.
    """

    def __init__(self, inputs: int, channels: int, margin: int = 0, relu: bool = False) -> None:
        super().__init__()
        self.margin, self.relu = margin, relu
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """``[B,inputs,S,S]`` (last of ``maps``) -> ``[B,channels,S - 2 margin,..]``."""
        features, m = maps[-1], self.margin
        if m:
            features = features[:, :, m:-m, m:-m]
        features = self.conv(features)
        return F.relu(features) if self.relu else features


def onto_stride_8(features: Tensor) -> Tensor:
    """Upsample twice, ``[B,C,S,S]`` -> ``[B,C,2S-1,2S-1]``: feature i of stride 16 lies on feature 2 i of stride 8."""
    size = [2 * int(side) - 1 for side in features.shape[-2:]]
    return F.interpolate(features, size=size, mode="bilinear", align_corners=True)
