"""STMTrack's objective: class, centre-ness and distances in every cell of the query (SiamFC++'s labels)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from siam_tracker_ros.networks.stm_track import STMTrack
from siam_tracker_ros.training.config import STMTrackLossConfig
from siam_tracker_ros.training.losses import generalised_iou
from siam_tracker_ros.training.objectives.base import Batch, Losses, pick, planes
from siam_tracker_ros.training.point_labels import (
    BACKGROUND,
    IGNORED,
    POSITIVE,
    centerness,
    point_distances,
    point_labels,
)
from siam_tracker_ros.training.point_losses import iou_log, weighted_mean
from siam_tracker_ros.training.samples import SampleShape

FOCAL_ALPHA = 0.75
"""Weight of positives; background has the rest."""


class STMTrackObjective:
    """Trains STMTrack on three memory frames and a query.

    ``L = L_cls + centre L_ctr + regression L_reg``. In a pair without the target only the cells
    in the foreign object's box are background; the others are ignored, as the paper's code does:
    one of them might show what the memory shows.
    """

    samples = SampleShape(templates=3, searches=1)
    frames_first = False

    def __init__(self, config: STMTrackLossConfig) -> None:
        self.config = config

    def __call__(self, network: STMTrack, batch: Batch) -> Losses:
        """Encode memory and query, read, and compare with the query's box."""
        count, frames = batch["template"].shape[:2]
        memory = network.encode_memory(
            planes(batch["template"]), batch["template_boxes"].flatten(0, 1).float()
        )
        query = network.encode(planes(batch["searches"]))
        maps = network.search(memory.unflatten(0, (count, frames)), query)
        boxes, visible = batch["boxes"].flatten(0, 1).float(), batch["visible"].flatten()
        labels = query_labels(boxes, visible, network)
        positive = (labels == POSITIVE).float()
        quality = centerness(point_distances(boxes, network.grid))
        decoded = network.boxes(maps)
        weights = self.config
        parts = {
            "foreground": focal(maps["foreground"][:, 0], labels),
            "centre": weighted_mean(centre_cost(maps["centre"][:, 0], quality), positive),
            "box": weighted_mean(box_cost(decoded, boxes, weights), positive),
        }
        total = parts["foreground"] + weights.centre * parts["centre"]
        total = total + weights.regression * parts["box"]
        picked, scores = pick(decoded, network.score(maps))
        return Losses(total, parts, picked[:, None], scores[:, None])


def query_labels(boxes: Tensor, visible: Tensor, network: STMTrack) -> Tensor:
    """Label the cells ``[B,R,R]``: 1 strictly in the box, 0 elsewhere; without the target 0 in the box, else -1.

    Args:
        boxes: ``[B,4]`` (cx, cy, w, h), crop px.
        visible: ``[B]`` 1 or 0.
        network: whose grid.
    """
    inside = point_labels(boxes, torch.ones_like(visible), network.grid, shrink=1.0)
    foreign = torch.where(inside == POSITIVE, BACKGROUND, IGNORED)
    return torch.where(visible.view(-1, 1, 1) > 0, inside, foreign)


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of ``-a (1-p)^2 ln p`` over cells that are not ignored, p the probability of the label, by positives.

    Args:
        logits: ``[B,R,R]``.
        labels: ``[B,R,R]``: 1 positive (a = 3/4), 0 background (a = 1/4), -1 ignored.
    """
    logits = logits.float()
    positive = labels == POSITIVE
    log_p = F.logsigmoid(torch.where(positive, logits, -logits))
    alpha = torch.where(positive, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    cost = -alpha * (1 - log_p.exp()) ** 2 * log_p * (labels != IGNORED)
    return cost.sum() / positive.sum().clamp(min=1)


def centre_cost(logits: Tensor, quality: Tensor) -> Tensor:
    """Cross entropy with the centre-ness less its entropy, ``[B,R,R]``: 0 where both agree."""
    cost = F.binary_cross_entropy_with_logits(logits.float(), quality, reduction="none")
    entropy = F.binary_cross_entropy(quality, quality, reduction="none")
    return cost - entropy


def box_cost(decoded: Tensor, boxes: Tensor, config: STMTrackLossConfig) -> Tensor:
    """-ln IoU or 1 - GIoU of every cell's box ``[B,4,R,R]`` with the target's ``[B,4]``: ``[B,R,R]``."""
    if config.box == "giou":
        return 1 - generalised_iou(decoded.float(), boxes[:, :, None, None].expand_as(decoded))
    return iou_log(decoded, boxes, config.smooth)
