"""Feature extractors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from siam_tracker_ros.networks.backbones.alexnet import AlexNetS8
from siam_tracker_ros.networks.backbones.atrous_resnet import AtrousResNet50
from siam_tracker_ros.networks.backbones.inception import InceptionV3S8
from siam_tracker_ros.networks.backbones.mobile import MobileBackbone
from siam_tracker_ros.networks.config import BackboneConfig, ConfigError

Backbone = AlexNetS8 | AtrousResNet50 | InceptionV3S8 | MobileBackbone


def make_backbone(config: BackboneConfig, weights: Mapping[str, Tensor] | None = None) -> Backbone:
    """Build the backbone that ``config`` names, with ImageNet ``weights`` where given.

    Raises:
        ConfigError: if it has no such levels.
    """
    levels: dict[str, Any] = {"levels": config.levels} if config.levels else {}
    if config.kind == "atrous_resnet50":
        return AtrousResNet50(config.shortcut, weights, **levels)
    if config.kind in ("inception_v3", "alexnet"):
        if levels:
            raise ConfigError(
                f"backbone.levels {', '.join(config.levels)}: backbone.kind {config.kind} leaves no choice"
            )
        return (
            InceptionV3S8(weights)
            if config.kind == "inception_v3"
            else AlexNetS8(config.layout, weights)
        )
    return MobileBackbone(config.kind, weights, **levels)


__all__ = [
    "AlexNetS8",
    "AtrousResNet50",
    "Backbone",
    "InceptionV3S8",
    "MobileBackbone",
    "make_backbone",
]
