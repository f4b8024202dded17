"""SPM-Tracker: Series-Parallel Matching for Real-Time Visual Object Tracking, as one network.

Coarse matching proposes boxes like the target's category; fine matching compares a few of them with
the target itself. Series: the second sees the first's boxes. Parallel: scores and boxes of both are
fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.anchors import (
    Proposals,
    decode,
    decode_fine,
    fuse,
    make_anchors,
    overlap,
    place_window,
    propose,
    take,
)
from siam_tracker_ros.networks.backbones import make_backbone
from siam_tracker_ros.networks.config import (
    AnchorDecoderConfig,
    ConfigError,
    NetworkConfig,
    RegionHeadConfig,
    UpChannelConfig,
)
from siam_tracker_ros.networks.fitting import crop_cells, single_neck
from siam_tracker_ros.networks.grid import STRIDE, Grid
from siam_tracker_ros.networks.matching.relation import RelationNetwork
from siam_tracker_ros.networks.matching.up_channel import UpXCorr
from siam_tracker_ros.networks.tracker_network import Decision, StepInputs, TrackerNetwork

OTHER_OBJECT = 0.3
"""Proposals that overlap the chosen one less than this are another object.

Below the .5 of the suppression: the near box escapes that, and a box of half the size on the same
target must not pass for a look-alike.
"""


class Features(NamedTuple):
    """What both stages look at.

    Attributes:
        matched: ``[B,C,S,S]`` for the coarse stage.
        regions: ``[B,C',S,S]`` normalised maps for the fine stage.
    """

    matched: Tensor
    regions: Tensor


class Coarse(NamedTuple):
    """What the coarse stage says of every anchor, in the order (row, column, anchor); FP32.

    Attributes:
        logits: ``[B,N,2]`` background, target.
        deltas: ``[B,N,4]``.
        score: ``[B,N]`` u_c in (0, 1).
        boxes: ``[B,N,4]`` crop px.
    """

    logits: Tensor
    deltas: Tensor
    score: Tensor
    boxes: Tensor


class Fused(NamedTuple):
    """Proposals after both stages.

    Attributes:
        score: ``[B,K]`` u of equation (2); -1 in empty slots.
        boxes: ``[B,K,4]`` B of equation (2).
    """

    score: Tensor
    boxes: Tensor


class SPMTracker(TrackerNetwork):
    """The network of one configuration.

    With several maps of stride 8 and no neck (AlexNet) the last is matched and the others are for
    the fine stage; with a neck, its map is matched and, where strides are 8 and 16, also the fine
    stage's deep map beside the backbone's map of stride 8.

    Args:
        config: which parts.
        weights: ImageNet state dict of the backbone, or None.

    Raises:
        ConfigError: if parts do not fit: the message names the two places and the two numbers.
    """

    template_reads: ClassVar[tuple[str, ...]] = ("template", "previous_size")
    search_reads: ClassVar[tuple[str, ...]] = ("search", "previous_size")
    tuning: ClassVar[Mapping[str, float]] = {"window": 0.4, "keep_below": 0.2}
    host_tuning: ClassVar[Mapping[str, float]] = {"size_rate": 0.5, "size_bias": 0.5}

    anchors: Tensor

    def __init__(self, config: NetworkConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        assert isinstance(config.matching, UpChannelConfig)
        assert isinstance(config.head, RegionHeadConfig)
        assert isinstance(config.decoder, AnchorDecoderConfig)
        self.config = config
        self.decoder = config.decoder
        self.backbone: Any = make_backbone(config.backbone, weights)
        matched, regions = self._make_neck(config)
        first = self._check_sizes(config.matching)
        ratios = config.decoder.ratios
        self.matching = UpXCorr(matched, len(ratios), config.matching)
        self.relation = RelationNetwork(regions, config.head, first)
        self.grid = Grid(self.matching.response_cells, config.crop.search)
        self.register_buffer("anchors", make_anchors(self.grid, ratios), persistent=False)

    def _make_neck(self, config: NetworkConfig) -> tuple[int, tuple[int, ...]]:
        """Return the channels that are matched, and those of each map of the fine stage."""
        neck, backbone = config.neck, config.backbone.kind
        strides, channels = tuple(self.backbone.strides), tuple(self.backbone.channels)
        if neck.kind == "pyramid":
            self.neck: nn.Module = single_neck(config, self.backbone)
            return neck.channels, (neck.channels, channels[0])
        if len(strides) < 2 or set(strides) != {STRIDE}:
            raise ConfigError(
                f"neck.kind {neck.kind} needs two maps or more of stride {STRIDE}, backbone.kind {backbone} "
                f"has strides {strides}"
            )
        deep_first = channels[-2::-1]
        if neck.kind == "none":
            self.neck = nn.Identity()
            return channels[-1], deep_first
        self.neck = single_neck(config, self.backbone)
        return neck.channels, deep_first

    def _check_sizes(self, matching: UpChannelConfig) -> float:
        """Check crops and cells against each other; return the crop pixel of the maps' feature 0."""
        crop = self.config.crop
        sizes = crop_cells(self.config, self.backbone)
        wanted = (matching.template_cells, matching.search_cells)
        before = []
        for name, n, cells, size in zip(
            ("template", "search"), (crop.template, crop.search), wanted, sizes, strict=True
        ):
            if cells > size:
                raise ConfigError(
                    f"matching.{name}_cells = {cells}, but crop.{name} = {n} px gives only {size}"
                )
            middle = (size - cells) // 2 + (cells - 1) / 2
            before.append((n - 1) / 2 - STRIDE * middle)
        if before[0] != before[1]:
            # Boxes would be off by the difference; an even response is always such a case.
            raise ConfigError(
                f"matching.template_cells = {wanted[0]} of {sizes[0]} and matching.search_cells = {wanted[1]} of "
                f"{sizes[1]} do not lie alike: their middles are {before[0]:g} and {before[1]:g} px from the crops'"
            )
        if wanted[1] - wanted[0] < 4:
            raise ConfigError(
                f"matching.search_cells = {wanted[1]} and matching.template_cells = {wanted[0]} give a response of "
                f"{wanted[1] - wanted[0] + 1} cells; at least 5 are wanted"
            )
        centred = (crop.search - 1) / 2 - STRIDE * (sizes[1] - 1) / 2
        return float(getattr(self.backbone, "first", centred))

    @property
    def constant_states(self) -> tuple[str, ...]:
        """Kernels of the coarse stage and the template's half of the fine stage's first convolution."""
        return ("class_kernel", "box_kernel", "template_half")

    def extract(self, image: Tensor) -> Features:
        """Features of both stages: ``[B,3,n,n]`` RGB 0..255 -> maps of stride 8."""
        maps = self.backbone(image)
        kind = self.config.neck.kind
        if kind == "pyramid":
            matched = self.neck(maps)
            return Features(matched, self.relation.prepare((matched, maps[0])))
        matched = maps[-1] if kind == "none" else self.neck(maps)
        return Features(matched, self.relation.prepare(maps[-2::-1]))

    def template(self, image: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """Template crops ``[B,3,nz,nz]`` with the target's boxes ``[B,4]`` in them -> constant states."""
        features = self.extract(image)
        half = self.relation.template(features.regions, boxes)
        return {**self.matching.template(features.matched), "template_half": half}

    def coarse(self, state: Mapping[str, Tensor], features: Features) -> Coarse:
        """First stage, on all anchors."""
        logits, deltas = self.matching(state["class_kernel"], state["box_kernel"], features.matched)
        boxes = decode(deltas, self.anchors)
        return Coarse(logits, deltas, target_probability(logits), boxes)

    def fine(
        self, state: Mapping[str, Tensor], features: Features, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Second stage on ``boxes [B,K,4]``: class logits ``[B,K,2]`` and deltas ``[B,K,4]``."""
        return self.relation(state["template_half"], features.regions, boxes)

    def fused(self, state: Mapping[str, Tensor], features: Features, proposals: Proposals) -> Fused:
        """Second stage on the proposals, and equation (2)."""
        logits, deltas = self.fine(state, features, proposals.boxes)
        score, boxes = fuse(
            proposals.score.clamp(min=0),
            target_probability(logits),
            proposals.boxes,
            decode_fine(deltas, proposals.boxes),
            self.decoder.class_weight,
            self.decoder.box_weight,
        )
        return Fused(torch.where(proposals.score > 0, score, -torch.ones_like(score)), boxes)

    def start(self, template: Tensor, size: Tensor | None = None) -> dict[str, Tensor]:
        """Make the constant states; the target, of that size, is in the middle of the template crop."""
        assert size is not None, "the fine stage needs the target's size"
        return self.template(template, _in_the_middle(size, self.config.crop.template))

    def step(
        self, inputs: StepInputs, state: Mapping[str, Tensor]
    ) -> tuple[Decision, dict[str, Tensor]]:
        """Search one crop; a box whose fused score is below ``keep_below`` is the previous one instead."""
        crop = self.config.crop.search
        features = self.extract(inputs.search)
        coarse = self.coarse(state, features)
        assert inputs.previous_size is not None
        previous = _in_the_middle(inputs.previous_size, crop)
        count = self.relation.config.proposals
        proposals = propose(coarse.boxes, coarse.score, count, previous)
        score, boxes = self.fused(state, features, proposals)
        window = inputs.tuning["window"]
        final = (1 - window) * score + window * place_window(proposals.boxes, crop)
        final = torch.where(score >= 0, final, -torch.ones_like(final))
        best = torch.argmax(final, dim=1)[:, None]
        box, found = take(boxes, best), take(score, best)  # [1,1,4], [1,1]
        other = torch.where(overlap(boxes, box) < OTHER_OBJECT, score, torch.zeros_like(score))
        keep = found.reshape(1) < inputs.tuning["keep_below"]
        return (
            Decision(
                torch.where(keep, previous.reshape(4), box.reshape(4)),
                found.reshape(1),
                other.max().clamp(min=0).reshape(1),
                take(proposals.boxes, best).reshape(4)[:2],
            ),
            {},
        )


def target_probability(logits: Tensor) -> Tensor:
    """Softmax over (other, target) ``[...,2]``, the target's share ``[...]``."""
    return torch.sigmoid(logits[..., 1] - logits[..., 0])


def _in_the_middle(size: Tensor, crop: int) -> Tensor:
    """Box ``[1,4]`` of size ``[2]`` in the middle of a crop."""
    middle = torch.full((2,), (crop - 1) / 2, dtype=torch.float32, device=size.device)
    return torch.cat([middle, size.float()])[None]
