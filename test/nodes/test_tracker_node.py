"""tracker_node in the test's own process: what is awkward to see from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import Box

pytestmark = pytest.mark.ros

RED = (200, 30, 30)
BOX = Box(60.0, 50.0, 30.0, 20.0)


class Graph:
    """Nodes of one context, spinning in a thread."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import MultiThreadedExecutor

        self.rclpy = rclpy
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.executor = MultiThreadedExecutor(num_threads=4, context=self.context)
        self.node = rclpy.create_node("test", namespace="/in_process", context=self.context)
        self.executor.add_node(self.node)
        self.trackers: list[Any] = []
        self.thread = threading.Thread(target=self.spin, daemon=True)
        self.thread.start()

    def spin(self) -> None:
        while self.context.ok():
            try:
                self.executor.spin_once(timeout_sec=0.1)
            except Exception:
                if self.context.ok():
                    raise

    def tracker(self, **parameters: Any) -> Any:
        from rclpy.parameter import Parameter

        from siam_tracker_ros.nodes.tracker_node import TrackerNode
        from siam_tracker_ros.tracking import ColourFinder, FakeSession, fake_bundle

        node = TrackerNode(
            lambda values, log: (fake_bundle(), FakeSession(ColourFinder(RED))),
            context=self.context,
            namespace=self.node.get_namespace(),
            parameter_overrides=[Parameter(name, value=v) for name, v in parameters.items()],
        )
        self.executor.add_node(node)
        self.trackers.append(node)
        return node

    def wait(self, done: Callable[[], Any], timeout: float = 20.0) -> Any:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if value := done():
                return value
            time.sleep(0.005)
        raise AssertionError("it did not happen in time")

    def close(self) -> None:
        for node in self.trackers:
            node.close()
        self.rclpy.shutdown(context=self.context)
        self.thread.join(5)
        for node in (*self.trackers, self.node):
            node.destroy_node()


@pytest.fixture
def graph() -> Iterator[Graph]:
    made = Graph()
    yield made
    made.close()


def up(node: Any) -> Any:
    from rclpy.lifecycle import TransitionCallbackReturn

    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    return node


def image(box: Box | None = BOX, stamp: int = 0) -> Any:
    from std_msgs.msg import Header

    from siam_tracker_ros.nodes.messages import to_image

    pixels = np.full((120, 160, 3), 90, np.uint8)
    if box is not None:
        x1, y1, x2, y2 = (round(edge + 0.5) for edge in box.edges)
        pixels[y1:y2, x1:x2] = RED[::-1]
    header = Header(frame_id="camera")
    header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
    return to_image(header, pixels)


def test_the_image_subscription_is_as_promised(graph: Graph) -> None:
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    up(graph.tracker())
    (info,) = graph.wait(lambda: graph.node.get_subscriptions_info_by_topic("/in_process/image"))
    assert info.topic_type == "sensor_msgs/msg/Image"
    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    (target,) = graph.node.get_subscriptions_info_by_topic("/in_process/target")
    assert target.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert target.qos_profile.durability == DurabilityPolicy.VOLATILE
    (detection,) = graph.node.get_publishers_info_by_topic("/in_process/detection")
    assert detection.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (status,) = graph.node.get_publishers_info_by_topic("/in_process/tracker_node/status")
    assert status.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    visible = [name for name in graph.node.get_node_names() if not name.startswith("_")]
    assert sorted(visible) == ["test", "tracker_node"]


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_a_given_reliability_stays(graph: Graph, reliability: str) -> None:
    from rclpy.qos import ReliabilityPolicy

    up(graph.tracker(image_reliability=reliability, image_transport="compressed"))
    (info,) = graph.wait(
        lambda: graph.node.get_subscriptions_info_by_topic("/in_process/image/compressed")
    )
    assert info.qos_profile.reliability == getattr(ReliabilityPolicy, reliability.upper())
    assert info.topic_type == "sensor_msgs/msg/CompressedImage"


def test_qos_may_be_overridden(graph: Graph) -> None:
    node = up(graph.tracker(**{"qos_overrides./in_process/image.subscription.depth": 4}))
    assert node.get_parameter("qos_overrides./in_process/image.subscription.depth").value == 4
    assert node.get_parameter("qos_overrides./in_process/detection.publisher.depth").value == 10
    assert node._images._depth == 4


def test_a_qos_that_cannot_be_fails_activate(graph: Graph) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    node = graph.tracker(**{"qos_overrides./in_process/image.subscription.depth": 0})
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert node.lifecycle_state == "inactive"
    assert node._status.problem == (
        "activate failed: qos_overrides: depth must be at least 1, got 0"
    )
    assert node._status.failed


def test_the_clock_jumps_back_while_a_target_is_followed(graph: Graph) -> None:
    """As when a bag is played from the beginning again."""
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image

    from siam_tracker_ros.nodes.selection import Selection

    node = up(graph.tracker(use_sim_time=True))
    images = graph.node.create_publisher(Image, "image", 5)
    clocks = graph.node.create_publisher(Clock, "/clock", 5)
    graph.wait(lambda: images.get_subscription_count() and clocks.get_subscription_count())

    def tick(seconds: int) -> None:
        message = Clock()
        message.clock.sec = seconds

        def ticked() -> bool:
            clocks.publish(message)
            time.sleep(0.02)
            return bool(node.get_clock().now().nanoseconds == seconds * 10**9)

        graph.wait(ticked)

    tick(100)

    def received() -> bool:
        images.publish(image(stamp=100 * 10**9))
        time.sleep(0.05)
        return node._image_size is not None

    graph.wait(received)
    node._worker.select(Selection(BOX, id="mine")).result(5)
    graph.wait(lambda: node._status.state == "tracking")
    tick(50)
    graph.wait(lambda: node._status.state == "idle")


def test_a_camera_info_of_another_size_is_said_once(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensor_msgs.msg import CameraInfo, Image

    node = up(graph.tracker())
    said: list[str] = []
    monkeypatch.setattr(node, "warn", said.append)
    images = graph.node.create_publisher(Image, "image", 5)
    infos = graph.node.create_publisher(CameraInfo, "camera_info", 5)
    graph.wait(lambda: images.get_subscription_count() and infos.get_subscription_count())
    for width, expected in ((160, 0), (640, 1)):
        node._info_size = None

        def heard(size: tuple[int, int] = (width, 120)) -> bool:
            images.publish(image())
            infos.publish(CameraInfo(width=size[0], height=size[1]))
            time.sleep(0.05)
            return node._image_size is not None and node._info_size == size

        graph.wait(heard)
        time.sleep(0.2)
        assert len(said) == expected, said
    assert said == ["camera_info is for 640 x 120 pixels, the images have 160 x 120"]


def test_messages() -> None:
    from std_msgs.msg import Header

    from siam_tracker_ros.nodes.image_messages import picture_from_image
    from siam_tracker_ros.nodes.messages import to_detection, to_diagnostic_status, to_image
    from siam_tracker_ros.nodes.selection import read_selection

    header = Header(frame_id="eye")
    header.stamp.sec, header.stamp.nanosec = 3, 5
    selection = read_selection(to_detection(header, "7", "duck", BOX, 0.5))
    assert (selection.box, selection.id, selection.label) == (BOX, "7", "duck")
    assert (selection.stamp, selection.frame_id) == (3_000_000_005, "eye")
    lost = to_detection(header, "7")
    assert lost.results == [] and lost.bbox.size_x == 0.0 and lost.header == header
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3)).astype(np.uint8)
    for encoding, array in (("bgr8", pixels), ("mono8", np.ascontiguousarray(pixels[..., 0]))):
        message = to_image(header, array, encoding)
        window = picture_from_image(message).rgb_region(2, 3, 15, 11)
        wanted = array[3:11, 2:15] if array.ndim == 3 else array[3:11, 2:15, None].repeat(3, 2)
        np.testing.assert_array_equal(window[..., ::-1], wanted)
    status = to_diagnostic_status(1, "n", "m", "h", {"a": "b"})
    assert (status.level, status.values[0].key, status.values[0].value) == (b"\x01", "a", "b")
