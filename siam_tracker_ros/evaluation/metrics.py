"""Figures of one-pass evaluation from predicted and true boxes.

Definitions (o = intersection over union, d = distance of centres in pixels):

* success AUC (OTB): mean over the 21 thresholds t = 0, 0.05 ... 1 of the share of frames with
  o > t;
* AO, SR.50, SR.75 (GOT-10k): mean o, share of o > 0.5 and of o > 0.75, without the first frame;
* precision (OTB): share of frames with d <= 20 px;
* normalised precision (TrackingNet, LaSOT): d with each axis divided by the true box's side; mean
  over the 51 thresholds 0, 0.01 ... 0.5 of the share of frames with d <= t.

Frames in which the target is absent (NaN, or no extent) are left out. The got10k toolkit differs in
that it clips boxes to the picture before measuring o, and takes 101 thresholds for its AUC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import iou_xywh

Floats = npt.NDArray[np.float64]

SUCCESS_THRESHOLDS: Floats = np.linspace(0.0, 1.0, 21)
NORMALISED_THRESHOLDS: Floats = np.linspace(0.0, 0.5, 51)
PRECISION_PX = 20.0


@dataclass(frozen=True)
class Scores:
    """The figures of one sequence, or their mean over several; all in [0, 1] but ``frames``."""

    auc: float
    ao: float
    sr50: float
    sr75: float
    precision: float
    normalised_precision: float
    frames: int


FIGURES = tuple(f.name for f in fields(Scores) if f.name != "frames")


def overlaps(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Floats:
    """Return float64 [N]: intersection over union of boxes [N,4]; NaN where the target is absent.

    Raises:
        ValueError: if the shapes differ, or a predicted box is not finite.
    """
    p, t, present = _checked(predicted, truth)
    result = np.full(len(t), np.nan)
    result[present] = iou_xywh(p[present], t[present])
    return result


def success_curve(overlap: npt.ArrayLike) -> Floats:
    """Return float64 [21]: the share of the N overlaps above each of ``SUCCESS_THRESHOLDS``."""
    o = np.asarray(overlap, dtype=np.float64)
    return np.asarray((o[:, None] > SUCCESS_THRESHOLDS).mean(axis=0))


def score(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Scores:
    """Return the figures of one sequence from predicted and true boxes [N,4], x,y,w,h.

    The first frame is the selection, so its predicted box is the true one.

    Raises:
        ValueError: if the shapes differ, a predicted box is not finite, or fewer than two frames
            show the target.
    """
    p, t, present = _checked(predicted, truth)
    p, t = p[present], t[present]
    if len(t) < 2:
        raise ValueError(f"at least two frames with a true box are needed, got {len(t)}")
    o = iou_xywh(p, t)
    offset = (p[:, :2] + p[:, 2:] / 2) - (t[:, :2] + t[:, 2:] / 2)
    distance = np.hypot(offset[:, 0], offset[:, 1])
    relative = np.hypot(offset[:, 0] / t[:, 2], offset[:, 1] / t[:, 3])
    return Scores(
        auc=float(success_curve(o).mean()),
        ao=float(o[1:].mean()),
        sr50=float((o[1:] > 0.5).mean()),
        sr75=float((o[1:] > 0.75).mean()),
        precision=float((distance <= PRECISION_PX).mean()),
        normalised_precision=float((relative[:, None] <= NORMALISED_THRESHOLDS).mean()),
        frames=len(t),
    )


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the unweighted mean over sequences (each counts the same); frames are summed.

    Raises:
        ValueError: if there are none.
    """
    if not scores:
        raise ValueError("no sequences to average over")
    means = {name: float(np.mean([getattr(s, name) for s in scores])) for name in FIGURES}
    return Scores(**means, frames=sum(s.frames for s in scores))


def _checked(
    predicted: npt.ArrayLike, truth: npt.ArrayLike
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    p = np.asarray(predicted, dtype=np.float64)
    t = np.asarray(truth, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != 4 or p.shape != t.shape:
        raise ValueError(
            f"boxes [N,4] of one length are wanted, got {list(p.shape)}, {list(t.shape)}"
        )
    present = np.isfinite(t).all(axis=1) & (t[:, 2:] > 0).all(axis=1)
    wrong = np.flatnonzero(~np.isfinite(p).all(axis=1) & present)
    if wrong.size:
        raise ValueError(
            f"the predicted box of frame {wrong[0]} is not finite: {p[wrong[0]].tolist()}"
        )
    return p, t, present
