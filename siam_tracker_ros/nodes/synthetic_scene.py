"""A made-up scene: an orange, patterned thing that moves and changes size before a drifting background.

The same seed gives the same pixels. It stands in for a camera where there is none, and its ground
truth is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.geometry.pictures import UInt8Array
from siam_tracker_ros.nodes.video_sources import View

ORANGE = (30, 120, 230)
"""Blue, green, red of the moving thing, within a pattern of +-25."""


class SyntheticScene:
    """A scene of ``frames`` pictures.

    Args:
        width, height: of the pictures.
        frames: how many; 0 = without end.
        rate: pictures a second that the motion is meant for.
        seed: of the textures and the path.
        absent: numbers of the first picture without the thing, and of the first with it again.
    """

    name = "synthetic scene"
    live = False

    def __init__(
        self,
        width: int = 640,
        height: int = 480,
        frames: int = 300,
        rate: float = 30.0,
        seed: int = 0,
        absent: tuple[int, int] = (0, 0),
    ) -> None:
        if width < 64 or height < 64:
            raise ValueError(f"a scene needs at least 64 x 64 pixels, got {width} x {height}")
        self.rate = rate
        self._size = (width, height)
        self._frames = frames
        self._absent = absent
        random = np.random.default_rng(seed)
        self._phases = random.uniform(0.0, 2 * math.pi, 4)
        self._margin = max(8, min(width, height) // 12)
        self._background = _background(random, width + 2 * self._margin, height + 2 * self._margin)
        self._thing = _pattern(random)

    def box(self, index: int) -> Box | None:
        """Return where the thing is in a picture; None while it is out of sight."""
        if self._absent[0] <= index < self._absent[1]:
            return None
        width, height = self._size
        t = index / self.rate if self.rate > 0 else index / 30.0
        a, b, c, d = self._phases
        size = 0.16 * min(width, height) * (1.0 + 0.35 * math.sin(0.9 * t + c))
        w, h = size * (1.0 + 0.1 * math.sin(0.5 * t + d)), size * 0.8
        cx = (width - 1) / 2 + 0.34 * width * math.sin(0.55 * t + a)
        cy = (height - 1) / 2 + 0.30 * height * math.sin(0.8 * t + b)
        return Box(cx, cy, w, h)

    def view(self, index: int) -> View:
        """Return one picture."""
        width, height = self._size
        m = self._margin
        dx = round(m + (m - 1) * math.sin(0.021 * index))
        dy = round(m + (m - 1) * math.cos(0.013 * index))
        pixels = self._background[dy : dy + height, dx : dx + width].copy()
        box = self.box(index)
        if box is not None:
            self._paint(pixels, box)
        return View(index, pixels, known=True, box=box)

    def views(self) -> Iterator[View]:
        """Play it from the beginning."""
        index = 0
        while self._frames == 0 or index < self._frames:
            yield self.view(index)
            index += 1

    def _paint(self, pixels: UInt8Array, box: Box) -> None:
        """Blend the thing in with soft edges at its real-valued place."""
        n = self._thing.shape[0]
        kx, ky = box.w / n, box.h / n
        matrix = np.array(
            [
                [kx, 0.0, box.cx - kx * (n - 1) / 2],
                [0.0, ky, box.cy - ky * (n - 1) / 2],
            ]
        )
        x0, y0 = (max(0, math.floor(v - 2)) for v in box.edges[:2])
        x1 = min(pixels.shape[1], math.ceil(box.edges[2] + 3))
        y1 = min(pixels.shape[0], math.ceil(box.edges[3] + 3))
        if x1 <= x0 or y1 <= y0:
            return
        matrix[:, 2] -= (x0, y0)
        size = (x1 - x0, y1 - y0)
        colour = cv2.warpAffine(self._thing, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        cover = cv2.warpAffine(np.full((n, n), 255, np.uint8), matrix, size)[..., None] / 255.0
        window = pixels[y0:y1, x0:x1]
        window[:] = np.rint(window * (1.0 - cover) + colour * cover).astype(np.uint8)


def _background(random: np.random.Generator, width: int, height: int) -> UInt8Array:
    """Return greenish grey noise on several scales; nothing in it is orange."""
    total = np.zeros((height, width), np.float32)
    for scale, weight in ((64, 50.0), (16, 30.0), (4, 18.0)):
        size = (height // scale + 2, width // scale + 2)
        noise = random.uniform(-1.0, 1.0, size).astype(np.float32)
        total += weight * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    grey = np.clip(110.0 + total, 10.0, 220.0)
    channels = [grey, np.clip(grey * 1.08, 0, 255), np.clip(grey * 0.85, 0, 255)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _pattern(random: np.random.Generator, side: int = 96) -> UInt8Array:
    """Return an orange square with blotches, ``uint8 [side,side,3]`` BGR."""
    blotches = random.uniform(-25.0, 25.0, (6, 6)).astype(np.float32)
    shade = cv2.resize(blotches, (side, side), interpolation=cv2.INTER_NEAREST)
    return np.clip(np.array(ORANGE, np.float32) + shade[..., None], 0, 255).astype(np.uint8)
