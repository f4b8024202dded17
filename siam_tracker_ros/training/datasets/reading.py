"""Reading annotation files: what is wrong is named with file and line, and stops the set or is counted."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError

from siam_tracker_ros.training.datasets.table import Floats, TableBuilder, TableSet
from siam_tracker_ros.training.tar_sets import DataError

OnError = Literal["skip", "stop"]

LARGEST_FILE = 2 << 30
"""Annotation files above this many bytes are refused."""


class Reading:
    """A set being read.

    Args:
        name: of the set, for messages.
        root: its folder.
        on_error: ``stop`` at the first thing that is wrong, or ``skip`` what is wrong and count it.

    Raises:
        DataError: if there is no such folder.
    """

    def __init__(self, name: str, root: Path, on_error: OnError) -> None:
        if not root.is_dir():
            raise DataError(f"data set {name}: {root} is no folder")
        self.name, self.root, self.on_error = name, root, on_error
        self.counts: dict[str, int] = {}
        self._first: dict[str, str] = {}
        self._digest = hashlib.sha256()

    def wrong(self, kind: str, where: str, what: str = "") -> None:
        """Say that something is wrong.

        Args:
            kind: what is counted, e.g. ``not a box``.
            where: file, or file:line.
            what: more about this one.

        Raises:
            DataError: where the set stops at errors.
        """
        message = f"{where}: {kind}" + (f": {what}" if what else "")
        if self.on_error == "stop":
            raise DataError(f"{message} (data.on_error: skip leaves it out)")
        self._first.setdefault(kind, message)
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def other_layout(self, wanted: str) -> DataError:
        """Return the error for a folder that is laid out in another way; never skipped."""
        found = ", ".join(sorted(p.name for p in self.root.iterdir())[:5]) or "nothing"
        return DataError(
            f"data set {self.name}: {self.root} should hold {wanted}; it holds {found}"
        )

    def text(self, file: Path) -> str | None:
        """Return what is in a file, and let it count in the set's hash; None where it is missing."""
        try:
            if file.stat().st_size > LARGEST_FILE:
                self.wrong("too large a file", str(file))
                return None
            data = file.read_bytes()
        except OSError as error:
            self.wrong("cannot be read", str(file), error.strerror or "")
            return None
        self._digest.update(file.name.encode() + data)
        return data.decode("utf-8", errors="replace")

    def boxes(self, file: Path) -> Floats | None:
        """Return ``[N,4]`` of a file with four numbers a line; NaN for a line that is wrong."""
        text = self.text(file)
        if text is None:
            return None
        lines = text.rstrip().splitlines()
        try:
            values = np.array([float(v) for v in text.replace(",", " ").split()])
            if len(values) == 4 * len(lines):
                return values.reshape(-1, 4)
        except ValueError:
            pass
        result = np.full((len(lines), 4), np.nan)
        for number, line in enumerate(lines):
            try:
                row = [float(v) for v in line.replace(",", " ").split()]
            except ValueError:
                row = []
            if len(row) == 4:
                result[number] = row
            else:
                what = f"four numbers x,y,w,h are wanted, got {line!r}"
                self.wrong("not a box", f"{file}:{number + 1}", what)
        return result

    def flags(self, file: Path, count: int) -> Floats | None:
        """Return ``count`` whole numbers of a file, a line each or separated by commas."""
        text = self.text(file)
        if text is None:
            return None
        try:
            values = np.array([int(v) for v in text.replace(",", " ").split()])
        except ValueError as error:
            self.wrong("not flags", str(file), str(error))
            return None
        if len(values) != count:
            self.wrong("not flags", str(file), f"{len(values)} of them for {count} frames")
            return None
        return values

    def size(self, file: Path) -> tuple[int, int] | None:
        """Return width and height from an image's header; None where it has none."""
        try:
            with Image.open(file) as image:
                return image.size
        except FileNotFoundError:
            self.wrong("image is missing", str(file))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            self.wrong("not an image", str(file), type(error).__name__)
        return None

    def frames(self, names: Sequence[str]) -> tuple[int, int] | None:
        """Return the size of a video's frames, of which the first and the last must be there."""
        if not names:
            return None
        size = self.size(self.root / names[0])
        if size is not None and not (self.root / names[-1]).is_file():
            self.wrong("frames are missing", str(self.root / names[-1]))
            return None
        return size

    def inside(self, boxes: Floats, size: tuple[int, int], where: str, first: int = 1) -> Floats:
        """Return boxes (xywh) with NaN for those wholly outside a picture of ``size``.

        Args:
            boxes: ``[N,4]``.
            size: width, height.
            where: their file.
            first: line of the first box; 0 where boxes are not in lines.
        """
        edge = boxes[:, :2] + boxes[:, 2:]
        outside = (boxes[:, :2] >= size).any(axis=1) | (edge <= 0).any(axis=1)
        outside &= (boxes[:, 2:] > 0).all(axis=1)
        if not outside.any():
            return boxes
        for row in np.flatnonzero(outside):
            what = f"{boxes[row].round(2).tolist()} in a picture of {size[0]} x {size[1]}"
            place = f"{where}:{row + first}" if first else where
            self.wrong("box outside the picture", place, what)
        return np.where(outside[:, None], np.nan, boxes)

    def xml(self, file: Path) -> ElementTree.Element | None:
        """Return the root of an XML file."""
        text = self.text(file)
        if text is None:
            return None
        try:
            return ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            self.wrong("not XML", f"{file}:{error.position[0]}", str(error))
            return None

    def finish(self, builder: TableBuilder) -> TableSet:
        """Return the set, and warn of what was left out because it was wrong."""
        for kind, message in self._first.items():
            warnings.warn(
                f"data set {self.name}: {kind}, {self.counts[kind]} times left out; "
                f"first: {message}",
                stacklevel=2,
            )
        for kind, count in self.counts.items():
            builder.skip(kind, count)
        return TableSet(self.name, builder.build(), builder.skipped, self._digest.hexdigest())
