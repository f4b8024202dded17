"""Annotated clips: the folder ``NAME.mp4`` + ``NAME.txt``, and the plain OTB layout.

Boxes are ``x,y,w,h`` in pixels, 0-based (the first covered pixel), whatever the files use. A line
of NaN or a box without extent says that the target cannot be seen in that frame; it is not scored.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.evaluation.benchmark_tables import OTB_FRAMES
from siam_tracker_ros.evaluation.frames import (
    Frame,
    FrameSource,
    PictureFrames,
    VideoFrames,
    frame_number,
)

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
        hidden: bool [N], frames that the annotation flags as not showing the target; None where it
            has no such flags.
        size: width and height of the frames; None where nothing states it.
        scored: False where only the first box is known, as in the test sets of servers.
    """

    name: str
    frames: FrameSource
    boxes: Boxes
    source: Path
    hidden: npt.NDArray[np.bool_] | None = None
    size: tuple[int, int] | None = None
    scored: bool = True

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
        seen = np.isfinite(self.boxes).all(axis=1) & (self.boxes[:, 2:] > 0).all(axis=1)
        return np.asarray(seen if self.hidden is None else seen & ~self.hidden)

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


def matching_pictures(
    folder: Path, truth: Path, count: int, first: int | None = None
) -> PictureFrames:
    """Return the pictures of ``folder`` that belong to ``count`` boxes.

    Args:
        folder: holds the pictures.
        truth: the annotation (for messages).
        count: number of boxes.
        first: the number of the first picture, where a sequence is a part of its folder; without,
            all pictures belong to it.

    Raises:
        SequenceError: if the numbers differ; names the first picture that is missing.
        ClipError: if there are no pictures.
    """
    pictures = PictureFrames(folder)
    numbers = [frame_number(f) for f in pictures.files]
    if first is not None:
        by_number = dict(zip(numbers, pictures.files, strict=True))
        wanted = range(first, first + count)
        missing = [n for n in wanted if n not in by_number]
        if missing:
            raise SequenceError(
                f"{truth}: {count} boxes from picture {first} on, but {folder} has no picture "
                f"{missing[0]} ({len(missing)} are missing)"
            )
        return PictureFrames(folder, files=[by_number[n] for n in wanted])
    if len(numbers) != count:
        gaps = [
            a + 1 for a, b in pairwise(numbers) if a is not None and b is not None and b > a + 1
        ]
        gap = f"; picture {gaps[0]} is missing" if gaps else ""
        raise SequenceError(
            f"{truth}: {count} boxes, but {folder} has {len(numbers)} pictures{gap}"
        )
    return pictures


def otb_annotations(folder: Path) -> dict[str, Path]:
    """Return the targets of a folder in OTB layout: name -> annotation.

    Several targets (Jogging, Skating2) have groundtruth_rect.1.txt and .2.txt and are called
    NAME-1 and NAME-2; an empty file (Human4's first) is none.
    """
    files = sorted(folder.glob("groundtruth_rect*.txt"))
    used = [f for f in files if f.stat().st_size and f.read_text(errors="replace").strip()]
    if len(used) < 2:
        return dict.fromkeys([folder.name], (used or files)[0]) if files else {}
    return {f"{folder.name}-{f.stem.rpartition('.')[2]}": f for f in used}


def _read_otb(name: str, truth: Path) -> Sequence:
    boxes = read_boxes(truth, origin=1)
    images = truth.parent / "img"
    if not images.is_dir():
        raise SequenceError(f"{truth.parent}: a sequence in OTB layout has its pictures in img/")
    first, last = OTB_FRAMES.get(truth.parent.name, (1, 0))
    part = last - first + 1 == len(boxes) and len(PictureFrames(images).files) != len(boxes)
    frames = matching_pictures(images, truth, len(boxes), first if part else None)
    return Sequence(name, frames, boxes, truth)


def read_sequence(path: Path) -> Sequence:
    """Read one sequence: a folder in OTB layout, or ``NAME.mp4`` with ``NAME.txt`` beside it.

    Of a folder with several targets the first is read.

    Raises:
        SequenceError: if the annotation is missing or wrong.
        ClipError: if the clip is missing.
    """
    if path.is_dir():
        found = otb_annotations(path) or {path.name: path / OTB_TRUTH}
        return _read_otb(*next(iter(found.items())))
    clip = VideoFrames(path)
    truth = path.with_suffix(".txt")
    return Sequence(path.stem, clip, read_boxes(truth), truth)


def find_clips(folder: Path) -> dict[str, Callable[[], Sequence]]:
    """Return the sequences of a folder by name, each with what reads it; both layouts may be mixed.

    They are ``NAME.mp4`` + ``NAME.txt``, and ``NAME/img`` + ``NAME/groundtruth_rect.txt``.
    """
    found: dict[str, Callable[[], Sequence]] = {
        f.stem: partial(read_sequence, f)
        for f in folder.glob("*.mp4")
        if f.with_suffix(".txt").is_file()
    }
    for inner in {f.parent for f in folder.glob("*/groundtruth_rect*.txt")}:
        for name, truth in otb_annotations(inner).items():
            found[name] = partial(_read_otb, name, truth)
    return found


def read_sequences(folder: Path, names: Iterable[str] | None = None) -> list[Sequence]:
    """Read the sequences of a folder, sorted by name (see :func:`find_clips`).

    Args:
        folder: holds the sequences.
        names: only these, in this order.

    Raises:
        SequenceError: if the folder is missing or has no sequences, or a name is not among them.
    """
    if not folder.is_dir():
        raise SequenceError(f"no such folder of sequences: {folder}")
    found = find_clips(folder)
    if not found:
        raise SequenceError(
            f"{folder}: no sequences (NAME.mp4 with NAME.txt, or NAME/img with NAME/{OTB_TRUTH})"
        )
    return [found[name]() for name in choose(found, names, folder)]


def choose(found: Iterable[str], names: Iterable[str] | None, folder: Path) -> list[str]:
    """Return the names wanted: all, sorted, or those given, in their order.

    Raises:
        SequenceError: if one is not among ``found``.
    """
    known = sorted(found)
    if names is None:
        return known
    wanted = list(names)
    for name in wanted:
        if name not in known:
            shown = ", ".join(known[:30]) + (" ..." if len(known) > 30 else "")
            raise SequenceError(f"{folder}: no sequence {name!r}; there are {shown}")
    return wanted
