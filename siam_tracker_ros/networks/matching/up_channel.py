"""Up-channel cross-correlation (SiamRPN): SPM-Tracker's coarse stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.config import UpChannelConfig
from siam_tracker_ros.networks.layers import center_crop, unit_length

SCALE = 1e-3
"""Constant factor on the correlation."""

KERNEL_SCALE = 1 / 32
"""Kernels are kept this much smaller, so that sums of thousands of products fit into FP16."""

_RARE = -4.0
"""Logit of an anchor that matches nothing, where training starts with matching."""

_GAIN = 6.0
"""Where it does, this times a thousandth of the correlation is added to it."""


class UpXCorr(nn.Module):
    """The template becomes one correlation kernel for every output channel.

    ::

        kernels = conv3x3(z) viewed as (outputs, width, k, k) / 32
        maps    = .032 (kernels (*) conv3x3(x))                (1e-3 in all; FP32)
        cls     = maps + bias                  2 A channels: class A + anchor; 0 background, 1 target
        reg     = conv1x1(maps)                4 A channels: 4 anchor + (dx, dy, dw, dh)

    All convolutions on features are unpadded and without activation: k = template_cells - 2, and
    the response has search_cells - template_cells + 1 cells a side.

    Args:
        channels: channels C of template and search features.
        anchors: A, shapes at every cell.
        config: sizes.
    """

    def __init__(self, channels: int, anchors: int, config: UpChannelConfig) -> None:
        super().__init__()
        self.config = config
        self.anchors = anchors
        width = config.width
        self.template_class = nn.Conv2d(channels, 2 * anchors * width, 3)
        self.template_box = nn.Conv2d(channels, 4 * anchors * width, 3)
        self.search_class = nn.Conv2d(channels, width, 3)
        self.search_box = nn.Conv2d(channels, width, 3)
        self.class_bias = nn.Parameter(torch.zeros(2 * anchors))
        self.adjust = nn.Conv2d(4 * anchors, 4 * anchors, 1)
        for conv in (self.template_class, self.template_box, self.search_class, self.search_box):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.dirac_(self.adjust.weight)
        assert self.adjust.bias is not None
        nn.init.zeros_(self.adjust.bias)
        if config.start == "match":
            self._start_matching(channels)

    def _start_matching(self, channels: int) -> None:
        """Begin with the correlation of the features themselves: for the target, against the background."""
        width, small = self.config.width, 0.1
        same = torch.zeros(width, channels, 3, 3)
        nn.init.dirac_(same)
        with torch.no_grad():
            self.search_class.weight.mul_(small).add_(same)
            kernels = self.template_class.weight.view(2, self.anchors, width, channels, 3, 3)
            kernels.mul_(small)
            kernels[0].sub_(same * _GAIN / 2)
            kernels[1].add_(same * _GAIN / 2)
            # Most anchors are background: they begin as that.
            self.class_bias[: self.anchors].fill_(-_RARE / 2)
            self.class_bias[self.anchors :].fill_(_RARE / 2)

    @property
    def response_cells(self) -> int:
        """Side of the response."""
        return self.config.search_cells - self.config.template_cells + 1

    def template(self, features: Tensor) -> dict[str, Tensor]:
        """Template features ``[B,C,S,S]`` -> kernels ``[B,2A,width,k,k]`` and ``[B,4A,width,k,k]``."""
        z = self._prepare(features, self.config.template_cells)
        batch, side = int(z.shape[0]), self.config.template_cells - 2
        made = {}
        for name, conv, outputs in (
            ("class_kernel", self.template_class, 2 * self.anchors),
            ("box_kernel", self.template_box, 4 * self.anchors),
        ):
            shape = (batch, outputs, self.config.width, side, side)
            made[name] = (KERNEL_SCALE * conv(z)).reshape(shape)
        return made

    def forward(
        self, class_kernel: Tensor, box_kernel: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Match search features ``[B,C,S,S]``.

        Returns:
            Class logits ``[B,N,2]`` (background, target) and deltas ``[B,N,4]``, FP32, in the order
            (row, column, anchor).
        """
        x = self._prepare(features, self.config.search_cells)
        scale = SCALE / KERNEL_SCALE
        cls = scale * correlate(class_kernel, self.search_class(x)).float()
        reg = scale * correlate(box_kernel, self.search_box(x)).float()
        cls = cls + self.class_bias.view(1, -1, 1, 1)
        return self._rows(cls, 2, class_first=True), self._rows(self.adjust(reg).float(), 4)

    def _prepare(self, features: Tensor, cells: int) -> Tensor:
        cut = center_crop(features, cells)
        return unit_length(cut) * int(cut.shape[1]) ** 0.5 if self.config.unit else cut

    def _rows(self, maps: Tensor, values: int, class_first: bool = False) -> Tensor:
        """``[B,values*A,R,R]`` -> ``[B,R*R*A,values]``."""
        batch, cells = int(maps.shape[0]), self.response_cells
        if class_first:
            maps = maps.reshape(batch, values, self.anchors, cells, cells).permute(0, 3, 4, 2, 1)
        else:
            maps = maps.reshape(batch, self.anchors, values, cells, cells).permute(0, 3, 4, 1, 2)
        return maps.reshape(batch, cells * cells * self.anchors, values)


def correlate(kernel: Tensor, features: Tensor) -> Tensor:
    """Valid cross-correlation, one set of kernels for each picture, as one matrix product.

    No convolution whose kernel is known only at run time, which TensorRT tunes badly: products of
    all rows of the kernel, column by column, and k additions of shifted maps.

    Args:
        kernel: ``[B,O,C,k,k]``.
        features: ``[B,C,H,W]``.

    Returns:
        ``[B,O,H-k+1,W-k+1]``; out[o,i,j] = sum(kernel[o] * features[:, i:i+k, j:j+k]).
    """
    batch, channels, height, width = (int(side) for side in features.shape)
    outputs, k = int(kernel.shape[1]), int(kernel.shape[-1])
    rows, columns = height - k + 1, width - k + 1
    bands = torch.stack([features[:, :, u : u + rows] for u in range(k)], dim=2)
    by_column = kernel.permute(0, 4, 1, 2, 3).reshape(batch, k * outputs, channels * k)
    products = torch.matmul(by_column, bands.reshape(batch, channels * k, rows * width))
    products = products.reshape(batch, k, outputs, rows, width)
    out = products[:, 0, :, :, :columns]
    for v in range(1, k):
        out = out + products[:, v, :, :, v : v + columns]
    return out
