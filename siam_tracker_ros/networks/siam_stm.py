"""SiamSTM: Spatio-Temporal Matching for Siamese Visual Tracking, as one network.

Backbone -> neck -> SVC-Corr -> centre head, with the aberrance repressed module on the response
map.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.backbones import make_backbone
from siam_tracker_ros.networks.config import ConfigError, NetworkConfig
from siam_tracker_ros.networks.decode import decode_boxes, hann_window, size_penalty
from siam_tracker_ros.networks.grid import Grid
from siam_tracker_ros.networks.heads import CenterHead, CenterMaps
from siam_tracker_ros.networks.matching.svc_corr import SVCCorr
from siam_tracker_ros.networks.necks import AdjustNeck, PyramidNeck
from siam_tracker_ros.networks.response_arm import (
    HEAT_FLOOR,
    ArmState,
    gaussian_label,
    gaussian_sigma,
    repress_aberrance,
)


class SiamSTM(nn.Module):
    """The network of one configuration.

    Args:
        config: which parts.
        weights: ImageNet state dict of the backbone, or None.

    Raises:
        ConfigError: if parts do not fit: the message names the two places and the two numbers.
    """

    def __init__(self, config: NetworkConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config.backbone, weights)
        channels = config.neck.channels
        strides = self.backbone.strides
        if config.neck.kind == "pyramid":
            if strides != (8, 16):
                raise ConfigError(
                    f"neck.kind pyramid needs maps at strides (8, 16), backbone.kind {config.backbone.kind} "
                    f"has {strides}"
                )
            self.neck: nn.Module = PyramidNeck(self.backbone.channels, channels)
        else:
            if strides[-1] != 8:
                raise ConfigError(
                    f"neck.kind adjust needs a last map of stride 8, backbone.kind {config.backbone.kind} "
                    f"has {strides[-1]}"
                )
            self.neck = AdjustNeck(self.backbone.channels[-1], channels)
        self.matching = SVCCorr(channels, config.matching)
        self.head = CenterHead(channels, config.head)
        if config.decoder.size == "linear":
            self.head.set_size_prior(8.0)  # 64 px
        self.grid = Grid(self._response_cells(), config.crop.search)

    def _response_cells(self) -> int:
        crop, kernel = self.config.crop, self.config.matching.kernel
        sizes = {}
        for name, n in (("template", crop.template), ("search", crop.search)):
            fitting = self.backbone.centred_crop(n)
            if fitting != n:
                raise ConfigError(
                    f"crop.{name} = {n}: backbone.kind {self.config.backbone.kind} has no feature on the "
                    f"centre of that crop; {fitting} fits"
                )
            sizes[name] = self.backbone.map_size(n)
        if sizes["template"] < kernel:
            raise ConfigError(
                f"matching.kernel = {kernel} cells, but crop.template = {crop.template} px gives only "
                f"{sizes['template']}"
            )
        cells = sizes["search"] - kernel + 1
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
        return self.head(self.matching(dict(state), self.extract(image)))

    def boxes(self, maps: CenterMaps) -> Tensor:
        """Decoded boxes ``[B,4,R,R]`` (cx, cy, w, h), crop px."""
        return decode_boxes(maps, self.grid, self.config.decoder.size)


class TemplateGraph(nn.Module):
    """What ``template.onnx`` computes: ``uint8 [n,n,3]`` -> kernel ``[1,C,k,k]`` and descriptor ``[1,C,1,1]``."""

    def __init__(self, network: SiamSTM) -> None:
        super().__init__()
        self.network = network

    def forward(self, template: Tensor) -> tuple[Tensor, ...]:
        """Return the constant states in the order of :func:`template_state_names`."""
        state = self.network.template(to_planes(template))
        return tuple(state[name] for name in template_state_names(self.network))


class SearchGraph(nn.Module):
    """What ``search.onnx`` computes: one step, state in and state out; the box stays the host's.

    Order of inputs: search, previous_size[2], first[1], tuning window[1], penalty[1], arm[1],
    constant states, heatmap[R,R], label[R,R], peak[2]. Outputs: box[4], score[1], runner_up[1],
    peak[2] (crop px), heatmap, label, peak.
    """

    def __init__(self, network: SiamSTM) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("window", hann_window(network.grid.cells), persistent=False)
        self.register_buffer("centers", network.grid.centers(), persistent=False)

    def forward(
        self,
        search: Tensor,
        previous_size: Tensor,
        first: Tensor,
        window: Tensor,
        penalty: Tensor,
        arm: Tensor,
        *states: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step; see the class for shapes."""
        names = template_state_names(self.network)
        constant, (heatmap, label, peak) = states[: len(names)], states[len(names) :]
        maps = self.network.search(dict(zip(names, constant, strict=True)), to_planes(search))
        heat = torch.sigmoid(maps.heat.float())[0, 0].clamp(HEAT_FLOOR, 1 - HEAT_FLOOR)
        boxes = self.network.boxes(maps)[0].flatten(1)  # [4,R*R]
        cells = self.network.grid.cells
        is_first = first > 0.5
        middle = torch.full((1,), float(cells // 2))
        sigma = gaussian_sigma(previous_size[:1], previous_size[1:])
        start = gaussian_label(middle, middle, sigma, cells)[0]
        # On the first frame the state is made here, and ARM has nothing to compare with.
        before = ArmState(
            torch.where(is_first, heat, heatmap),
            torch.where(is_first, start, label),
            torch.where(is_first, torch.cat([middle, middle]), peak),
        )
        result = repress_aberrance(heat, before, self.network.config.temporal)
        use = torch.logical_and(arm > 0.5, torch.logical_not(is_first))
        ranked = torch.where(use, result.heat, heat)
        after = ArmState(
            *(
                torch.where(is_first, old, new)
                for old, new in zip(before, result.state, strict=True)
            )
        )
        fade = size_penalty(boxes[2], boxes[3], previous_size, penalty)
        fused = (1 - window) * fade * ranked.flatten() + window * self.window.flatten()
        best = torch.argmax(fused).reshape(1)
        row, column = best // cells, torch.remainder(best, cells)
        return (
            boxes[:, best].reshape(4),
            heat.flatten()[best],
            _runner_up(heat, row, column),
            torch.cat([self.centers[column], self.centers[row]]),
            *after,
        )


def _runner_up(heat: Tensor, row: Tensor, column: Tensor, reach: int = 3) -> Tensor:
    """Highest value further than ``reach`` cells (24 px) from the chosen cell: how strong the best look-alike is."""
    index = torch.arange(heat.shape[-1], device=heat.device)
    far = torch.logical_or(
        (index - row).abs().view(-1, 1) > reach, (index - column).abs().view(1, -1) > reach
    )
    return torch.where(far, heat, torch.zeros_like(heat)).max().reshape(1)


def template_state_names(network: SiamSTM) -> tuple[str, ...]:
    """Names of the states that the template graph writes."""
    return ("kernel", "descriptor") if network.config.matching.channel else ("kernel",)


def to_planes(image: Tensor) -> Tensor:
    """``uint8 [n,n,3]`` -> ``float32 [1,3,n,n]``."""
    return image.float().permute(2, 0, 1)[None]
