"""Is the target there? A bundle's presence model on features that every tracker gives.

Training fits the model and the robot applies it with these same functions.
"""

from __future__ import annotations

import math

from siam_tracker_ros.bundle import PresenceSpec, StepResult
from siam_tracker_ros.tracking.size_rule import Size, size_change

_MAX_RATIO = 2.0  # the runner-up can pass the winner, which a window or history may have favoured


def presence_features(result: StepResult, previous_size: Size) -> dict[str, float]:
    """Return the presence features of one search result.

    * ``score``: the graph's score, in [0, 1];
    * ``runner_up_ratio``: runner-up / score, in [0, 2]; 2 where the score is 0;
    * ``size_change``: ln of the change of size and shape, >= 0; 0 for the same box.

    Args:
        result: decoded outputs for one crop.
        previous_size: (w, h) of the last box in pixels of that crop.
    """
    ratio = result.runner_up / result.score if result.score > 1e-6 else _MAX_RATIO
    return {
        "score": result.score,
        "runner_up_ratio": min(max(ratio, 0.0), _MAX_RATIO),
        "size_change": math.log(size_change((result.box.w, result.box.h), previous_size)),
    }


def presence(spec: PresenceSpec, result: StepResult, previous_size: Size) -> float:
    """Return the probability, in [0, 1], that the target is visible and the box right.

    ``logistic``: sigmoid(bias + sum_i weights_i features_i). ``uncalibrated``: the score itself.
    """
    if not spec.calibrated:
        return min(max(result.score, 0.0), 1.0)
    features = presence_features(result, previous_size)
    logit = spec.bias + sum(
        weight * features[name] for name, weight in zip(spec.features, spec.weights, strict=True)
    )
    return 1.0 / (1.0 + math.exp(-min(max(logit, -60.0), 60.0)))
