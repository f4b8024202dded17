"""Feature extractors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from siam_tracker_ros.networks.backbones.atrous_resnet import AtrousResNet50
from siam_tracker_ros.networks.backbones.mobile import MobileBackbone
from siam_tracker_ros.networks.config import BackboneConfig

Backbone = AtrousResNet50 | MobileBackbone


def make_backbone(config: BackboneConfig, weights: Mapping[str, Tensor] | None = None) -> Backbone:
    """Build the backbone that ``config`` names, with ImageNet ``weights`` where given."""
    levels = {"levels": config.levels} if config.levels else {}
    if config.kind == "atrous_resnet50":
        return AtrousResNet50(config.shortcut, weights, **levels)
    return MobileBackbone(config.kind, weights, **levels)


__all__ = ["AtrousResNet50", "Backbone", "MobileBackbone", "make_backbone"]
