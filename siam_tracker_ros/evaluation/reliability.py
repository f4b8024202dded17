"""How well a score tells right from wrong, and how far it can be taken for a probability."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINS = 15
"""Bins of a reliability diagram; each holds as many looks as the others."""


class Bin(NamedTuple):
    """One bin of a reliability diagram: mean score, share that was right, number of looks."""

    score: float
    right: float
    looks: int


def auroc(scores: Floats, right: Bools) -> float:
    """Return the chance that a right one scores above a wrong one (ties count half); NaN if one side is empty.

    Args:
        scores: float64 [N].
        right: bool [N].
    """
    good, bad = scores[right], np.sort(scores[~right])
    if not len(good) or not len(bad):
        return float("nan")
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.mean() / (2 * len(bad)))


def reliability(scores: Floats, right: Bools, bins: int = BINS) -> list[Bin]:
    """Return the bins of a reliability diagram: equally many looks in each, by rising score."""
    order = np.argsort(scores, kind="stable")
    return [
        Bin(float(scores[part].mean()), float(right[part].mean()), len(part))
        for part in np.array_split(order, max(min(bins, len(order)), 1))
        if len(part)
    ]


def calibration_error(scores: Floats, right: Bools, bins: int = BINS) -> float:
    """Return the expected calibration error: mean |score - share right| over :func:`reliability`'s bins.

    NaN where there are no looks.
    """
    found = reliability(scores, right, bins)
    total = sum(b.looks for b in found)
    if not total:
        return float("nan")
    return sum(b.looks * abs(b.score - b.right) for b in found) / total


def plot_reliability(curves: Mapping[str, list[Bin]], file: Path, title: str) -> None:
    """Draw reliability diagrams into a PNG: share right over mean score of each bin.

    Args:
        curves: bins by what the legend calls them.
        file: where to.
        title: above the diagram.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="#d0d7de", linestyle="--", linewidth=1)
    for name, bins in curves.items():
        axis.plot([b.score for b in bins], [b.right for b in bins], marker="o", ms=4, label=name)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean score of the bin", title=title)
    axis.set_ylabel("share visible and found (IoU > 0.5)")
    axis.legend(loc="upper left", fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
