"""What a tracker answered on one sequence, and its text files.

For each sequence two files are written into the folder of the tracker:

* ``NAME.txt``: ``x,y,w,h`` a line, what every toolkit of the field reads;
* ``NAME.frames.csv``: the same with seconds, score and state; its first line says what was run on
  what, so that a result is used again only for the same tracker on the same sequence.
"""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siam_tracker_ros.evaluation.sequences import Boxes

HEADER = ["x", "y", "w", "h", "seconds", "score", "state"]


@dataclass(frozen=True)
class Run:
    """One pass of a tracker over one sequence of N frames.

    Attributes:
        boxes: float64 [N,4], x,y,w,h, 0-based, always finite.
        seconds: float64 [N], time the tracker took for each frame (decoding excluded); NaN for a
            frame that a real-time run skipped.
        scores: float64 [N], NaN where the tracker gives none.
        states: N names of states, empty where the tracker has none.
    """

    boxes: Boxes
    seconds: Boxes
    scores: Boxes
    states: tuple[str, ...]

    @property
    def fps(self) -> float:
        """Processed frames a second, selection included."""
        total = float(np.nansum(self.seconds))
        return (len(self.seconds) - self.skipped) / total if total > 0 else math.inf

    @property
    def skipped(self) -> int:
        """Number of frames that the tracker never saw."""
        return int(np.isnan(self.seconds).sum())


def write_run(folder: Path, name: str, key: str, run: Run) -> None:
    """Write both files of a sequence; a file is either complete or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = folder / f"{name}.frames.csv"
    plain = folder / f"{name}.txt"
    with _partial(plain).open("w", encoding="utf-8") as out:
        out.writelines(",".join(f"{v:.4f}" for v in box) + "\n" for box in run.boxes)
    os.replace(_partial(plain), plain)
    with _partial(frames).open("w", encoding="utf-8", newline="") as out:
        out.write(f"# {key}\n")
        writer = csv.writer(out)
        writer.writerow(HEADER)
        for box, seconds, score, state in zip(
            run.boxes, run.seconds, run.scores, run.states, strict=True
        ):
            writer.writerow(
                [*(repr(float(v)) for v in box), f"{seconds:.6f}", f"{score:.6f}", state]
            )
    os.replace(_partial(frames), frames)


def read_run(folder: Path, name: str, key: str, frames: int) -> Run | None:
    """Return the run written under the same ``key``; None if there is none, or it is damaged."""
    file = folder / f"{name}.frames.csv"
    if not file.is_file():
        return None
    with file.open(encoding="utf-8", newline="") as lines:
        if lines.readline().rstrip("\n") != f"# {key}":
            return None
        rows = list(csv.reader(lines))
    if len(rows) != frames + 1 or rows[0] != HEADER or any(len(r) != len(HEADER) for r in rows):
        return None
    try:
        numbers = np.array([[float(v) for v in r[:6]] for r in rows[1:]])
    except ValueError:
        return None
    return Run(numbers[:, :4], numbers[:, 4], numbers[:, 5], tuple(r[6] for r in rows[1:]))


def _partial(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.part")
