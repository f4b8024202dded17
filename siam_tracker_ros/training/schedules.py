"""Learning rates over a run: the light configurations' own, and the papers'."""

from __future__ import annotations

import math

from siam_tracker_ros.training.config import OptimiserConfig

# IMSiam, section 4: five epochs up, then x 0.8 an epoch from .005 on.
_IM_SIAM_WARM = (0.001, 0.002, 0.003, 0.004, 0.005)


def rate_factor(config: OptimiserConfig, step: int, total_steps: int, epochs: int) -> float:
    """Return the factor on ``config.rate`` at an optimiser step.

    Args:
        config: names the schedule.
        step: from 0.
        total_steps: of the whole run.
        epochs: of the whole run.
    """
    if config.schedule == "stable_decay":
        return stable_decay(step, total_steps, config)
    position = min(step / max(1, total_steps), 1.0) * epochs
    epoch = min(int(position), epochs - 1)
    paper = {
        "siam_stm": siam_stm_rate(epoch, epochs),
        "im_siam": im_siam_rate(epoch),
        "stm_track": stm_track_rate(position, epochs),
        "spm_tracker": spm_tracker_rate(epoch, epochs),
    }
    return paper[config.schedule] / config.rate


def stable_decay(step: int, total: int, config: OptimiserConfig) -> float:
    """Factor on the peak rate: warm-up, constant, a cosine to ``final`` over the last ``decay``."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    start = (1 - config.decay) * total
    if step <= start:
        return warm
    progress = min(1.0, (step - start) / max(1.0, total - start))
    return warm * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))


def siam_stm_rate(epoch: int, epochs: int = 20) -> float:
    """SiamSTM's rate per epoch: .001 to .005 linearly in 5 epochs, then exponentially to .0005."""
    warm = 5
    if epoch < warm:
        return 0.001 * (epoch + 1)
    return float(0.005 * (0.0005 / 0.005) ** ((epoch - warm) / max(1, epochs - warm - 1)))


def im_siam_rate(epoch: int) -> float:
    """IMSiam's rate per epoch: .001 to .005 in 5 epochs, then x 0.8 each (.004, .0032, ...)."""
    if epoch < len(_IM_SIAM_WARM):
        return _IM_SIAM_WARM[epoch]
    return float(_IM_SIAM_WARM[-1] * 0.8 ** (epoch - len(_IM_SIAM_WARM) + 1))


def stm_track_rate(position: float, epochs: int = 20) -> float:
    """STMTrack's rate at a position in epochs: .01 to .08 linearly in the first, then a cosine to 1e-6."""
    low, peak, end = 0.01, 0.08, 1e-6
    if position < 1:
        return low + (peak - low) * position
    progress = min(1.0, (position - 1) / max(1, epochs - 1))
    return peak + (end - peak) * (1 - math.cos(math.pi * progress)) / 2


def spm_tracker_rate(epoch: int, epochs: int = 50) -> float:
    """SPM-Tracker's rate per epoch: exponentially from .01 to .0001 (.01 * 10^(-2 e / 49))."""
    return float(0.01 * 10.0 ** (-2 * epoch / max(1, epochs - 1)))
