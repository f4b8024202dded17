from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.camera_rays import CameraRays
from siam_tracker_ros.nodes.localization import (
    DepthRules,
    LocalizationError,
    LocalizerSettings,
    at_depth,
    check_box,
    depth_in_box,
    depth_unregistered,
    from_ground,
    from_height,
    heading,
    moved,
    read_camera,
    read_depth,
    to_depth_box,
    to_matrix,
)
from siam_tracker_ros.nodes.parameters import ParameterError
from siam_tracker_ros.nodes.settings import as_markdown, read_settings

ROOT = Path(__file__).parents[2]
F, CX, CY = 500.0, 319.5, 239.5
MATRIX = np.array([[F, 0, CX], [0, F, CY], [0, 0, 1.0]])
CAMERA = CameraRays(MATRIX, np.zeros(0), "", (640, 480))
LENSES = {
    "none": ("plumb_bob", []),
    "plumb_bob": ("plumb_bob", [-0.28, 0.09, 0.001, -0.0005, 0.0]),
    "rational": ("rational_polynomial", [0.3, -0.1, 0.0004, 0.0002, 0.01, 0.6, -0.05, 0.01]),
    "equidistant": ("equidistant", [-0.01, 0.02, -0.005, 0.001]),
}


def info(**changes: Any) -> SimpleNamespace:
    values = {
        "width": 640,
        "height": 480,
        "k": list(MATRIX.ravel()),
        "p": [400.0, 0, 310.0, 0, 0, 400.0, 230.0, 0, 0, 0, 1, 0],
        "d": [],
        "distortion_model": "plumb_bob",
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
        "binning_x": 0,
        "binning_y": 0,
    }
    return SimpleNamespace(**{**values, **changes})


def depth_message(values: np.ndarray, encoding: str, pad: int = 0, big: bool = False) -> Any:
    kind = (">" if big else "<") + ("u2" if encoding == "16UC1" else "f4")
    data = values.astype(kind)
    rows = np.pad(data.view("u1").reshape(data.shape[0], -1), ((0, 0), (0, pad)))
    return SimpleNamespace(
        width=data.shape[1],
        height=data.shape[0],
        step=rows.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        data=rows.tobytes(),
    )


# --- cameras ---


@pytest.mark.parametrize("lens", LENSES)
def test_rays_and_projection_are_inverse(lens: str) -> None:
    model, distortion = LENSES[lens]
    camera = CameraRays(MATRIX, np.array(distortion), model, (640, 480))
    points = np.array([[0.0, 0, 2], [0.8, -0.4, 2], [-1.0, 0.7, 3], [0.3, 0.6, 1.5]])
    rays = camera.rays(camera.project(points))
    assert rays == pytest.approx(points[:, :2] / points[:, 2:], abs=2e-4)


def test_camera_info_is_read_with_binning_and_region() -> None:
    camera = read_camera(
        info(
            binning_x=2,
            binning_y=2,
            roi=SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300),
        )
    )
    assert camera.size == (200, 150)
    assert camera.matrix == pytest.approx(
        np.array([[250, 0, (CX - 100) / 2], [0, 250, (CY - 40) / 2], [0, 0, 1]])
    )


def test_rectified_images_take_p_and_no_distortion() -> None:
    camera = read_camera(info(d=[0.1] * 5), rectified=True)
    assert camera.matrix[0, 0] == 400 and camera.distortion.size == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"width": 0}, "no size"),
        ({"k": [0.0] * 9}, "calibrated"),
        ({"k": [math.nan] * 9}, "not finite"),
        ({"d": [math.nan] * 5}, "not finite"),
        ({"d": [0.1] * 5, "distortion_model": "magic"}, "magic"),
        ({"d": [0.1, 0.1]}, "numbers in d, got 2"),
    ],
)
def test_a_camera_info_that_cannot_be_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(LocalizationError, match=word):
        read_camera(info(**changes))


@pytest.mark.parametrize(
    ("box", "word"),
    [
        (Box(700, 100, 50, 50), "another camera"),
        (Box(100, 470, 50, 50), "another camera"),
        (Box(math.nan, 100, 50, 50), "finite"),
        (Box(100, 100, 0, 50), "positive"),
    ],
)
def test_a_box_that_cannot_be_the_cameras_is_refused(box: Box, word: str) -> None:
    check_box(CAMERA, Box(320, 240, 640, 480))
    with pytest.raises(LocalizationError, match=word):
        check_box(CAMERA, box)


# --- depth images ---


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pad", [0, 6])
def test_depth_is_metres_whatever_the_encoding(pad: int, big: bool) -> None:
    metres = np.array([[1.0, 2.5], [0.0, 4.0]])
    as_mm = read_depth(depth_message(metres * 1000, "16UC1", pad, big))
    as_m = read_depth(depth_message(metres, "32FC1", pad, big))
    for depth in (as_mm, as_m):
        assert np.isnan(depth[1, 0])
        assert depth[0] == pytest.approx([1.0, 2.5]) and depth[1, 1] == pytest.approx(4.0)


def test_nan_infinite_and_negative_depths_are_none() -> None:
    depth = read_depth(depth_message(np.array([[np.nan, np.inf, -1.0, 2.0]]), "32FC1"))
    assert np.isnan(depth[0, :3]).all() and depth[0, 3] == 2.0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"encoding": "bgr8"}, "bgr8"),
        ({"width": 0}, "no pixels"),
        ({"data": b"12"}, "damaged"),
        ({"step": 1}, "damaged"),
    ],
)
def test_a_damaged_depth_image_is_refused(changes: dict[str, Any], word: str) -> None:
    message = depth_message(np.ones((4, 4)), "32FC1")
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(LocalizationError, match=word):
        read_depth(message)


def test_a_scaled_registered_depth_image_is_used_another_is_refused() -> None:
    box = to_depth_box(Box(99.5, 49.5, 40, 20), CAMERA, np.zeros((240, 320)))
    assert (box.cx, box.cy, box.w, box.h) == pytest.approx((49.5, 24.5, 20, 10))
    with pytest.raises(LocalizationError, match="848 x 480"):
        to_depth_box(Box(100, 50, 40, 20), CAMERA, np.zeros((480, 848)))


def scene(target: float, background: float, width: int = 40) -> np.ndarray:
    """A target in the middle third of its box, on a background."""
    depth = np.full((480, 640), background)
    depth[180:300, 320 - width // 2 : 320 + width // 2] = target
    return depth


BOX = Box(319.5, 239.5, 100, 120)


def test_the_target_is_taken_not_the_background() -> None:
    rng = np.random.default_rng(0)
    depth = scene(3.0, 6.0) * (1 + 0.005 * rng.normal(size=(480, 640)))
    z, spread = depth_in_box(depth, BOX, DepthRules())
    assert z == pytest.approx(3.0, abs=0.02)
    assert 0.005 < spread < 0.04


def test_holes_do_not_matter_until_there_are_too_many() -> None:
    rng = np.random.default_rng(1)
    depth = scene(3.0, 6.0, 100)
    depth[rng.uniform(size=depth.shape) < 0.8] = np.nan
    assert depth_in_box(depth, BOX, DepthRules())[0] == pytest.approx(3.0)
    depth[rng.uniform(size=depth.shape) < 0.7] = np.nan
    with pytest.raises(LocalizationError, match="% of the box has a depth"):
        depth_in_box(depth, BOX, DepthRules())


def test_depths_out_of_range_and_boxes_outside_are_refused() -> None:
    with pytest.raises(LocalizationError, match="and 2 m"):
        depth_in_box(scene(3.0, 6.0), BOX, DepthRules(far=2.0))
    with pytest.raises(LocalizationError, match="outside"):
        depth_in_box(scene(3.0, 6.0), Box(900, 100, 50, 50), DepthRules())


def test_a_few_pixels_of_something_nearer_do_not_count() -> None:
    depth = scene(3.0, 6.0, 100)
    depth[230:250, 310:330] = 1.0
    assert depth_in_box(depth, BOX, DepthRules())[0] == pytest.approx(3.0)


@pytest.mark.parametrize("lens", ["none", "plumb_bob"])
def test_a_depth_camera_beside_the_camera(lens: str) -> None:
    """A target before a wall, seen by a depth camera 6 cm to the right that is turned by 3 degrees."""
    model, distortion = LENSES[lens]
    matrix = np.array([[380.0, 0, 211.5], [0, 380.0, 119.5], [0, 0, 1]])
    depth_camera = CameraRays(matrix, np.array(distortion), model, (424, 240))
    a = math.radians(3)
    to_camera = np.eye(4)
    to_camera[:3, :3] = [[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]]
    to_camera[:3, 3] = (0.06, 0.01, 0.0)
    ys, xs = np.mgrid[0:240, 0:424]
    rays = depth_camera.rays(np.stack([xs.ravel(), ys.ravel()], axis=1).astype(float))
    rays = np.column_stack([rays, np.ones(len(rays))]) @ to_camera[:3, :3].T

    def plane(z: float) -> tuple[np.ndarray, np.ndarray]:
        along = (z - to_camera[2, 3]) / rays[:, 2]
        return along, rays * along[:, None] + to_camera[:3, 3]

    wall, _ = plane(5.0)
    near, points = plane(2.0)
    on = (np.abs(points[:, 0] - 0.3) < 0.25) & (np.abs(points[:, 1]) < 0.4)
    depth = np.where(on, near, wall).reshape(240, 424)
    centre = CAMERA.project(np.array([[0.3, 0.0, 2.0]]))[0]
    box = Box(*centre, 0.5 * F / 2, 0.8 * F / 2)
    z, _ = depth_unregistered(depth, depth_camera, to_camera, CAMERA, box, DepthRules())
    assert z == pytest.approx(2.0, abs=0.01)
    with pytest.raises(LocalizationError, match="outside"):
        aside = Box(centre[0] - 4000, centre[1], 40, 40)
        depth_unregistered(depth, depth_camera, to_camera, CAMERA, aside, DepthRules())
    with pytest.raises(LocalizationError, match="camera_info is for"):
        depth_unregistered(depth[:, 1:], depth_camera, to_camera, CAMERA, box, DepthRules())


# --- positions ---


def seen(point: tuple[float, float, float], width: float, height: float) -> Box:
    """The box of an upright thing parallel to the image plane, its middle at ``point``."""
    z = point[2]
    u, v = CAMERA.project(np.array([point]))[0]
    return Box(u, v, F * width / z, F * height / z)


def test_known_height_gives_the_place() -> None:
    point = (0.4, -0.1, 3.2)
    found = from_height(CAMERA, seen(point, 0.5, 1.2), 1.2, 0.05, 0.02)
    assert found.point == pytest.approx(point) and found.method == "height"
    assert math.sqrt(found.covariance[2, 2]) == pytest.approx(
        3.2 * math.hypot(0.05 / 1.2, math.sqrt(2) * 0.02)
    )


@pytest.mark.parametrize("cy", [40.0, 440.0])
def test_a_box_cut_above_or_below_has_no_height(cy: float) -> None:
    with pytest.raises(LocalizationError, match="cut"):
        from_height(CAMERA, Box(320, cy, 40, 2 * min(cy + 0.5, 479.5 - cy)), 1.0, 0.1, 0.05)


def pitched(height: float, down: float) -> np.ndarray:
    """From a camera at a height that looks down by an angle, to the ground."""
    level = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    c, s = math.cos(down), math.sin(down)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ level
    matrix[2, 3] = height
    return matrix


@pytest.mark.parametrize("down", [0.0, 0.2, 0.5])
def test_the_ground_gives_the_place(down: float) -> None:
    to_ground = pitched(0.8, down)
    to_camera = np.linalg.inv(to_ground)

    def pixel(x: float, y: float, z: float) -> np.ndarray:
        point = to_camera[:3, :3] @ (x, y, z) + to_camera[:3, 3]
        return CAMERA.project(point[None])[0]

    foot, middle = pixel(2.5, 0.3, 0.0), pixel(2.5, 0.3, 0.25)
    box = Box(foot[0], middle[1], 40, 2 * (foot[1] - middle[1]))
    found = from_ground(CAMERA, box, to_ground, 0.02)
    there = moved(found, to_ground)
    # An upright line is not a column of a camera that looks down: the foot is what is exact.
    assert there.point[:2] == pytest.approx((2.5, 0.3), abs=0.02)
    assert there.point[2] == pytest.approx(0.25, abs=0.02)
    assert 0 < found.covariance[2, 2] < 1


def test_no_ground_at_the_horizon_or_below_the_picture() -> None:
    for box, word in ((Box(320, 200, 40, 80), "horizon"), (Box(320, 430, 40, 99), "lower edge")):
        with pytest.raises(LocalizationError, match=word):
            from_ground(CAMERA, box, pitched(0.8, 0.0), 0.05)


def test_the_covariance_is_that_of_many_tries() -> None:
    rng = np.random.default_rng(2)
    box, z, sigma_z, box_sigma = Box(450, 150, 60, 120), 3.0, 0.1, 0.05
    claimed = at_depth(CAMERA, box, z, sigma_z, box_sigma, "depth").covariance
    tries = []
    for _ in range(4000):
        dx, dy, dz = rng.normal(size=3)
        moved_box = Box(box.cx + dx * box_sigma * 60, box.cy + dy * box_sigma * 120, 60, 120)
        tries.append(at_depth(CAMERA, moved_box, z + dz * sigma_z, 0, 0, "depth").point)
    measured = np.cov(np.array(tries).T)
    scale = np.sqrt(np.outer(np.diag(claimed), np.diag(claimed)))
    assert (np.abs(measured - claimed) / scale).max() < 0.1


# --- frames ---


def test_a_transform_moves_point_and_covariance() -> None:
    half = math.sqrt(0.5)
    matrix = to_matrix(
        SimpleNamespace(x=1.0, y=2.0, z=3.0), SimpleNamespace(x=0.0, y=0.0, z=half, w=half)
    )
    position = at_depth(CAMERA, Box(CX, CY, 50, 50), 2.0, 0.1, 0.0, "depth")
    there = moved(position, matrix)
    assert there.point == pytest.approx((1.0, 2.0, 5.0))
    assert there.covariance[2, 2] == pytest.approx(0.01)
    with pytest.raises(LocalizationError, match="quaternion"):
        to_matrix(SimpleNamespace(x=0, y=0, z=0), SimpleNamespace(x=0, y=0, z=0, w=0))


def test_the_heading_looks_from_the_camera_to_the_target() -> None:
    x, y, z, w = heading(np.array([1.0, 3.0, 0.5]), np.array([1.0, 1.0, 2.0]))
    assert (x, y) == (0.0, 0.0)
    assert 2 * math.atan2(z, w) == pytest.approx(math.pi / 2)


# --- settings ---


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"methods": ["sonar"]}, "depth, height, ground"),
        ({"methods": []}, "depth, height, ground"),
        ({"methods": "depth"}, "list"),
        ({"methods": ["height"]}, "target_height"),
        ({"methods": ["ground"], "ground_frame": ""}, "ground_frame"),
        ({"depth_min": 5.0, "depth_max": 1.0}, "depth_min"),
        ({"min_score": 2.0}, "0 to 1"),
        ({"wait": "long"}, "a number"),
        ({"depth_registered": 1}, "true or false"),
        ({"nonsense": 1}, "no parameter nonsense"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ParameterError, match=word):
        read_settings(LocalizerSettings, values)


def test_whole_numbers_stand_for_real_ones() -> None:
    settings = read_settings(
        LocalizerSettings, {"depth_max": 8, "methods": ["height", "depth"], "target_height": 2}
    )
    assert settings.depth_max == 8.0 and settings.methods == ("height", "depth")


def test_the_page_has_the_nodes_own_table() -> None:
    page = (ROOT / "docs" / "target_localizer_node.md").read_text(encoding="utf-8")
    assert as_markdown(LocalizerSettings) in page
