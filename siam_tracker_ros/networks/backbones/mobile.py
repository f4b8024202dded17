"""Light ImageNet backbones from timm: MobileNetV2 and EfficientNet-Lite0, features at strides 8 and 16.

Both pad their convolutions. With crops of n = 16 m + 1 pixels (129, 257) every stride-2 layer sees
an odd size, so feature i of the stride-R map is centred on crop pixel R i and the middle feature on
the middle of the crop; with 127 / 255 there would be no middle feature.
"""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from siam_tracker_ros.networks.backbones.levels import level_names
from siam_tracker_ros.networks.backbones.weights import load_pretrained

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# tf_efficientnet_lite0's checkpoint in the architecture with symmetric padding: the same for odd
# sizes, and it exports without run-time padding arithmetic. Its BatchNorm epsilon is TensorFlow's.
_TIMM = {
    "mobilenetv2_100": ("mobilenetv2_100", {}),
    "tf_efficientnet_lite0": ("efficientnet_lite0", {"bn_eps": 1e-3}),
}


_LEVELS = {"early": 0, "middle": 1, "late": 2}
"""Levels, and how many of the two late stages each needs."""


class MobileBackbone(nn.Module):
    """Stages up to stride 16 of a timm mobile network, BatchNorm folded into the convolutions.

    Folding at construction means training with frozen statistics, as trackers do, without their
    cost.

    Args:
        kind: ``mobilenetv2_100`` or ``tf_efficientnet_lite0``.
        weights: ImageNet state dict in timm's names, or None for random weights.
        levels: which maps are returned, in this order: of ``early`` (stride 8), ``middle`` (the
            first of the two late stages, stride 16), ``late`` (stride 16). Stages behind the last
            of them are not built.

    Attributes:
        channels, strides: of the returned maps.
    """

    def __init__(
        self,
        kind: str,
        weights: Mapping[str, Tensor] | None = None,
        levels: tuple[str, ...] = ("early", "late"),
    ) -> None:
        super().__init__()
        self.levels = level_names(kind, levels, tuple(_LEVELS))
        self.strides = tuple(8 if name == "early" else 16 for name in levels)
        name, options = _TIMM[kind]
        model = timm.create_model(name, pretrained=False, **options)
        if weights is not None:
            load_pretrained(model, weights, kind, ("classifier.",))
        model.eval()
        self.stem = _folded(model.conv_stem, model.bn1)
        blocks = list(model.blocks)[: 3 + max(_LEVELS[name] for name in levels)]
        for stage in blocks:
            _fold_stage(stage)
        self.early = nn.Sequential(*blocks[:3])
        self.late = nn.Sequential(*blocks[3:])
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255, persistent=False)
        with torch.no_grad():
            self.channels = tuple(m.shape[1] for m in self(torch.zeros(1, 3, 33, 33)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``[B,3,n,n]`` RGB 0..255 -> one map for each level, (n-1)/8+1 or (n-1)/16+1 cells wide."""
        maps = [self.stem_and_early(image)]
        for stage in self.late:
            maps.append(stage(maps[-1]))
        return tuple(maps[_LEVELS[name]] for name in self.levels)

    def stem_and_early(self, image: Tensor) -> Tensor:
        """Return the stride-8 features, the part that stays frozen in the light configurations."""
        return self.early(self.stem((image - self.mean) / self.std))

    @staticmethod
    def map_size(crop: int) -> int:
        """Cells of the stride-8 map of an n-px crop: n = 129 -> 17, 257 -> 33."""
        return (crop - 1) // 8 + 1

    @staticmethod
    def centred_crop(crop: int) -> int:
        """Return the crop size nearest to n px whose middle feature lies on the middle of the crop: 16 m + 1."""
        return 16 * max(1, round((crop - 1) / 16)) + 1

    def stages(self) -> dict[str, nn.Module]:
        """Name the stages from the input on, for freezing."""
        late = {"late": self.late} if len(self.late) else {}
        return {"stem": self.stem, "early": self.early, **late}


def _folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Sequential:
    activation = getattr(norm, "act", nn.Identity())  # timm's BatchNormAct2d carries the activation
    return nn.Sequential(fuse_conv_bn_eval(conv, norm), activation)


def _fold_stage(stage: nn.Module) -> None:
    pairs = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
    pairs_separable = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
    for block in stage.children():
        for conv, norm in pairs if hasattr(block, "conv_pwl") else pairs_separable:
            fused = _folded(getattr(block, conv), getattr(block, norm))
            setattr(block, conv, fused[0])
            setattr(block, norm, fused[1])
