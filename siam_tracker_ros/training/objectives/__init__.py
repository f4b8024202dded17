"""What each tracker is trained to do: one objective a tracker."""

from __future__ import annotations

from collections.abc import Callable

from siam_tracker_ros.training.config import LossConfig
from siam_tracker_ros.training.objectives.base import Batch, Losses, Objective
from siam_tracker_ros.training.objectives.im_siam import IMSiamObjective
from siam_tracker_ros.training.objectives.siam_stm import SiamSTMObjective
from siam_tracker_ros.training.objectives.spm_tracker import SPMTrackerObjective
from siam_tracker_ros.training.objectives.stm_track import STMTrackObjective

_OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "siam_stm": SiamSTMObjective,
    "im_siam": IMSiamObjective,
    "stm_track": STMTrackObjective,
    "spm_tracker": SPMTrackerObjective,
}


def make_objective(config: LossConfig) -> Objective:
    """Build the objective that a loss configuration names."""
    return _OBJECTIVES[config.kind](config)


__all__ = ["Batch", "Losses", "Objective", "make_objective"]
