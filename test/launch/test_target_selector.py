"""target_selector_node in a process of its own: what RViz, rqt_image_view and a detector send it."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from siam_tracker_ros.geometry import Box

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]
SIZE = (640, 480)
K = np.array([[420.0, 0.0, 322.5], [0.0, 424.0, 238.25], [0.0, 0.0, 1.0]])
LENSES = {
    "plumb_bob": [-0.28, 0.09, 0.0012, -0.0008, -0.01],
    "equidistant": [-0.02, 0.006, -0.003, 0.0005],
}
SETTLE = 0.8
"""Seconds for a message to arrive whose arrival cannot be seen."""

DEPTH_STEP = 100_000.0 / 0xFFFFFF
"""RViz reads depths as 24 bits up to Ogre's far clip distance."""

POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


def picture() -> np.ndarray:
    rng = np.random.default_rng(2)
    small = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, SIZE, interpolation=cv2.INTER_LINEAR))


class Bench:
    """Camera, RViz, rqt and tracker around one selector, all in a namespace of its own."""

    def __init__(self, remote: Any, start: Callable[..., Any], name: str, *arguments: str) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import Point, PointStamped, PolygonStamped
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
        from vision_msgs.msg import Detection2D, Detection2DArray

        self.remote, self.name = remote, name
        # A node of its own: what is destroyed under another's executor can end that on Humble.
        self.node = rclpy.create_node(f"bench_{name}", context=remote.context)
        self._executor = SingleThreadedExecutor(context=remote.context)
        self._executor.add_node(self.node)
        self._ending = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self.clock = 5_000_000_000_000
        self.process = start(
            [
                sys.executable,
                "-m",
                "siam_tracker_ros.nodes.target_selector_node",
                "--ros-args",
                "-r",
                f"__ns:=/{name}",
                *arguments,
            ]
        )

        def send(kind: type, topic: str) -> Any:
            return self.node.create_publisher(kind, f"/{name}/{topic}", 10)

        self.targets: list[Any] = []
        self.statuses: list[Any] = []
        self.compressed = "image_transport:=compressed" in arguments
        if self.compressed:
            self.images = send(CompressedImage, "image/compressed")
        else:
            self.images = send(Image, "image")
        self.infos = send(CameraInfo, "camera_info")
        self.clicks = send(PointStamped, "clicked_point")
        self.mouse = send(Point, "image_mouse_left")
        self.picture_mouse = send(Point, "target_selector/picture_mouse_left")
        self.polygons = send(PolygonStamped, "polygon")
        self.regions = send(RegionOfInterest, "roi")
        self.candidates = send(Detection2DArray, "candidates")
        self.hear(Detection2D, "target", self.targets.append)
        latched = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.hear(DiagnosticStatus, "target_selector/status", self.statuses.append, latched)
        inputs = (
            self.images,
            self.infos,
            self.clicks,
            self.mouse,
            self.picture_mouse,
            self.polygons,
            self.regions,
            self.candidates,
        )
        remote.wait(
            lambda: all(p.get_subscription_count() for p in inputs) and self.statuses,
            f"{name}: the selector's start",
            90.0,
        )

    def hear(self, kind: type, topic: str, callback: Any, qos: Any = 50) -> None:
        self.node.create_subscription(kind, f"/{self.name}/{topic}", callback, qos)
        self._executor.wake()

    def _spin(self) -> None:
        while not self._ending:
            self._executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        self._ending = True
        self._thread.join(10)
        self._executor.shutdown()
        self.node.destroy_node()
        assert self.process.stop() == 0, self.process.output
        assert "Traceback" not in self.process.output
        assert "a callback failed" not in self.process.output

    # --- what comes back ---

    def status(self) -> dict[str, str]:
        newest = self.statuses[-1]
        values = {pair.key: pair.value for pair in newest.values}
        level = str(int.from_bytes(bytes(newest.level), "little"))
        return {**values, "message": newest.message, "level": level}

    def wait_status(self, **wanted: str) -> dict[str, str]:
        def matches() -> dict[str, str] | None:
            status = self.status()
            return status if all(t in status[k] for k, t in wanted.items()) else None

        try:
            return self.remote.wait(matches, f"a status with {wanted}", 40.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; the last: {self.status()}") from None

    def target(self, number: int = 1) -> tuple[Any, Box]:
        """Wait for the so-manyth selection: its message and box."""
        try:
            self.remote.wait(lambda: len(self.targets) >= number, "a selection", 40.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; the status is {self.status()}") from None
        message = self.targets[number - 1]
        c, b = message.bbox.center.position, message.bbox
        return message, Box(c.x, c.y, b.size_x, b.size_y)

    def refused(self, word: str) -> None:
        """Wait for a refusal with this word; nothing may have been published."""
        status = self.wait_status(verdict=word, message="nothing selected")
        assert status["verdict"].startswith("refused") and status["level"] == "1"
        self.remote.wait(lambda: "nothing selected: " in self.process.output)
        time.sleep(0.2)
        assert self.targets == []

    # --- what goes in ---

    def image(
        self, pixels: np.ndarray | None = None, stamp: int | None = None, **fields: Any
    ) -> Any:
        from siam_tracker_ros.nodes.messages import to_image

        if stamp is None:
            self.clock += 100_000_000
            stamp = self.clock
        header = self.remote.header(stamp, fields.pop("frame_id", "camera"))
        pixels = picture() if pixels is None else pixels
        if self.compressed:
            from sensor_msgs.msg import CompressedImage

            jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
            message = CompressedImage(header=header, format="jpeg", data=jpeg)
        else:
            message = to_image(header, pixels)
            for name, value in fields.items():
                setattr(message, name, value)
        self.images.publish(message)
        return message.header

    def camera_info(self, lens: str = "plumb_bob", **fields: Any) -> Any:
        from sensor_msgs.msg import CameraInfo

        message = CameraInfo(width=SIZE[0], height=SIZE[1], distortion_model=lens)
        message.header.frame_id = "camera"
        message.k = K.ravel().tolist()
        message.d = list(LENSES[lens])
        for name, value in fields.items():
            setattr(message, name, value)
        self.infos.publish(message)
        return message

    def live(self, **fields: Any) -> Any:
        """Publish images until the selector knows of one; the header of another that it has."""

        def known() -> bool:
            self.image(**fields)  # the first may pass while the two discover one another
            time.sleep(0.2)
            return "live" in self.status()["state"]

        self.remote.wait(known, "the first image's arrival")
        header = self.image(**fields)
        time.sleep(SETTLE)
        return header

    def click(self, point: Any, frame_id: str = "camera") -> None:
        from geometry_msgs.msg import PointStamped

        x, y, z = (float(v) for v in point)
        message = PointStamped(header=self.remote.header(self.clock + 7_000_000_000, frame_id))
        message.point.x, message.point.y, message.point.z = x, y, z
        self.clicks.publish(message)

    def press(self, publisher: Any, x: float, y: float) -> None:
        from geometry_msgs.msg import Point

        publisher.publish(Point(x=float(x), y=float(y)))


class Screen:
    """RViz's picture display: the clouds that came, and clicks on them."""

    def __init__(self, bench: Bench) -> None:
        from sensor_msgs.msg import PointCloud2
        from visualization_msgs.msg import MarkerArray

        self.bench = bench
        self.clouds: list[Any] = []
        self.previews: list[Any] = []
        bench.hear(PointCloud2, "target_selector/cloud", self.clouds.append)
        bench.hear(MarkerArray, "target_selector/preview", self.previews.append)

    def show(self, lens: str = "plumb_bob") -> Any:
        """Send pictures until one is shown; its cloud."""
        self.bench.camera_info(lens)
        before = len(self.clouds)

        def came() -> bool:
            if len(self.clouds) == before:
                self.bench.camera_info(lens)
                self.bench.image()
                time.sleep(0.15)
            return len(self.clouds) > before

        try:
            self.bench.remote.wait(came, "a cloud", 60.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; the status is {self.bench.status()}") from None
        count = -1
        while len(self.clouds) != count:  # what is still on its way
            count = len(self.clouds)
            time.sleep(2 * SETTLE)
        return self.clouds[-1]

    @staticmethod
    def points(cloud: Any) -> np.ndarray:
        assert [(f.name, f.offset) for f in cloud.fields] == [
            ("x", 0),
            ("y", 4),
            ("z", 8),
            ("rgb", 12),
        ]
        assert cloud.point_step == POINT.itemsize and cloud.row_step == 16 * cloud.width
        return np.frombuffer(bytes(cloud.data), POINT).reshape(cloud.height, cloud.width)


def pixel_by_opencv(point: np.ndarray, lens: str) -> np.ndarray:
    one, none = point.reshape(1, 1, 3), np.zeros(3)
    project = cv2.fisheye.projectPoints if lens == "equidistant" else cv2.projectPoints
    return np.asarray(project(one, none, none, K, np.array(LENSES[lens]))[0]).ravel()


@pytest.fixture
def bench(remote: Any, start: Any, request: pytest.FixtureRequest) -> Iterator[Bench]:
    arguments = getattr(request, "param", ())
    made = Bench(remote, start, f"s{abs(hash(request.node.name)) % 10**8}", *arguments)
    yield made
    made.close()


# --- RViz ---


@pytest.mark.parametrize("lens", LENSES)
def test_two_clicks_in_rviz_through_tf2_and_a_lens(bench: Bench, lens: str) -> None:
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    screen = Screen(bench)
    cloud = screen.show(lens)
    shown = cloud.header.stamp.sec * 10**9 + cloud.header.stamp.nanosec
    assert cloud.header.frame_id == "camera"
    points = screen.points(cloud)
    assert (
        cloud.width <= 320
        and cloud.height <= 180
        and np.unique(points["z"][points["z"] > 0]).size == 1
    )

    # The camera turns and moves: only the transform of the shown image's stamp is right.
    def pose(stamp: int) -> tuple[np.ndarray, np.ndarray]:
        t = (stamp - shown) * 1e-9
        turn = cv2.Rodrigues(np.array([-1.2 + 0.3 * t, 0.4, 1.3 - 0.2 * t]))[0]
        return turn, np.array([3.0 + 0.5 * t, -2.0, 1.1])

    tf = bench.node.create_publisher(TFMessage, "/tf", 100)
    bench.remote.wait(lambda: tf.get_subscription_count() > 0, "a tf2 listener")
    message = TFMessage()
    for stamp in range(shown - 500_000_000, shown + 8_000_000_000, 100_000_000):
        turn, shift = pose(stamp)
        vector = cv2.Rodrigues(turn)[0].ravel()
        angle = np.linalg.norm(vector)
        x, y, z = vector / angle * math.sin(angle / 2)
        entry = TransformStamped(header=bench.remote.header(stamp, "map"), child_frame_id="camera")
        t, r = entry.transform.translation, entry.transform.rotation
        t.x, t.y, t.z = (float(v) for v in shift)
        r.x, r.y, r.z, r.w = float(x), float(y), float(z), float(math.cos(angle / 2))
        message.transforms.append(entry)
    tf.publish(message)

    # Two places on its squares, as an operator a little to the side of the camera clicks them.
    turn, shift = pose(shown)
    eye = np.array([-0.4, 0.3, -1.0])
    clicked = []
    for row, column in ((0.3, 0.25), (0.7, 0.6)):
        cell = points[int(row * cloud.height), int(column * cloud.width)]
        place = np.array([float(cell[n]) for n in "xyz"]) + np.array([0.01, -0.02, 0.0])
        depth = place[2] - eye[2]
        quantised = (round(depth / DEPTH_STEP) + 1) * DEPTH_STEP
        clicked.append((place, eye + (place - eye) / depth * quantised))
    pixels = [pixel_by_opencv(place, lens) for place, _ in clicked]

    bench.click(turn @ clicked[0][1] + shift, "map")
    status = bench.wait_status(state="corner", message="click the opposite corner")
    assert status["source"] == f"/{bench.name}/clicked_point"
    # The picture stands still, whatever the camera sends.
    for _ in range(5):
        bench.image()
        time.sleep(0.05)
    assert all(c.header == cloud.header for c in screen.clouds[-2:])
    assert bench.targets == []
    bench.click(turn @ clicked[1][1] + shift, "map")
    message, box = bench.target()
    assert message.header == cloud.header  # the image's own: stamp and frame_id
    errors = np.array(box.edges) - [*pixels[0], *pixels[1]]
    print(f"{lens}: corners come back with errors of {np.abs(errors).round(3)} px")
    assert np.abs(errors).max() < 1.0
    assert message.results[0].hypothesis.class_id == "target"
    assert (
        bench.wait_status(verdict="published")["stamp"] == f"{shown // 10**9}.{shown % 10**9:09d}"
    )

    # The preview: the box' outline, in the cloud's frame, where the clicks were.
    def previewed() -> Any:
        lines = [m for m in screen.previews[-1].markers if m.action == m.ADD]
        return len(lines) == 1 and lines[0]

    line = bench.remote.wait(previewed, "the box' preview")
    assert line.header == cloud.header
    corner = np.array(next([p.x, p.y, p.z] for p in line.points))
    assert np.abs(corner - clicked[0][0]).max() < 0.1

    # And the picture goes on.
    def went_on() -> bool:
        bench.image()
        time.sleep(0.1)
        return bool(screen.clouds[-1].header != cloud.header)

    bench.remote.wait(went_on, "a newer picture")


def test_the_message_of_the_cloud_holds_the_picture(bench: Bench) -> None:
    screen = Screen(bench)
    cloud = screen.show()
    points = screen.points(cloud)
    image = picture()
    seen = np.argwhere(np.isfinite(points["z"]))
    assert len(seen) > 0.7 * points.size and cloud.is_dense == (len(seen) == points.size)
    errors = []
    for row, column in seen[::37]:
        cell = points[row, column]
        x, y = pixel_by_opencv(np.array([float(cell[n]) for n in "xyz"]), "plumb_bob")
        assert -1 < x < SIZE[0] and -1 < y < SIZE[1]
        wanted = image[min(round(y), SIZE[1] - 1), min(round(x), SIZE[0] - 1), ::-1].astype(int)
        colour = int(cell["rgb"])
        errors.append(np.abs(wanted - [colour >> 16, colour >> 8 & 255, colour & 255]).mean())
    assert np.mean(errors) < 4.0


@pytest.mark.parametrize("bench", [("-p", "image_transport:=compressed")], indirect=True)
def test_compressed_images_are_shown_and_selected_on(bench: Bench) -> None:
    screen = Screen(bench)
    cloud = screen.show()
    points = screen.points(cloud)
    seen = points["rgb"][np.isfinite(points["z"])]
    red = (seen >> 16 & 255).astype(float)
    assert abs(red.mean() - picture()[..., 2].mean()) < 10 and red.std() > 20
    z = float(np.nanmax(points["z"]))
    bench.click((-0.2 * z, -0.2 * z, z))
    bench.wait_status(state="corner")
    bench.click((0.1 * z, 0.1 * z, z))
    assert bench.target()[0].header == cloud.header


@pytest.mark.parametrize("bench", [("-p", "transform_timeout:=10.0")], indirect=True)
def test_a_transform_may_come_late(bench: Bench) -> None:
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    screen = Screen(bench)
    cloud = screen.show()
    z = float(np.nanmax(screen.points(cloud)["z"]))
    tf = bench.node.create_publisher(TFMessage, "/tf", 100)
    bench.remote.wait(lambda: tf.get_subscription_count() > 0, "a tf2 listener")
    message = TFMessage()
    shown = cloud.header.stamp.sec * 10**9 + cloud.header.stamp.nanosec
    for stamp in (shown - 10**9, shown + 10**9):
        header = bench.remote.header(stamp, "late_map")
        entry = TransformStamped(header=header, child_frame_id="camera")
        entry.transform.translation.x, entry.transform.rotation.w = 100.0, 1.0
        message.transforms.append(entry)
    bench.click((100.0, 0.0, z), "late_map")
    time.sleep(0.15)
    assert bench.status()["state"] == "live"
    tf.publish(message)
    bench.wait_status(state="corner")
    assert "first corner at (322.5, 238.2)" in bench.status()["message"]  # the optical axis


def test_clicks_that_mean_nothing(bench: Bench) -> None:
    bench.click((0, 0, 5))
    bench.refused("no image has been received")

    def damaged() -> bool:
        bench.image(data=b"123")
        time.sleep(0.2)
        return "an image cannot be used" in bench.process.output

    bench.remote.wait(damaged, "a word on the damaged image")
    bench.click((0, 0, 5))
    bench.refused("can be used: data has 3 bytes")
    bench.live()
    bench.click((0, 0, 5))
    bench.refused("no picture is shown in RViz")
    screen = Screen(bench)
    cloud = screen.show()
    z = float(np.nanmax(screen.points(cloud)["z"]))
    bench.click((0.0, 0.0, z / 2))
    bench.refused("not on the picture")
    bench.click((2.0 * z, 0.0, z))
    bench.refused("outside the picture")
    bench.click((0.0, 0.0, z), "the_moon")
    bench.refused("the click is in frame 'the_moon', the picture in 'camera'")
    bench.click((0.0, 0.0, z), "")
    bench.refused("no frame_id")
    bench.click((math.nan, 0.0, z))
    bench.refused("no point")
    bench.click((0.0, 0.0, z))
    bench.wait_status(state="corner")
    bench.click((0.0, 0.0, z))
    bench.refused("too small")
    # All that, and it still selects.
    bench.click((-0.2 * z, -0.2 * z, z))
    bench.wait_status(state="corner")
    bench.click((0.1 * z, 0.1 * z, z))
    _, box = bench.target()
    assert min(box.w, box.h) > 100


def test_what_is_wrong_with_camera_info_is_said(bench: Bench) -> None:
    screen = Screen(bench)

    def said(word: str, **info: Any) -> None:
        def heard() -> bool:
            if info:
                bench.camera_info(**info)
            bench.image()
            time.sleep(0.1)
            return word in bench.status()["message"]

        try:
            bench.remote.wait(heard, word, 40.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; the status is {bench.status()}") from None

    said("no CameraInfo has been received on")
    said("not calibrated", k=[0.0] * 9)
    said("is for 1280 x 960 pixels, the images have 640 x 480", width=1280, height=960)
    bench.click((0, 0, 5))
    bench.refused("no picture is shown in RViz: camera_info is for 1280 x 960")
    assert screen.clouds == []
    screen.show()
    bench.wait_status(state="live")


@pytest.mark.parametrize(
    "bench", [("-p", "click_timeout:=4.0", "-p", "preview_seconds:=0.0")], indirect=True
)
def test_a_corner_is_forgotten_in_time_on_demand_and_when_time_jumps(bench: Bench) -> None:
    from std_srvs.srv import Trigger

    bench.live()
    bench.press(bench.mouse, 100, 100)
    bench.wait_status(state="corner")
    bench.wait_status(state="live", message="no second click within 4 s")
    service = f"/{bench.name}/target_selector/cancel"
    assert bench.remote.call(Trigger, service).message == "there was no corner"
    bench.press(bench.mouse, 100, 100)
    bench.wait_status(state="corner")
    assert bench.remote.call(Trigger, service).message == "forgotten"
    bench.wait_status(state="live", message="cancelled")
    bench.press(bench.mouse, 100, 100)
    bench.wait_status(state="corner")
    bench.clock -= 60_000_000_000
    bench.image()
    bench.wait_status(state="live", message="jumped back")
    bench.press(bench.mouse, 100, 100)
    bench.wait_status(state="corner")
    bench.image(np.zeros((240, 320, 3), np.uint8))
    bench.wait_status(state="live", message="another size")
    assert bench.targets == []


# --- rqt_image_view, polygons, regions, detectors ---


def test_two_clicks_in_rqt_image_view(bench: Bench) -> None:
    bench.press(bench.mouse, 200, 100)
    bench.refused("no image has been received")
    bench.live()
    bench.press(bench.mouse, 640, 100)
    bench.refused("outside the 640 x 480 picture")
    bench.press(bench.mouse, 200, 300)
    bench.wait_status(state="corner")
    newest = bench.image()
    time.sleep(SETTLE)
    bench.press(bench.mouse, 120, 240)
    message, box = bench.target()
    assert message.header == newest  # those images do not stand still
    assert box.xywh == (120, 240, 81, 61)


def test_two_clicks_on_the_picture_that_stands_still(bench: Bench) -> None:
    from sensor_msgs.msg import Image

    pictures: list[Any] = []
    bench.live()
    bench.press(bench.picture_mouse, 100, 100)
    bench.refused("no picture is shown")
    bench.hear(Image, "target_selector/picture", pictures.append)

    def came() -> bool:
        bench.image()
        time.sleep(0.15)
        return bool(pictures)

    bench.remote.wait(came, "a picture")
    time.sleep(SETTLE)
    shown = pictures[-1]
    assert (shown.width, shown.height, shown.encoding) == (*SIZE, "bgr8")
    assert bytes(shown.data) == picture().tobytes()
    bench.press(bench.picture_mouse, 100, 110)
    bench.wait_status(state="corner")
    for _ in range(4):
        bench.image()
        time.sleep(0.05)
    bench.press(bench.picture_mouse, 300, 210)
    message, box = bench.target()
    assert message.header == shown.header and box.xywh == (100, 110, 201, 101)

    def boxed() -> bool:
        pixels = np.frombuffer(bytes(pictures[-1].data), np.uint8).reshape(480, 640, 3)
        return bool((pixels[110, 120:280] == (80, 220, 80)).all())

    bench.remote.wait(boxed, "the box on the picture")
    assert pictures[-1].header == shown.header


def test_polygons_and_regions(bench: Bench) -> None:
    from geometry_msgs.msg import Point32, PolygonStamped
    from sensor_msgs.msg import RegionOfInterest

    def polygon(*corners: tuple[float, float], stamp: int = 0, frame_id: str = "") -> None:
        message = PolygonStamped(header=bench.remote.header(stamp, frame_id))
        message.polygon.points = [Point32(x=float(x), y=float(y)) for x, y in corners]
        bench.polygons.publish(message)

    polygon((10, 20), (110, 220))
    bench.refused("no image has been received")
    header = bench.live()
    polygon((10, 20), (110, 220), frame_id="another_camera")
    bench.refused("it is in frame 'another_camera', the images are in 'camera'")
    polygon((10, 20))
    bench.refused("two points at least")
    polygon((10, 20), (12, 220))
    bench.refused("too small")
    polygon((700, 20), (800, 220))
    bench.refused("outside the 640 x 480 picture")
    bench.regions.publish(RegionOfInterest(x_offset=3, y_offset=4, width=0, height=0))
    bench.refused("too small")

    polygon((60, 20), (110, 120), (60, 220), (10, 120), stamp=bench.clock - 300_000_000)
    message, box = bench.target(1)
    assert box == Box.from_edges(10, 20, 110, 220)
    stamp = message.header.stamp
    assert stamp.sec * 10**9 + stamp.nanosec == bench.clock - 300_000_000
    polygon((10, 20), (110, 220), frame_id="camera")
    assert bench.target(2)[0].header == header  # without a stamp: the newest image
    bench.regions.publish(RegionOfInterest(x_offset=30, y_offset=40, width=50, height=60))
    message, box = bench.target(3)
    assert message.header == header and box.xywh == (30, 40, 50, 60)


def test_one_click_inside_a_detectors_box(bench: Bench) -> None:
    from vision_msgs.msg import Detection2DArray

    from siam_tracker_ros.nodes.messages import to_detection

    def detect(stamp: int) -> Any:
        header = bench.remote.header(stamp, "camera")
        return Detection2DArray(
            header=header,
            detections=[
                to_detection(header, "9", "person", Box.from_xywh(100, 100, 80, 200), 0.9),
                to_detection(header, "4", "bag", Box.from_xywh(150, 180, 30, 40), 0.7),
            ],
        )

    bench.live()
    seen = detect(bench.clock - 100_000_000)  # detectors are late
    for message in (detect(bench.clock - 5_000_000_000), detect(0), seen):
        bench.candidates.publish(message)
    bench.remote.wait(lambda: "without a stamp" in bench.process.output, "a word on the stamp")
    time.sleep(SETTLE)
    bench.press(bench.mouse, 160, 200)
    message, box = bench.target(1)
    assert (message.id, message.results[0].hypothesis.class_id) == ("4", "bag")
    assert message.header == seen.header and box.xywh == (150, 180, 30, 40)
    bench.press(bench.mouse, 110, 290)
    assert bench.target(2)[0].results[0].hypothesis.class_id == "person"
    # Beside all boxes a click is a corner.
    bench.press(bench.mouse, 400, 300)
    bench.wait_status(state="corner")
    # So it is on an image that no detection is near to.
    bench.press(bench.mouse, 500, 400)
    bench.target(3)
    bench.clock += 3_000_000_000
    bench.image()
    time.sleep(SETTLE)
    bench.press(bench.mouse, 160, 200)
    bench.wait_status(state="corner")


# --- two at once ---


def test_two_operators_do_not_mix_their_corners(bench: Bench) -> None:
    from geometry_msgs.msg import Point
    from sensor_msgs.msg import RegionOfInterest

    screen = Screen(bench)
    cloud = screen.show()
    z = float(np.nanmax(screen.points(cloud)["z"]))
    bench.click((-0.2 * z, -0.2 * z, z))
    bench.wait_status(state="corner")
    # Another tool comes between.
    bench.press(bench.mouse, 300, 300)
    bench.refused("somebody is drawing a box on")
    bench.regions.publish(RegionOfInterest(x_offset=30, y_offset=40, width=50, height=60))
    bench.refused("somebody is drawing a box on")
    # The box that was begun can still be finished.
    bench.click((0.1 * z, 0.1 * z, z))
    bench.target(1)
    bench.targets.clear()
    # Two tools on one topic cannot be told apart.
    second = bench.node.create_publisher(Point, bench.mouse.topic_name, 10)
    bench.remote.wait(lambda: second.get_subscription_count() > 0)
    time.sleep(0.5)
    bench.press(second, 300, 300)
    bench.refused("2 tools publish on")


def test_two_selectors_of_the_same_clicks(bench: Bench, remote: Any, start: Any) -> None:
    from sensor_msgs.msg import RegionOfInterest

    second = start(
        [
            sys.executable,
            "-m",
            "siam_tracker_ros.nodes.target_selector_node",
            "--ros-args",
            *("-r", f"__ns:=/{bench.name}", "-r", "__node:=selector_of_bob"),
        ]
    )
    remote.wait(lambda: bench.node.count_publishers(f"/{bench.name}/target") == 2, "the second")
    remote.wait(lambda: bench.images.get_subscription_count() == 2)
    remote.wait(lambda: bench.regions.get_subscription_count() == 2)
    bench.live()
    time.sleep(4.0)  # until the two have heard of one another

    def both_refuse() -> bool:
        bench.image()
        bench.regions.publish(RegionOfInterest(x_offset=30, y_offset=40, width=50, height=60))
        time.sleep(SETTLE)
        return "Stop one of the two" in second.output

    remote.wait(both_refuse, "the second one's word")
    bench.refused(f"another selector hears the same clicks and publishes on /{bench.name}/target")
    assert second.stop() == 0
    remote.wait(lambda: bench.node.count_publishers(f"/{bench.name}/target") == 1, "its end")
    bench.regions.publish(RegionOfInterest(x_offset=30, y_offset=40, width=50, height=60))
    bench.target(1)


# --- what is shipped ---


def named_topics(text: str) -> set[str]:
    return set(re.findall(r"/target_selector/[a-z_]+", text))


def test_the_shipped_configurations_name_topics_that_are_there(bench: Bench) -> None:
    rviz = (ROOT / "config/rviz/select.rviz").read_text()
    foxglove = (ROOT / "config/foxglove/tracker.json").read_text()
    layout = json.loads(foxglove)
    there = {
        name.removeprefix(f"/{bench.name}"): kinds
        for name, kinds in bench.node.get_topic_names_and_types()
        if name.startswith(f"/{bench.name}/target_selector/")
    }
    wanted = named_topics(rviz) | named_topics(foxglove)
    assert wanted >= {"/target_selector/cloud", "/target_selector/preview"}
    assert wanted <= set(there)
    displays = {
        d["Topic"]["Value"]: d["Class"].split("/")[1]
        for d in yaml.safe_load(rviz)["Visualization Manager"]["Displays"]
    }
    for topic, kind in displays.items():
        if topic in there:
            assert there[topic] == [f"{MESSAGES[kind]}/msg/{kind}"]
    tools = yaml.safe_load(rviz)["Visualization Manager"]["Tools"]
    assert tools[0]["Class"].endswith("/PublishPoint") and tools[0]["Single click"] is False

    def panels(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        return panels(node["first"]) + panels(node["second"])

    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])
    # What the Publish panel sends is a message.
    from rosidl_runtime_py.set_message import set_message_fields
    from vision_msgs.msg import Detection2D

    panel = layout["configById"]["Publish!target"]
    message = Detection2D()
    set_message_fields(message, json.loads(panel["value"]))
    assert message.bbox.size_x == 80 and panel["datatype"] == "vision_msgs/msg/Detection2D"


MESSAGES = {"PointCloud2": "sensor_msgs", "MarkerArray": "visualization_msgs"}


def test_the_documentation_has_the_parameters() -> None:
    from siam_tracker_ros.nodes.selector_settings import SelectorSettings
    from siam_tracker_ros.nodes.settings import as_markdown

    page = (ROOT / "docs/target_selector_node.md").read_text()
    assert as_markdown(SelectorSettings) in page


# --- the whole ---


@pytest.mark.parametrize(
    ("parameter", "word"),
    [
        ("rate:=20.0", "rate must be"),
        ("point_size:=0.001", "point_size must be"),
        ("image_transport:=pigeon", "image_transport must be one of raw, compressed, got 'pigeon'"),
    ],
)
def test_a_wrong_parameter_is_named(start: Any, parameter: str, word: str) -> None:
    command = [sys.executable, "-m", "siam_tracker_ros.nodes.target_selector_node"]
    process = start([*command, "--ros-args", "-p", parameter])
    assert process.wait() == 2
    assert word in process.output and "Traceback" not in process.output


def test_a_selection_reaches_the_tracker(
    remote: Any, start: Any, fake_tracker: list[str], bench: Bench
) -> None:
    """Selector and command line, with a real tracker_node on a fake model."""
    tracker = start([*fake_tracker, "--ros-args", "-p", "model:=fake"])
    assert remote.change("configure") and remote.change("activate")
    cli = [sys.executable, "-m", "siam_tracker_ros.cli.main", "select", "--timeout", "15"]

    def select(*arguments: str) -> Any:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [*cli, *arguments], capture_output=True, text=True, timeout=90, env=environment
        )

    remote.wait(lambda: remote.images.get_subscription_count() > 0)
    remote.image(picture())
    early = select("--box", "700,10,50,50")
    assert early.returncode == 2 and "refused" in early.stderr, early.stdout + early.stderr
    header = remote.image(picture())
    done = select("--box", "100,120,60,50", "--id", "duck", "--label", "bird")
    assert done.returncode == 0 and done.stdout.strip() == "accepted as duck", done.stderr
    message = remote.detection_of(header, "duck")
    assert message.results[0].hypothesis.class_id == "bird"
    assert tracker.stop() == 0


def test_the_launch_file(launch: Any, remote: Any) -> None:
    process = launch(
        "select.launch.py", "image:=/eye/image_raw", "namespace:=bot", "target:=/operator/target"
    )
    node = remote.node
    cloud = "/bot/target_selector/cloud"
    remote.wait(lambda: node.count_publishers(cloud) == 1, "the start", 60.0)
    remote.wait(lambda: node.count_subscribers("/eye/image_raw_mouse_left") == 1, "the clicks")
    remote.wait(lambda: node.count_subscribers("/eye/image_raw") == 1, "the images")
    remote.wait(lambda: node.count_subscribers("/clicked_point") == 1, "the points")
    remote.wait(lambda: node.count_publishers("/operator/target") == 1, "the selections")
    assert process.press_ctrl_c() in (0, 1, -signal.SIGINT), process.output
    assert "process has finished cleanly" in process.output, process.output
    assert "Traceback" not in process.output, process.output


@pytest.mark.usefixtures("installed")
def test_rviz_is_asked_for_where_there_is_none(start: Any) -> None:
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        pass
    else:
        pytest.skip("RViz is installed")
    process = start(["ros2", "launch", "siam_tracker_ros", "select.launch.py", "rviz:=true"])
    process.wait(60)
    assert "rviz:=true needs RViz: sudo apt install" in process.output
