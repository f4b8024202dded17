"""Losses of trackers that predict distances to the box's edges at every cell, FP32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from siam_tracker_ros.training.point_labels import BACKGROUND, POSITIVE


def iou_log(decoded: Tensor, boxes: Tensor, smooth: float = 0.0) -> Tensor:
    """``-ln IoU`` of every cell's box with the target's.

    Args:
        decoded: ``[B,4,R,R]`` (cx, cy, w, h), crop px.
        boxes: ``[B,4]``.
        smooth: px squared added to intersection and union (1: IMSiam's code).

    Returns:
        ``[B,R,R]``; 0 for the exact box.
    """
    decoded, target = decoded.float(), boxes.float()[:, :, None, None]
    low = torch.maximum(decoded[:, :2] - decoded[:, 2:] / 2, target[:, :2] - target[:, 2:] / 2)
    high = torch.minimum(decoded[:, :2] + decoded[:, 2:] / 2, target[:, :2] + target[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(1)
    union = decoded[:, 2:].prod(1) + target[:, 2:].prod(1) - shared
    overlap = (shared + smooth) / (union + smooth).clamp(min=1e-6)
    return -overlap.clamp(min=1e-6).log()


def weighted_mean(value: Tensor, weight: Tensor) -> Tensor:
    """``sum(value weight) / sum(weight)``; 0 where nothing has weight."""
    return (value * weight).sum() / weight.sum().clamp(min=1e-6)


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross entropy, half over positives and half over background (IMSiam, equation 11).

    Each half is the mean over its own cells, 0 if there are none; ignored cells count in neither.

    Args:
        logits: ``[B,2,R,R]``, channel 1 is the foreground.
        labels: ``[B,R,R]`` from :func:`point_labels`.
    """
    cost = F.cross_entropy(logits.float(), labels.clamp(min=0), reduction="none")
    positive, background = ((labels == kind).float() for kind in (POSITIVE, BACKGROUND))
    return 0.5 * weighted_mean(cost, positive) + 0.5 * weighted_mean(cost, background)


def quality_loss(logits: Tensor, target: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of a predicted quality, mean over positives (IMSiam, equations 13 and 14).

    Args:
        logits: ``[B,R,R]``.
        target: ``[B,R,R]`` in [0, 1].
        labels: ``[B,R,R]`` from :func:`point_labels`.
    """
    cost = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return weighted_mean(cost, (labels == POSITIVE).float())
