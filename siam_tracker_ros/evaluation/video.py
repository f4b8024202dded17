"""Annotated video: the tracker's box, the truth, score and state drawn into the clip."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.evaluation.track_log import FrameEntry, TrackLog, Xywh

CODECS = ("mp4v", "avc1")
LEAST_WIDTH = 480
"""Small clips are enlarged by a whole factor to at least this, so that the writing can be read."""

COLOURS = {  # BGR
    "TRACKING": (80, 200, 80),
    "UNCERTAIN": (0, 190, 255),
    "LOST": (60, 60, 230),
    "IDLE": (160, 160, 160),
}
TRUTH = (255, 255, 255)


class VideoError(RuntimeError):
    """A video cannot be written here, or what was written cannot be read back."""


class VideoFile:
    """An MP4 file that is checked when it is closed.

    Raises:
        VideoError: if no codec of ``CODECS`` works, or, on closing, if the file does not give back
            as many frames as were written.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float) -> None:
        self.path, self.written = path, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        for codec in CODECS:
            four = cv2.VideoWriter_fourcc(*codec)
            self._writer = cv2.VideoWriter(str(path), four, fps, (width, height))
            if self._writer.isOpened():
                return
            self._writer.release()
        path.unlink(missing_ok=True)
        raise VideoError(
            f"OpenCV {cv2.__version__} cannot write MP4 video here (tried {', '.join(CODECS)})"
        )

    def write(self, frame: Frame) -> None:
        """Append a frame of the size given at the start."""
        self._writer.write(frame)
        self.written += 1

    def close(self) -> None:
        """Finish the file and read it back."""
        self._writer.release()
        capture = cv2.VideoCapture(str(self.path))
        count = 0
        while capture.grab():
            count += 1
        capture.release()
        if count != self.written:
            raise VideoError(
                f"{self.path}: wrote {self.written} frames, but {count} can be read back"
            )

    def __enter__(self) -> VideoFile:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; without the check if something else went wrong already."""
        if error is None:
            self.close()
        else:
            self._writer.release()


def annotate(frame: Frame, entry: FrameEntry | None, truth: Xywh | None, zoom: float = 1) -> Frame:
    """Return ``frame`` enlarged ``zoom`` times, with box, truth, number, score and state drawn.

    ``entry`` is None for a frame that was not processed.
    """
    size = (round(frame.shape[1] * zoom), round(frame.shape[0] * zoom))
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(frame, size, interpolation=way), dtype=np.uint8)
    if truth is not None and np.isfinite(truth).all():
        _rectangle(picture, truth, zoom, TRUTH, 1)
    if entry is None:
        _line(picture, "not processed", COLOURS["IDLE"])
        return picture
    colour = COLOURS.get(entry.state, COLOURS["IDLE"])
    if entry.box is not None:
        _rectangle(picture, entry.box, zoom, colour, 2)
    score = "" if math.isnan(entry.score) else f"{entry.score:.2f}"
    _line(picture, f"{entry.frame}  {entry.state}  {score}", colour)
    return picture


def _rectangle(
    picture: Frame, box: Xywh, zoom: float, colour: tuple[int, int, int], thickness: int
) -> None:
    x, y, w, h = (v * zoom for v in box)
    first, last = (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1)
    cv2.rectangle(picture, first, last, colour, thickness, cv2.LINE_AA)


def _line(picture: Frame, text: str, colour: tuple[int, int, int]) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    cv2.rectangle(picture, (0, 0), (width + 12, height + below + 10), (30, 30, 30), cv2.FILLED)
    cv2.putText(picture, text, (6, height + 5), font, scale, colour, 1, cv2.LINE_AA)


def write_annotated_video(
    path: Path, frames: Iterable[Frame], fps: float, log: TrackLog, until: int | None = None
) -> int:
    """Draw ``log`` into the clip's frames and write them to ``path``; returns the number of frames.

    Raises:
        VideoError: if there are no frames, or the video cannot be written or read back.
    """
    entries = {e.frame: e for e in log.entries}
    partial = path.with_name(f".{path.stem}.part{path.suffix}")
    video: VideoFile | None = None
    zoom = 1
    for index, frame in enumerate(frames):
        if until is not None and index >= until:
            break
        if video is None:
            zoom = max(1, -(-LEAST_WIDTH // frame.shape[1]))
            video = VideoFile(partial, frame.shape[1] * zoom, frame.shape[0] * zoom, fps)
        truth = None
        if log.truth is not None and index < len(log.truth):
            x, y, w, h = (float(v) for v in log.truth[index])
            truth = (x, y, w, h)
        video.write(annotate(frame, entries.get(index), truth, zoom))
    if video is None:
        raise VideoError(f"{path}: there are no frames to write")
    video.close()
    shutil.move(partial, path)
    return video.written
