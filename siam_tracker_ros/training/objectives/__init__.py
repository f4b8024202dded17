"""What each tracker is trained to do: one objective a tracker."""

from __future__ import annotations

import importlib

from siam_tracker_ros.training.config import LossConfig
from siam_tracker_ros.training.objectives.base import Batch, Losses, Objective

_OBJECTIVES = {
    "siam_stm": "SiamSTMObjective",
    "im_siam": "IMSiamObjective",
    "stm_track": "STMTrackObjective",
    "spm_tracker": "SPMTrackerObjective",
}


def make_objective(config: LossConfig) -> Objective:
    """Build the objective that a loss configuration names."""
    module = importlib.import_module(f"siam_tracker_ros.training.objectives.{config.kind}")
    objective: Objective = getattr(module, _OBJECTIVES[config.kind])(config)
    return objective


__all__ = ["Batch", "Losses", "Objective", "make_objective"]
