"""Inception-v3 up to Mixed_6e at stride 8: STMTrack's backbone.

The paper names GoogLeNet; its code, and the stages of its schedule, are Inception-v3's.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.inception import BasicConv2d, InceptionA, InceptionB, InceptionC

from siam_tracker_ros.networks.backbones.weights import load_pretrained

_UNUSED = ("AuxLogits.", "Mixed_7", "fc.")


class InceptionV3S8(nn.Module):
    """torchvision's Inception-v3 without its second max-pool and what follows Mixed_6e; 289 px -> 33x33x768.

    Feature i of the full map has its receptive field around px 13 + 8 i of the crop; the trackers'
    convention counts it at 16 + 8 i (the middle feature in the crop's middle). Training absorbs
    the constant 3 px: memory, labels and decoding share it.

    BatchNorm learns its statistics where its weights train, and else keeps them.

    Args:
        weights: torchvision's state dict (Mixed_7, fc and the auxiliary branch are ignored), or None
            for random weights.
    """

    strides = (8,)
    channels = (768,)
    stem_channels = 32
    """Channels after the first convolution, to which ``forward`` can add."""

    def __init__(self, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, self.stem_channels, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_pretrained(self, weights, "inception_v3", _UNUSED)

    def forward(self, image: Tensor, stem_addition: Tensor | None = None) -> tuple[Tensor]:
        """``[B,3,n,n]`` RGB 0..255 -> ``[B,768,S,S]``.

        Args:
            image: the crop.
            stem_addition: ``[B,32,m,m]``, m = (n-1)/2, added after the first convolution's ReLU.
        """
        x = self.Conv2d_1a_3x3((image - 127.5) / 127.5)
        if stem_addition is not None:
            x = x + stem_addition
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(x))
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        for block in (*self._mixed("Mixed_5"), *self._mixed("Mixed_6")):
            x = block(x)
        return (x,)

    def train(self, mode: bool = True) -> InceptionV3S8:
        """Switch mode; frozen BatchNorm stays in evaluation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(mode and module.weight.requires_grad)
        return self

    def stages(self) -> dict[str, nn.Module]:
        """Name what is frozen apart: the convolutions by depth (``stem``, ``mixed5``, ``mixed6``), and ``norm``.

        ``norm`` is every BatchNorm, which the paper trains from the start, before any convolution.
        """
        mixed5, mixed6 = self._mixed("Mixed_5"), self._mixed("Mixed_6")
        stem = [block for name, block in self.named_children() if name.startswith("Conv2d")]
        return {
            "stem": _of_kind(stem, nn.Conv2d),
            "mixed5": _of_kind(mixed5, nn.Conv2d),
            "mixed6": _of_kind(mixed6, nn.Conv2d),
            "norm": _of_kind([self], nn.BatchNorm2d),
        }

    def _mixed(self, prefix: str) -> list[nn.Module]:
        return [block for name, block in self.named_children() if name.startswith(prefix)]

    @staticmethod
    def centred_crop(crop: int) -> int:
        """Return the crop size nearest to n px with an odd number of features: 16 m + 1."""
        return 16 * max(3, round((crop - 1) / 16)) + 1

    @staticmethod
    def map_size(crop: int) -> int:
        """Cells of the map of an n-px crop: n = 289 -> 33."""
        unpadded = (crop - 3) // 2 + 1 - 2
        pooled = (unpadded - 3) // 2 + 1 - 2
        return (pooled - 3) // 2 + 1


def _of_kind(modules: list[nn.Module], kind: type[nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(m for root in modules for m in root.modules() if isinstance(m, kind))
