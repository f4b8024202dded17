"""Frames of a clip, decoded one at a time: a video file or a folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
"""One decoded frame: uint8 [H,W,3], BGR as OpenCV has it."""

PICTURES = {".jpg", ".jpeg", ".png", ".bmp"}
VIDEOS = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg"}


class ClipError(ValueError):
    """A clip cannot be read; the message names the file and what is wrong with it."""


class FrameSource(Protocol):
    """Something that can be iterated over, from its first frame, as often as one likes."""

    @property
    def path(self) -> Path:
        """Where the frames come from (for messages)."""
        ...

    @property
    def fps(self) -> float:
        """Frames a second at which the clip is meant to be shown."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order."""
        ...


class VideoFrames:
    """The frames of a video file.

    Raises:
        ClipError: if the file is missing; while iterating, if it cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ClipError(f"no such clip: {path}")
        self.path = path

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise ClipError(f"{self.path}: not a video that OpenCV can open")
        return capture

    @property
    def fps(self) -> float:
        """The file's own rate; 30 where it states none."""
        capture = self._open()
        stated = float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        return stated if 1.0 <= stated <= 1000.0 else 30.0

    def __iter__(self) -> Iterator[Frame]:
        """Decode from the first frame on."""
        capture = self._open()
        count = 0
        try:
            while True:
                ok, frame = capture.read()
                if not ok:
                    break
                count += 1
                yield np.asarray(frame, dtype=np.uint8)
        finally:
            capture.release()
        if count == 0:
            raise ClipError(f"{self.path}: no frame could be decoded")


class PictureFrames:
    """The pictures of a folder, in the order of the numbers in their names.

    Args:
        folder: holds the pictures.
        fps: at which they are meant to be shown.
        files: these pictures alone, in this order; all of the folder without.

    Raises:
        ClipError: if the folder is missing or holds no picture; while iterating, if one cannot be
            decoded.
    """

    def __init__(self, folder: Path, fps: float = 30.0, files: list[Path] | None = None) -> None:
        self.path = folder
        self.fps = fps
        if files is None:
            if not folder.is_dir():
                raise ClipError(f"no such folder of pictures: {folder}")
            files = [f for f in folder.iterdir() if f.suffix.lower() in PICTURES]
            files.sort(key=_natural_order)
        self.files = files
        if not self.files:
            raise ClipError(f"{folder}: no pictures ({', '.join(sorted(PICTURES))}) in this folder")

    def __iter__(self) -> Iterator[Frame]:
        """Decode from the first picture on."""
        for file in self.files:
            frame = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if frame is None:
                raise ClipError(f"{file}: cannot be decoded as a picture")
            yield np.asarray(frame, dtype=np.uint8)


def frame_number(file: Path) -> int | None:
    """Return the last number in a picture's name; None where there is none."""
    numbers = re.findall(r"\d+", file.stem)
    return int(numbers[-1]) if numbers else None


def _natural_order(file: Path) -> list[int | str]:
    # split alternates text and number, so that equal positions always hold equal types
    return [int(p) if i % 2 else p for i, p in enumerate(re.split(r"(\d+)", file.stem))]


def open_frames(path: Path) -> VideoFrames | PictureFrames:
    """Return the frames of a video file or of a folder of pictures.

    Raises:
        ClipError: if there is nothing at ``path`` or a folder has no pictures.
    """
    return PictureFrames(path) if path.is_dir() else VideoFrames(path)
