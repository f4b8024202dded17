"""Photometric augmentation of crops and geometric jitter of where they are cut."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box, Crop
from siam_tracker_ros.training.config import AugmentationConfig

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]

REDRAWN_SCALE, REDRAWN_SHIFT = 0.25, 0.1
"""``augmentation.redrawn``: natural log of the sides, and shift in sides, at most."""


def random_deformation(
    rng: np.random.Generator, config: AugmentationConfig, rotate: bool
) -> FloatArray:
    """``[2,2]`` rotation (where ``rotate``) times stretch and shear, determinant near one."""
    angle = math.radians(rng.normal(0, config.rotation)) if rotate else 0.0
    stretch, shear = math.exp(rng.normal(0, config.stretch)), rng.normal(0, config.stretch / 2)
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]]) @ np.array([[stretch, shear], [0.0, 1 / stretch]])


def deformed_size(deformation: FloatArray, w: float, h: float) -> tuple[float, float]:
    """Upright extent of the deformed ellipse inscribed in a w x h box.

    The box of the four deformed corners would be loose around nearly every object.
    """
    d = deformation
    return (
        2 * math.hypot(d[0, 0] * w / 2, d[0, 1] * h / 2),
        2 * math.hypot(d[1, 0] * w / 2, d[1, 1] * h / 2),
    )


def deformed_box(box: Box, crop: Crop, deformation: FloatArray) -> Box:
    """Where ``box`` (image px) is seen in a crop cut with ``deformation`` (crop px)."""
    x, y = deformation @ (box.cx - crop.cx, box.cy - crop.cy)
    w, h = deformed_size(deformation, box.w, box.h)
    return crop.box_to_crop(Box(crop.cx + x, crop.cy + y, w, h))


def redrawing(rng: np.random.Generator) -> Callable[[Box], Box]:
    """Draw how an operator's box differs from the annotated one; relative to the box, in every picture."""
    dx, dy = rng.uniform(-REDRAWN_SHIFT, REDRAWN_SHIFT, 2)
    grow_w, grow_h = np.exp(rng.uniform(-REDRAWN_SCALE, REDRAWN_SCALE, 2))
    return lambda box: Box(
        box.cx + dx * box.w, box.cy + dy * box.h, float(box.w * grow_w), float(box.h * grow_h)
    )


def photometric(rng: np.random.Generator, image: UInt8Array, strength: float) -> UInt8Array:
    """Change exposure, contrast, colour, saturation; sometimes light gradient, blur, motion blur, noise.

    Args:
        rng: source of randomness.
        image: ``uint8 [n,n,3]``.
        strength: 0 leaves the image as it is.
    """
    if strength <= 0:
        return image
    out = image
    s = 0.35 * strength
    if rng.random() < 0.8:
        levels = np.arange(256, dtype=np.float32)
        gain, bias = rng.uniform(1 - s, 1 + s), rng.uniform(-80, 80) * s
        gamma = math.exp(rng.normal(0, 0.5 * s))
        curve = 255 * np.power(levels / 255, gamma) * gain + bias
        tint = rng.uniform(1 - s / 2, 1 + s / 2, 3) if rng.random() < 0.5 else np.ones(3)
        table = np.clip(curve[:, None] * tint[None], 0, 255).astype(np.uint8)
        out = cv2.LUT(out, table[None].reshape(1, 256, 3))
    if rng.random() < 0.3 * strength:
        gray = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        out = cv2.addWeighted(out, a := float(rng.uniform(0.2, 1.5)), gray, 1 - a, 0)
    if rng.random() < 0.12 * strength:
        ramp = np.linspace(
            rng.uniform(0.4, 1.0), rng.uniform(1.0, 1.5), out.shape[1], dtype=np.float32
        )
        ramp = ramp if rng.random() < 0.5 else ramp[::-1]
        shade = ramp[None, :, None] if rng.random() < 0.5 else ramp[:, None, None]
        out = np.clip(out * shade, 0, 255).astype(np.uint8)
    chance = rng.random()
    if chance < 0.13 * strength:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.6, 2.5))
    elif chance < 0.26 * strength:
        out = cv2.filter2D(out, -1, motion_kernel(rng))
    if rng.random() < 0.12 * strength:
        noise = rng.integers(-128, 128, out.shape[:2], dtype=np.int8).astype(np.float32)
        noise *= rng.uniform(2, 12) / 74  # uniform on +-128 has a standard deviation of 74
        out = np.clip(out + noise[:, :, None], 0, 255).astype(np.uint8)
    return np.ascontiguousarray(out)


def motion_kernel(rng: np.random.Generator) -> FloatArray:
    """Line kernel of 3 to 18 px in a random direction."""
    n = int(rng.integers(3, 19))
    angle, mid = rng.uniform(0, math.pi), (n - 1) / 2
    dx, dy = mid * math.cos(angle), mid * math.sin(angle)
    kernel = np.zeros((n, n), np.float32)
    start = (round(mid - dx), round(mid - dy))
    cv2.line(kernel, start, (round(mid + dx), round(mid + dy)), 1.0, 1)
    return kernel / kernel.sum()


def low_resolution(image: UInt8Array, factor: float) -> UInt8Array:
    """Shrink by ``factor`` and enlarge again: a small target seen from far."""
    n = image.shape[0]
    small = max(8, int(n / factor))
    reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(reduced, (n, n), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def to_gray(image: UInt8Array) -> UInt8Array:
    """Gray picture in three channels."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def paste(
    rng: np.random.Generator,
    canvas: UInt8Array,
    patch: UInt8Array,
    box: Box,
    alpha: UInt8Array | None = None,
) -> None:
    """Lay ``patch`` (RGB) over ``canvas`` in place, resized to ``box`` (canvas px), with soft edges.

    Args:
        rng: chooses between an elliptic and a rectangular outline where ``alpha`` is None.
        canvas: ``uint8 [H,W,3]``, changed.
        patch: ``uint8 [h,w,3]``.
        box: where; parts outside the canvas are cut off.
        alpha: ``uint8 [h,w]`` outline of the patch, or None.
    """
    w, h = max(4, round(box.w)), max(4, round(box.h))
    x0, y0 = round(box.cx - (w - 1) / 2), round(box.cy - (h - 1) / 2)
    left, top = max(0, x0), max(0, y0)
    right, bottom = min(canvas.shape[1], x0 + w), min(canvas.shape[0], y0 + h)
    if right <= left or bottom <= top or w > 4096 or h > 4096:
        return
    resized = cv2.resize(patch, (w, h), interpolation=cv2.INTER_AREA)
    if alpha is not None:
        mask = cv2.resize(alpha, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    elif rng.random() < 0.6:
        mask = np.zeros((h, w), np.float32)
        cv2.ellipse(mask, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1.0, -1)
    else:
        mask = np.ones((h, w), np.float32)
    mask = cv2.GaussianBlur(mask, (3, 3), 0.8)
    part = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
    weight = mask[part][:, :, None]
    here = np.s_[top:bottom, left:right]
    canvas[here] = (canvas[here] * (1 - weight) + resized[part] * weight).astype(np.uint8)
