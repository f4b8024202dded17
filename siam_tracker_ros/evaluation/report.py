"""Plots (PNG): one tracked clip over time, and success plots of several trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siam_tracker_ros.evaluation.metrics import SUCCESS_THRESHOLDS, success_curve
from siam_tracker_ros.evaluation.track_log import TrackLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATES = ("LOST", "UNCERTAIN", "TRACKING")
INK, GRID = "#24292f", "#d0d7de"
LINES = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#6e7781", "#bc4c00")


def _figure(rows: int, height: float) -> tuple[Any, list[Axes]]:
    # Figure alone, without pyplot: no display, no global state, nothing to close
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.grid(color=GRID, linewidth=0.6)
        axis.tick_params(colors=INK, labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure, list(axes)


def _with_gaps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Insert a NaN where frames are missing, so that no line is drawn over them."""
    breaks = np.flatnonzero(np.diff(x) > 1) + 1
    return np.insert(x.astype(float), breaks, np.nan), np.insert(y.astype(float), breaks, np.nan)


def plot_track(log: TrackLog, file: Path, thresholds: tuple[float, float] | None = None) -> None:
    """Plot overlap (where there is truth), score, state and latency of each frame into a PNG.

    Args:
        log: what happened.
        file: where to.
        thresholds: (lost, found) of the score, drawn as lines.

    Raises:
        ValueError: if no frame was processed.
    """
    if not log.entries:
        raise ValueError(f"{log.name}: no frame was processed, there is nothing to plot")
    overlap = log.overlap()
    latency = np.array([e.latency_ms for e in log.entries])
    from matplotlib.ticker import MaxNLocator

    panels = ["overlap"] * (overlap is not None) + ["score", "state"]
    panels += ["latency"] * bool(np.isfinite(latency).any())
    figure, axes = _figure(len(panels), 1.2 + 1.5 * len(panels))
    x = np.array([e.frame for e in log.entries])
    for name, axis in zip(panels, axes, strict=True):
        if name == "overlap" and overlap is not None:
            axis.plot(*_with_gaps(x, overlap), color=LINES[0], linewidth=1.2)
            mean = log.average_overlap()
            axis.set_ylabel("overlap" if mean is None else f"overlap\nmean {mean:.3f}", fontsize=9)
            axis.set_ylim(0, 1)
        elif name == "score":
            axis.plot(
                *_with_gaps(x, np.array([e.score for e in log.entries])), color=LINES[2], lw=1.2
            )
            for value, label in zip(thresholds or (), ("lost", "found"), strict=False):
                axis.axhline(value, color=GRID, linewidth=1, linestyle="--")
                axis.annotate(label, (x[0], value), fontsize=7, color=INK, va="bottom")
            axis.set_ylabel("score", fontsize=9)
            axis.set_ylim(0, 1)
        elif name == "state":
            levels = [STATES.index(e.state) if e.state in STATES else -1 for e in log.entries]
            axis.step(x, levels, where="mid", color=LINES[3], linewidth=1.2)
            axis.set_yticks(range(len(STATES)), STATES, fontsize=8)
            axis.set_ylim(-0.5, len(STATES) - 0.5)
        else:
            axis.plot(*_with_gaps(x, latency), color=LINES[1], linewidth=1.0)
            axis.set_ylabel(f"{log.latency_label}\n(ms)", fontsize=9)
            axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("frame", fontsize=9)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(log.name, fontsize=11, color=INK)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def plot_success(curves: Mapping[str, Sequence[np.ndarray]], file: Path, title: str = "") -> None:
    """Plot the success curves of several trackers into a PNG.

    Args:
        curves: tracker -> the overlaps of each of its sequences (each sequence counts the same).
        file: where to.
        title: above the plot.

    Raises:
        ValueError: if there is no tracker.
    """
    if not curves:
        raise ValueError("no trackers to plot")
    figure, (axis,) = _figure(1, 4.8)
    means = {n: np.mean([success_curve(o) for o in os], axis=0) for n, os in curves.items()}
    ranked = sorted(means.items(), key=lambda item: -float(item[1].mean()))
    for index, (name, curve) in enumerate(ranked):
        style = "-" if index < len(LINES) else "--"
        axis.plot(
            SUCCESS_THRESHOLDS,
            curve,
            style,
            color=LINES[index % len(LINES)],
            linewidth=1.6,
            label=f"{name} [{curve.mean():.3f}]",
        )
    axis.set_xlabel("overlap threshold", fontsize=9)
    axis.set_ylabel("share of frames above it", fontsize=9)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8, frameon=False)
    axis.set_title(title, fontsize=11, color=INK)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
