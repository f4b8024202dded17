"""IMSiam: IoU-aware Matching-adaptive Siamese network, as one network.

Backbone levels -> a neck each -> matching-adaptive maps -> one dense head, evaluated on all levels as one batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.backbones import make_backbone
from siam_tracker_ros.networks.config import ConfigError, DenseHeadConfig, NetworkConfig
from siam_tracker_ros.networks.decode import decide, decode_points
from siam_tracker_ros.networks.fitting import crop_cells
from siam_tracker_ros.networks.grid import Grid
from siam_tracker_ros.networks.heads import DenseHead
from siam_tracker_ros.networks.matching.adaptive import MatchingAdaptive
from siam_tracker_ros.networks.necks import LevelsNeck
from siam_tracker_ros.networks.tracker_network import Decision, StepInputs, TrackerNetwork

EXPONENT_LIMIT = 6.5
"""Distances are at most e^6.5 = 665 px: a bad first iteration must not overflow, in FP16 neither."""


class PointMaps(NamedTuple):
    """What the head predicts on every level's R x R grid.

    Attributes:
        foreground: ``[B,L,2,R,R]`` logits of background and foreground.
        centre: ``[B,L,1,R,R]`` logit of the centre-ness.
        distances: ``[B,L,4,R,R]`` to the left, top, right and bottom edge, crop px, FP32.
        iou: ``[B,L,1,R,R]`` logit of the box's overlap with the target.
    """

    foreground: Tensor
    centre: Tensor
    distances: Tensor
    iou: Tensor


class PointHead(DenseHead):
    """One head for all levels, evaluated as one batch; each level has a scale in the exponent of its distances.

    Args:
        inputs: channels of the response maps.
        levels: how many levels L.
        config: width, depth and kind of the towers.
        unit: distance in crop px where the exponent is zero.

    Attributes:
        scale: ``[L]``.
    """

    def __init__(self, inputs: int, levels: int, config: DenseHeadConfig, unit: float) -> None:
        super().__init__(
            inputs,
            config,
            {
                "foreground": ("classification", 2),
                "centre": ("classification", 1),
                "distances": ("regression", 4),
                "iou": ("regression", 1),
            },
        )
        self.unit = unit
        self.scale = nn.Parameter(torch.ones(levels))

    def levels(self, response: Tensor) -> PointMaps:
        """``[B,L,inputs,R,R]`` -> maps on every level; distances are ``unit exp(scale x)``."""
        maps = {
            name: value.unflatten(0, response.shape[:2])
            for name, value in self(response.flatten(0, 1)).items()
        }
        exponent = maps["distances"].float() * self.scale.float().view(1, -1, 1, 1, 1)
        limit = EXPONENT_LIMIT - math.log(self.unit)
        maps["distances"] = self.unit * torch.exp(exponent.clamp(max=limit))
        return PointMaps(**maps)


class IMSiam(TrackerNetwork):
    """The network of one configuration.

    State: ``kernel [1,L,C,k,k]`` and, with the difference, ``vector [1,L,C,1,1]`` of the template;
    nothing is carried.

    Args:
        config: which parts.
        weights: ImageNet state dict of the backbone, or None.

    Raises:
        ConfigError: if parts do not fit: the message names the two places and the two numbers.
    """

    template_reads: ClassVar[tuple[str, ...]] = ("template", "previous_size")
    search_reads: ClassVar[tuple[str, ...]] = ("search",)
    tuning: ClassVar[Mapping[str, float]] = {"window": 0.45}
    host_tuning: ClassVar[Mapping[str, float]] = {
        "size_rate": 0.25,
        "size_by_score": 0.0,
        "size_bias": 0.5,
    }

    def __init__(self, config: NetworkConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config.backbone, weights)
        if config.neck.kind != "adjust":
            raise ConfigError(
                f"neck.kind {config.neck.kind} does not go with tracker im_siam: adjust"
            )
        channels, levels = config.neck.channels, len(self.backbone.channels)
        norm = config.matching.norm
        self.neck = LevelsNeck(self.backbone.channels, self.backbone.strides, channels, norm)
        self.matching = MatchingAdaptive(channels, levels, config.matching)
        if not config.matching.difference:
            # Nothing is pooled, and a graph cannot have an input that it does not read.
            self.template_reads = ("template",)  # type: ignore[misc]
        self.head = PointHead(self.matching.outputs, levels, config.head, config.decoder.unit)
        self.grid = Grid(self._response_cells(), config.crop.search)
        for module in self.neck.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if not config.head.separable:
            for module in self.head.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=0.01)

    def _response_cells(self) -> int:
        crop, wanted = self.config.crop, self.config.matching.cells
        template, search = crop_cells(self.config, self.backbone)
        if template < wanted:
            raise ConfigError(
                f"matching.cells = {wanted} cells, but crop.template = {crop.template} px gives only "
                f"{template}"
            )
        cells = search - 2
        if cells < wanted - 2:
            raise ConfigError(
                f"matching.cells = {wanted} makes a kernel of {wanted - 2} cells, but crop.search = {crop.search} px "
                f"gives a response of only {cells}"
            )
        return cells

    def extract(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features to match: ``[B,3,n,n]`` RGB 0..255 -> ``[B,C,S,S]`` of every level, stride 8."""
        return self.neck(self.backbone(image))

    def template(self, image: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """Template crops ``[B,3,nz,nz]`` and the target's boxes ``[B,4]`` in them (crop px) -> states."""
        middle = (self.config.crop.template - 1) / 2
        centred = torch.cat([boxes[:, :2] - middle, boxes[:, 2:]], dim=1)
        return self.matching.template(self.extract(image), centred)

    def search(self, state: Mapping[str, Tensor], image: Tensor) -> PointMaps:
        """Search crops ``[B,3,nx,nx]`` -> maps on the R x R grid of every level."""
        return self.head.levels(self.matching(dict(state), self.extract(image)))

    def score(self, maps: PointMaps) -> Tensor:
        """``[B,R,R]`` in [0, 1]: class x centre-ness (x IoU), mean over the levels (equation 16)."""
        score = torch.softmax(maps.foreground.float(), dim=2)[:, :, 1]
        score = score * torch.sigmoid(maps.centre.float())[:, :, 0]
        if self.config.decoder.iou:
            score = score * torch.sigmoid(maps.iou.float())[:, :, 0]
        return score.mean(dim=1)

    def boxes(self, maps: PointMaps) -> Tensor:
        """Boxes ``[B,4,R,R]`` (cx, cy, w, h), crop px, of the levels' mean distances (equation 18)."""
        return decode_points(maps.distances.mean(dim=1), self.grid)

    @property
    def constant_states(self) -> tuple[str, ...]:
        """``vector`` (with the difference) and ``kernel``."""
        return self.matching.states

    def start(self, template: Tensor, size: Tensor | None = None) -> dict[str, Tensor]:
        """Make the template's pooled vectors and kernels; the target is in the crop's middle."""
        middle = (self.config.crop.template - 1) / 2
        if size is None:
            size = torch.full((2,), middle, device=template.device)
        box = torch.cat([torch.full_like(size, middle), size]).float()
        return self.template(template, box[None])

    def step(
        self, inputs: StepInputs, state: Mapping[str, Tensor]
    ) -> tuple[Decision, dict[str, Tensor]]:
        """One step: the best cell of score and window."""
        maps = self.search(state, inputs.search)
        decision = decide(
            self.score(maps)[0], self.boxes(maps)[0], self.grid, inputs.tuning["window"]
        )
        return decision, {}
