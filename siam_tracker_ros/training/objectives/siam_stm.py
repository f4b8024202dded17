"""SiamSTM's objective: L = L_base + lambda_arm L_arm (equation 6)."""

from __future__ import annotations

import torch

from siam_tracker_ros.networks.siam_stm import SiamSTM
from siam_tracker_ros.training import losses
from siam_tracker_ros.training.config import SiamSTMLossConfig
from siam_tracker_ros.training.labels import center_labels
from siam_tracker_ros.training.objectives.base import Batch, Losses, pick, planes
from siam_tracker_ros.training.samples import SampleShape


class SiamSTMObjective:
    """Trains SiamSTM on triplets: two search frames a template, tied together by ARM's loss."""

    samples = SampleShape(templates=1, searches=2)
    frames_first = True

    def __init__(self, config: SiamSTMLossConfig) -> None:
        self.config = config

    def __call__(self, network: SiamSTM, batch: Batch) -> Losses:
        """Heat, offset, size and, where both searches show the target, aberrance."""
        weights = self.config
        # [2B]: all first search frames, then all second ones.
        search = planes(batch["searches"].transpose(0, 1))
        boxes = batch["boxes"].transpose(0, 1).flatten(0, 1).float()
        visible = batch["visible"].transpose(0, 1).flatten(0, 1).float()
        template = network.template(planes(batch["template"]))
        maps = network.search({k: torch.cat([v, v]) for k, v in template.items()}, search)
        labels = center_labels(boxes, visible, network.grid)
        heat = torch.sigmoid(maps.heat.float())[:, 0]
        decoded = network.boxes(maps)
        parts = {"heat": losses.center_focal(heat, labels.heat)}
        if weights.box == "center_l1":
            parts["offset"], parts["size"] = losses.center_offset_size(
                maps.offset, decoded[:, 2:], boxes, labels
            )
            total = parts["heat"] + weights.offset * parts["offset"] + weights.size * parts["size"]
        else:
            parts["offset"], parts["size"], parts["giou"] = losses.dense_box(decoded, boxes, labels)
            total = parts["heat"] + weights.offset * (parts["offset"] + parts["size"])
            total = total + weights.giou * parts["giou"]
        half = heat.shape[0] // 2
        if weights.arm:
            both = visible[:half] * visible[half:]
            parts["arm"] = losses.aberrance(
                heat[:half], heat[half:], labels.heat[:half], labels.heat[half:], both
            )
            total = total + weights.arm * parts["arm"]
        picked, scores = pick(decoded, heat)
        return Losses(
            total,
            parts,
            picked.unflatten(0, (2, half)).transpose(0, 1),
            scores.unflatten(0, (2, half)).transpose(0, 1),
        )
