"""Synthetic clips: a cut-out object moves, grows and turns before a moving background."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.training import augment

UInt8Array = npt.NDArray[np.uint8]
Draw = Callable[[np.random.Generator], UInt8Array]


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object with an outline: ``uint8 [h,w,3]`` RGB and ``uint8 [h,w]`` alpha, cropped to the object."""

    rgb: UInt8Array
    alpha: UInt8Array


class ClipMaker:
    """Makes clips of one object each.

    Args:
        files: PNG files with alpha; may be empty.
        background: draws a picture, ``uint8 [H,W,3]`` RGB.
        patch: draws the picture of an object, ``uint8 [h,w,3]`` RGB; an ellipse of it is a cut-out.
        boxed: share of the cut-outs that are such ellipses; all of them where there are no files.
    """

    def __init__(
        self, files: Sequence[Path], background: Draw, patch: Draw, boxed: float = 0.4
    ) -> None:
        self.files, self.background, self.patch, self.boxed = files, background, patch, boxed
        self._read: dict[int, Cutout | None] = {}

    def cutout(self, rng: np.random.Generator, other: Cutout | None = None) -> Cutout:
        """Draw an object that is not ``other``."""
        if self.files and rng.random() >= self.boxed:
            for _ in range(8):
                index = int(rng.integers(len(self.files)))
                if index not in self._read:
                    self._read[index] = read_cutout(self.files[index])
                cutout = self._read[index]
                if cutout is not None and cutout is not other:
                    return cutout
        rgb = self.patch(rng)
        alpha = np.zeros(rgb.shape[:2], np.uint8)
        h, w = alpha.shape
        cv2.ellipse(alpha, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 255, -1)
        return Cutout(rgb, alpha)

    def clip(
        self,
        rng: np.random.Generator,
        cutout: Cutout,
        frames: int,
        other: Cutout | None = None,
    ) -> list[tuple[UInt8Array, Box]]:
        """Frames with ``cutout`` in them and where it is (image px); a look-alike is never ``other``."""
        look_alike = self.cutout(rng, other or cutout) if rng.random() < 0.4 else None
        background = self.background(rng)
        size = rng.uniform(40, 150)
        angle = 0.0
        clip = []
        for frame in range(frames):
            if frame and rng.random() < 0.3:
                background = self.background(rng)
            image = np.array(background)
            height, width = image.shape[:2]
            size *= math.exp(rng.normal(0, 0.12))
            angle += rng.normal(0, 8)
            shape, outline = turned(cutout, angle)
            k = min(size, 0.8 * min(height, width)) / math.sqrt(shape.shape[0] * shape.shape[1])
            w, h = max(12.0, k * shape.shape[1]), max(12.0, k * shape.shape[0])
            w, h = min(w, width - 2.0), min(h, height - 2.0)
            box = Box(
                rng.uniform(w / 2, width - w / 2),
                rng.uniform(h / 2, height - h / 2),
                round(w),
                round(h),
            )
            # Whole pixels, as paste lays them: the label is the pasted object's own extent.
            x, y = round(box.cx - (box.w - 1) / 2), round(box.cy - (box.h - 1) / 2)
            box = Box.from_xywh(x, y, box.w, box.h)
            if look_alike is not None:
                a, d = rng.uniform(0, 2 * math.pi), rng.uniform(1.0, 2.0)
                beside = Box(box.cx + w * d * math.cos(a), box.cy + h * d * math.sin(a), w, h)
                augment.paste(rng, image, look_alike.rgb, beside, look_alike.alpha)
            augment.paste(rng, image, shape, box, outline)
            clip.append((image, box))
        return clip


def turned(cutout: Cutout, angle: float) -> tuple[UInt8Array, UInt8Array]:
    """Rotate a cut-out and crop it to its outline again."""
    h, w = cutout.alpha.shape
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, 1.0)
    n = int(math.hypot(w, h)) + 2
    matrix[:, 2] += ((n - w) / 2, (n - h) / 2)
    rgb = cv2.warpAffine(cutout.rgb, matrix, (n, n))
    alpha = cv2.warpAffine(cutout.alpha, matrix, (n, n))
    rows, columns = np.nonzero(alpha.max(axis=1) > 127)[0], np.nonzero(alpha.max(axis=0) > 127)[0]
    if not rows.size or not columns.size:
        return cutout.rgb, cutout.alpha
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(rgb[part], np.uint8), np.asarray(alpha[part], np.uint8)


def read_cutout(path: Path, limit: int = 256) -> Cutout | None:
    """Read a PNG with alpha, cropped to its object and at most ``limit`` px; None if it has no usable outline."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        return None
    alpha = image[:, :, 3]
    rows, columns = np.nonzero(alpha.max(axis=1) > 127)[0], np.nonzero(alpha.max(axis=0) > 127)[0]
    if rows.size < 12 or columns.size < 12:
        return None
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    k = limit / max(image.shape[:2])
    if k < 1:
        size = (max(1, round(image.shape[1] * k)), max(1, round(image.shape[0] * k)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    rgb = np.asarray(cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return Cutout(rgb, np.ascontiguousarray(image[:, :, 3], dtype=np.uint8))
