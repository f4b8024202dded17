"""Plots: one tracked clip over time, curves of several trackers, states over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siam_tracker_ros.evaluation.track_log import TrackLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


@dataclass(frozen=True)
class CurveKind:
    """What a plot of curves over thresholds shows."""

    attribute: str
    title: str
    x: str
    y: str
    end: float


SUCCESS = CurveKind("success", "Success", "overlap threshold", "share of frames above it", 1.0)
PRECISION = CurveKind(
    "precision", "Precision", "centre error (px)", "share of frames within it", 50.0
)
NORMALISED = CurveKind(
    "normalised",
    "Normalised precision",
    "centre error over the true sides",
    "share of frames within it",
    0.5,
)


def curve_figure(
    curves: Mapping[str, np.ndarray],
    kind: CurveKind = SUCCESS,
    title: str = "",
    values: Mapping[str, float] | None = None,
) -> Figure:
    """Return a figure with one curve a tracker, the best first in its legend.

    Args:
        curves: tracker -> shares at evenly spaced thresholds from 0 to ``kind.end``.
        kind: what they are.
        title: above the plot; the kind's own without.
        values: tracker -> the number beside its name, which ranks it; the curve's mean without.

    Raises:
        ValueError: if there is no tracker.
    """
    if not curves:
        raise ValueError("no trackers to plot")
    figure, (axis,) = _figure(1, 4.8)
    numbers = values or {name: float(curve.mean()) for name, curve in curves.items()}
    ranked = sorted(curves.items(), key=lambda item: -numbers[item[0]])
    for index, (name, curve) in enumerate(ranked):
        style = "-" if index < len(LINES) else "--"
        axis.plot(
            np.linspace(0.0, kind.end, len(curve)),
            curve,
            style,
            color=LINES[index % len(LINES)],
            linewidth=1.6,
            label=f"{name} [{numbers[name]:.3f}]",
        )
    axis.set_xlabel(kind.x, fontsize=9)
    axis.set_ylabel(kind.y, fontsize=9)
    axis.set_xlim(0, kind.end)
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8, frameon=False)
    axis.set_title(title or kind.title, fontsize=11, color=INK)
    return figure


def plot_success(curves: Mapping[str, np.ndarray], file: Path, title: str = "") -> None:
    """Plot the mean success curves of several trackers into a PNG (see :func:`curve_figure`)."""
    figure = curve_figure(curves, SUCCESS, title)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


STATE_COLOURS = {
    "TRACKING": "#1a7f37",
    "UNCERTAIN": "#d4a72c",
    "LOST": "#cf222e",
    "SKIPPED": "#8c959f",
    "": "#eaeef2",
}
RIGHT, WRONG, ABSENT = "#0969da", "#ffffff", "#afb8c1"


def timeline_figure(rows: Sequence[tuple[str, Sequence[str], np.ndarray]]) -> Figure:
    """Return a figure with two bars a sequence: what the tracker said, and whether it was right.

    Args:
        rows: name, state of each of N frames, and overlap [N], NaN where the target is absent.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("no sequences to plot")
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    figure, (axis,) = _figure(1, 0.9 + 0.3 * len(rows))
    states = {name: to_rgb(colour) for name, colour in STATE_COLOURS.items()}
    for index, (_, said, overlap) in enumerate(rows):
        above = np.array([[states.get(state, states[""]) for state in said]])
        right = np.where(np.isnan(overlap), 2, np.where(overlap > 0.5, 0, 1))
        below = np.array([to_rgb(RIGHT), to_rgb(WRONG), to_rgb(ABSENT)])[right][None]
        for picture, top in ((above, index - 0.4), (below, index)):
            extent = (-0.5, len(said) - 0.5, top + 0.4, top)
            axis.imshow(picture, extent=extent, aspect="auto", interpolation="nearest")
    axis.set_xlim(-0.5, max(len(said) for _, said, _ in rows) - 0.5)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8)
    axis.set_xlabel("frame", fontsize=9)
    axis.grid(False)
    shown = {state for _, said, _ in rows for state in said}
    handles = [Patch(color=STATE_COLOURS[s], label=s) for s in STATE_COLOURS if s and s in shown]
    handles += [Patch(color=RIGHT, label="overlap above 0.5"), Patch(color=ABSENT, label="absent")]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    return figure
