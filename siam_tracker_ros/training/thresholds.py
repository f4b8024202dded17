"""Where to draw the line between seen and not seen, from held-out samples.

These are plain thresholds on the network's score. A calibrated probability needs its own clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from siam_tracker_ros.networks.siam_stm import SiamSTM
from siam_tracker_ros.training.losses import iou
from siam_tracker_ros.training.triplets import Triplet

FloatArray = npt.NDArray[np.floating]

RIGHT_IOU = 0.5
LOST_QUANTILE = 0.02
FOUND_QUANTILE = 0.90


def score_samples(network: SiamSTM, samples: Iterable[Triplet]) -> tuple[FloatArray, FloatArray]:
    """Scores of search crops: where the target is visible and found, and where it is not there.

    A visible target that was missed (IoU at or below 0.5) counts for neither: which side it
    belongs on is what the score is asked.

    Args:
        network: in evaluation mode.
        samples: held-out triplets.

    Returns:
        Two arrays of scores in (0, 1).
    """
    right, absent = [], []
    with torch.inference_mode():
        for sample in samples:
            state = network.template(_planes(sample.template[None]))
            searches = _planes(sample.searches)
            maps = network.search({k: v.expand(2, -1, -1, -1) for k, v in state.items()}, searches)
            heat = torch.sigmoid(maps.heat.float()).flatten(1)
            score, cell = heat.max(1)
            boxes = network.boxes(maps).flatten(2)
            picked = boxes.gather(2, cell[:, None, None].expand(-1, 4, 1))[:, :, 0]
            overlap = iou(picked, torch.from_numpy(sample.boxes))
            for i in range(2):
                if not sample.visible[i]:
                    absent.append(float(score[i]))
                elif overlap[i] > RIGHT_IOU:
                    right.append(float(score[i]))
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


def _planes(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).float().permute(0, 3, 1, 2)
