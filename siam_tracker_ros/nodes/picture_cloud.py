"""A camera's picture as an organised point cloud that can be clicked on in RViz.

The points lie on a plane in front of the camera, in its optical frame, evenly spaced: a lens'
distortion is taken out of the picture on the way there and put back into what is clicked. Seen from
the camera's place the plane covers exactly what the camera sees.
"""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box, Picture
from siam_tracker_ros.nodes.camera_rays import Array, CameraInfoError, CameraRays

COLUMNS, ROWS = 320, 180
"""At most so many points."""

WIDEST = math.radians(65.0)
"""What is further from the optical axis is left out: a plane would have to be endless."""

POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
"""One point as it lies in the message."""

Colour = tuple[int, int, int]


class ClickError(ValueError):
    """A click that means no pixel; the message says why, for people."""


class PictureCloud:
    """Where the points of one camera's pictures are.

    Args:
        camera: its rays.
        point_size: distance of neighbouring points, metres.
        columns, rows: at most so many points.

    Attributes:
        positions: ``float32 [rows, columns, 3]``, metres, optical frame; NaN outside the picture.
        pixels: ``float64 [rows, columns, 2]``, where in the picture each point is.
        distance: of the plane, metres.
        complete: whether all of the picture is on the plane.

    Raises:
        CameraInfoError: if no pixel has a ray.
    """

    def __init__(
        self, camera: CameraRays, point_size: float, columns: int = COLUMNS, rows: int = ROWS
    ) -> None:
        self.camera = camera
        self.point_size = point_size
        width, height = camera.size
        rays = camera.rays(_samples(width, height))
        usable = np.isfinite(rays).all(axis=1)
        usable[usable] = np.hypot(rays[usable, 0], rays[usable, 1]) <= math.tan(WIDEST)
        if not usable.any():
            raise CameraInfoError("camera_info: no pixel of the picture has a ray in front of it")
        self.complete = bool(usable.all())
        low, high = rays[usable].min(axis=0), rays[usable].max(axis=0)
        span = np.maximum(high - low, 1e-9)
        # No finer than the pixels, no more points than allowed.
        finest = min(1.0 / camera.matrix[0, 0], 1.0 / camera.matrix[1, 1])
        self.spacing = float(max(span[0] / columns, span[1] / rows, finest))
        w = min(columns, math.ceil(span[0] / self.spacing - 1e-6))
        h = min(rows, math.ceil(span[1] / self.spacing - 1e-6))
        middle = (low + high) / 2
        x = middle[0] + (np.arange(w) - (w - 1) / 2) * self.spacing
        y = middle[1] + (np.arange(h) - (h - 1) / 2) * self.spacing
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        pixels = self._pixels(grid)
        pixels[~_inside(pixels, width, height)] = np.nan
        self.distance = point_size / self.spacing
        self.pixels = pixels.reshape(h, w, 2)
        positions = np.column_stack([grid, np.ones(len(grid))]) * self.distance
        positions[np.isnan(pixels).any(axis=1)] = np.nan
        self.positions = positions.reshape(h, w, 3).astype(np.float32)
        self.pixels_per_point = self.spacing * float(camera.matrix[0, 0])
        reduction = max(1, round(self.pixels_per_point))
        self._reduced = (max(1, round(width / reduction)), max(1, round(height / reduction)))
        scale = np.array(self._reduced) / (width, height)
        self._map = np.nan_to_num((self.pixels + 0.5) * scale - 0.5).astype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (int(self.positions.shape[0]), int(self.positions.shape[1]))

    def points(self, picture: Picture) -> npt.NDArray[np.void]:
        """Return the points (:data:`POINT`, ``[rows, columns]``) in the colours of a picture.

        Raises:
            ImageError: if the picture cannot be read.
        """
        rgb = picture.rgb_region(0, 0, picture.width, picture.height)
        if self._reduced != (picture.width, picture.height):
            rgb = np.asarray(cv2.resize(rgb, self._reduced, interpolation=cv2.INTER_AREA), np.uint8)
        seen = cv2.remap(
            rgb, self._map[..., 0], self._map[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
        )
        points = np.zeros(self.shape, POINT)
        for axis, name in enumerate("xyz"):
            points[name] = self.positions[..., axis]
        colours = np.asarray(seen).astype(np.uint32)
        points["rgb"] = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
        return points

    def draw_box(self, points: npt.NDArray[np.void], box: Box, colour: Colour) -> None:
        """Paint the points nearest to a box' edges (image pixels)."""
        half = 0.5 * self.pixels_per_point
        x1, y1, x2, y2 = box.edges
        x, y = self.pixels[..., 0], self.pixels[..., 1]
        around = (x > x1 - half) & (x < x2 + half) & (y > y1 - half) & (y < y2 + half)
        within = (x > x1 + half) & (x < x2 - half) & (y > y1 + half) & (y < y2 - half)
        points["rgb"][around & ~within] = colour[0] << 16 | colour[1] << 8 | colour[2]

    def draw_cross(
        self, points: npt.NDArray[np.void], pixel: tuple[float, float], colour: Colour
    ) -> None:
        """Paint a row and a column of points through a pixel."""
        half = 0.5 * self.pixels_per_point
        near = np.abs(self.pixels - np.array(pixel)) < half
        points["rgb"][near.any(axis=-1)] = colour[0] << 16 | colour[1] << 8 | colour[2]

    def pixel_of(self, point: tuple[float, float, float]) -> tuple[float, float]:
        """Return the pixel that a point on the plane shows.

        Args:
            point: metres, in the optical frame.

        Returns:
            x, y, inside the picture; what is less than a point's size outside is put on its edge.

        Raises:
            ClickError: the point is not on the plane, or outside the picture.
        """
        x, y, z = (float(v) for v in point)
        if not all(math.isfinite(v) for v in (x, y, z)):
            raise ClickError(f"the click is no point: ({x:g}, {y:g}, {z:g})")
        # From the side, what is clicked is as far off the plane as a square is wide.
        allowed = max(5 * self.point_size, 0.02 * self.distance)
        if abs(z - self.distance) > allowed:
            raise ClickError(
                f"the click is not on the picture: {z:.2f} m in front of the camera, where the "
                f"picture is at {self.distance:.2f} m"
            )
        ray = np.array([[x / z, y / z]])
        pixel = self._pixels(ray)[0]
        width, height = self.camera.size
        reach = self.pixels_per_point
        if np.isnan(pixel).any() or not _inside(pixel[None], width, height, reach)[0]:
            raise ClickError(f"the click at ({x:.2f}, {y:.2f}, {z:.2f}) m is outside the picture")
        return (
            min(max(float(pixel[0]), -0.5), width - 0.5),
            min(max(float(pixel[1]), -0.5), height - 0.5),
        )

    def point_of(self, pixel: tuple[float, float]) -> tuple[float, float, float]:
        """Return where a pixel is shown, metres; NaN where it is not."""
        ray = self.camera.rays(np.array([pixel]))[0] * self.distance
        return (float(ray[0]), float(ray[1]), self.distance)

    def outline(self, box: Box, pieces: int = 8) -> Array:
        """Return a closed line ``[4 * pieces + 1, 3]`` around a box, a hair before the plane.

        A box' straight edges are bent where a lens' distortion was taken out.
        """
        x1, y1, x2, y2 = box.edges
        corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])
        along = np.arange(pieces)[:, None] / pieces
        sides = [a + (b - a) * along for a, b in pairwise(corners)]
        line = self.camera.rays(np.vstack([*sides, corners[-1:]]))
        line = line[np.isfinite(line).all(axis=1)]
        return np.column_stack([line, np.ones(len(line))]) * (self.distance * 0.998)

    def _pixels(self, rays: Array) -> Array:
        """Project rays; NaN where the lens' polynomial folds back."""
        pixels = self.camera.project(np.column_stack([rays, np.ones(len(rays))]))
        width, height = self.camera.size
        near = _inside(pixels, width, height, max(width, height) / 4)
        near &= np.hypot(rays[:, 0], rays[:, 1]) <= math.tan(WIDEST) + self.spacing
        pixels[~near] = np.nan
        if near.any():
            back = self.camera.rays(pixels[near])
            folded = ~(np.abs(back - rays[near]).max(axis=1) <= 0.5 * self.spacing)
            pixels[np.flatnonzero(near)[folded]] = np.nan
        return pixels


def _inside(pixels: Array, width: int, height: int, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    x, y = pixels[:, 0], pixels[:, 1]
    wide = (x >= -0.5 - margin) & (x <= width - 0.5 + margin)
    return np.asarray(wide & (y >= -0.5 - margin) & (y <= height - 0.5 + margin))


def _samples(width: int, height: int, steps: int = 33) -> Array:
    """Return pixels spread over a picture, its edges among them."""
    x = np.linspace(-0.5, width - 0.5, steps)
    y = np.linspace(-0.5, height - 0.5, steps)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
