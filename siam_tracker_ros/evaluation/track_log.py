"""What happened in every frame of a tracked clip: the source of plots, videos and figures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siam_tracker_ros.evaluation.metrics import Scores, overlaps, score

Xywh = tuple[float, float, float, float]

COLUMNS = ["frame", "x", "y", "w", "h", "score", "state", "latency_ms"]


@dataclass(frozen=True)
class FrameEntry:
    """One processed frame.

    Attributes:
        frame: index in the clip, from 0.
        box: x,y,w,h, 0-based pixels; None where the target is lost.
        score: what the tracker says about it, in [0, 1].
        state: name of the tracker's state.
        latency_ms: time from the image to the answer; NaN where it was not measured.
    """

    frame: int
    box: Xywh | None
    score: float
    state: str
    latency_ms: float = math.nan


@dataclass(frozen=True)
class TrackLog:
    """The processed frames of a clip in order, and the truth where there is one.

    Attributes:
        name: of the clip.
        entries: one for every frame that was processed; skipped frames have none.
        truth: float64 [N,4] x,y,w,h of the whole clip, or None.
        latency_label: what ``latency_ms`` measures.
    """

    name: str
    entries: tuple[FrameEntry, ...]
    truth: np.ndarray | None = None
    latency_label: str = "latency"

    def overlap(self) -> np.ndarray | None:
        """Return float64 [n], n processed frames: overlap with the truth, 0 where said to be LOST.

        NaN where the target is absent; None without truth.
        """
        if self.truth is None:
            return None
        boxes = np.array([e.box or (0.0, 0.0, 0.0, 0.0) for e in self.entries]).reshape(-1, 4)
        return overlaps(boxes, self.truth[[e.frame for e in self.entries]])

    def average_overlap(self) -> float | None:
        """Return the mean overlap after the first frame; None without truth or with one frame.

        Frames in which the target was said to be lost count as 0; the protocol's AO
        (:meth:`scores`) scores the last known box there.
        """
        values = self.overlap()
        if values is None or np.isfinite(values[1:]).sum() == 0:
            return None
        return float(np.nanmean(values[1:]))

    def scores(self) -> Scores | None:
        """Return the protocol's figures (lost: last known box is scored); None without truth."""
        if self.truth is None or len(self.entries) < 2:
            return None
        boxes: list[Xywh] = []
        for entry in self.entries:
            boxes.append(entry.box or (boxes[-1] if boxes else (0.0, 0.0, 0.0, 0.0)))
        return score(np.array(boxes), self.truth[[e.frame for e in self.entries]])

    def lost_share(self) -> float:
        """Return the share of processed frames that say LOST; NaN without frames."""
        if not self.entries:
            return math.nan
        return sum(e.state == "LOST" for e in self.entries) / len(self.entries)

    def latency(self) -> dict[str, float] | None:
        """Return p50, p95 and max of the latency in milliseconds; None where none was measured."""
        return percentiles([e.latency_ms for e in self.entries])

    def figures(self) -> dict[str, Any]:
        """Return the figures of the track, ready for JSON."""
        last = self.entries[-1] if self.entries else None
        scores = self.scores()
        return {
            "processed": len(self.entries),
            "average_overlap": self.average_overlap(),
            "ao": None if scores is None else scores.ao,
            "success_auc": None if scores is None else scores.auc,
            "mean_score": float(np.mean([e.score for e in self.entries])) if last else None,
            "lost_share": None if last is None else self.lost_share(),
            "final_state": None if last is None else last.state,
            "latency_ms": self.latency(),
            "latency_is": self.latency_label,
        }

    def write_csv(self, file: Path) -> None:
        """Write one line a processed frame; a lost target has empty boxes."""
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(COLUMNS)
            for e in self.entries:
                box = ["" for _ in range(4)] if e.box is None else [f"{v:.3f}" for v in e.box]
                latency = "" if math.isnan(e.latency_ms) else f"{e.latency_ms:.3f}"
                writer.writerow([e.frame, *box, f"{e.score:.4f}", e.state, latency])


def percentiles(values: Sequence[float] | Iterable[float]) -> dict[str, float] | None:
    """Return p50, p95, max and count of the finite values; None where there is none."""
    finite = np.array([v for v in values if math.isfinite(v)])
    if not finite.size:
        return None
    return {
        "p50": float(np.percentile(finite, 50)),
        "p95": float(np.percentile(finite, 95)),
        "max": float(finite.max()),
        "count": int(finite.size),
    }
