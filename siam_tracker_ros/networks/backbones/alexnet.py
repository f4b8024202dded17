"""AlexNet at stride 8, padded: SPM-Tracker's backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siam_tracker_ros.networks.backbones.mobile import MEAN, STD
from siam_tracker_ros.networks.backbones.weights import load_pretrained

CAFFE_MEAN = (123.0, 117.0, 104.0)
"""Mean colour, RGB 0..255, that the two-column original was trained with."""


_PIXEL_SCALE = 1 / 58
"""One over the usual standard deviation of a pixel, 0..255."""


class _Layout(NamedTuple):
    """Channels of conv1 to conv5, groups of conv2, conv4 and conv5, and whether responses are normalised."""

    widths: tuple[int, int, int, int, int]
    groups: int
    lrn: bool


_LAYOUTS = {
    "grouped": _Layout((96, 256, 384, 384, 256), 2, True),
    "torchvision": _Layout((64, 192, 384, 256, 256), 1, False),
}

_TORCHVISION_NAMES = {
    f"features.{index}": f"conv{layer}" for layer, index in enumerate((0, 3, 6, 8, 10), start=1)
}


class AlexNetS8(nn.Module):
    """Convolutions of AlexNet, conv1 with stride 2 and every layer padded; 127 -> 16x16, 271 -> 34x34.

    Feature i is centred on crop pixel 8 i.

    Args:
        layout: ``grouped``, the two-column original (local response normalisation, BGR input), or
            ``torchvision``, whose ImageNet weights are public.
        weights: for ``grouped`` a state dict with Caffe's layer names (conv1 to conv5) whose conv1
            expects BGR, as Caffe's models do; for ``torchvision`` torchvision's own; None for
            random weights.

    Attributes:
        channels: channels of the maps after conv2 (pooled), conv4 and conv5.
        first: crop pixel of feature 0.
    """

    strides = (8, 8, 8)
    first = 0.0
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layout: Literal["grouped", "torchvision"] = "grouped",
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        widths, groups, self.lrn = _LAYOUTS[layout]
        self.channels = (widths[1], widths[3], widths[4])
        self.conv1 = nn.Conv2d(3, widths[0], 11, stride=2, padding=5)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 5, padding=2, groups=groups)
        self.conv3 = nn.Conv2d(widths[1], widths[2], 3, padding=1)
        self.conv4 = nn.Conv2d(widths[2], widths[3], 3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(widths[3], widths[4], 3, padding=1, groups=groups)
        for conv in self.stages().values():
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        grouped = layout == "grouped"
        mean = CAFFE_MEAN if grouped else [255 * value for value in MEAN]
        std = (1.0, 1.0, 1.0) if grouped else [255 * value for value in STD]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if weights is not None:
            load_pretrained(self, _own_names(weights), f"alexnet ({layout})", ("classifier.", "fc"))
        if grouped:
            with torch.no_grad():
                if weights is None:  # The input is not scaled to unit variance as others' are.
                    self.conv1.weight.mul_(_PIXEL_SCALE)
                else:
                    self.conv1.weight.copy_(self.conv1.weight.flip(1))  # BGR to our RGB

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B,3,n,n]`` RGB 0..255 -> conv2 (pooled), conv4 and conv5, each ``[B,channels,S,S]``."""
        x = self._pool(F.relu(self.conv1((image - self.mean) / self.std)))
        second = self._pool(F.relu(self.conv2(x)))
        fourth = F.relu(self.conv4(F.relu(self.conv3(second))))
        return second, fourth, F.relu(self.conv5(fourth))

    def _pool(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return response_norm(x) if self.lrn else x

    def stages(self) -> dict[str, nn.Conv2d]:
        """Name the layers from the input on, for freezing."""
        return {f"conv{layer}": getattr(self, f"conv{layer}") for layer in range(1, 6)}

    @staticmethod
    def map_size(crop: int) -> int:
        """Cells of the maps of an n-px crop: n = 127 -> 16, 271 -> 34."""
        side = (crop - 1) // 2 + 1
        for _ in range(2):
            side = (side - 1) // 2 + 1
        return side

    @staticmethod
    def centred_crop(crop: int) -> int:
        """Return the crop size nearest to n px that halves evenly three times: 16 m - 1.

        The map then has an even number of cells, and its middle lies 3 px before the crop's middle
        whatever m is: template and search are alike.
        """
        return 16 * max(1, round((crop + 1) / 16)) - 1


def response_norm(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """Local response normalisation over ``size`` neighbouring channels: x (1 + alpha/size sum x^2)^-beta, FP32.

    As sums of shifted channels: torch's own becomes a three-dimensional pooling in an exported
    graph.
    """
    x = x.float()
    channels, reach = int(x.shape[1]), size // 2
    square = F.pad(x.square(), (0, 0, 0, 0, reach, reach))
    total = square[:, :channels]
    for shift in range(1, size):
        total = total + square[:, shift : shift + channels]
    return x * torch.pow(1 + total * (alpha / size), -beta)


def _own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{_TORCHVISION_NAMES.get(layer, layer)}.{kind}"] = value
    return renamed


__all__ = ["AlexNetS8", "response_norm"]
