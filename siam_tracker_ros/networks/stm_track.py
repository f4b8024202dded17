"""STMTrack: Template-free Visual Tracking with Space-time Memory Networks, as one network.

Two branches of the same kind with their own weights: the memory branch encodes a frame that was
tracked together with a map of where the target was in it, the query branch encodes the frame that
is searched. The query reads up to six frames of memory, and a dense head answers in every cell:
target or not, how central, and how far the four edges are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siam_tracker_ros.networks import feature_bank
from siam_tracker_ros.networks.backbones import make_backbone
from siam_tracker_ros.networks.backbones.inception import InceptionV3S8
from siam_tracker_ros.networks.backbones.mobile import MobileBackbone
from siam_tracker_ros.networks.config import ConfigError, NetworkConfig
from siam_tracker_ros.networks.decode import decide, decode_points, hann_window, size_penalty
from siam_tracker_ros.networks.feature_bank import BankIndex
from siam_tracker_ros.networks.fitting import crop_cells, single_neck
from siam_tracker_ros.networks.grid import STRIDE, Grid
from siam_tracker_ros.networks.heads import DenseHead
from siam_tracker_ros.networks.layers import center_crop
from siam_tracker_ros.networks.matching.space_time import SpaceTimeRead
from siam_tracker_ros.networks.necks import ConvNeck
from siam_tracker_ros.networks.tracker_network import Decision, StepInputs, TrackerNetwork

_EXPONENT_LIMIT = 4.0
"""Distances are held within unit e^+-4: a bad first iteration must not overflow."""


class STMTrack(TrackerNetwork):
    """The network of one configuration.

    The memory branch starts as a copy of the query branch (neck included; in the paper's code the
    necks start apart): then the first read already compares like with like.

    The first frame is remembered by the template graph's constant ``first``; the other features
    that are kept, and which frames they are, are carried from step to step (feature_bank.py). A
    step encodes the last frame that was believed (``memory``), files its feature, and reads.

    Args:
        config: which parts.
        weights: ImageNet state dict of the backbones, or None.

    Raises:
        ConfigError: if parts do not fit: the message names the two places and the two numbers.

    Attributes:
        memory_backbone, memory_neck: the memory branch's.
        label: g of equation (1), from the foreground map to what is added to the memory branch.
        memory_cells: side S of the memory's maps, in cells.
    """

    template_reads = ("template", "previous_size")
    search_reads = ("search", "memory", "memory_size", "previous_size", "first")
    tuning: ClassVar = {"window": 0.21, "penalty": 0.04, "read_above": 0.6}
    host_tuning: ClassVar = {"size_rate": 0.95, "size_bias": 0.5}

    def __init__(self, config: NetworkConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        channels, margin = config.neck.channels, config.neck.margin
        self.backbone = make_backbone(config.backbone, weights)
        if not isinstance(self.backbone, (InceptionV3S8, MobileBackbone)):
            raise ConfigError(
                f"backbone.kind {config.backbone.kind} does not go with tracker stm_track: it has no place "
                f"for the foreground map; inception_v3, mobilenetv2_100 and tf_efficientnet_lite0 have"
            )
        cells = self._cells()
        self.neck = self._neck()
        self.memory_backbone = copy.deepcopy(self.backbone)
        if config.matching.label:
            self.label = self._label_conv()
        else:  # a graph has no inputs that nothing reads
            self.template_reads = ("template",)
            self.search_reads = ("search", "memory", "previous_size", "first")
        self.memory_neck = copy.deepcopy(self.neck)
        self.matching = SpaceTimeRead(config.matching.cosine)
        self.head = DenseHead(
            2 * channels,
            config.head,
            {
                "foreground": ("classification", 1),
                "centre": ("classification", 1),
                "distances": ("regression", 4),
            },
        )
        if config.head.norm == "none":
            self._paper_head_start()
        self.head.set_bias("foreground", -math.log(99))
        self.scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))
        self.memory_cells = cells[0] - 2 * margin
        self.grid = Grid(cells[1] - 2 * margin, config.crop.search)

    def _cells(self) -> tuple[int, int]:
        """Cells of the stride-8 maps of memory and search crops, before the margin is cut."""
        crop, margin = self.config.crop, self.config.neck.margin
        if crop.template > crop.search:
            raise ConfigError(
                f"crop.template = {crop.template} is larger than crop.search = {crop.search}: the memory crop "
                f"is the middle of a search crop"
            )
        cells = crop_cells(self.config, self.backbone)
        for name, size in zip(("template", "search"), cells, strict=True):
            if size - 2 * margin < 5:
                raise ConfigError(
                    f"neck.margin = {margin} leaves {size - 2 * margin} of the {size} cells of crop.{name}; "
                    f"at least 5 are wanted"
                )
        return cells

    def _neck(self) -> nn.Module:
        neck, backbone = self.config.neck, self.backbone
        if neck.kind == "conv":
            if backbone.strides[-1] != STRIDE:
                raise ConfigError(
                    f"neck.kind conv needs a last map of stride {STRIDE}, backbone.kind "
                    f"{self.config.backbone.kind} has {backbone.strides[-1]}"
                )
            return ConvNeck(backbone.channels[-1], neck.channels, relu=neck.relu)
        return single_neck(self.config, backbone)

    def _label_conv(self) -> nn.Conv2d:
        """g: to the channels of the map that it is added to; N(0, .01)."""
        backbone = self.backbone
        if self.config.matching.label_at == "early":
            if not isinstance(backbone, MobileBackbone):
                raise ConfigError(
                    f"matching.label_at early needs a backbone with the stage early, backbone.kind "
                    f"{self.config.backbone.kind} has {', '.join(backbone.stages())}"
                )
            conv = nn.Conv2d(1, _early_channels(backbone), 3, padding=1, bias=False)
        elif isinstance(backbone, MobileBackbone):
            first = backbone.stem[0]
            conv = nn.Conv2d(1, first.out_channels, 3, stride=2, padding=1, bias=False)
        else:
            conv = nn.Conv2d(1, backbone.stem_channels, 3, stride=2, bias=False)
        nn.init.normal_(conv.weight, std=0.01)
        return conv

    def _paper_head_start(self) -> None:
        for module in self.head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1e-4)
                if module.bias is not None:
                    reach = 1 / math.sqrt(module.weight[0].numel())
                    nn.init.uniform_(module.bias, -reach, reach)

    def stages(self) -> dict[str, nn.Module]:
        """Name the stages of both backbones, for freezing: a stage is frozen in both or in none."""
        other = self.memory_backbone.stages()
        return {
            name: nn.ModuleList([stage, other[name]])
            for name, stage in self.backbone.stages().items()
        }

    def encode(self, image: Tensor) -> Tensor:
        """f^q of equation (2): ``[B,3,nx,nx]`` RGB 0..255 -> ``[B,C,R,R]``."""
        return self._cut(self.neck, self.backbone(image))

    def encode_memory(self, image: Tensor, boxes: Tensor | None) -> Tensor:
        """f^m of equation (1).

        Args:
            image: ``[B,3,nz,nz]`` RGB 0..255.
            boxes: ``[B,4]`` (cx, cy, w, h) of the target, pixels of that crop; None without a foreground map.

        Returns:
            ``[B,C,S,S]``.
        """
        return self._cut(self.memory_neck, self._memory_maps(image, boxes))

    def _memory_maps(self, image: Tensor, boxes: Tensor | None) -> tuple[Tensor, ...]:
        backbone, matching = self.memory_backbone, self.config.matching
        side = int(image.shape[-1])
        if not matching.label or boxes is None:
            return backbone(image)
        if matching.label_at == "early":
            addition = self.label(coverage_map(boxes, backbone.map_size(side), side))
        else:
            addition = self.label(label_map(boxes, side))
        if isinstance(backbone, InceptionV3S8):
            return backbone(image, addition)
        features = backbone.stem((image - backbone.mean) / backbone.std)
        if matching.label_at == "stem":
            features = features + addition
        features = backbone.early(features)
        if matching.label_at == "early":
            features = features + addition
        maps = [features]
        for stage in backbone.late:
            maps.append(stage(maps[-1]))
        return (maps[0], maps[-1])

    def _cut(self, neck: nn.Module, maps: tuple[Tensor, ...]) -> Tensor:
        """Run a neck and leave the margin away; before a 3x3 convolution, after a 1x1."""
        margin = self.config.neck.margin
        size = int(maps[0].shape[-1]) - 2 * margin
        if isinstance(neck, ConvNeck):
            return neck((center_crop(maps[-1], size),))
        return center_crop(neck(maps), size)

    def search(
        self, memory: Tensor, query: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Read the memory and answer.

        Args:
            memory: ``[B,T,C,S,S]`` features.
            query: ``[B,C,R,R]`` features.
            mask: ``[B,T]`` bool, which memories are read; all if None.

        Returns:
            Logits ``foreground`` and ``centre`` ``[B,1,R,R]``, and ``distances`` ``[B,4,R,R]``, raw.
        """
        return self.head(self.matching(memory, query, mask))

    def boxes(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Decoded boxes ``[B,4,R,R]`` (cx, cy, w, h), crop px: distances are ``unit exp(s x + b)``."""
        exponent = self.scale * maps["distances"].float() + self.bias
        exponent = exponent.clamp(-_EXPONENT_LIMIT, _EXPONENT_LIMIT)
        return decode_points(self.config.decoder.unit * torch.exp(exponent), self.grid)

    @staticmethod
    def score(maps: Mapping[str, Tensor]) -> Tensor:
        """Score of every cell ``[B,R,R]`` in [0, 1]: foreground times centre-ness."""
        foreground, centre = (
            torch.sigmoid(maps[n].float())[:, 0] for n in ("foreground", "centre")
        )
        return foreground * centre

    @property
    def constant_states(self) -> tuple[str, ...]:
        """``first``: the feature of frame 1."""
        return ("first",)

    def carried_states(self) -> dict[str, Tensor]:
        """``bank [M-1,C,S,S]``, its ``ids [M-1]``, ``count [1]``, ``stride [1]``, ``last_score [1]``."""
        slots, cells = self.config.temporal.slots, self.memory_cells
        index = feature_bank.empty_index(slots)
        bank = torch.zeros(slots - 1, self.config.neck.channels, cells, cells)
        return {"bank": bank, **index._asdict(), "last_score": torch.ones(1)}

    def start(self, template: Tensor, size: Tensor | None = None) -> dict[str, Tensor]:
        """Encode frame 1, in whose middle the target is, ``size`` large."""
        return {"first": self.encode_memory(template, self._middle(size))}

    def step(
        self, inputs: StepInputs, state: Mapping[str, Tensor]
    ) -> tuple[Decision, dict[str, Tensor]]:
        """File the last frame's feature, choose which frames to read, read, decide.

        On the first frame there is no frame before it: it is searched with its own feature alone,
        and the state that leaves is the empty one.
        """
        if inputs.memory is None or inputs.first is None:
            raise ValueError("a step reads memory and first")
        temporal, tuning = self.config.temporal, inputs.tuning
        first, bank = state["first"], state["bank"]
        # The middle of the memory crop is what the template's crop would have been: same scale.
        memory = center_crop(inputs.memory, self.config.crop.template)
        last = self.encode_memory(memory, self._middle(inputs.memory_size))
        is_first = inputs.first > 0.5
        before = BankIndex(state["ids"], state["count"], state["stride"])
        empty = feature_bank.empty_index(temporal.slots)
        before = BankIndex(
            *(torch.where(is_first, e, b) for e, b in zip(empty, before, strict=True))
        )
        index, written = feature_bank.advance(before)
        above = tuning["read_above"]
        # 0 means always, also for a score that has come down to 0.
        believed = torch.logical_or(state["last_score"] > above, above <= 0)
        selection = feature_bank.select(index, written, temporal.frames, believed)
        features = feature_bank.read(bank, first, last, selection)
        maps = self.search(features[None], self.encode(inputs.search), selection.mask[None])
        score, boxes = self.score(maps)[0], self.boxes(maps)[0]
        fade = size_penalty(boxes[2], boxes[3], inputs.previous_size, tuning["penalty"])
        window = tuning["window"]
        decision = decide(score, boxes, self.grid, window, fade)
        hann = hann_window(self.grid.cells).to(score.device)
        final = ((1 - window) * fade * score + window * hann).max().reshape(1)
        after = BankIndex(*(torch.where(is_first, e, i) for e, i in zip(empty, index, strict=True)))
        return decision, {
            "bank": feature_bank.write(bank, written, last),
            **after._asdict(),
            "last_score": torch.where(is_first, torch.ones_like(final), final),
        }

    def _middle(self, size: Tensor | None) -> Tensor | None:
        """Box ``[1,4]`` of ``size`` in the middle of a memory crop; None where no foreground map is made."""
        if not self.config.matching.label:
            return None
        if size is None:
            raise ValueError("the memory branch reads the target's size")
        middle = (self.config.crop.template - 1) / 2
        return torch.cat([torch.full_like(size, middle), size])[None]


def label_map(boxes: Tensor, side: int) -> Tensor:
    """The foreground map c of equation (1): 1 in the box, 0 elsewhere.

    Columns floor(cx - (w-1)/2) to floor(cx + (w-1)/2), both included (as the paper's code
    truncates), rows alike; an outer product of two vectors.

    Args:
        boxes: ``[B,4]`` (cx, cy, w, h), crop px.
        side: n.

    Returns:
        ``[B,1,n,n]``.
    """
    pixels = torch.arange(side, dtype=torch.float32, device=boxes.device)
    boxes = boxes.float()
    low = (boxes[:, :2] - (boxes[:, 2:] - 1) / 2)[:, :, None]
    high = (boxes[:, :2] + (boxes[:, 2:] - 1) / 2)[:, :, None]
    # An integer p is at least floor(v) if p > v - 1, and at most floor(v) if p <= v.
    inside = torch.logical_and(pixels > low - 1, pixels <= high).float()  # [B,2,n]
    return (inside[:, 1, :, None] * inside[:, 0, None, :])[:, None]


def coverage_map(boxes: Tensor, cells: int, side: int) -> Tensor:
    """The foreground map at stride 8: which part of each cell's 8 px square the box covers.

    Args:
        boxes: ``[B,4]`` (cx, cy, w, h), crop px.
        cells: side of the map.
        side: n of the crop, in whose middle the middle cell is.

    Returns:
        ``[B,1,cells,cells]`` in [0, 1].
    """
    edges = Grid(cells, side).centers().to(boxes.device) - STRIDE / 2
    boxes = boxes.float()
    low = (boxes[:, :2] - boxes[:, 2:] / 2)[:, :, None]
    high = (boxes[:, :2] + boxes[:, 2:] / 2)[:, :, None]
    shared = torch.minimum(high, edges + STRIDE) - torch.maximum(low, edges)
    part = F.relu(shared) / STRIDE  # [B,2,cells]
    return (part[:, 1, :, None] * part[:, 0, None, :])[:, None]


def _early_channels(backbone: MobileBackbone) -> int:
    return int(backbone.channels[backbone.strides.index(STRIDE)])
