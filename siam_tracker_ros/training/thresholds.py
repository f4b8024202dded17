"""Where to draw the line between seen and not seen, from held-out samples.

These are plain thresholds on the network's score. A calibrated probability needs its own clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from siam_tracker_ros.networks.tracker_network import TrackerNetwork
from siam_tracker_ros.training.losses import iou
from siam_tracker_ros.training.objectives import Batch, Objective

FloatArray = npt.NDArray[np.floating]

RIGHT_IOU = 0.5
LOST_QUANTILE = 0.02
FOUND_QUANTILE = 0.90


def score_samples(
    network: TrackerNetwork, objective: Objective, batches: Iterable[Batch]
) -> tuple[FloatArray, FloatArray]:
    """Scores of search crops: where the target is visible and found, and where it is not there.

    A visible target that was missed (IoU at or below 0.5) counts for neither: which side it
    belongs on is what the score is asked.

    Args:
        network: in evaluation mode.
        objective: the tracker's.
        batches: held-out samples.

    Returns:
        Two arrays of scores in (0, 1).
    """
    right: list[float] = []
    absent: list[float] = []
    with torch.inference_mode():
        for batch in batches:
            result = objective(network, batch)
            visible = batch["visible"].flatten() > 0
            overlap = iou(result.boxes.flatten(0, 1), batch["boxes"].flatten(0, 1).float())
            scores = result.scores.flatten().float()
            absent += scores[~visible].tolist()
            right += scores[visible & (overlap > RIGHT_IOU)].tolist()
    return np.array(right), np.array(absent)


def choose_thresholds(right: FloatArray, absent: FloatArray) -> dict[str, Any]:
    """Thresholds ``found`` and ``lost`` of the tracker's states, and what they rest on.

    ``lost`` lets 2 % of the right boxes fall below it; ``found`` keeps 90 % of the empty crops below
    it: a lost target is believed only when two looks agree. ``lost`` is never above ``found``.

    Args:
        right: scores of right boxes; of real video, where scores are lower than on stills.
        absent: scores of crops without the target.

    Raises:
        ValueError: if either side has fewer than 20 scores.
    """
    if min(len(right), len(absent)) < 20:
        raise ValueError(
            f"too few scores: {len(right)} right, {len(absent)} absent, at least 20 wanted"
        )
    found = float(np.quantile(absent, FOUND_QUANTILE))
    lost = min(float(np.quantile(right, LOST_QUANTILE)), found)
    order = np.sort(absent)
    auroc = float(np.mean(np.searchsorted(order, right, side="left") / len(order)))
    return {
        "found": round(found, 3),
        "lost": round(lost, 3),
        "auroc": round(auroc, 4),
        "right": len(right),
        "absent": len(absent),
        "right_below_found": round(float(np.mean(right < found)), 4),
        "absent_above_lost": round(float(np.mean(absent >= lost)), 4),
    }
