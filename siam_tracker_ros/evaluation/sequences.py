"""Annotated clips: the folder ``NAME.mp4`` + ``NAME.txt``, and the plain OTB layout.

Boxes are ``x,y,w,h`` in pixels, 0-based (the first covered pixel), whatever the files use. A line
of NaN or a box without extent says that the target cannot be seen in that frame; it is not scored.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.evaluation.frames import Frame, FrameSource, PictureFrames, VideoFrames

Boxes = npt.NDArray[np.float64]

OTB_TRUTH = "groundtruth_rect.txt"


class SequenceError(ValueError):
    """A sequence cannot be read; the message names the file, and the line where there is one."""


@dataclass(frozen=True)
class Sequence:
    """A clip with the target's box in every frame.

    Attributes:
        name: what tables call it.
        frames: the clip, decoded anew at each iteration.
        boxes: float64 [N,4], x,y,w,h, 0-based; NaN or without extent where the target is absent.
        source: the annotation file (for messages).
    """

    name: str
    frames: FrameSource
    boxes: Boxes
    source: Path

    def __len__(self) -> int:
        """Return the number of annotated frames."""
        return len(self.boxes)

    @property
    def first_box(self) -> tuple[float, float, float, float]:
        """The selection that a one-pass evaluation starts from, x,y,w,h."""
        x, y, w, h = (float(v) for v in self.boxes[0])
        return x, y, w, h

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Say for each of N frames (bool [N]) whether the target can be seen."""
        return np.asarray(np.isfinite(self.boxes).all(axis=1) & (self.boxes[:, 2:] > 0).all(axis=1))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the N frames, BGR.

        Raises:
            SequenceError: if the clip has fewer or more frames than the annotation has boxes.
        """
        count = 0
        for frame in self.frames:
            if count == len(self):
                raise SequenceError(
                    f"{self.source}: {len(self)} boxes, but {self.frames.path} has more frames"
                )
            count += 1
            yield frame
        if count < len(self):
            raise SequenceError(
                f"{self.source}: {len(self)} boxes, but {self.frames.path} has {count} frames"
            )

    def fingerprint(self) -> str:
        """Return a short hash over the boxes and the clip's files (names and sizes)."""
        digest = hashlib.sha256(np.ascontiguousarray(self.boxes).tobytes())
        files = getattr(self.frames, "files", [self.frames.path])
        for file in files:
            digest.update(f"{file.name} {file.stat().st_size if file.exists() else 0};".encode())
        return digest.hexdigest()[:16]


def read_boxes(file: Path, origin: int = 0) -> Boxes:
    """Read ``x,y,w,h`` a line, separated by commas, tabs or blanks; returns float64 [N,4], 0-based.

    Args:
        file: the annotation.
        origin: the index that the file gives to the first pixel (1 for OTB's own files).

    Raises:
        SequenceError: naming file and line, if a line does not hold four numbers, or the file no
            line.
    """
    if not file.is_file():
        raise SequenceError(f"no such annotation: {file}")
    rows: list[list[float]] = []
    lines = file.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    for number, line in enumerate(lines, start=1):
        texts = [t for t in re.split(r"[,\s]+", line.strip()) if t]
        try:
            row = [float(t) for t in texts]
        except ValueError:
            row = []
        if len(row) != 4 or any(math.isinf(v) for v in row):
            raise SequenceError(f"{file}:{number}: four numbers x,y,w,h are wanted, got {line!r}")
        rows.append(row)
    if not rows:
        raise SequenceError(f"{file}: no boxes in it")
    boxes = np.array(rows, dtype=np.float64)
    boxes[:, :2] -= origin
    if not (np.isfinite(boxes[0]).all() and (boxes[0, 2:] > 0).all()):
        raise SequenceError(
            f"{file}:1: the first frame's box is the selection and must have an extent"
        )
    return boxes


def read_sequence(path: Path) -> Sequence:
    """Read one sequence: a folder in OTB layout, or ``NAME.mp4`` with ``NAME.txt`` beside it.

    Raises:
        SequenceError: if the annotation is missing or wrong.
        ClipError: if the clip is missing.
    """
    if path.is_dir():
        truth = path / OTB_TRUTH
        boxes = read_boxes(truth, origin=1)
        if not (path / "img").is_dir():
            raise SequenceError(f"{path}: a sequence in OTB layout has its pictures in img/")
        return Sequence(path.name, PictureFrames(path / "img"), boxes, truth)
    clip = VideoFrames(path)
    truth = path.with_suffix(".txt")
    return Sequence(path.stem, clip, read_boxes(truth), truth)


def read_sequences(folder: Path, names: Iterable[str] | None = None) -> list[Sequence]:
    """Read the sequences of a folder, sorted by name; both layouts may be mixed.

    Args:
        folder: holds ``NAME.mp4`` + ``NAME.txt``, and/or ``NAME/img`` +
            ``NAME/groundtruth_rect.txt``.
        names: only these, in this order.

    Raises:
        SequenceError: if the folder is missing or has no sequences, or a name is not among them.
    """
    if not folder.is_dir():
        raise SequenceError(f"no such folder of sequences: {folder}")
    found = {f.stem: f for f in folder.glob("*.mp4") if f.with_suffix(".txt").is_file()}
    found.update({f.parent.name: f.parent for f in folder.glob(f"*/{OTB_TRUTH}")})
    if not found:
        raise SequenceError(
            f"{folder}: no sequences (NAME.mp4 with NAME.txt, or NAME/img with NAME/{OTB_TRUTH})"
        )
    wanted = sorted(found) if names is None else list(names)
    for name in wanted:
        if name not in found:
            raise SequenceError(
                f"{folder}: no sequence {name!r}; there are {', '.join(sorted(found))}"
            )
    return [read_sequence(found[name]) for name in wanted]
