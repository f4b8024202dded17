"""Where a target is: from its box in an image to a point and its covariance in the camera's frame.

Pixels are pixel-centre coordinates (the middle of the first pixel is (0, 0), as in CameraInfo). Camera
frames are optical: x right, y down, z forward, metres. Nothing of ROS is imported here; messages' fields
are only read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.camera_rays import CameraInfoError, CameraRays, calibrated_camera
from siam_tracker_ros.nodes.parameters import Change
from siam_tracker_ros.nodes.settings import Settings, as_markdown, setting

FloatArray = npt.NDArray[np.float64]

MAX_SAMPLES = 20_000
"""Depth pixels that are looked at for one box; more are thinned out evenly."""

DEPTH_BIN = 0.04
"""Width of a bin of the depth histogram, as a share of the depth."""

EDGE = 1.5
"""A box nearer than this to the image's edge (pixels) is taken to be cut by it."""


@dataclass(frozen=True)
class LocalizerSettings(Settings):
    """The values of all parameters of ``target_localizer_node``; the fields are the table."""

    methods: tuple[str, ...] = setting(
        ("depth",),
        "Where the range comes from; the first that works for an image is used.",
        Change.CONFIGURE,
        choices=("depth", "height", "ground"),
    )
    output_frame: str = setting(
        "",
        "Frame of the poses, by TF at the image's stamp (odom or map for Nav2). Empty: the camera's.",
    )
    child_frame: str = setting(
        "tracked_target", "TF frame broadcast with each pose. Empty: none.", Change.CONFIGURE
    )
    min_score: float = setting(
        0.3, "No pose from a detection with a lower score.", low=0.0, high=1.0
    )
    image_rectified: bool = setting(
        False, "The tracker's images are rectified: camera_info's P holds, not K and D."
    )
    depth_registered: bool = setting(
        True,
        "The depth image is in the camera's pixels, perhaps scaled. Else depth_camera_info and TF "
        "between the two cameras are used.",
    )
    depth_tolerance: float = setting(
        0.04,
        "How far the stamp of a depth image may be from the image's.",
        low=0.0,
        high=1.0,
        unit="s",
    )
    depth_min: float = setting(0.2, "Nearer depths count as none.", low=0.01, high=100.0, unit="m")
    depth_max: float = setting(20.0, "Further ones too.", low=0.1, high=1000.0, unit="m")
    depth_part: float = setting(
        0.6, "Share of the box's width and height in which depth is read.", low=0.05, high=1.0
    )
    depth_least: float = setting(
        0.1, "Share of those pixels that must have a depth.", low=0.0, high=1.0
    )
    depth_sigma: float = setting(
        0.01, "Standard deviation of the depth, as a share of it.", low=0.0, high=1.0
    )
    target_height: float = setting(
        0.0,
        "Height of the target, for the method height; 0: not known.",
        low=0.0,
        high=100.0,
        unit="m",
    )
    target_height_sigma: float = setting(
        0.1, "Standard deviation of that height.", low=0.0, high=10.0, unit="m"
    )
    ground_frame: str = setting(
        "base_footprint", "Frame whose z is up and 0 on the ground, for the method ground."
    )
    box_sigma: float = setting(
        0.05, "Standard deviation of the box, as a share of its size.", low=0.0, high=1.0
    )
    wait: float = setting(
        0.15, "How long an image's depth and TF are waited for.", low=0.0, high=2.0, unit="s"
    )
    image_transport: str = setting(
        "raw",
        "Whether one image is read from `image` or `image`/compressed to check that camera_info is of "
        "its size; off: neither.",
        Change.CONFIGURE,
        choices=("raw", "compressed", "off"),
    )

    def problems(self) -> list[str]:
        """Say what is wrong with values that are right one by one."""
        found = []
        if self.depth_min >= self.depth_max:
            found.append(
                f"depth_min = {self.depth_min:g} must be below depth_max = {self.depth_max:g}"
            )
        if "height" in self.methods and self.target_height <= 0:
            found.append("the method height needs target_height, in metres")
        if "ground" in self.methods and not self.ground_frame:
            found.append("the method ground needs ground_frame")
        return found

    @property
    def depth_rules(self) -> DepthRules:
        """What of this concerns depth."""
        return DepthRules(self.depth_min, self.depth_max, self.depth_part, self.depth_least)


class LocalizationError(ValueError):
    """No position can be had; the message says why, for people."""


@dataclass(frozen=True)
class Position:
    """A point with its uncertainty.

    Attributes:
        point: ``float64 [3]``, metres, in the camera's optical frame.
        covariance: ``float64 [3, 3]``, m^2, in the same frame.
        method: depth, height or ground.
    """

    point: FloatArray
    covariance: FloatArray
    method: str


def read_camera(info: Any, rectified: bool = False) -> CameraRays:
    """Return the camera of a sensor_msgs/CameraInfo; binning and region of interest are applied.

    Args:
        info: the message.
        rectified: the images are rectified: P holds, and there is no distortion.

    Raises:
        LocalizationError: no size, not calibrated, a lens that is not known.
    """
    try:
        return calibrated_camera(info, rectified=rectified)
    except CameraInfoError as error:
        raise LocalizationError(str(error)) from error


# --- depth ----------------------------------------------------------------------------------------


def read_depth(message: Any) -> FloatArray:
    """Return a depth image in metres, ``[H, W]``, NaN where there is none (zeros, NaN, infinite).

    Args:
        message: sensor_msgs/Image, 16UC1 (millimetres) or 32FC1 (metres), as REP 118 says.

    Raises:
        LocalizationError: another encoding, no pixels, step or data too short.
    """
    width, height, step = int(message.width), int(message.height), int(message.step)
    kinds = {"16UC1": ("u2", 0.001), "mono16": ("u2", 0.001), "32FC1": ("f4", 1.0)}
    if message.encoding not in kinds:
        raise LocalizationError(
            f"the depth image is {message.encoding!r}; 16UC1 (mm) or 32FC1 (m) is needed"
        )
    kind, unit = kinds[message.encoding]
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    if width <= 0 or height <= 0:
        raise LocalizationError(f"the depth image has no pixels ({width} x {height})")
    data = np.frombuffer(message.data, np.uint8)
    if step < width * dtype.itemsize or data.size < step * height:
        raise LocalizationError(
            f"the depth image is damaged: {data.size} bytes and step {step} for "
            f"{width} x {height} {message.encoding}"
        )
    rows = data[: step * height].reshape(height, step)[:, : width * dtype.itemsize]
    values = np.ascontiguousarray(rows).view(dtype).astype(np.float32)
    values *= unit
    values[~(np.isfinite(values) & (values > 0))] = np.nan
    return values  # type: ignore[return-value]


def to_depth_box(box: Box, camera: CameraRays, depth: FloatArray) -> Box:
    """Return the box in pixels of a registered depth image, which may be a scaled one.

    Raises:
        LocalizationError: if the depth image's shape is not that of the image.
    """
    height, width = depth.shape
    kx, ky = width / camera.size[0], height / camera.size[1]
    # Sizes are whole numbers: half of 855 may be 427 or 428.
    if abs(kx * camera.size[1] - height) > 1.0:
        raise LocalizationError(
            f"the depth image has {width} x {height} pixels, the image {camera.size[0]} x "
            f"{camera.size[1]}: it is not registered to it (depth_registered: false, or another topic)"
        )
    return Box(
        (box.cx + 0.5) * kx - 0.5, (box.cy + 0.5) * ky - 0.5, max(box.w * kx, 1), max(box.h * ky, 1)
    )


@dataclass(frozen=True)
class DepthRules:
    """How depth is read inside a box.

    Attributes:
        near, far: metres; depths outside count as none.
        part: of the box's width and height about its centre that is looked at.
        least: share of the pixels looked at that must have a depth.
    """

    near: float = 0.2
    far: float = 20.0
    part: float = 0.6
    least: float = 0.1


def depth_in_box(depth: FloatArray, box: Box, rules: DepthRules) -> tuple[float, float]:
    """Return (depth, spread) of the thing in a box of a registered depth image, metres.

    See :func:`dominant_depth` for what is taken where foreground and background are both inside.

    Raises:
        LocalizationError: the box is outside, or too few pixels have a depth.
    """
    height, width = depth.shape
    half_w, half_h = max(box.w * rules.part / 2, 1.0), max(box.h * rules.part / 2, 1.0)
    x0, x1 = max(0, math.ceil(box.cx - half_w)), min(width, math.floor(box.cx + half_w) + 1)
    y0, y1 = max(0, math.ceil(box.cy - half_h)), min(height, math.floor(box.cy + half_h) + 1)
    if x1 <= x0 or y1 <= y0:
        raise LocalizationError("the box's middle is outside the depth image")
    stride = max(1, math.ceil(math.sqrt((x1 - x0) * (y1 - y0) / MAX_SAMPLES)))
    values = depth[y0:y1:stride, x0:x1:stride]
    ys = (np.arange(y0, y1, stride)[: values.shape[0], None] - box.cy) / (box.h / 2)
    xs = (np.arange(x0, x1, stride)[None, : values.shape[1]] - box.cx) / (box.w / 2)
    weights = np.exp(-(xs**2 + ys**2))
    return dominant_depth(values.ravel(), weights.ravel(), values.size, rules)


def dominant_depth(
    values: FloatArray, weights: FloatArray, looked_at: int, rules: DepthRules
) -> tuple[float, float]:
    """Return (depth, spread) of the surface that most weight lies on, metres.

    The depths' weighted histogram, in bins that grow with the depth, is smoothed; the nearest of its
    peaks with at least half the mass of the largest is taken, because a target stands in front of
    its background and seldom fills its box. The result is the median near that peak, and 1.4826 times
    the median absolute deviation there.

    Args:
        values: ``[n]``, metres; NaN = none.
        weights: ``[n]``.
        looked_at: number of pixels of which ``rules.least`` must have a depth.
        rules: see :class:`DepthRules`.

    Raises:
        LocalizationError: if too few do.
    """
    good = np.isfinite(values)
    good[good] = (values[good] >= rules.near) & (values[good] <= rules.far)
    count = int(good.sum())
    if count < max(3, rules.least * looked_at):
        share = 100 * count / max(1, looked_at)
        raise LocalizationError(
            f"only {share:.0f} % of the box has a depth between {rules.near:g} and {rules.far:g} m"
        )
    values, weights = values[good], weights[good]
    position = np.log(values / rules.near) / DEPTH_BIN
    bins = position.astype(np.intp) + 1
    mass = np.bincount(bins, weights, minlength=bins.max() + 2)
    smooth = np.convolve(mass, (1.0, 2.0, 1.0), "same")
    left = np.concatenate(([-1.0], smooth[:-1]))
    right = np.concatenate((smooth[1:], [-1.0]))
    peaks = np.flatnonzero((smooth >= left) & (smooth > right) & (smooth >= 0.5 * smooth.max()))
    near = np.abs(bins - peaks[0]) <= 2
    chosen = values[near]
    middle = float(np.median(chosen))
    return middle, 1.4826 * float(np.median(np.abs(chosen - middle)))


def depth_unregistered(
    depth: FloatArray,
    depth_camera: CameraRays,
    to_camera: FloatArray,
    camera: CameraRays,
    box: Box,
    rules: DepthRules,
) -> tuple[float, float]:
    """Return (depth, spread) along the image camera's axis from a depth camera beside it, metres.

    Args:
        depth: ``[H, W]``, metres.
        depth_camera: what took it.
        to_camera: ``[4, 4]``, from the depth camera's optical frame to the image camera's.
        camera: what took the image.
        box: pixels of the image.
        rules: see :class:`DepthRules`.

    Raises:
        LocalizationError: depth image and depth_camera_info differ in size, the box is outside what
            the depth camera sees, or too few pixels there have a depth.
    """
    height, width = depth.shape
    if (width, height) != (depth_camera.size[0], depth_camera.size[1]):
        raise LocalizationError(
            f"the depth image has {width} x {height} pixels, its camera_info is for "
            f"{depth_camera.size[0]} x {depth_camera.size[1]}"
        )
    x0, y0, x1, y1 = _region(depth_camera, to_camera, camera, box, rules)
    x0, y0 = max(0, x0), max(0, y0)
    x1, y1 = min(width, x1), min(height, y1)
    if x1 <= x0 or y1 <= y0:
        raise LocalizationError("the box is outside what the depth camera sees")
    stride = max(1, math.ceil(math.sqrt((x1 - x0) * (y1 - y0) / (4 * MAX_SAMPLES))))
    ys, xs = np.mgrid[y0:y1:stride, x0:x1:stride]
    z = depth[y0:y1:stride, x0:x1:stride].ravel()
    pixels = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float64)
    good = np.isfinite(z)
    z, pixels = z[good], pixels[good]
    rays = depth_camera.rays(pixels) if z.size else np.zeros((0, 2))
    points = np.column_stack([rays * z[:, None], z]) @ to_camera[:3, :3].T + to_camera[:3, 3]
    points = points[points[:, 2] > 1e-3]
    if points.size == 0:
        raise LocalizationError("no pixel of the depth image under the box has a depth")
    seen = camera.project(points)
    dx, dy = (seen[:, 0] - box.cx) / (box.w / 2), (seen[:, 1] - box.cy) / (box.h / 2)
    inside = (np.abs(dx) <= rules.part) & (np.abs(dy) <= rules.part)
    weights = np.exp(-(dx[inside] ** 2 + dy[inside] ** 2))
    # What is nearer than the target may lie beside it in the depth image: of the pixels there, those
    # that land in the box are all that can be counted.
    return dominant_depth(points[inside, 2], weights, int(inside.sum()), rules)


def _region(
    depth_camera: CameraRays, to_camera: FloatArray, camera: CameraRays, box: Box, rules: DepthRules
) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 (exclusive) of the depth pixels that may see what is in the box."""
    corners = camera.rays(
        np.array(
            [(box.cx + sx * box.w / 2, box.cy + sy * box.h / 2) for sx in (-1, 1) for sy in (-1, 1)]
        )
    )
    ends = np.concatenate(
        [np.column_stack([corners * z, np.full(4, z)]) for z in (rules.near, rules.far)]
    )
    rotation, offset = to_camera[:3, :3], to_camera[:3, 3]
    there = (ends - offset) @ rotation  # the inverse of a rigid transform
    if (there[:, 2] <= 1e-3).any():
        return 0, 0, depth_camera.size[0], depth_camera.size[1]
    pixels = depth_camera.project(there)
    if depth_camera.distortion.size and not np.isfinite(pixels).all():
        return 0, 0, depth_camera.size[0], depth_camera.size[1]
    low, high = np.floor(pixels.min(axis=0)) - 2, np.ceil(pixels.max(axis=0)) + 3
    limit = float(4 * max(depth_camera.size[0], depth_camera.size[1]))
    low, high = np.clip(low, -limit, limit), np.clip(high, -limit, limit)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


# --- positions ------------------------------------------------------------------------------------


def at_depth(
    camera: CameraRays,
    box: Box,
    z: float,
    sigma_z: float,
    box_sigma: float,
    method: str,
) -> Position:
    """Return the point on the ray through the box's middle at a depth.

    Args:
        camera: that took the image.
        box: pixels.
        z: metres along the optical axis.
        sigma_z: its standard deviation, metres.
        box_sigma: standard deviation of the box's middle, as a share of its size.
        method: told with the result.
    """
    x, y = camera.rays(np.array([[box.cx, box.cy]]))[0]
    ray = np.array([x, y, 1.0])
    across = z * box_sigma * box.w / float(camera.matrix[0, 0])
    down = z * box_sigma * box.h / float(camera.matrix[1, 1])
    covariance = sigma_z**2 * np.outer(ray, ray) + np.diag([across**2, down**2, 0.0])
    return Position(z * ray, covariance, method)


def from_height(
    camera: CameraRays, box: Box, target_height: float, height_sigma: float, box_sigma: float
) -> Position:
    """Return where a target of known height is that stands parallel to the image's columns.

    Args:
        camera: that took the image.
        box: pixels.
        target_height: metres.
        height_sigma: its standard deviation, metres.
        box_sigma: standard deviation of each edge, as a share of the box's size.

    Raises:
        LocalizationError: the box is cut by the image's upper or lower edge.
    """
    if _cut(camera, box, top=True) or _cut(camera, box, top=False):
        raise LocalizationError("the box is cut by the image's edge: its height says nothing")
    top, bottom = camera.rays(
        np.array([[box.cx, box.cy - box.h / 2], [box.cx, box.cy + box.h / 2]])
    )
    extent = float(bottom[1] - top[1])
    if extent <= 1e-6:
        raise LocalizationError("the box has no height")
    z = target_height / extent
    relative = math.hypot(height_sigma / target_height, math.sqrt(2) * box_sigma)
    return at_depth(camera, box, z, z * relative, box_sigma, "height")


def from_ground(camera: CameraRays, box: Box, to_ground: FloatArray, box_sigma: float) -> Position:
    """Return where a target is that stands on the ground: its foot is at the box's lower edge.

    The point is the one above the foot that is nearest to the ray through the box's middle.

    Args:
        camera: that took the image.
        box: pixels.
        to_ground: ``[4, 4]``, from the camera's optical frame to one whose z is up and 0 on the ground.
        box_sigma: standard deviation of each edge, as a share of the box's size.

    Raises:
        LocalizationError: the box is cut by the image's lower edge, or its foot is not below the
            horizon by more than its uncertainty.
    """
    if _cut(camera, box, top=False):
        raise LocalizationError("the box is cut by the image's lower edge: the foot is not seen")
    bottom, sigma = box.cy + box.h / 2, max(box_sigma * box.h, 0.5)
    feet = []
    for v in (bottom, bottom - sigma):
        x, y = camera.rays(np.array([[box.cx, v]]))[0]
        feet.append(_on_ground(np.array([x, y, 1.0]), to_ground))
    foot, further = feet
    if foot is None or further is None:
        raise LocalizationError("the box's lower edge is too near the horizon, or above it")
    up = to_ground[2, :3]  # of the ground's z axis, in the camera's frame
    x, y = camera.rays(np.array([[box.cx, box.cy]]))[0]
    ray = np.array([x, y, 1.0]) / math.sqrt(x * x + y * y + 1)
    # Foot + s up is nearest to the ray where the difference has no part along either.
    along = float(up @ ray)
    s = (along * float(ray @ foot) - float(up @ foot)) / max(1e-9, 1 - along**2)
    point = foot + s * up
    result = at_depth(
        camera, box, float(point[2]), float(np.linalg.norm(further - foot)), box_sigma, "ground"
    )
    return Position(point, result.covariance, "ground")


def _on_ground(ray: FloatArray, to_ground: FloatArray) -> FloatArray | None:
    """Return where a ray from the camera meets the ground, in the camera's frame."""
    falling = float(to_ground[2, :3] @ ray)
    height = float(to_ground[2, 3])
    if height <= 0 or falling >= -1e-4 * float(np.linalg.norm(ray)):
        return None
    return np.asarray(ray * (-height / falling))


def _cut(camera: CameraRays, box: Box, top: bool) -> bool:
    if top:
        return box.cy - box.h / 2 <= -0.5 + EDGE
    return box.cy + box.h / 2 >= camera.size[1] - 0.5 - EDGE


def check_box(camera: CameraRays, box: Box) -> None:
    """Check that a box can be of the camera's image.

    Raises:
        LocalizationError: not finite, without extent, or reaching outside the camera's picture.
    """
    x1, y1, x2, y2 = box.edges
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)) or box.w <= 0 or box.h <= 0:
        raise LocalizationError("the box is not one: its numbers are not finite or not positive")
    # Trackers clip their boxes to the image; what reaches out is of a larger one.
    if x2 > camera.size[0] + 1 or y2 > camera.size[1] + 1:
        raise LocalizationError(
            f"the box reaches to ({x2:.0f}, {y2:.0f}), but camera_info is for {camera.size[0]} x "
            f"{camera.size[1]} pixels: it is another camera's, or of another resolution"
        )


# --- frames ---------------------------------------------------------------------------------------


def to_matrix(translation: Any, rotation: Any) -> FloatArray:
    """Return the ``[4, 4]`` matrix of a geometry_msgs Vector3 and Quaternion.

    Raises:
        LocalizationError: if the quaternion is not one.
    """
    q = np.array([rotation.x, rotation.y, rotation.z, rotation.w], np.float64)
    norm = float(np.linalg.norm(q))
    if not math.isfinite(norm) or norm < 1e-6:
        raise LocalizationError("a transform's quaternion is zero or not finite")
    x, y, z, w = q / norm
    matrix = np.eye(4)
    matrix[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    matrix[:3, 3] = (translation.x, translation.y, translation.z)
    return matrix


def moved(position: Position, transform: FloatArray) -> Position:
    """Return a position in another frame; the transform's own uncertainty is not known."""
    rotation = transform[:3, :3]
    return Position(
        rotation @ position.point + transform[:3, 3],
        rotation @ position.covariance @ rotation.T,
        position.method,
    )


def heading(point: FloatArray, seen_from: FloatArray) -> tuple[float, float, float, float]:
    """Return the quaternion (x, y, z, w) that looks from a camera to a point, about the z axis.

    It is what a goal needs that lies on the line of sight, in a frame whose z is up.
    """
    yaw = math.atan2(point[1] - seen_from[1], point[0] - seen_from[0])
    return 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)


if __name__ == "__main__":
    print(as_markdown(LocalizerSettings))
