"""SiamSTM: Spatio-Temporal Matching for Siamese Visual Tracking, as one network.

Backbone -> neck -> SVC-Corr -> centre head, with the aberrance repressed module on the response
map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from siam_tracker_ros.networks.backbones import make_backbone
from siam_tracker_ros.networks.config import ConfigError, NetworkConfig
from siam_tracker_ros.networks.decode import CenterMaps, decide, decode_boxes, size_penalty
from siam_tracker_ros.networks.fitting import crop_cells, single_neck
from siam_tracker_ros.networks.grid import Grid
from siam_tracker_ros.networks.heads import DenseHead
from siam_tracker_ros.networks.matching.svc_corr import SVCCorr
from siam_tracker_ros.networks.response_arm import (
    HEAT_FLOOR,
    ArmState,
    gaussian_label,
    gaussian_sigma,
    repress_aberrance,
)
from siam_tracker_ros.networks.tracker_network import Decision, StepInputs, TrackerNetwork

HEAT_PRIOR = -2.19
"""Logit that the heatmap starts at: sigmoid = 0.1 (CenterNet's prior)."""


class SiamSTM(TrackerNetwork):
    """The network of one configuration.

    State: ``kernel`` and ``descriptor`` of the template (constant); ARM's ``heatmap``, ``label``
    and ``peak`` (carried).

    Args:
        config: which parts.
        weights: ImageNet state dict of the backbone, or None.

    Raises:
        ConfigError: if parts do not fit: the message names the two places and the two numbers.
    """

    tuning: ClassVar[Mapping[str, float]] = {"window": 0.2, "penalty": 0.1, "arm": 1.0}
    host_tuning: ClassVar[Mapping[str, float]] = {"size_rate": 0.3, "size_bias": 0.5}

    def __init__(self, config: NetworkConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config.backbone, weights)
        channels = config.neck.channels
        self.neck = single_neck(config, self.backbone)
        self.matching = SVCCorr(channels, config.matching)
        self.head = DenseHead(
            channels,
            config.head,
            {"heat": ("classification", 1), "offset": ("regression", 2), "size": ("regression", 2)},
        )
        self.head.set_bias("heat", HEAT_PRIOR)
        if config.decoder.size == "linear":
            self.head.set_bias("size", 8.0)  # 64 px
        self.grid = Grid(self._response_cells(), config.crop.search)

    def _response_cells(self) -> int:
        crop, kernel = self.config.crop, self.config.matching.kernel
        template, search = crop_cells(self.config, self.backbone)
        if template < kernel:
            raise ConfigError(
                f"matching.kernel = {kernel} cells, but crop.template = {crop.template} px gives only "
                f"{template}"
            )
        cells = search - kernel + 1
        if cells < 5 or cells % 2 == 0:
            raise ConfigError(
                f"crop.search = {crop.search} px and matching.kernel = {kernel} give a response of {cells} cells; "
                f"an odd number of at least 5 is wanted"
            )
        return cells

    def extract(self, image: Tensor) -> Tensor:
        """Features to match: ``[B,3,n,n]`` RGB 0..255 -> ``[B,C,S,S]``, stride 8."""
        return self.neck(self.backbone(image))

    def template(self, image: Tensor) -> dict[str, Tensor]:
        """Template crops ``[B,3,nz,nz]`` -> kernel (and descriptor)."""
        return self.matching.template(self.extract(image))

    def search(self, state: Mapping[str, Tensor], image: Tensor) -> CenterMaps:
        """Search crops ``[B,3,nx,nx]`` -> maps on the R x R grid."""
        return CenterMaps(**self.head(self.matching(dict(state), self.extract(image))))

    def boxes(self, maps: CenterMaps) -> Tensor:
        """Decoded boxes ``[B,4,R,R]`` (cx, cy, w, h), crop px."""
        return decode_boxes(maps, self.grid, self.config.decoder.size)

    @property
    def constant_states(self) -> tuple[str, ...]:
        """``kernel [1,C,k,k]``, and ``descriptor [1,C,1,1]`` with the channel term."""
        return ("kernel", "descriptor") if self.config.matching.channel else ("kernel",)

    def carried_states(self) -> dict[str, Tensor]:
        """ARM's ``heatmap [R,R]``, ``label [R,R]`` and ``peak [2]`` (row, column)."""
        cells = self.grid.cells
        return {
            "heatmap": torch.zeros(cells, cells),
            "label": torch.zeros(cells, cells),
            "peak": torch.zeros(2),
        }

    def start(self, template: Tensor, size: Tensor | None = None) -> dict[str, Tensor]:
        """Make the template's kernel (and descriptor)."""
        return self.template(template)

    def step(
        self, inputs: StepInputs, state: Mapping[str, Tensor]
    ) -> tuple[Decision, dict[str, Tensor]]:
        """One step: maps, ARM, penalty and window, the best cell."""
        assert inputs.first is not None and inputs.previous_size is not None
        maps = self.search({name: state[name] for name in self.constant_states}, inputs.search)
        heat = torch.sigmoid(maps.heat.float())[0, 0].clamp(HEAT_FLOOR, 1 - HEAT_FLOOR)
        boxes = self.boxes(maps)[0]
        cells = self.grid.cells
        size = inputs.previous_size
        is_first = inputs.first > 0.5
        middle = torch.full((1,), float(cells // 2))
        start = gaussian_label(middle, middle, gaussian_sigma(size[:1], size[1:]), cells)[0]
        # On the first frame the state is made here, and ARM has nothing to compare with.
        before = ArmState(
            torch.where(is_first, heat, state["heatmap"]),
            torch.where(is_first, start, state["label"]),
            torch.where(is_first, torch.cat([middle, middle]), state["peak"]),
        )
        result = repress_aberrance(heat, before, self.config.temporal)
        use = torch.logical_and(inputs.tuning["arm"] > 0.5, torch.logical_not(is_first))
        after = ArmState(
            *(
                torch.where(is_first, old, new)
                for old, new in zip(before, result.state, strict=True)
            )
        )
        decision = decide(
            heat,
            boxes,
            self.grid,
            inputs.tuning["window"],
            size_penalty(boxes[2], boxes[3], size, inputs.tuning["penalty"]),
            torch.where(use, result.heat, heat),
        )
        return decision, after._asdict()
