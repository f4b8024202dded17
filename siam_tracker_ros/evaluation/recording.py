"""What ``recorder_node`` wrote of a run over a ROS graph, as a track log and counts.

The folder's format is described in ``nodes/recorder_node.py``. Nothing of ROS is needed to read it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siam_tracker_ros.evaluation.track_log import FrameEntry, TrackLog, Xywh

LATENCY = "image stamp to detection"


class RecordingError(ValueError):
    """A recording is missing or damaged; the message names the file."""


@dataclass(frozen=True)
class Counts:
    """What became of the images; None where nobody said.

    Attributes:
        published: pictures that the publisher sent, repeats of the first one not counted.
        received: images that reached the tracker's callback, repeats included.
        processed: pictures for which a detection came back.
        lost_in_transport: never arrived, as the middleware or the publisher's numbers say.
        skipped_busy: arrived, but a newer one replaced them while the tracker was busy.
        refused: arrived, but could not be read.
    """

    published: int | None
    received: int | None
    processed: int
    lost_in_transport: int | None
    skipped_busy: int | None
    refused: int | None

    def not_received(self, repeats: int = 0) -> int | None:
        """Return how many pictures never reached the tracker's callback, whatever the reason.

        Lost in transport, or overwritten in the tracker's queue (keep last 1) while it was busy;
        not every middleware tells which.
        """
        if self.published is None or self.received is None:
            return None
        return max(0, self.published + repeats - self.received)

    def to_json(self, repeats: int = 0) -> dict[str, int | None]:
        """Return the counts, ready for JSON."""
        return {**self.__dict__, "not_received": self.not_received(repeats)}


@dataclass(frozen=True)
class Recording:
    """A recorded run.

    Attributes:
        log: the processed pictures, by their number in the clip.
        counts: what became of the images.
        announced: pictures whose announcement (``ground_truth``) the recorder heard.
        finished: whether the publisher said that all was sent.
        reason: why the recorder ended.
        seconds: from the first to the last picture, by their stamps.
        node: last values of the tracker's entry in ``/diagnostics`` (texts).
        memory_mb: the tracker's resident memory in each of these entries, in order.
        verdict: what the tracker said about the last selection.
        problem: the last line of status that was not the name of a state.
    """

    log: TrackLog
    counts: Counts
    announced: int
    finished: bool
    reason: str
    seconds: float
    node: dict[str, str]
    memory_mb: tuple[float, ...]
    verdict: str
    problem: str

    @property
    def from_the_start(self) -> bool:
        """Whether the recorder was there from the first frame on.

        The publisher goes on after the first frame's detection, so there is always one.
        """
        published = self.counts.published
        return (
            any(entry.frame == 0 for entry in self.log.entries)
            and published is not None
            and self.announced >= published
        )

    @property
    def why_nothing(self) -> str:
        """The best explanation there is for a run in which nothing was processed."""
        if self.problem:
            return self.problem
        if self.verdict.startswith("refused"):
            return f"the selection was {self.verdict}"
        return self.reason or "nobody says why"

    def memory_growth(self) -> dict[str, float] | None:
        """Return the tracker's memory (MB): medians of the run's second and last tenth, the most.

        The first tenth is left out: buffers and the history of images fill. None for a run of less
        than ten entries.
        """
        tenth = len(self.memory_mb) // 10
        if not tenth:
            return None
        early, late = self.memory_mb[tenth : 2 * tenth], self.memory_mb[-tenth:]
        return {
            "early": float(np.median(early)),
            "late": float(np.median(late)),
            "most": max(self.memory_mb),
        }

    def node_number(self, key: str) -> float | None:
        """Return a value of the tracker's diagnostics as a number; None where it is not told."""
        try:
            return float(self.node[key])
        except (KeyError, ValueError):
            return None


def read_recording(folder: Path, name: str) -> Recording:
    """Read a recorder's folder.

    Raises:
        RecordingError: if a file is missing or not as it should be.
    """
    summary = _json(folder / "summary.json")
    truths = _lines(folder / "truth.jsonl")
    detections = _lines(folder / "detections.jsonl")
    statuses = _lines(folder / "status.jsonl")
    diagnostics = _lines(folder / "diagnostics.jsonl")
    try:
        index_of = {int(t["stamp"]): int(t["index"]) for t in truths}
        changes = _state_changes(statuses)
        entries: dict[int, FrameEntry] = {}
        for detection in detections:
            stamp = int(detection["stamp"])
            index = index_of.get(stamp)
            if index is None or index in entries:
                continue  # a repeat of the first picture
            box = detection["box"]
            visible = bool(detection["visible"])
            entries[index] = FrameEntry(
                index,
                _xywh(box) if visible else None,
                float(detection["score"]) if visible else 0.0,
                _state(changes, stamp) if visible else "LOST",
                (int(detection["received"]) - stamp) / 1e6,
            )
        node = dict(diagnostics[-1]["values"]) if diagnostics else {}
        counts = Counts(
            published=summary["published"],
            received=_whole(node.get("images_received")),
            processed=len(entries),
            lost_in_transport=_whole(node.get("dropped_transport")),
            skipped_busy=_whole(node.get("dropped_busy")),
            refused=_whole(node.get("images_refused")),
        )
        verdicts = [s["values"].get("selection_verdict", "") for s in statuses]
        problems = [
            s["message"]
            for s in statuses
            if s["level"] > 0 and s["message"] != s["values"].get("state")
        ]
        stamps = sorted(index_of)
        return Recording(
            log=TrackLog(name, tuple(entries[i] for i in sorted(entries)), _truth(truths), LATENCY),
            counts=counts,
            announced=len(index_of),
            finished=bool(summary["finished"]),
            reason=str(summary["reason"]),
            seconds=(stamps[-1] - stamps[0]) / 1e9 if stamps else 0.0,
            node=node,
            memory_mb=tuple(
                float(d["values"]["memory_mb"]) for d in diagnostics if d["values"].get("memory_mb")
            ),
            verdict=next((v for v in reversed(verdicts) if v), ""),
            problem=problems[-1] if problems else "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"{folder}: not as recorder_node writes it ({error!r})") from error


def _truth(truths: list[dict[str, Any]]) -> np.ndarray | None:
    """Return float64 [N,4] by the pictures' numbers; None if less than two places are known.

    The selection's box alone is not a ground truth.
    """
    if sum(bool(t["known"]) for t in truths) < 2:
        return None
    boxes = np.full((max(int(t["index"]) for t in truths) + 1, 4), math.nan)
    for truth in truths:
        if truth["known"] and truth["box"] is not None:
            boxes[int(truth["index"])] = _xywh(truth["box"])
    return boxes


def _state_changes(statuses: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Return (stamp of the image, state) of every status that tells both, by stamp."""
    found = []
    for status in statuses:
        stamp, state = status["values"].get("stamp", ""), status["values"].get("state", "")
        if stamp and state:
            seconds, _, fraction = stamp.partition(".")
            found.append((int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9]), state))
    return sorted(found)


def _state(changes: list[tuple[int, str]], stamp: int) -> str:
    """Return the state of a visible target: it is published with each change, and in between."""
    now = "tracking"
    for since, state in changes:
        if since > stamp:
            break
        now = state
    return "UNCERTAIN" if now == "uncertain" else "TRACKING"


def _whole(text: str | None) -> int | None:
    return int(text) if text else None


def _xywh(values: Any) -> Xywh:
    x, y, w, h = (float(v) for v in values)
    return x, y, w, h


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordingError(f"{file} is missing: the recorder did not come to its end") from None
    except ValueError as error:
        raise RecordingError(f"{file}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise RecordingError(f"{file}: a JSON object is wanted")
    return content


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise RecordingError(f"{file} is missing")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise RecordingError(f"{file}:{number}: not a JSON object") from None
    return found
