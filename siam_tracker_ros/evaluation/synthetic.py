"""A rendered clip with exact truth: a textured target moving over a textured ground.

For speed figures at a given picture size, and for tests that need no data. It says nothing about
accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.evaluation.sequences import Boxes, Sequence


class SyntheticFrames:
    """The frames of the clip, rendered when iterated over; the same for the same arguments.

    Args:
        width: of the frames, pixels.
        height: of the frames, pixels.
        count: number of frames.
        seed: of the textures.
        target: (w, h) of the target at its mean size, pixels; a ninth of the height without.
    """

    fps = 30.0

    def __init__(
        self,
        width: int = 1280,
        height: int = 720,
        count: int = 150,
        seed: int = 0,
        target: tuple[int, int] | None = None,
    ) -> None:
        if width < 64 or height < 64 or count < 1:
            raise ValueError(
                f"64 x 64 pixels and one frame at least, got {width}x{height}, {count}"
            )
        self.path = Path(f"synthetic_{width}x{height}_{count}_{seed}")
        self.size, self.count = (width, height), count
        self._target = target or (height // 9, height // 7)
        random = np.random.default_rng(seed)
        self._ground = _texture(random, width, height, cells=40, low=60, high=150)
        self._patch = _texture(random, *self._target, cells=6, low=0, high=255)

    def box(self, index: int) -> tuple[float, float, float, float]:
        """Return the target's x,y,w,h in frame ``index`` (whole pixels)."""
        width, height = self.size
        turn = 2 * math.pi * index / 120
        scale = 1.0 + 0.25 * math.sin(0.7 * turn)
        w, h = (max(4, round(v * scale)) for v in self._target)
        cx = width * (0.5 + 0.25 * math.sin(turn))
        cy = height * (0.5 + 0.2 * math.sin(1.6 * turn + 0.5))
        return float(round(cx - w / 2)), float(round(cy - h / 2)), float(w), float(h)

    def boxes(self) -> Boxes:
        """Return float64 [N,4]: the truth."""
        return np.array([self.box(i) for i in range(self.count)], dtype=np.float64)

    def __iter__(self) -> Iterator[Frame]:
        """Render frame by frame."""
        for index in range(self.count):
            x, y, w, h = (int(v) for v in self.box(index))
            frame = self._ground.copy()
            frame[y : y + h, x : x + w] = cv2.resize(self._patch, (w, h))
            yield frame


def _texture(
    random: np.random.Generator, width: int, height: int, cells: int, low: int, high: int
) -> Frame:
    coarse = random.integers(low, high, (max(2, cells * height // width), cells, 3), dtype=np.uint8)
    return np.asarray(
        cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8
    )


def synthetic_sequence(
    width: int = 1280,
    height: int = 720,
    count: int = 150,
    seed: int = 0,
    target: tuple[int, int] | None = None,
) -> Sequence:
    """Return the rendered clip with its truth; arguments of :class:`SyntheticFrames`."""
    frames = SyntheticFrames(width, height, count, seed, target)
    return Sequence(frames.path.name, frames, frames.boxes(), frames.path)
