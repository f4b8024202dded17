"""IMSiam's objective: classification, distances, centre-ness and overlap on every level (equations 11 to 15)."""

from __future__ import annotations

import torch
from torch import Tensor

from siam_tracker_ros.networks.decode import decode_points
from siam_tracker_ros.networks.im_siam import IMSiam
from siam_tracker_ros.training.config import IMSiamLossConfig
from siam_tracker_ros.training.losses import generalised_iou
from siam_tracker_ros.training.objectives.base import Batch, Losses, pick, planes
from siam_tracker_ros.training.point_labels import (
    POSITIVE,
    centerness,
    point_distances,
    point_labels,
)
from siam_tracker_ros.training.point_losses import (
    balanced_cross_entropy,
    iou_log,
    quality_loss,
    weighted_mean,
)
from siam_tracker_ros.training.samples import SampleShape

SHRINK = 0.75
"""Positives lie in the box shrunk by this; what else is in the box is ignored."""


class IMSiamObjective:
    """Trains IMSiam on pairs that share a template."""

    samples = SampleShape(templates=1, searches=2)
    frames_first = False

    def __init__(self, config: IMSiamLossConfig) -> None:
        self.config = config

    def __call__(self, network: IMSiam, batch: Batch) -> Losses:
        """Each level's losses are means over the same cells: their mean over the levels is one mean over all."""
        weights, grid = self.config, network.grid
        searches, levels = batch["searches"].shape[1], len(network.head.scale)
        boxes = batch["boxes"].flatten(0, 1).float()
        state = network.template(
            planes(batch["template"]), batch["template_boxes"].flatten(0, 1).float()
        )
        state = {name: value.repeat_interleave(searches, 0) for name, value in state.items()}
        maps = network.search(state, planes(batch["searches"]))

        def everywhere(target: Tensor) -> Tensor:
            """Of every level the same: ``[B,...]`` -> ``[B*L,...]``."""
            return target.repeat_interleave(levels, 0)

        labels = everywhere(point_labels(boxes, batch["visible"].flatten(), grid, SHRINK))
        centre = everywhere(centerness(point_distances(boxes, grid)))
        decoded, target = decode_points(maps.distances.flatten(0, 1), grid), everywhere(boxes)
        if weights.box == "iou":
            cost = iou_log(decoded, target, weights.smooth)
        else:
            cost = 1 - generalised_iou(decoded, target[:, :, None, None].expand_as(decoded))
        overlap = torch.exp(-iou_log(decoded.detach(), target))
        positive = (labels == POSITIVE).float()
        parts = {
            "classification": balanced_cross_entropy(maps.foreground.flatten(0, 1), labels),
            "regression": weighted_mean(cost, positive * centre),
            "centre": quality_loss(maps.centre.flatten(0, 2), centre, labels),
            "iou": quality_loss(maps.iou.flatten(0, 2), overlap, labels),
        }
        total = (
            parts["classification"]
            + weights.regression * parts["regression"]
            + weights.centre * parts["centre"]
            + weights.iou * parts["iou"]
        )
        found, scores = pick(network.boxes(maps), network.score(maps))
        shape = (-1, searches)
        return Losses(total, parts, found.unflatten(0, shape), scores.unflatten(0, shape))
