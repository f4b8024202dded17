"""From CameraInfo to rays and back, with the lens distortion.

Rays are in the camera's optical frame (x right, y down, z forward) at depth 1; pixels are in
pixel-centre coordinates (the middle of the first pixel is (0, 0)), as in CameraInfo.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

POLYNOMIALS = {"plumb_bob": 5, "rational_polynomial": 8, "thin_prism_model": 12}
"""Distortion models that OpenCV's projection takes as they are, and how many numbers they have."""

FISHEYE = ("equidistant", "fisheye")

STEPS = 50
CLOSE = 1e-4
"""Pixels: how well a ray must project to its pixel."""


class CameraInfoError(ValueError):
    """A CameraInfo that says nothing about the images; the message says why, for people."""


class CameraRays:
    """A camera's rays.

    Args:
        matrix: ``[3,3]``, focal lengths and principal point in pixels.
        distortion: the lens, as CameraInfo's ``d``; empty = none.
        model: CameraInfo's ``distortion_model``.
        size: width and height of the images, pixels.

    Raises:
        CameraInfoError: if such a camera cannot be.
    """

    def __init__(self, matrix: Array, distortion: Array, model: str, size: tuple[int, int]) -> None:
        self.matrix = np.asarray(matrix, dtype=np.float64).reshape(3, 3)
        self.size = size
        self._fisheye = model in FISHEYE
        lens = np.asarray(distortion, dtype=np.float64).reshape(-1)
        if not (np.isfinite(self.matrix).all() and np.isfinite(lens).all()):
            raise CameraInfoError("camera_info holds numbers that are not finite")
        if self.matrix[0, 0] <= 0 or self.matrix[1, 1] <= 0:
            raise CameraInfoError(
                "camera_info has no focal length (k is zero): the camera is not calibrated"
            )
        if not lens.any():
            lens = lens[:0]
        if self._fisheye:
            if lens.size not in (0, 4):
                raise CameraInfoError(f"camera_info: {model} has 4 numbers in d, got {lens.size}")
            lens = lens if lens.size else np.zeros(4)
        elif lens.size:
            if model not in POLYNOMIALS:
                known = ", ".join([*POLYNOMIALS, *FISHEYE])
                raise CameraInfoError(
                    f"camera_info: distortion_model {model!r} is not known; known are {known}"
                )
            if lens.size not in (4, 5, 8, 12, 14):
                raise CameraInfoError(
                    f"camera_info: {model} has {POLYNOMIALS[model]} numbers in d, got {lens.size}"
                )
        self.distortion = lens

    def project(self, points: Array) -> Array:
        """Return the pixels ``[N,2]`` of points ``[N,3]``, metres; NaN for what is not in front."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        pixels = np.full((len(points), 2), np.nan)
        seen = np.isfinite(points).all(axis=1) & (points[:, 2] > 1e-9)
        if seen.any():
            ahead = np.ascontiguousarray(points[seen]).reshape(-1, 1, 3)
            zero = np.zeros((3, 1))
            if self._fisheye:
                found, _ = cv2.fisheye.projectPoints(
                    ahead, zero, zero, self.matrix, self.distortion
                )
            else:
                lens = self.distortion if self.distortion.size else np.zeros(4)
                found, _ = cv2.projectPoints(ahead, zero, zero, self.matrix, lens)
            pixels[seen] = np.asarray(found).reshape(-1, 2)
        return pixels

    def rays(self, pixels: Array) -> Array:
        """Return x, y of the rays ``[N,2]`` through pixels ``[N,2]``; NaN where there is none.

        Newton's method on :meth:`project`: OpenCV's own inversions stop early on strong lenses, and
        differently from version to version.
        """
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        focal = np.array([self.matrix[0, 0], self.matrix[1, 1]])
        centre = self.matrix[:2, 2]
        rays = (pixels - centre) / focal
        if not self.distortion.size:
            return rays
        if self._fisheye:
            radius = np.linalg.norm(rays, axis=1, keepdims=True)
            scale = np.tan(np.minimum(radius, 1.4)) / np.maximum(radius, 1e-9)
            rays = rays * np.where(radius > 1e-9, scale, 1.0)
        h = 1e-6
        for _ in range(STEPS):
            here = self._project_rays(rays)
            error = pixels - here
            if not np.any(np.abs(error) > CLOSE / 10):
                break
            dx = (self._project_rays(rays + np.array([h, 0.0])) - here) / h
            dy = (self._project_rays(rays + np.array([0.0, h])) - here) / h
            determinant = dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]
            determinant = np.where(np.abs(determinant) < 1e-6, np.nan, determinant)
            step = np.stack(
                [
                    (error[:, 0] * dy[:, 1] - error[:, 1] * dy[:, 0]) / determinant,
                    (error[:, 1] * dx[:, 0] - error[:, 0] * dx[:, 1]) / determinant,
                ],
                axis=1,
            )
            rays = rays + np.clip(step, -0.5, 0.5)
        error = np.abs(self._project_rays(rays) - pixels).max(axis=1)
        rays[~(error <= CLOSE)] = np.nan
        return rays

    def _project_rays(self, rays: Array) -> Array:
        return self.project(np.column_stack([rays, np.ones(len(rays))]))


def calibrated_camera(info: Any, *, rectified: bool) -> CameraRays:
    """Return the rays of the images that a sensor_msgs/CameraInfo is of.

    Args:
        info: the message; its region of interest and binning are taken into account.
        rectified: whether the images are rectified: then ``p`` counts and the lens does not.

    Raises:
        CameraInfoError: no size, not calibrated, a lens that is not known.
    """
    matrix = np.array(info.p if rectified else info.k, dtype=np.float64)
    matrix = matrix.reshape(3, 4)[:, :3].copy() if rectified else matrix.reshape(3, 3).copy()
    roi = info.roi
    whole = (int(info.width), int(info.height))
    if min(whole) <= 0:
        if not matrix.any():
            raise CameraInfoError("camera_info is all zero: the camera is not calibrated")
        raise CameraInfoError(f"camera_info has no size ({whole[0]} x {whole[1]})")
    cut = (int(roi.width), int(roi.height))
    seen = cut if min(cut) > 0 else whole
    binning = (max(int(info.binning_x), 1), max(int(info.binning_y), 1))
    if min(cut) > 0:
        matrix[0, 2] -= roi.x_offset
        matrix[1, 2] -= roi.y_offset
    matrix[0] /= binning[0]
    matrix[1] /= binning[1]
    lens = np.zeros(0) if rectified else np.array(info.d, dtype=np.float64)
    model = "" if rectified else str(info.distortion_model)
    return CameraRays(matrix, lens, model, (seen[0] // binning[0], seen[1] // binning[1]))


def camera_from_info(info: Any, size: tuple[int, int], *, rectified: bool) -> CameraRays:
    """Return :func:`calibrated_camera` for images of ``size`` (width, height).

    Raises:
        CameraInfoError: also if the message is of images of another size.
    """
    camera = calibrated_camera(info, rectified=rectified)
    if camera.size != size:
        raise CameraInfoError(
            f"camera_info is for {camera.size[0]} x {camera.size[1]} pixels, the images have "
            f"{size[0]} x {size[1]}"
        )
    return camera
