"""From a configuration to a network: the one place that knows all trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from siam_tracker_ros.networks.config import NetworkConfig
from siam_tracker_ros.networks.im_siam import IMSiam
from siam_tracker_ros.networks.siam_stm import SiamSTM
from siam_tracker_ros.networks.spm_tracker import SPMTracker
from siam_tracker_ros.networks.stm_track import STMTrack
from siam_tracker_ros.networks.tracker_network import TrackerNetwork

TRACKERS: dict[str, Callable[..., TrackerNetwork]] = {
    "siam_stm": SiamSTM,
    "im_siam": IMSiam,
    "stm_track": STMTrack,
    "spm_tracker": SPMTracker,
}


def make_network(
    config: NetworkConfig, weights: Mapping[str, Tensor] | None = None
) -> TrackerNetwork:
    """Build the network of a configuration.

    Args:
        config: which tracker and parts.
        weights: ImageNet state dict of the backbone, or None for random weights.

    Raises:
        ConfigError: if parts do not fit: the message names the two places and the two numbers.
    """
    return TRACKERS[config.tracker](config, weights)
