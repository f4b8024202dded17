"""SPM-Tracker's fine stage: aligned features of a few boxes, compared with the target's by a small network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siam_tracker_ros.networks.config import RegionHeadConfig
from siam_tracker_ros.networks.grid import STRIDE
from siam_tracker_ros.networks.hat import hat


class StoredNorm(nn.BatchNorm2d):
    """BatchNorm that always applies its stored statistics, and keeps collecting them while training.

    Template and search maps, and training and tracking, are normalised alike. Written as scale and
    shift: there is no convolution in front into which an exported graph could fold it.
    """

    def forward(self, features: Tensor) -> Tensor:
        """``[B,C,S,S]`` -> the same shape, FP32."""
        features = features.float()
        assert self.running_mean is not None and self.running_var is not None
        if self.training:
            self._collect(features.detach())
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return features * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    @torch.no_grad()
    def _collect(self, features: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        # The plain mean of the first batches, then a moving one. Not in place: the statistics of
        # the maps before are still needed for their gradients.
        share = (1 / self.num_batches_tracked.float()).clamp(min=self.momentum or 0.1)
        variance, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
        self.running_mean = torch.lerp(self.running_mean, mean, share)
        self.running_var = torch.lerp(self.running_var, variance, share)


class RelationNetwork(nn.Module):
    """Says for a few boxes how much each is the target, and where it really is.

    ::

        half    = W_z * roi(z) + b                     once for a target
        joined  = relu(half + W_x * roi(x))            = relu(conv(cat(z, x))): a convolution is linear
        hidden  = relu(FC(relu(FC(joined))))
        logits, deltas = FC(hidden), FC(hidden)

    Args:
        channels: of each map that features are taken from; maps are of one size, stride 8.
        config: sizes.
        first: crop pixel of feature 0 of the maps.
    """

    def __init__(
        self, channels: tuple[int, ...], config: RegionHeadConfig, first: float = 0.0
    ) -> None:
        super().__init__()
        self.config = config
        self.first = first
        self.norms = nn.ModuleList(StoredNorm(number) for number in channels)
        total, width, kernel = sum(channels), config.width, config.kernel
        self.template_half = nn.Conv2d(total, width, kernel, padding=kernel // 2)
        self.candidate_half = nn.Conv2d(total, width, kernel, padding=kernel // 2, bias=False)
        self.hidden = nn.Sequential(
            nn.Linear(width * config.cells**2, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(inplace=True),
        )
        self.classes = nn.Linear(config.hidden, 2)
        self.deltas = nn.Linear(config.hidden, 4)
        self._start(total)

    def _start(self, total: int) -> None:
        # The two halves are one convolution: its fan-in is that of both.
        std = math.sqrt(2 / (2 * total * self.config.kernel**2))
        for conv in (self.template_half, self.candidate_half):
            nn.init.normal_(conv.weight, std=std)
        assert self.template_half.bias is not None
        nn.init.zeros_(self.template_half.bias)
        if self.config.start == "match":
            with torch.no_grad():  # What differs between template and candidate.
                self.template_half.weight.copy_(-self.candidate_half.weight)
        for layer in self.hidden:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        for layer in (self.classes, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def prepare(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Normalise and join maps ``[B,C_i,S,S]`` -> ``[B,C,S,S]``."""
        return torch.cat([norm(m) for norm, m in zip(self.norms, maps, strict=True)], dim=1)

    def template(self, features: Tensor, boxes: Tensor) -> Tensor:
        """The template's half ``[B,width,c,c]`` from joined maps ``[B,C,S,S]`` and the target's box ``[B,4]``."""
        return self.template_half(self.regions(features, boxes[:, None])[:, 0])

    def forward(self, half: Tensor, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Compare boxes with the target.

        Args:
            half: ``[B,width,c,c]`` from :meth:`template`.
            features: ``[B,C,S,S]`` joined maps of the search crop.
            boxes: ``[B,K,4]`` crop px.

        Returns:
            Class logits ``[B,K,2]`` (something else, target) and deltas ``[B,K,4]``, FP32.
        """
        batch, number = int(boxes.shape[0]), int(boxes.shape[1])
        candidates = self.candidate_half(self.regions(features, boxes).flatten(0, 1))
        width, cells = self.config.width, self.config.cells
        joined = half[:, None] + candidates.reshape(batch, number, width, cells, cells)
        hidden = self.hidden(F.relu(joined).reshape(batch, number, width * cells**2))
        return self.classes(hidden).float(), self.deltas(hidden).float()

    def regions(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Aligned features ``[B,K,C,c,c]`` of ``boxes [B,K,4]``; see :func:`aligned_regions`."""
        return aligned_regions(features, boxes, self.config.cells, self.first)


def aligned_regions(features: Tensor, boxes: Tensor, cells: int, first: float = 0.0) -> Tensor:
    """Bilinear samples at cells x cells places that span each box from edge to edge, 0 outside the map.

    Two matrix products with hat weights (out = A_y F A_x^T): nothing is gathered.

    Args:
        features: ``[B,C,H,W]``, stride 8.
        boxes: ``[B,K,4]`` (cx, cy, w, h), crop px.
        cells: samples a side; the first and last lie on the box's edges.
        first: crop pixel of feature 0.

    Returns:
        ``[B,K,C,cells,cells]``.
    """
    batch, channels, height, width = (int(side) for side in features.shape)
    number = int(boxes.shape[1])
    boxes = boxes.float()
    steps = torch.linspace(-0.5, 0.5, cells, device=boxes.device)
    x = (boxes[..., 0:1] + steps * boxes[..., 2:3] - first) / STRIDE  # [B,K,cells]
    y = (boxes[..., 1:2] + steps * boxes[..., 3:4] - first) / STRIDE
    across, down = _weights(x, width), _weights(y, height)  # [B,K,cells,W], [B,K,cells,H]
    rows = torch.matmul(
        features.reshape(batch, channels * height, width),
        across.reshape(batch, number * cells, width).transpose(1, 2).to(features.dtype),
    )
    rows = rows.reshape(batch, channels, height, number, cells).permute(0, 3, 2, 1, 4)
    out = torch.matmul(down.to(rows.dtype), rows.reshape(batch, number, height, channels * cells))
    return out.reshape(batch, number, cells, channels, cells).permute(0, 1, 3, 2, 4)


def _weights(place: Tensor, size: int) -> Tensor:
    """Hat weights ``[...,size]`` of places ``[...]`` in cells; none for places outside the map."""
    inside = torch.logical_and(place >= 0, place <= size - 1)
    return hat(place, size) * inside.float()[..., None]
