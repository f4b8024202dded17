"""Cameras as they are in the field: late, killed, restarted with another size, of another type, too large.

The camera is a process of its own, and the tracker says on ~/status what it sees of it.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from siam_tracker_ros.geometry import Box

pytestmark = pytest.mark.ros

CAMERA = [sys.executable, "-m", "siam_tracker_ros.nodes.video_publisher_node"]


def box_of(message: Any) -> Box:
    centre = message.bbox.center
    return Box(centre.position.x, centre.position.y, message.bbox.size_x, message.bbox.size_y)


def camera(width: int, height: int, **parameters: Any) -> list[str]:
    """The command of a camera that shows the made-up scene for ever."""
    values = {
        "scene.width": width,
        "scene.height": height,
        "scene.frames": 0,
        "reliability": "best_effort",
        **parameters,
    }
    arguments = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    return [*CAMERA, "--ros-args", *arguments]


@pytest.fixture(scope="module")
def truths(remote: Any) -> dict[tuple[int, int], Any]:
    """The scene's truth by stamp."""
    from rclpy.qos import QoSProfile
    from vision_msgs.msg import Detection2D

    found: dict[tuple[int, int], Any] = {}

    def hear(message: Any) -> None:
        found[message.header.stamp.sec, message.header.stamp.nanosec] = message

    remote.node.create_subscription(Detection2D, "ground_truth", hear, QoSProfile(depth=100))
    return found


@pytest.fixture(scope="module")
def tracker(start: Any, fake_tracker: list[str], remote: Any) -> Iterator[Any]:
    # The test's own publisher is no camera here.
    remote.node.destroy_publisher(remote.images)
    running = start([*fake_tracker, "--ros-args", "-p", "model:=fake"])
    assert remote.change("configure"), running.output
    assert remote.change("activate"), running.output
    yield running
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output


@pytest.fixture
def run(start: Any) -> Iterator[Callable[..., Any]]:
    """Function (command, **environment) -> a camera that ends with the test."""
    running: list[Any] = []

    def start_one(command: list[str], **environment: str) -> Any:
        running.append(start(command, **environment))
        return running[-1]

    yield start_one
    for process in running:
        process.stop(signal.SIGKILL)


def follows(remote: Any, truths: dict[tuple[int, int], Any], id: str) -> Callable[[], bool]:
    """Whether the newest detections lie on the truth."""

    def check() -> bool:
        good = 0
        for message in list(remote.detections)[-8:]:
            truth = truths.get((message.header.stamp.sec, message.header.stamp.nanosec))
            if truth is None or message.id != id or not message.results:
                continue
            good += box_of(message).iou(box_of(truth)) > 0.6
        return good >= 4

    return check


def test_a_camera_that_comes_late_is_killed_and_comes_back_with_another_size(
    tracker: Any, remote: Any, truths: Any, run: Any
) -> None:
    remote.wait_status(message="no images: nobody publishes /image", state="idle")
    first = run(camera(320, 240, select_first=True, label="thing"))
    remote.wait(lambda: any(m.results for m in remote.detections), "a detection")
    id = remote.detections[-1].id
    remote.wait(follows(remote, truths, id), "following")
    remote.wait_status(message="tracking")

    first.stop(signal.SIGKILL)
    remote.wait_status(message="no images any more", id=id)
    count = len(remote.detections)
    time.sleep(0.5)
    assert len(remote.detections) == count

    run(camera(400, 300))
    remote.wait(lambda: len(remote.detections) > count, "a detection of the new camera")
    assert remote.detections[-1].id == id
    # The scene begins anew: the target is elsewhere, and is found.
    remote.wait(follows(remote, truths, id), "following again", 60.0)
    remote.wait_status(message="tracking", id=id)
    tracker.said("the images' size changed to 400 x 300")
    tracker.said("no images: nobody publishes")
    tracker.said("no images any more")
    tracker.said("images arrive as they should", 2)
    remote.clear()


def test_a_camera_that_sends_compressed_images_alone(tracker: Any, remote: Any, run: Any) -> None:
    run(camera(320, 240, image_transport="compressed"))
    words = "but somebody /image/compressed: set image_transport to compressed"
    remote.wait(lambda: words in tracker.output, "the remedy", 60.0)


def test_images_that_do_not_fit_the_middleware(tracker: Any, remote: Any, run: Any) -> None:
    """A driver that was started without the profile; its images arrive incomplete."""
    if not re.search("fastrtps", __import__("rclpy").get_rmw_implementation_identifier()):
        pytest.skip("only Fast DDS has these defaults")
    run(camera(1280, 720), FASTRTPS_DEFAULT_PROFILES_FILE="")
    status = remote.wait_status(message="of the images are lost on the way, each 2.8 MB: ")
    assert "start the camera's driver with FASTRTPS_DEFAULT_PROFILES_FILE=" in status["message"]
    assert int(status["dropped_transport"]) >= 5
    newest = remote.wait(lambda: remote.diagnostics and remote.diagnostics[-1].status[0])
    values = {pair.key: pair.value for pair in newest.values}
    assert {"dropped_transport", "dropped_node", "dropped_busy", "images_refused"} <= set(values)
