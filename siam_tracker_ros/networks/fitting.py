"""Do the parts of a configuration fit? Checks at construction that name both places and both numbers."""

from __future__ import annotations

from typing import Any

from siam_tracker_ros.networks.config import ConfigError, NetworkConfig
from siam_tracker_ros.networks.necks import AdjustNeck, PyramidNeck


def crop_cells(config: NetworkConfig, backbone: Any) -> tuple[int, int]:
    """Return the cells of the stride-8 maps of template and search crop.

    Raises:
        ConfigError: if the backbone has no feature on the middle of one of the crops.
    """
    crop = config.crop
    for name, n in (("template", crop.template), ("search", crop.search)):
        fitting = backbone.centred_crop(n)
        if fitting != n:
            raise ConfigError(
                f"crop.{name} = {n}: backbone.kind {config.backbone.kind} has no feature on the "
                f"centre of that crop; {fitting} fits"
            )
    return backbone.map_size(crop.template), backbone.map_size(crop.search)


def single_neck(config: NetworkConfig, backbone: Any) -> AdjustNeck | PyramidNeck:
    """Make the neck of a tracker that matches one map.

    Raises:
        ConfigError: if neck and backbone do not fit.
    """
    neck, strides = config.neck, backbone.strides
    if neck.kind == "pyramid":
        if strides != (8, 16):
            raise ConfigError(
                f"neck.kind pyramid needs maps at strides (8, 16), backbone.kind {config.backbone.kind} "
                f"has {strides}"
            )
        return PyramidNeck(backbone.channels, neck.channels)
    if neck.kind != "adjust":
        raise ConfigError(
            f"neck.kind {neck.kind} does not go with tracker {config.tracker}: adjust or pyramid"
        )
    if strides[-1] != 8:
        raise ConfigError(
            f"neck.kind adjust needs a last map of stride 8, backbone.kind {config.backbone.kind} "
            f"has {strides[-1]}"
        )
    return AdjustNeck(backbone.channels[-1], neck.channels)
