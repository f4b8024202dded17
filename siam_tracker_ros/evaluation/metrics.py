"""Figures of one-pass evaluation from predicted and true boxes, by the rules of each benchmark.

Definitions (o = intersection over union, d = distance of centres in pixels):

* success AUC: mean over the 21 thresholds t = 0, 0.05 ... 1 of the share of frames with o > t;
* AO, SR.50, SR.75 (GOT-10k): mean o, share of o > 0.5 and of o > 0.75, without the first frame;
* precision: share of frames with d <= 20 px;
* normalised precision: d with each axis divided by the true box's side; mean over the 51 thresholds
  0, 0.01 ... 0.5 of the share of frames with d <= t.

That is OTB's way, and the default. How the others differ is in :data:`RULES`. Frames in which the
target is absent (NaN, no extent, or flagged as hidden) are left out, but in LaSOT, where they count
as failures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import iou_xywh

Floats = npt.NDArray[np.float64]

SUCCESS_THRESHOLDS: Floats = np.linspace(0.0, 1.0, 21)
PRECISION_THRESHOLDS: Floats = np.arange(51.0)
NORMALISED_THRESHOLDS: Floats = np.linspace(0.0, 0.5, 51)


@dataclass(frozen=True)
class Rules:
    """How a benchmark turns boxes into figures.

    Attributes:
        name: what ``--protocol`` calls it.
        title: what reports call it.
        headline: the figures that the benchmark publishes, the one that ranks first.
        absent: whether frames without a visible target are left out, or count as failures in
            success and precision.
        first: whether the first frame counts in success and precision.
        clip: whether boxes are clipped to the picture, as the got10k toolkit does it: the corner
            is moved inside, and the side is cut at the far edge only.
        whole_pixels: whether boxes are rounded before anything is measured.
        success_steps: thresholds of the success curve between 0 and 1.
        area: "mean" of a curve over its thresholds, or its integral by the "trapezoid" rule.
        precision: a centre error in pixels at which the share of frames is taken, or None for the
            area below the curve over 0 ... 50 px.
        normalised: the same in sides of the true box; None for the area over 0 ... 0.5.
        normalised_steps: thresholds of the normalised precision curve (and, for an area, of the
            precision curve).
        average: "sequences" count the same, or "frames" do.
        notes: what differs, in words.
    """

    name: str
    title: str
    headline: tuple[str, ...]
    absent: Literal["left out", "failure"] = "left out"
    first: bool = True
    clip: bool = False
    whole_pixels: bool = False
    success_steps: int = 21
    area: Literal["mean", "trapezoid"] = "mean"
    precision: float | None = 20.0
    normalised: float | None = None
    normalised_steps: int = 51
    average: Literal["sequences", "frames"] = "sequences"
    notes: str = ""


OTB = Rules("otb", "OTB", ("auc", "precision"))

RULES: dict[str, Rules] = {
    "otb": OTB,
    "uav123": Rules(
        "uav123", "UAV123", ("auc", "precision"), notes="frames with a NaN box are left out"
    ),
    "got10k": Rules(
        "got10k",
        "GOT-10k",
        ("ao", "sr50", "sr75"),
        first=False,
        clip=True,
        success_steps=101,
        average="frames",
        notes=(
            "boxes clipped to the picture; frames whose cover label is 0 left out; the first frame "
            "never counts; means over all frames, so that a long sequence weighs more"
        ),
    ),
    "lasot": Rules(
        "lasot",
        "LaSOT",
        ("auc", "precision", "normalised_precision"),
        absent="failure",
        normalised=0.2,
        notes=(
            "frames flagged full_occlusion or out_of_view count as failures in success and "
            "precision; normalised precision is the share of frames within 0.2"
        ),
    ),
    "trackingnet": Rules(
        "trackingnet",
        "TrackingNet",
        ("auc", "precision", "normalised_precision"),
        whole_pixels=True,
        area="trapezoid",
        precision=None,
        normalised_steps=21,
        notes=(
            "boxes rounded to whole pixels; precision and normalised precision are areas below "
            "their curves (21 thresholds to 50 px and to 0.5), by the trapezoid rule"
        ),
    ),
}
"""The rules by the name of ``--protocol``."""


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


_SHORT = {
    "auc": "AUC",
    "ao": "AO",
    "sr50": "SR.50",
    "sr75": "SR.75",
    "precision": "P",
    "normalised_precision": "P norm",
}


def figure_name(figure: str, rules: Rules = OTB) -> str:
    """Return what tables call a figure under these rules."""
    if figure == "precision" and rules.precision is not None:
        return f"P {rules.precision:g} px"
    return _SHORT[figure]


def overlaps(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Floats:
    """Return float64 [N]: intersection over union of boxes [N,4]; NaN where the target is absent.

    Raises:
        ValueError: if the shapes differ, or a predicted box is not finite.
    """
    p, t, present = _checked(predicted, truth)
    result = np.full(len(t), np.nan)
    result[present] = iou_xywh(p[present], t[present])
    return result


def success_curve(overlap: npt.ArrayLike, steps: int = 21) -> Floats:
    """Return float64 [steps]: the share of the N overlaps above each of ``steps`` thresholds."""
    o = np.asarray(overlap, dtype=np.float64)
    thresholds = SUCCESS_THRESHOLDS if steps == 21 else np.linspace(0.0, 1.0, steps)
    return np.asarray((o[:, None] > thresholds).mean(axis=0))


@dataclass(frozen=True)
class Curves:
    """Shares of one sequence's frames over evenly spaced thresholds, or their mean over several.

    Attributes:
        success: overlap above 0 ... 1.
        precision: centre error within 0, 1 ... 50 px.
        normalised: centre error over the true sides within 0 ... 0.5.
        weight: frames that count, for a mean over frames.
    """

    success: Floats
    precision: Floats
    normalised: Floats
    weight: int


@dataclass(frozen=True)
class _Measured:
    """Overlap [M], centre error [M] and centre error over the true sides [M] of visible frames."""

    overlap: Floats
    distance: Floats
    relative: Floats
    visible: int
    kept: float
    """What the shares are multiplied with: less than 1 where absent frames are failures."""


def _measure(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    rules: Rules,
    hidden: npt.NDArray[np.bool_] | None,
    size: tuple[int, int] | None,
) -> _Measured:
    p, t, present = _checked(predicted, truth)
    total = len(t)
    if hidden is not None:
        present = present & ~hidden
        present[0] = True  # the selection
    if rules.whole_pixels:
        p, t = np.round(p), np.round(t)
    p, t = p[present], t[present]
    if len(t) < 2:
        raise ValueError(f"at least two frames with a true box are needed, got {len(t)}")
    if rules.clip:
        if size is None:
            raise ValueError(f"{rules.title} clips boxes to the picture, whose size is not known")
        p, t = _clipped(p, size), _clipped(t, size)
    offset = (p[:, :2] + p[:, 2:] / 2) - (t[:, :2] + t[:, 2:] / 2)
    distance = np.hypot(offset[:, 0], offset[:, 1])
    # A true box that lies outside the picture altogether has no sides left once it is clipped.
    sides = np.maximum(t[:, 2:], 1e-12)
    relative = np.hypot(offset[:, 0] / sides[:, 0], offset[:, 1] / sides[:, 1])
    kept = len(t) / total if rules.absent == "failure" else 1.0
    overlap = np.asarray(iou_xywh(p, t), dtype=np.float64)
    return _Measured(overlap, distance, relative, len(t), kept)


def _clipped(boxes: Floats, size: tuple[int, int]) -> Floats:
    low = np.clip(boxes[:, :2], 0, size)
    return np.concatenate([low, np.clip(boxes[:, 2:], 0, np.asarray(size) - low)], axis=1)


def curves(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    rules: Rules = OTB,
    hidden: npt.NDArray[np.bool_] | None = None,
    size: tuple[int, int] | None = None,
) -> Curves:
    """Return the curves of one sequence; arguments and errors as for :func:`score`."""
    found = _measure(predicted, truth, rules, hidden, size)
    first = 0 if rules.first else 1
    return Curves(
        success_curve(found.overlap[first:], rules.success_steps) * found.kept,
        (found.distance[first:, None] <= PRECISION_THRESHOLDS).mean(axis=0) * found.kept,
        (found.relative[first:, None] <= NORMALISED_THRESHOLDS).mean(axis=0) * found.kept,
        found.visible - 1,
    )


def mean_curves(found: Sequence[Curves], rules: Rules = OTB) -> Curves:
    """Return the mean over sequences, or over their frames where the rules say so.

    Raises:
        ValueError: if there are none.
    """
    if not found:
        raise ValueError("no sequences to average over")
    weights = [float(c.weight) if rules.average == "frames" else 1.0 for c in found]

    def mean(name: str) -> Floats:
        return np.asarray(np.average([getattr(c, name) for c in found], axis=0, weights=weights))

    total = sum(c.weight for c in found)
    return Curves(mean("success"), mean("precision"), mean("normalised"), total)


def score(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    rules: Rules = OTB,
    hidden: npt.NDArray[np.bool_] | None = None,
    size: tuple[int, int] | None = None,
) -> Scores:
    """Return the figures of one sequence from predicted and true boxes [N,4], x,y,w,h.

    The first frame is the selection, so its predicted box is the true one.

    Args:
        predicted: the tracker's boxes.
        truth: the true boxes; NaN or without extent where the target is absent.
        rules: of the benchmark.
        hidden: bool [N], frames that are flagged as not showing the target; none without.
        size: width and height of the picture, for rules that clip.

    Raises:
        ValueError: if the shapes differ, a predicted box is not finite, fewer than two frames show
            the target, or the size that the rules need is missing.
    """
    found = _measure(predicted, truth, rules, hidden, size)
    first = 0 if rules.first else 1
    o, distance, relative = found.overlap, found.distance[first:], found.relative[first:]

    def area(shares: Floats) -> float:
        if rules.area == "trapezoid":
            return float(((shares[:-1] + shares[1:]) / 2).mean())
        return float(shares.mean())

    def share(errors: Floats, at: float | None, thresholds: Floats) -> float:
        if at is None:
            within = errors[:, None] <= thresholds
            whole = float(within.mean()) if rules.area == "mean" else area(within.mean(axis=0))
            return whole * found.kept
        return float((errors <= at).mean()) * found.kept

    steps = rules.normalised_steps
    return Scores(
        auc=area(success_curve(o[first:], rules.success_steps)) * found.kept,
        ao=float(o[1:].mean()),
        sr50=float((o[1:] > 0.5).mean()),
        sr75=float((o[1:] > 0.75).mean()),
        precision=share(distance, rules.precision, np.linspace(0.0, 50.0, steps)),
        normalised_precision=share(relative, rules.normalised, np.linspace(0.0, 0.5, steps)),
        frames=found.visible,
    )


def mean_scores(scores: Sequence[Scores], rules: Rules = OTB) -> Scores:
    """Return the mean over sequences, each counting the same, or by its frames where the rules
    say so; frames are summed.

    Raises:
        ValueError: if there are none.
    """
    if not scores:
        raise ValueError("no sequences to average over")
    if rules.average == "frames":
        weights = [s.frames - 1 for s in scores]
        means = {
            name: float(np.average([getattr(s, name) for s in scores], weights=weights))
            for name in FIGURES
        }
    else:
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
