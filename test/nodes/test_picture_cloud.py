"""A picture as a cloud, clicked on as RViz clicks, and rendered as RViz renders."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.nodes.camera_rays import CameraInfoError, CameraRays, camera_from_info
from siam_tracker_ros.nodes.picking import transformed
from siam_tracker_ros.nodes.picture_cloud import COLUMNS, ROWS, ClickError, PictureCloud

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 1280, 720
K = np.array([[900.0, 0.0, 655.3], [0.0, 905.0, 351.7], [0.0, 0.0, 1.0]])
WIDE = np.array([[420.0, 0.0, 640.1], [0.0, 421.0, 358.8], [0.0, 0.0, 1.0]])
LENSES: dict[str, tuple[np.ndarray, str, list[float]]] = {
    "none": (K, "plumb_bob", []),
    "plumb_bob": (K, "plumb_bob", [-0.31, 0.11, 0.0011, -0.0017, -0.02]),
    "rational_polynomial": (
        K,
        "rational_polynomial",
        [0.6, -2.1, 0.0008, 0.0003, 1.4, 0.9, -2.0, 1.3],
    ),
    "equidistant": (WIDE, "equidistant", [-0.021, 0.006, -0.004, 0.0009]),
}

FAR = 100_000.0
STEP = FAR / 0xFFFFFF
"""RViz reads the depth under the mouse as 24 bits between 0 and Ogre's far clip distance: 6 mm."""


def cloud_of(lens: str, size: float = 0.1) -> PictureCloud:
    matrix, model, numbers = LENSES[lens]
    return PictureCloud(CameraRays(matrix, np.array(numbers), model, (WIDTH, HEIGHT)), size)


def pixels_by_formula(lens: str, rays: np.ndarray) -> np.ndarray:
    """The published equations of the models, ``[N,2]`` from x, y at depth 1."""
    matrix, model, numbers = LENSES[lens]
    x, y = rays[:, 0], rays[:, 1]
    r2 = x * x + y * y
    if model == "equidistant":
        theta = np.arctan(np.sqrt(r2))
        k1, k2, k3, k4 = numbers
        bent = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
        scale = bent / np.sqrt(r2)
        x, y = x * scale, y * scale
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = [*numbers, *[0.0] * (8 - len(numbers))]
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    return np.column_stack([matrix[0, 0] * x + matrix[0, 2], matrix[1, 1] * y + matrix[1, 2]])


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    vector = np.array(axis) / np.linalg.norm(axis) * math.radians(degrees)
    return np.asarray(cv2.Rodrigues(vector)[0])


def transform_message(turn: np.ndarray, shift: np.ndarray) -> Any:
    """The fields of geometry_msgs/Transform for p -> turn p + shift."""
    vector = cv2.Rodrigues(turn)[0].ravel()
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle else vector
    x, y, z = axis * math.sin(angle / 2)
    return SimpleNamespace(
        rotation=SimpleNamespace(x=x, y=y, z=z, w=math.cos(angle / 2)),
        translation=SimpleNamespace(x=shift[0], y=shift[1], z=shift[2]),
    )


def rviz_click(point: np.ndarray, eye: np.ndarray, forward: np.ndarray, noise: float) -> np.ndarray:
    """What Publish Point makes of a place on a surface: the depth along the view is quantised."""
    ray = (point - eye) / ((point - eye) @ forward)
    depth = round(((point - eye) @ forward) / STEP + noise) * STEP
    return eye + ray * depth


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("view", ["from the camera", "from the right", "from above"])
def test_clicks_come_back_within_a_pixel(lens: str, view: str) -> None:
    cloud = cloud_of(lens)
    rng = np.random.default_rng(3)
    inside = np.argwhere(np.isfinite(cloud.positions).all(axis=-1))
    cells = inside[rng.choice(len(inside), 300, replace=False)]
    rays = np.array([cloud.positions[r, c, :2] / cloud.distance for r, c in cells], float)
    rays += rng.uniform(-0.5, 0.5, rays.shape) * cloud.spacing  # anywhere on the squares
    known = pixels_by_formula(lens, rays)
    in_picture = ((known > 0) & (known < [WIDTH - 1, HEIGHT - 1])).all(axis=1)
    rays, known = rays[in_picture], known[in_picture]
    assert len(rays) > 250

    # The operator's fixed frame: anywhere, turned anyhow.
    turn, shift = rotation((0.3, -1.0, 0.4), 107.0), np.array([12.5, -7.25, 1.9])
    on_plane = np.column_stack([rays, np.ones(len(rays))]) * cloud.distance
    middle = np.array([0.0, 0.0, cloud.distance])
    angle = {"from the camera": 0.0, "from the right": -40.0, "from above": 35.0}[view]
    around = (1.0, 0.0, 0.0) if view == "from above" else (0.0, 1.0, 0.0)
    forward = rotation(around, angle) @ np.array([0.0, 0.0, 1.0])
    eye = middle - forward * cloud.distance
    # What such a view has on its screen: up to 60 degrees off its axis.
    seen = on_plane - eye
    on_screen = seen @ forward > 0.5 * np.linalg.norm(seen, axis=1)
    on_plane, known = on_plane[on_screen], known[on_screen]
    assert len(known) > 150
    to_fixed = lambda p: turn @ p + shift  # noqa: E731
    back = transform_message(turn.T, -turn.T @ shift)
    worst = 0.0
    for point, pixel in zip(on_plane, known, strict=True):
        noise = float(rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0]))
        click = rviz_click(to_fixed(point), to_fixed(eye), turn @ forward, noise)
        x, y = cloud.pixel_of(transformed(tuple(click), back))
        worst = max(worst, math.hypot(x - pixel[0], y - pixel[1]))
    print(f"{lens}, {view}: worst error {worst:.3f} px of {len(known)}")
    assert worst < 1.0


def test_the_smallest_points_are_as_large_as_the_depth_needs() -> None:
    # One centimetre, the least that is allowed, is still right from the shipped view.
    cloud = cloud_of("plumb_bob", 0.01)
    rays = cloud.positions[90, ::7, :2] / cloud.distance
    rays = rays[np.isfinite(rays).all(axis=1)].astype(float)
    eye, forward = np.zeros(3), np.array([0.0, 0.0, 1.0])
    for ray, pixel in zip(rays, pixels_by_formula("plumb_bob", rays), strict=True):
        click = rviz_click(np.array([*ray, 1.0]) * cloud.distance, eye, forward, 1.0)
        assert np.hypot(*(np.array(cloud.pixel_of(tuple(click))) - pixel)) < 0.01


@pytest.mark.parametrize("lens", LENSES)
def test_the_cloud_is_organised_even_and_small(lens: str) -> None:
    cloud = cloud_of(lens)
    rows, columns = cloud.shape
    assert rows <= ROWS and columns <= COLUMNS and max(rows / ROWS, columns / COLUMNS) > 0.97
    seen = cloud.positions[np.isfinite(cloud.positions).all(axis=-1)]
    assert np.ptp(seen[:, 2]) == 0
    assert np.nanmax(np.diff(cloud.positions[..., 0], axis=1)) == pytest.approx(0.1, abs=1e-4)
    assert np.nanmin(np.diff(cloud.positions[..., 1], axis=0)) == pytest.approx(0.1, abs=1e-4)
    flat = cloud.pixels.reshape(-1, 2)
    flat = flat[np.isfinite(flat).all(axis=1)]
    assert flat.min() >= -0.5 and (flat.max(axis=0) <= [WIDTH - 0.5, HEIGHT - 0.5]).all()
    reach = 6.0 * cloud.pixels_per_point
    if cloud.complete:  # it reaches all corners
        for x, y in ((0, 0), (WIDTH, 0), (0, HEIGHT), (WIDTH, HEIGHT)):
            assert np.abs(flat - [x, y]).max(axis=1).min() < reach


def test_of_a_very_wide_lens_the_middle_is_shown() -> None:
    matrix = np.array([[300.0, 0, 639.5], [0, 300.0, 359.5], [0, 0, 1]])
    rays = CameraRays(matrix, np.zeros(4), "equidistant", (WIDTH, HEIGHT))
    cloud = PictureCloud(rays, 0.05)
    assert not cloud.complete
    assert cloud.pixel_of((0.0, 0.0, cloud.distance)) == pytest.approx((639.5, 359.5))
    across = np.nanmax(cloud.pixels[..., 0]) - np.nanmin(cloud.pixels[..., 0])
    assert 600 < across < 760  # 2 x 65 degrees of 300 pixels a radian


# --- rendered ---


def photo() -> np.ndarray:
    """A picture in which up, left and colours are told apart, uint8 [H,W,3] RGB."""
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
    image = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    cv2.putText(image, "Up Left", (60, 190), cv2.FONT_HERSHEY_SIMPLEX, 5, (255, 255, 0), 22)
    cv2.circle(image, (1000, 520), 120, (255, 0, 0), -1)
    return np.asarray(image)


def shipped_view() -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """The shipped configuration: its picture display, its view, and camera axes in the frame.

    RViz's FPS view turns a camera that looks along x with z up by ``Pitch`` about y, then by
    ``Yaw`` about z.
    """
    settings = yaml.safe_load((ROOT / "config/rviz/select.rviz").read_text())
    manager = settings["Visualization Manager"]
    view = manager["Views"]["Current"]
    assert view["Class"] == "rviz_default_plugins/FPS"
    yaw = rotation((0, 0, 1), math.degrees(view["Yaw"]))
    turned = yaw @ rotation((0, 1, 0), math.degrees(view["Pitch"]))
    forward, up = turned @ [1, 0, 0], turned @ [0, 0, 1]
    right = np.cross(forward, up)
    display = next(d for d in manager["Displays"] if d["Name"] == "Picture")
    return display, view, np.stack([right, -up, forward])


def rendered(points: np.ndarray, size: float, axes: np.ndarray, shape: tuple[int, int]) -> Any:
    """Flat squares as RViz draws them: facing the viewer, of one size in metres; 45 degrees high.

    Returns the picture, uint8 [h,w,3], and its focal length in pixels.
    """
    height, width = shape
    focal = height / 2 / math.tan(math.radians(22.5))
    screen = np.zeros((height, width, 3), np.uint8)
    places = np.stack([points[n] for n in "xyz"], axis=-1).reshape(-1, 3).astype(float)
    shown = np.isfinite(places).all(axis=1)
    seen = places[shown] @ axes.T
    colours = points["rgb"].reshape(-1)[shown]
    for (x, y, z), colour in zip(seen, colours, strict=True):
        u, v, half = focal * x / z + width / 2, focal * y / z + height / 2, focal * size / z / 2
        left, right = math.ceil(u - half - 0.5), math.ceil(u + half - 0.5)
        top, bottom = math.ceil(v - half - 0.5), math.ceil(v + half - 0.5)
        if right > 0 and bottom > 0:
            screen[max(top, 0) : bottom, max(left, 0) : right] = (
                colour >> 16,
                colour >> 8 & 255,
                colour & 255,
            )
    return screen, focal


@pytest.mark.parametrize("lens", ["none", "plumb_bob", "equidistant"])
def test_rendered_from_the_shipped_view_it_is_the_picture_without_its_distortion(
    lens: str, tmp_path: Path
) -> None:
    image = photo()
    cloud = cloud_of(lens)
    display, _, axes = shipped_view()
    assert (display["Style"], display["Size (m)"]) == ("Flat Squares", cloud.point_size)
    screen, focal = rendered(
        cloud.points(ArrayPicture(image)), display["Size (m)"], axes, (540, 960)
    )
    # The same by OpenCV: the picture as a camera without a lens would see it in that window.
    matrix, model, numbers = LENSES[lens]
    ideal = np.array([[focal, 0, 479.5], [0, focal, 269.5], [0, 0, 1]])
    lens_numbers = np.array(numbers or [0.0] * 4)
    undistort = cv2.fisheye if model == "equidistant" else cv2
    x, y = undistort.initUndistortRectifyMap(
        matrix, lens_numbers, np.eye(3), ideal, (960, 540), cv2.CV_32FC1
    )
    wanted = cv2.remap(image, x, y, cv2.INTER_LINEAR)
    inner = ((x > 8) & (x < WIDTH - 9) & (y > 8) & (y < HEIGHT - 9)).astype(bool)
    smooth = [cv2.GaussianBlur(p, (9, 9), 0).astype(float) for p in (screen, wanted)]
    error = np.abs(smooth[0] - smooth[1])[inner].mean()
    print(f"{lens}: {inner.mean():.0%} of the window compared, mean difference {error:.2f} of 255")
    cv2.imwrite(str(tmp_path / "cloud.png"), screen[..., ::-1])
    assert inner.mean() > 0.4
    assert error < 4.0
    assert np.abs(smooth[0] - smooth[1][:, ::-1])[inner].mean() > 25.0  # mirrored would be wrong
    assert (screen[inner] == 0).all(axis=-1).mean() < 0.001  # no gaps between the squares


def test_colours_and_drawings_are_where_the_pixels_are() -> None:
    cloud = cloud_of("plumb_bob")
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[300:420, 500:700] = (10, 200, 30)
    points = cloud.points(ArrayPicture(image))
    inside = (np.abs(cloud.pixels - [599.5, 359.5]) < [95, 55]).all(axis=-1)
    outside = (np.abs(cloud.pixels - [599.5, 359.5]) > [105, 65]).any(axis=-1)
    assert set(points["rgb"][inside]) == {10 << 16 | 200 << 8 | 30}
    assert set(points["rgb"][outside]) == {0}
    cloud.draw_box(points, Box.from_xywh(500, 300, 200, 120), (255, 255, 255))
    painted = cloud.pixels[points["rgb"] == 0xFFFFFF]
    half = cloud.pixels_per_point
    assert np.abs(painted - [599.5, 359.5]).max(axis=0) == pytest.approx([100, 60], abs=half)
    cloud.draw_cross(points, (200.0, 100.0), (255, 0, 0))
    crossed = cloud.pixels[points["rgb"] == 0xFF0000]
    assert (np.abs(crossed - [200, 100]).min(axis=1) < half).all() and len(crossed) > 300


def test_an_outline_is_on_the_plane_around_the_box() -> None:
    cloud = cloud_of("plumb_bob")
    line = cloud.outline(Box(900.0, 500.0, 200.0, 100.0))
    assert (line[0] == line[-1]).all() and len(line) == 33
    back = np.array([cloud.pixel_of(tuple(p)) for p in line])
    assert back.min(axis=0) == pytest.approx([800, 450], abs=0.01)
    assert back.max(axis=0) == pytest.approx([1000, 550], abs=0.01)


@pytest.mark.parametrize("lens", LENSES)
def test_clicks_beside_the_picture_are_refused(lens: str) -> None:
    cloud = cloud_of(lens)
    d = cloud.distance
    for point, word in (
        ((0.0, 0.0, d / 2), "not on the picture"),
        ((0.0, 0.0, -d), "not on the picture"),
        ((0.0, 0.0, 0.0), "not on the picture"),
        ((math.nan, 0.0, d), "no point"),
        ((0.0, math.inf, d), "no point"),
        ((3.5 * d, 0.0, d), "outside the picture"),
        ((0.0, -3.5 * d, d), "outside the picture"),
        ((900.0 * d, 0.0, d), "outside the picture"),
    ):
        with pytest.raises(ClickError, match=word):
            cloud.pixel_of(point)


def test_a_click_on_the_last_square_counts_as_the_edge() -> None:
    cloud = cloud_of("none")
    ray = (-0.5 - 2.0 - K[0, 2]) / K[0, 0]
    x, _ = cloud.pixel_of((ray * cloud.distance, 0.0, cloud.distance))
    assert x == -0.5
    with pytest.raises(ClickError, match="outside"):
        cloud.pixel_of((ray * cloud.distance - 0.1, 0.0, cloud.distance))


# --- CameraInfo ---


def info(**changes: Any) -> Any:
    fields = {
        "width": 640,
        "height": 480,
        "k": [500.0, 0, 320, 0, 500, 240, 0, 0, 1],
        "d": [0.0] * 5,
        "p": [480.0, 0, 318, 0, 0, 480, 238, 0, 0, 0, 1, 0],
        "distortion_model": "plumb_bob",
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
        **changes,
    }
    return SimpleNamespace(**fields)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"k": [0.0] * 9}, "not calibrated"),
        ({"k": [0.0] * 9, "width": 0, "height": 0}, "all zero"),
        ({"width": 0, "height": 0}, "has no size \\(0 x 0\\)"),
        ({"width": 1280, "height": 960}, "is for 1280 x 960 pixels, the images have 640 x 480"),
        ({"k": [math.nan] * 9}, "not finite"),
        ({"d": [0.1, math.nan, 0, 0, 0]}, "not finite"),
        ({"k": [-500.0, 0, 320, 0, 500, 240, 0, 0, 1]}, "no focal length"),
        ({"d": [0.1] * 5, "distortion_model": "double_sphere"}, "'double_sphere' is not known"),
        ({"d": [0.1] * 3}, "plumb_bob has 5 numbers in d, got 3"),
        ({"d": [0.1] * 5, "distortion_model": "equidistant"}, "has 4 numbers in d, got 5"),
    ],
)
def test_what_is_wrong_with_camera_info_is_said(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(CameraInfoError, match=word):
        camera_from_info(info(**changes), (640, 480), rectified=False)


def test_rectified_images_have_their_own_matrix_and_no_lens() -> None:
    bent = info(d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    raw = camera_from_info(bent, (640, 480), rectified=False)
    straight = camera_from_info(bent, (640, 480), rectified=True)
    assert raw.project(np.array([[0.4, 0.0, 1.0]]))[0, 0] < 320 + 0.4 * 500
    assert straight.project(np.array([[0.4, 0.0, 1.0]]))[0] == pytest.approx([318 + 192, 238])


def test_a_cut_out_and_binned_picture() -> None:
    roi = SimpleNamespace(x_offset=100, y_offset=60, width=400, height=300)
    camera = camera_from_info(info(roi=roi, binning_x=2, binning_y=2), (200, 150), rectified=False)
    assert camera.project(np.array([[0.0, 0.0, 2.0]]))[0] == pytest.approx([110, 90])
    with pytest.raises(CameraInfoError, match="is for 200 x 150 pixels"):
        camera_from_info(info(roi=roi, binning_x=2, binning_y=2), (640, 480), rectified=False)
