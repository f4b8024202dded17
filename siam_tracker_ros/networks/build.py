"""From a configuration to a network: the one place that knows all trackers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from torch import Tensor

from siam_tracker_ros.networks.config import NetworkConfig
from siam_tracker_ros.networks.tracker_network import TrackerNetwork

TRACKERS = {
    "siam_stm": "SiamSTM",
    "im_siam": "IMSiam",
    "stm_track": "STMTrack",
    "spm_tracker": "SPMTracker",
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
    module = importlib.import_module(f"siam_tracker_ros.networks.{config.tracker}")
    network: TrackerNetwork = getattr(module, TRACKERS[config.tracker])(config, weights)
    return network
