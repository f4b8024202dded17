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

SIDE = 256
"""Cut-outs are no larger, px."""

OUTLINE_SIDE = 112
"""Outlines are looked for in pictures of this size, px: 15 ms each."""

MARGIN = 0.25
"""Of what surrounds a box, in its sides, is learnt what the background looks like."""

SAME_BOX = 0.8
"""An outline is believed if its own box overlaps the annotated one so much (IoU) ..."""

FILLED = (0.25, 0.95)
"""... and if it fills such a part of it."""

TILT = 0.06
"""Standard deviation of how far a corner of a cut-out moves between frames, in its sides."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object with an outline: ``uint8 [h,w,3]`` RGB and ``uint8 [h,w]`` alpha, cropped to the object."""

    rgb: UInt8Array
    alpha: UInt8Array


DrawCutout = Callable[[np.random.Generator], Cutout]


class ClipMaker:
    """Makes clips of one object each.

    Args:
        files: PNG files with alpha; may be empty.
        background: draws a picture, ``uint8 [H,W,3]`` RGB.
        photographed: draws an object out of a photograph.
        share: share of the objects that are photographed ones; all of them where there are no files.
    """

    def __init__(
        self, files: Sequence[Path], background: Draw, photographed: DrawCutout, share: float
    ) -> None:
        self.files, self.background = files, background
        self.photographed, self.share = photographed, share
        self._read: dict[int, Cutout | None] = {}

    def cutout(self, rng: np.random.Generator, other: Cutout | None = None) -> Cutout:
        """Draw an object that is not ``other``, where there is more than one."""
        if self.files and rng.random() >= self.share:
            for _ in range(8):
                index = int(rng.integers(len(self.files)))
                if index not in self._read:
                    self._read[index] = read_cutout(self.files[index])
                cutout = self._read[index]
                if cutout is not None and cutout is not other:
                    return cutout
        for _ in range(8):
            cutout = self.photographed(rng)
            if cutout is not other:
                break
        return cutout

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
            seen = turned(tilted(rng, cutout), angle)
            tall, wide = seen.alpha.shape
            k = min(size, 0.8 * min(height, width)) / math.sqrt(tall * wide)
            w, h = max(12.0, k * wide), max(12.0, k * tall)
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
            augment.paste(rng, image, seen.rgb, box, seen.alpha)
            clip.append((image, box))
        return clip


def elliptic(rgb: UInt8Array) -> Cutout:
    """Return the ellipse inscribed in a picture: an object of which only the box is known."""
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    h, w = alpha.shape
    cv2.ellipse(alpha, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 255, -1)
    return Cutout(rgb, alpha)


def outlined(image: UInt8Array, box: Box) -> Cutout | None:
    """Cut the object in ``box`` (image px) out along its outline; None where that cannot be told.

    GrabCut (Rother et al. 2004), begun with what is inside and what is around the box; the largest
    connected piece. An outline that does not span the box, or fills it, is not believed.
    """
    height, width = image.shape[:2]
    wide = Box(box.cx, box.cy, box.w * (1 + 2 * MARGIN), box.h * (1 + 2 * MARGIN))
    left, top, right, bottom = (round(v + 0.5) for v in wide.clipped_to_image(width, height).edges)
    part = image[top:bottom, left:right]
    scale = min(1.0, OUTLINE_SIDE / max(*part.shape[:2], 1))
    if min(part.shape[:2]) * scale < 12:
        return None
    small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    edges = box.clipped_to_image(width, height).edges
    x1, y1, x2, y2 = (
        max(0, round((v + 0.5 - start) * scale))
        for v, start in zip(edges, (left, top, left, top), strict=True)
    )
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    labels[y1:y2, x1:x2] = cv2.GC_PR_FGD
    inside = np.count_nonzero(labels)
    if min(inside, labels.size - inside) < 30:  # GrabCut learns five colours of each
        return None
    cv2.setRNGSeed(0)  # it begins with random clusters
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, labels, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    mask = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    x, y, w, h, area = (int(v) for v in stats[largest])
    common = max(0, min(x + w, x2) - max(x, x1)) * max(0, min(y + h, y2) - max(y, y1))
    overlap = common / (w * h + inside - common)
    if overlap < SAME_BOX or not FILLED[0] <= area / inside <= FILLED[1]:
        return None
    mask = np.where(pieces == largest, 255, 0).astype(np.uint8)
    alpha = cv2.resize(mask, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return _trimmed(Cutout(np.asarray(part), np.asarray(alpha, np.uint8)))


def tilted(rng: np.random.Generator, cutout: Cutout) -> Cutout:
    """Show a cut-out from a slightly different side: each corner moves for itself."""
    h, w = cutout.alpha.shape
    corners = np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], np.float32)
    moved = corners + rng.normal(0, TILT, (4, 2)).clip(-2 * TILT, 2 * TILT) * (w, h)
    moved -= moved.min(axis=0)
    size = tuple(int(v) + 1 for v in moved.max(axis=0))
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    rgb, alpha = (
        np.asarray(cv2.warpPerspective(picture, matrix, size), np.uint8)
        for picture in (cutout.rgb, cutout.alpha)
    )
    return Cutout(rgb, alpha)


def turned(cutout: Cutout, angle: float) -> Cutout:
    """Rotate a cut-out by ``angle`` degrees and crop it to its outline again."""
    h, w = cutout.alpha.shape
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, 1.0)
    n = int(math.hypot(w, h)) + 2
    matrix[:, 2] += ((n - w) / 2, (n - h) / 2)
    rgb, alpha = (
        np.asarray(cv2.warpAffine(picture, matrix, (n, n)), np.uint8)
        for picture in (cutout.rgb, cutout.alpha)
    )
    return _trimmed(Cutout(rgb, alpha)) or cutout


def read_cutout(path: Path) -> Cutout | None:
    """Read a PNG with alpha, cropped to its object and at most :data:`SIDE` px; None if it has no usable outline."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        return None
    rgb = np.asarray(cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return _trimmed(Cutout(rgb, np.asarray(image[:, :, 3], np.uint8)), smallest=12)


def _trimmed(cutout: Cutout, smallest: int = 1) -> Cutout | None:
    """Crop to the outline and to at most :data:`SIDE` px; None if less than ``smallest`` px are left."""
    alpha = cutout.alpha
    rows, columns = np.nonzero(alpha.max(axis=1) > 127)[0], np.nonzero(alpha.max(axis=0) > 127)[0]
    if min(rows.size, columns.size) < smallest:
        return None
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rgb, alpha = cutout.rgb[part], alpha[part]
    k = SIDE / max(alpha.shape)
    if k < 1:
        size = (max(1, round(alpha.shape[1] * k)), max(1, round(alpha.shape[0] * k)))
        rgb, alpha = (
            np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
            for picture in (rgb, alpha)
        )
    return Cutout(np.ascontiguousarray(rgb), np.ascontiguousarray(alpha))
