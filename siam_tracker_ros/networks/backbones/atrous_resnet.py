"""ResNet-50 with atrous stages: stride 8 to the end, no padding where it strides (SiamRPN++'s backbone)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.backbones.levels import level_names
from siam_tracker_ros.networks.backbones.mobile import MEAN, STD
from siam_tracker_ros.networks.backbones.weights import load_pretrained


class _Stage(NamedTuple):
    inputs: int
    width: int
    blocks: int
    stride: int
    dilation: int


_STAGES = {
    "layer2": _Stage(256, 128, 4, stride=2, dilation=1),
    "layer3": _Stage(512, 256, 6, stride=1, dilation=2),
    "layer4": _Stage(1024, 512, 3, stride=1, dilation=4),
}


class Bottleneck(nn.Module):
    """1x1, 3x3 (stride or dilation), 1x1 with a residual; torchvision's parameter names.

    A stride-2 block is unpadded. With a 1x1 shortcut (torchvision's checkpoints) one pixel is
    trimmed on every side first: the sampled positions 1 + 2i are the centres of the main path's
    unpadded 3x3 windows.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        dilation: int,
        shortcut: int | None,
        shortcut_dilation: int,
    ) -> None:
        super().__init__()
        outputs = width * self.expansion
        padding = 0 if stride == 2 else dilation
        self.trim = stride == 2 and shortcut == 1
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride=stride, padding=padding, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if shortcut is not None:
            pad = shortcut_dilation if shortcut == 3 and stride == 1 else 0
            conv = nn.Conv2d(
                inputs,
                outputs,
                shortcut,
                stride=stride,
                padding=pad,
                dilation=shortcut_dilation if shortcut == 3 and stride == 1 else 1,
                bias=False,
            )
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[B,inputs,H,W]`` -> ``[B,4 width,H',W']``."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            x = self.downsample(x[:, :, 1:-1, 1:-1] if self.trim else x)
        return self.relu(out + x)


class AtrousResNet50(nn.Module):
    """ResNet-50, stride 8 from layer2 to the end; 127 -> 15x15, 255 -> 31x31 cells.

    BatchNorm always runs on its stored statistics (trackers train it frozen).

    Args:
        shortcut: ``1x1`` so that torchvision's ImageNet checkpoint loads whole, or pysot's ``3x3``.
        weights: torchvision's state dict (fc and stages that are not built are ignored), or None
            for random weights.
        levels: which maps are returned, in this order: of ``layer2`` (512 channels), ``layer3``
            (1024), ``layer4`` (2048). Stages behind the last of them are not built.

    Attributes:
        channels, strides: of the returned maps.
    """

    def __init__(
        self,
        shortcut: str = "1x1",
        weights: Mapping[str, Tensor] | None = None,
        levels: tuple[str, ...] = ("layer3",),
    ) -> None:
        super().__init__()
        self.side = 1 if shortcut == "1x1" else 3
        self.levels = level_names("atrous_resnet50", levels, tuple(_STAGES))
        self.channels = tuple(_STAGES[name].width * Bottleneck.expansion for name in levels)
        self.strides = (8,) * len(levels)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=0, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(_Stage(64, 64, 3, stride=1, dilation=1))
        names = list(_STAGES)
        last = max(names.index(name) for name in levels)
        self.built = tuple(names[: last + 1])
        for name in self.built:
            setattr(self, name, self._stage(_STAGES[name]))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            label = f"atrous_resnet50 with {shortcut} shortcuts"
            unused = (f"{name}." for name in names[last + 1 :])
            load_pretrained(self, weights, label, ("fc.", *unused))

    def _stage(self, stage: _Stage) -> nn.Sequential:
        # Within a dilated stage the first block has half the dilation.
        width, dilation = stage.width, stage.dilation
        first = max(1, dilation // 2)
        side = self.side if stage.stride == 2 or dilation > 1 else 1
        layers = [Bottleneck(stage.inputs, width, stage.stride, first, side, first)]
        layers += [
            Bottleneck(width * 4, width, 1, dilation, None, 1) for _ in range(stage.blocks - 1)
        ]
        return nn.Sequential(*layers)

    def train(self, mode: bool = True) -> AtrousResNet50:
        """Switch mode; BatchNorm stays in evaluation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``[B,3,n,n]`` RGB 0..255 -> one ``[B,C,S,S]`` for each level."""
        x = self.relu(self.bn1(self.conv1((image - self.mean) / self.std)))
        x = self.layer1(self.maxpool(x))
        maps = {}
        for name in self.built:
            x = maps[name] = getattr(self, name)(x)
        return tuple(maps[name] for name in self.levels)

    def stages(self) -> dict[str, nn.Module]:
        """Name the stages from the input on, for freezing."""
        stem = nn.ModuleList([self.conv1, self.bn1])
        rest = {name: getattr(self, name) for name in self.built}
        return {"stem": stem, "layer1": self.layer1, **rest}

    @staticmethod
    def centred_crop(crop: int) -> int:
        """Return the crop size nearest to n px whose middle feature lies on the middle of the crop: 16 m - 1.

        Feature i is centred on px 7 + 8 i; nothing is padded at the far edge, where other sizes lose pixels.
        """
        return 16 * max(1, round((crop + 1) / 16)) - 1

    @staticmethod
    def map_size(crop: int) -> int:
        """Cells of the map of an n-px crop: n = 127 -> 15, 255 -> 31."""
        conv1 = (crop - 7) // 2 + 1
        pool = (conv1 + 2 - 3) // 2 + 1
        return (pool - 3) // 2 + 1
