"""Matching-adaptive maps (IMSiam, sections 3.1 and 3.2): three ways to compare, offered to the head side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siam_tracker_ros.networks.config import AdaptiveConfig
from siam_tracker_ros.networks.grid import STRIDE
from siam_tracker_ros.networks.hat import hat_integral
from siam_tracker_ros.networks.layers import center_crop, depthwise_correlation

LEAST_SIDE = 1e-3
"""Boxes are at least this large in cells before their area divides."""


class MatchingAdaptive(nn.Module):
    """For every level: difference to the target's mean, the search features, and their correlation.

    ::

        v   = mean of d(z) over the target's box                                            (1)
        f_1 = |d(x) - v|,   f_2 = d(x),   f_3 = k(z) (*) s(x), padded                       (2)
        F   = concat(f_1, f_2, f_3)                                                         (3)

    d, k and s are valid 3x3 convolutions with BatchNorm and ReLU, of each level its own; d is the
    same for template and search. Without BatchNorm (see ``AdaptiveConfig.norm``) f_3 is the mean of
    the kernel's products instead of their sum: nothing else keeps the three maps of one scale.

    Args:
        channels: channels C of the features.
        levels: how many levels L.
        config: sizes and flags.
    """

    def __init__(self, channels: int, levels: int, config: AdaptiveConfig) -> None:
        super().__init__()
        self.config = config
        self.kernel = config.cells - 2
        self.outputs = channels * (1 + config.difference + config.identity)

        def convolutions() -> nn.ModuleList:
            return nn.ModuleList(_valid_conv(channels, config) for _ in range(levels))

        self.shared = config.difference or config.identity
        if self.shared:
            self.difference = convolutions()
        self.template_conv = convolutions()
        self.search_conv = convolutions()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # PyTorch counts a depth-wise convolution's fan-out over all channels.
                mode = "fan_in" if module.groups > 1 else "fan_out"
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")

    @property
    def states(self) -> tuple[str, ...]:
        """Names of what :meth:`template` makes."""
        return ("vector", "kernel") if self.config.difference else ("kernel",)

    def template(self, features: tuple[Tensor, ...], boxes: Tensor) -> dict[str, Tensor]:
        """Reduce template features to what the search needs.

        Args:
            features: ``[B,C,S,S]`` of every level.
            boxes: ``[B,4]`` (cx, cy, w, h) of the target, px from the middle of the template crop.

        Returns:
            ``vector`` ``[B,L,C,1,1]`` (with the difference) and ``kernel`` ``[B,L,C,k,k]``.
        """
        kernels, vectors = [], []
        for level, z in enumerate(features):
            kernels.append(self.template_conv[level](center_crop(z, self.config.cells)))
            if self.config.difference:
                shared = self.difference[level](z)
                middle = (shared.shape[-1] - 1) / 2
                corners = torch.cat(
                    [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1
                )
                vectors.append(integral_mean(shared, corners.float() / STRIDE + middle))
        state = {"kernel": torch.stack(kernels, dim=1)}
        if vectors:
            state["vector"] = torch.stack(vectors, dim=1)
        return state

    def forward(self, state: dict[str, Tensor], features: tuple[Tensor, ...]) -> Tensor:
        """Match search features ``[B,C,S,S]`` of every level; returns ``[B,L,outputs,S-2,S-2]``."""
        joined = []
        if self.shared:
            here = torch.stack([self.difference[i](x) for i, x in enumerate(features)], dim=1)
            if self.config.difference:
                joined.append((here - state["vector"].to(here.dtype)).abs())
            if self.config.identity:
                joined.append(here)
        search = torch.stack([self.search_conv[i](x) for i, x in enumerate(features)], dim=1)
        joined.append(self.correlation(state["kernel"].to(search.dtype), search))
        return torch.cat(joined, dim=2)

    def correlation(self, kernel: Tensor, features: Tensor) -> Tensor:
        """f_3: depth-wise, zero-padded: ``[B,L,C,k,k]``, ``[B,L,C,R,R]`` -> ``[B,L,C,R,R]``."""
        pad = self.kernel // 2
        padded = F.pad(features.flatten(0, 1), (pad, pad, pad, pad))
        out = depthwise_correlation(kernel.flatten(0, 1), padded).reshape(features.shape)
        return out if self.config.norm else out / self.kernel**2


def integral_mean(features: Tensor, corners: Tensor) -> Tensor:
    """Mean over a box of the bilinearly interpolated map, zero outside its cells (equation 1), FP32 (or FP64).

    Args:
        features: ``[B,C,H,W]``.
        corners: ``[B,4]`` (x1, y1, x2, y2) in cells.

    Returns:
        ``[B,C,1,1]``, differentiable in the corners.
    """
    height, width = (int(side) for side in features.shape[-2:])
    x1, y1, x2, y2 = corners.unbind(1)
    x2, y2 = torch.maximum(x2, x1 + LEAST_SIDE), torch.maximum(y2, y1 + LEAST_SIDE)
    columns = hat_integral(x1, x2, width) / (x2 - x1)[:, None]
    rows = hat_integral(y1, y2, height) / (y2 - y1)[:, None]
    with torch.autocast(features.device.type, enabled=False):
        across = torch.matmul(features.to(columns.dtype), columns[:, None, :, None])  # [B,C,H,1]
        return torch.matmul(rows[:, None, None, :], across)


def _valid_conv(channels: int, config: AdaptiveConfig) -> nn.Sequential:
    """A 3x3 convolution without padding, and ReLU."""
    layers: list[nn.Module] = []
    kernel = 3
    if config.separable:
        layers.append(nn.Conv2d(channels, channels, 3, groups=channels, bias=False))
        kernel = 1
    layers.append(nn.Conv2d(channels, channels, kernel, bias=not config.norm))
    if config.norm:
        layers.append(nn.BatchNorm2d(channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))
