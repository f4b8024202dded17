"""Dense heads: towers of convolutions over the response map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from siam_tracker_ros.networks.config import DenseHeadConfig
from siam_tracker_ros.networks.layers import GroupNorm, separable_conv

Tower = Literal["classification", "regression"]

_GROUPS = 32


class DenseHead(nn.Module):
    """Two towers over the same map, and output maps on either.

    Args:
        inputs: channels of the response map.
        config: width, depth and kind of the towers.
        outputs: name -> (tower, channels) of every output map.

    Attributes:
        outputs: the output convolutions by name.
    """

    def __init__(
        self, inputs: int, config: DenseHeadConfig, outputs: Mapping[str, tuple[Tower, int]]
    ) -> None:
        super().__init__()
        self.classification = _tower(inputs, config)
        self.regression = _tower(inputs, config)
        self.tower_of = {name: tower for name, (tower, _) in outputs.items()}
        self.outputs = nn.ModuleDict()
        kernel = config.output_kernel
        for name, (_, channels) in outputs.items():
            conv = nn.Conv2d(config.width, channels, kernel, padding=kernel // 2)
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            norm = [nn.BatchNorm2d(channels)] if config.output_norm else []
            self.outputs[name] = nn.Sequential(conv, *norm)

    def forward(self, response: Tensor) -> dict[str, Tensor]:
        """``[B,inputs,R,R]`` -> output maps ``[B,channels,R,R]`` by name."""
        towers = {
            "classification": self.classification(response),
            "regression": self.regression(response),
        }
        return {name: self.outputs[name](towers[self.tower_of[name]]) for name in self.outputs}

    def set_bias(self, name: str, value: float) -> None:
        """Start an output map at ``value``."""
        nn.init.constant_(self.outputs[name][0].bias, value)  # type: ignore[index]


def _tower(inputs: int, config: DenseHeadConfig) -> nn.Sequential:
    widths = [inputs] + [config.width] * config.depth
    layers: list[nn.Module] = []
    if config.sampler:
        layers += _layer(inputs, config.width, 1, config, relu=True)
        widths[0] = config.width
    for index, (before, after) in enumerate(pairwise(widths)):
        relu = config.last_relu or index < config.depth - 1
        if config.separable and config.norm == "batch" and relu:
            layers.append(separable_conv(before, after))
        else:
            layers += _layer(before, after, 3, config, relu)
    return nn.Sequential(*layers)


def _layer(
    inputs: int, outputs: int, kernel: int, config: DenseHeadConfig, relu: bool
) -> list[nn.Module]:
    """One convolution with its norm; separable ones have a depth-wise 3x3 in front, without norm."""
    layers: list[nn.Module] = []
    if kernel == 3 and config.separable:
        layers.append(nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False))
        kernel = 1
    layers.append(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=config.norm != "batch")
    )
    if config.norm == "batch":
        layers.append(nn.BatchNorm2d(outputs))
    elif config.norm == "group":
        layers.append(GroupNorm(math.gcd(_GROUPS, outputs), outputs))
    return [*layers, nn.ReLU(inplace=True)] if relu else layers
