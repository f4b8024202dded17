"""Where ``video_publisher_node`` takes its pictures from: a file, a folder, a camera, a made-up scene."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.geometry.pictures import UInt8Array

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class SourceError(ValueError):
    """A source that cannot be read; the message says what to do."""


@dataclass(frozen=True)
class View:
    """One picture of a source.

    Attributes:
        index: number of it in the source, from 0.
        pixels: ``uint8 [H,W,3]`` BGR.
        known: whether it is known where the target is.
        box: where, image pixels; None if it is known to be out of sight, or nothing is known.
    """

    index: int
    pixels: UInt8Array
    known: bool = False
    box: Box | None = None


class Source(Protocol):
    """A sequence of pictures.

    Attributes:
        name: for people.
        rate: pictures a second, as the source says; 0 = it does not say.
        live: whether it cannot be played again or be held up.
    """

    name: str
    rate: float
    live: bool

    def views(self) -> Iterator[View]:
        """Play it from the beginning."""
        ...


def read_boxes(path: Path) -> list[Box | None]:
    """Read a ground truth file: ``x,y,w,h`` a line, x and y from 0; no size or NaN = out of sight.

    Raises:
        SourceError: naming the line that cannot be read.
    """
    boxes: list[Box | None] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.replace(",", " ").replace("\t", " ").split()
        if not words:
            continue
        try:
            x, y, w, h = (float(word) for word in words)
        except ValueError as error:
            raise SourceError(f"{path}, line {number}: x,y,w,h are needed, got {line!r}") from error
        seen = all(math.isfinite(v) for v in (x, y, w, h)) and w > 0 and h > 0
        boxes.append(Box.from_xywh(x, y, w, h) if seen else None)
    return boxes


OTB_TRUTH = "groundtruth_rect.txt"


def _boxes_beside(path: Path) -> list[Box | None]:
    """Return the boxes of NAME.txt beside NAME.mp4 or the folder NAME, or of groundtruth_rect.txt."""
    beside = path.with_suffix(".txt")
    if beside.is_file():
        return read_boxes(beside)
    inside = [path / OTB_TRUTH, path.parent / OTB_TRUTH] if path.is_dir() else []
    found = next((candidate for candidate in inside if candidate.is_file()), None)
    if found is None:
        return []
    # The OTB layout counts pixels from 1.
    boxes = read_boxes(found)
    return [box and Box(box.cx - 1, box.cy - 1, box.w, box.h) for box in boxes]


def _view(index: int, pixels: UInt8Array, boxes: list[Box | None]) -> View:
    known = index < len(boxes)
    return View(index, pixels, known, boxes[index] if known else None)


class VideoFile:
    """A video file, with boxes from NAME.txt beside it where there is one."""

    live = False

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise SourceError(f"there is no video file {path}")
        self.name = path.name
        self._path = path
        self._boxes = _boxes_beside(path)
        capture = self._open()
        self.rate = float(capture.get(cv2.CAP_PROP_FPS)) or 0.0
        capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(f"{self._path} cannot be opened as a video")
        return capture

    def views(self) -> Iterator[View]:
        """Play it from the beginning."""
        capture = self._open()
        try:
            index = 0
            while True:
                done, pixels = capture.read()
                if not done:
                    return
                yield _view(index, np.asarray(pixels, dtype=np.uint8), self._boxes)
                index += 1
        finally:
            capture.release()


class ImageFolder:
    """A folder of pictures, in the order of their names."""

    live = False
    rate = 0.0

    def __init__(self, path: Path) -> None:
        pictures = path / "img" if (path / "img").is_dir() else path
        self._paths = sorted(p for p in pictures.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self._paths:
            raise SourceError(f"there are no pictures in {pictures}")
        self.name = path.name
        self._boxes = _boxes_beside(path)

    def views(self) -> Iterator[View]:
        """Play it from the beginning."""
        for index, path in enumerate(self._paths):
            pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if pixels is None:
                raise SourceError(f"{path} cannot be read as a picture")
            yield _view(index, np.asarray(pixels, dtype=np.uint8), self._boxes)


class Camera:
    """A camera of this machine, by number or device file."""

    live = True

    def __init__(self, device: str, width: int = 0, height: int = 0, rate: float = 0.0) -> None:
        self.name = device
        number = device.removeprefix("camera:")
        self._capture = cv2.VideoCapture(int(number) if number.isdigit() else number)
        if not self._capture.isOpened():
            raise SourceError(f"camera {device} cannot be opened")
        for option, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, width),
            (cv2.CAP_PROP_FRAME_HEIGHT, height),
            (cv2.CAP_PROP_FPS, rate),
        ):
            if value > 0:
                self._capture.set(option, value)
        self.rate = 0.0  # the camera sets the pace

    def views(self) -> Iterator[View]:
        """Return what the camera sees from now on."""
        index = 0
        while True:
            done, pixels = self._capture.read()
            if not done:
                return
            yield View(index, np.asarray(pixels, dtype=np.uint8))
            index += 1


def open_source(name: str) -> Source:
    """Open a file, a folder, ``camera:0`` or ``/dev/video0``.

    Raises:
        SourceError: if it cannot be read.
    """
    if name.startswith(("camera:", "/dev/video")):
        return Camera(name)
    path = Path(name).expanduser()
    return ImageFolder(path) if path.is_dir() else VideoFile(path)
