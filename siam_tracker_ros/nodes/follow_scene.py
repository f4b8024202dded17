"""A made-up place in which a robot follows something: rendered camera and depth images, exact truth.

A textured, upright thing walks over a patterned ground; now and then a wall passes between it and the
robot. World: x, y on the ground, z up, metres. Robot: x forward, y left. The camera looks forward from
above the robot's middle. The same seed gives the same walk and the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.geometry.pictures import UInt8Array
from siam_tracker_ros.nodes.synthetic_scene import ORANGE

CAMERA_HEIGHT = 0.5
TARGET_WIDTH, TARGET_HEIGHT = 0.5, 1.0
WALL_WIDTH, WALL_HEIGHT = 0.75, 1.6
WALL_PLACE = 0.6
"""Where the wall passes, as a share of the way from the robot to the target."""

STEP = 0.02
"""Seconds of the walk's integration."""

FIRST_HIDING, HIDING_PERIOD = 15.0, 25.0
HIDINGS = (0.5, 1.0, 2.0)
"""Seconds for which the wall rests before the target, in turn; coming and going take MOVING each."""

MOVING = 1.5
LONGEST_REST = HIDING_PERIOD - 2 * MOVING - 5.0
BESIDE = 2.2
"""Where the wall comes from and goes to, metres beside the line of sight."""

FAR = 10.0
"""The depth camera sees no further, metres."""

TILE = 8.0
"""Side of the ground's pattern, which repeats, metres."""


@dataclass(frozen=True)
class Place:
    """Where the robot is: metres and radians, in the world."""

    x: float
    y: float
    yaw: float

    def seen(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the world in the robot's frame."""
        dx, dy, c, s = x - self.x, y - self.y, math.cos(self.yaw), math.sin(self.yaw)
        return c * dx + s * dy, -s * dx + c * dy


@dataclass(frozen=True)
class SceneView:
    """One picture.

    Attributes:
        pixels: ``uint8 [H, W, 3]``, BGR.
        depth: ``uint16 [H, W]``, millimetres, 0 = none.
        box: of the target, clipped to the image; None if it is outside.
        visible: share of the target's width that is in the image and not behind the wall.
    """

    pixels: UInt8Array
    depth: npt.NDArray[np.uint16]
    box: Box | None
    visible: float


class FollowScene:
    """The place.

    Args:
        duration: seconds of the target's walk; it stands still afterwards.
        width, height: of the images, pixels.
        fov: of the camera, radians across.
        hiding: whether the wall passes.
        seed: of the walk and the patterns.
        rests: seconds for which the wall rests before the target, in turn; below
            :data:`LONGEST_REST`.

    Raises:
        ValueError: if ``rests`` cannot be.
    """

    def __init__(
        self,
        duration: float,
        width: int = 640,
        height: int = 480,
        fov: float = math.radians(75),
        hiding: bool = True,
        seed: int = 0,
        rests: Sequence[float] = HIDINGS,
    ) -> None:
        if not rests or not all(0 <= rest <= LONGEST_REST for rest in rests):
            raise ValueError(f"rests must be of 0 to {LONGEST_REST:g} s, got {list(rests)}")
        self.rests = tuple(rests)
        self.width, self.height, self.hiding, self.duration = width, height, hiding, duration
        self.focal = width / 2 / math.tan(fov / 2)
        self.cx, self.cy = (width - 1) / 2, (height - 1) / 2
        random = np.random.default_rng(seed)
        self._walk = _walk(random, duration)
        side = 512
        self._ground = _noise(random, side, side, (90, 100, 105), 35)
        around = round(2 * math.pi * self.focal)
        self._horizon = math.floor(self.cy) + 1  # the first row that sees ground
        self._far = _noise(random, around, self._horizon, (150, 140, 125), 45)
        self._target = _pattern(random, ORANGE, 20)
        self._wall = _noise(random, 96, 192, (120, 90, 60), 50)
        columns, rows = np.arange(width), np.arange(self._horizon, height)
        self._angles = -np.arctan((columns - self.cx) / self.focal)
        forward = self.focal * CAMERA_HEIGHT / (rows - self.cy)
        self._ground_x = np.repeat(forward[:, None], width, axis=1).astype(np.float32)
        self._ground_y = (-(columns - self.cx) / self.focal * forward[:, None]).astype(np.float32)
        base = np.zeros((height, width), np.float32)
        base[self._horizon :] = np.where(self._ground_x <= FAR, self._ground_x, 0) * 1000
        self._ground_depth = base
        self._noise = random.normal(0.0, 1.0, (2 * height, 2 * width)).astype(np.float32)
        self._random = random

    def target(self, t: float) -> tuple[float, float]:
        """Return where the target is at a time of the walk."""
        index = min(max(t, 0.0), self.duration) / STEP
        low = min(int(index), len(self._walk) - 2)
        a, b = self._walk[low], self._walk[low + 1]
        x, y = a + (b - a) * (index - low)
        return float(x), float(y)

    def start(self, distance: float) -> Place:
        """Return a place for the robot behind the target, looking at it."""
        x, y = self.target(0.0)
        return Place(x - distance, y, 0.0)

    def wall(self, t: float) -> float | None:
        """Return how far left of the line of sight the wall is, metres; None while it is away."""
        if not self.hiding or t < FIRST_HIDING:
            return None
        round_, since = divmod(t - FIRST_HIDING, HIDING_PERIOD)
        rest = self.rests[int(round_) % len(self.rests)]
        side = 1.0 if int(round_) % 2 else -1.0
        if since < MOVING:
            return side * BESIDE * (1 - since / MOVING)
        if since < MOVING + rest:
            return 0.0
        if since < 2 * MOVING + rest:
            return -side * BESIDE * (since - MOVING - rest) / MOVING
        return None

    def view(self, t: float, robot: Place) -> SceneView:
        """Render what the camera sees."""
        pixels = self._background(robot)
        depth = self._ground_depth.copy()
        x, y = robot.seen(*self.target(t))
        box, visible = None, 0.0
        offset = self.wall(t)
        target = self._stands(x, y, TARGET_WIDTH, TARGET_HEIGHT)
        if target is not None:
            _paint(pixels, depth, target, self._target, x)
            box = _clipped(target, self.width, self.height)
            visible = 0.0 if box is None else box.w / target.w
        if offset is not None:
            distance = math.hypot(x, y)
            if distance > 0.3:
                ux, uy = x / distance, y / distance
                wx = WALL_PLACE * x - offset * uy
                wy = WALL_PLACE * y + offset * ux
                wall = self._stands(wx, wy, WALL_WIDTH, WALL_HEIGHT)
                if wall is not None:
                    _paint(pixels, depth, wall, self._wall, wx)
                    if box is not None:
                        hidden = min(box.edges[2], wall.edges[2]) - max(box.edges[0], wall.edges[0])
                        visible *= 1 - min(1.0, max(0.0, hidden / box.w))
        return SceneView(pixels, self._noisy(depth), box, visible)

    def _stands(self, x: float, y: float, width: float, height: float) -> Box | None:
        """Return the box of something upright that faces the camera."""
        if x < 0.25:
            return None
        k = self.focal / x
        u, foot = self.cx - k * y, self.cy + k * CAMERA_HEIGHT
        return Box(u, foot - k * height / 2, k * width, k * height)

    def _background(self, robot: Place) -> UInt8Array:
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        around = self._far.shape[1]
        turn = ((self._angles + robot.yaw) / (2 * math.pi) * around).astype(np.intp) % around
        pixels[: self._horizon] = self._far[:, turn]
        k = self._ground.shape[0] / TILE
        c, s = k * math.cos(robot.yaw), k * math.sin(robot.yaw)
        side = float(self._ground.shape[0])
        x0, y0 = (k * robot.x) % side, (k * robot.y) % side
        map_x = np.float32(c) * self._ground_x - np.float32(s) * self._ground_y + np.float32(x0)
        map_y = np.float32(s) * self._ground_x + np.float32(c) * self._ground_y + np.float32(y0)
        pixels[self._horizon :] = cv2.remap(
            self._ground, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        return pixels

    def _noisy(self, depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
        """Return millimetres with noise of half a percent and some pixels without depth."""
        h, w = depth.shape
        y, x = self._random.integers(0, h), self._random.integers(0, w)
        noise = self._noise[y : y + h, x : x + w]
        values = depth * (1 + 0.005 * noise)
        values[noise > 1.6] = 0
        return values.astype(np.uint16)


def _walk(random: np.random.Generator, duration: float) -> npt.NDArray[np.float64]:
    """Return the target's places ``[n, 2]``, every :data:`STEP` seconds.

    Its speed swings between standing and 0.5 m/s, its way between left and right.
    """
    t = np.arange(0.0, duration + 2 * STEP, STEP)
    a, b, c = random.uniform(0.0, 2 * math.pi, 3)
    speed = np.clip(0.28 + 0.27 * np.sin(2 * math.pi * t / 19 + a), 0.0, 0.5)
    speed *= np.clip(t / 3, 0.0, 1.0)
    turn = 0.09 * np.sin(2 * math.pi * t / 31 + b) + 0.07 * np.sin(2 * math.pi * t / 47 + c)
    yaw = np.cumsum(turn) * STEP
    steps = np.stack([speed * np.cos(yaw), speed * np.sin(yaw)], axis=1) * STEP
    return np.cumsum(steps, axis=0)


def _noise(
    random: np.random.Generator, width: int, height: int, colour: tuple[int, int, int], swing: float
) -> UInt8Array:
    """Return a pattern on three scales that repeats across and down, ``uint8 [height, width, 3]``."""
    total = np.zeros((height, width), np.float32)
    for cells, weight in ((6, 0.5), (24, 0.3), (96, 0.2)):
        across, down = min(cells, width), min(max(1, cells * height // width), height)
        field = random.uniform(-1.0, 1.0, (down, across)).astype(np.float32)
        field = np.pad(field, ((0, 1), (0, 1)), mode="wrap")
        ys = np.linspace(0, down, height, endpoint=False, dtype=np.float32)
        xs = np.linspace(0, across, width, endpoint=False, dtype=np.float32)
        grid_x, grid_y = np.meshgrid(xs, ys)
        total += weight * cv2.remap(field, grid_x, grid_y, cv2.INTER_LINEAR)
    shade = 1 + total[..., None] * swing / 100 * 2
    return np.clip(np.array(colour, np.float32) * shade, 0, 255).astype(np.uint8)


def _pattern(random: np.random.Generator, colour: tuple[int, int, int], swing: float) -> UInt8Array:
    """Return blotches near one colour, ``uint8 [128, 64, 3]``."""
    blotches = random.uniform(-swing, swing, (8, 4)).astype(np.float32)
    shade = cv2.resize(blotches, (64, 128), interpolation=cv2.INTER_NEAREST)
    return np.clip(np.array(colour, np.float32) + shade[..., None], 0, 255).astype(np.uint8)


def _clipped(box: Box, width: int, height: int) -> Box | None:
    x1, y1, x2, y2 = box.edges
    x1, y1 = max(x1, -0.5), max(y1, -0.5)
    x2, y2 = min(x2, width - 0.5), min(y2, height - 0.5)
    if x2 - x1 < 4 or y2 - y1 < 4:
        return None
    return Box.from_edges(x1, y1, x2, y2)


def _paint(
    pixels: UInt8Array,
    depth: npt.NDArray[np.float32],
    box: Box,
    texture: UInt8Array,
    distance: float,
) -> None:
    """Draw something upright at its real-valued place, and its depth."""
    rows, columns = texture.shape[:2]
    x0, y0 = max(0, math.floor(box.edges[0] - 1)), max(0, math.floor(box.edges[1] - 1))
    x1 = min(pixels.shape[1], math.ceil(box.edges[2] + 2))
    y1 = min(pixels.shape[0], math.ceil(box.edges[3] + 2))
    if x1 <= x0 or y1 <= y0:
        return
    kx, ky = box.w / columns, box.h / rows
    matrix = np.array(
        [
            [kx, 0.0, box.cx - kx * (columns - 1) / 2 - x0],
            [0.0, ky, box.cy - ky * (rows - 1) / 2 - y0],
        ]
    )
    size = (x1 - x0, y1 - y0)
    colour = cv2.warpAffine(texture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(np.full((rows, columns), 255, np.uint8), matrix, size)
    share = cover[..., None].astype(np.float32) / 255
    window = pixels[y0:y1, x0:x1]
    window[:] = np.rint(window * (1 - share) + colour * share).astype(np.uint8)
    depth[y0:y1, x0:x1][cover > 127] = distance * 1000
