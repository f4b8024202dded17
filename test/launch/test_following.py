"""tracker_node in a process of its own: what it publishes for images and selections it is sent."""

from __future__ import annotations

import array
import math
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.frames import stamp_text

pytestmark = pytest.mark.ros

WIDTH, HEIGHT = 320, 240
START = Box(100.0, 80.0, 30.0, 20.0)
BGR = (30, 120, 230)


def picture(box: Box | None = START, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    pixels = np.full((height, width, 3), 90, np.uint8)
    if box is not None:
        x1, y1, x2, y2 = (round(edge + 0.5) for edge in box.edges)
        pixels[max(0, y1) : y2, max(0, x1) : x2] = BGR
    return pixels


def box_of(message: Any) -> Box:
    centre = message.bbox.center
    assert centre.theta == 0.0
    return Box(centre.position.x, centre.position.y, message.bbox.size_x, message.bbox.size_y)


@pytest.fixture(scope="module")
def process(start: Any, fake_tracker: list[str], remote: Any) -> Iterator[Any]:
    running = start([*fake_tracker, "--ros-args", "-p", "model:=fake", "-p", "give_up_after:=60"])
    assert remote.change("configure"), running.output
    assert remote.change("activate"), running.output
    # It finds the test's publisher and takes over its reliability.
    remote.wait(lambda: "(reliable)" in running.output or "subscribing reliable" in running.output)
    remote.wait(lambda: remote.images.get_subscription_count() == 1)
    yield running
    assert running.stop(signal.SIGINT) == 0, running.output
    assert "Traceback" not in running.output
    assert "context is invalid" not in running.output


@pytest.fixture
def idle(process: Any, remote: Any) -> Any:
    """An active tracker without a target."""
    remote.pause(False)
    remote.clear()
    remote.wait_status(state="idle")
    remote.clock += 10**9
    return remote


@pytest.fixture
def tracking(idle: Any) -> Any:
    """An active tracker that follows "it" at START."""
    idle.begin(picture(), START, "it", label="duck")
    return idle


@pytest.fixture
def still_tracks(tracking: Any) -> Iterator[Any]:
    """After whatever the test does, the track goes on."""
    yield tracking
    box = Box(104.0, 82.0, 30.0, 20.0)
    message = tracking.detection_of(tracking.image(picture(box)))
    assert (message.id, len(message.results)) == ("it", 1)
    assert box_of(message).iou(box) > 0.8


def test_nothing_is_published_while_idle(idle: Any) -> None:
    before = len(idle.detections)
    for _ in range(5):
        idle.image(picture())
    idle.begin(picture(), START, "now")
    assert len(idle.detections) == before + 1


def test_a_selection_is_answered_and_every_image_follows(idle: Any) -> None:
    first = idle.begin(picture(), START, "one", label="duck")
    assert box_of(first) == START
    assert first.results[0].hypothesis.class_id == "duck"
    idle.wait_status(selection_verdict="accepted", state="tracking")
    before = len(idle.detections)
    for i in range(1, 21):
        box = Box(100.0 + 4 * i, 80.0 + 3 * i, 30.0 + i, 20.0 + i)
        message = idle.detection_of(idle.image(picture(box)))
        assert message.header.frame_id == "camera"
        assert message.id == "one"
        assert box_of(message).iou(box) > 0.8
        assert 0.6 < message.results[0].hypothesis.score <= 1.0
    assert len(idle.detections) == before + 20


def test_each_selection_has_an_id_of_its_own(idle: Any) -> None:
    """Without a stamp it is for the newest image."""
    header = idle.begin(picture(), START, "first").header
    ids = []
    for name in ("", "", "hand", ""):
        before = len(idle.detections)
        idle.select(START, id=name)
        idle.wait(lambda n=before: len(idle.detections) > n)
        assert idle.detections[-1].header == header
        ids.append(idle.detections[-1].id)
    assert ids[2] == "hand"
    assert int(ids[1]) == int(ids[0]) + 1 and int(ids[3]) == int(ids[1]) + 1


def test_lost_is_said_and_found_again_under_the_same_id(tracking: Any) -> None:
    for _ in range(40):
        message = tracking.detection_of(tracking.image(picture(None)))
        if not message.results:
            break
    assert message.results == [] and message.id == "it"
    assert box_of(message) == Box(0.0, 0.0, 0.0, 0.0)
    tracking.wait_status(state="lost")
    for _ in range(40):
        message = tracking.detection_of(tracking.image(picture(Box(220.0, 150.0, 30.0, 20.0))))
        if message.results:
            break
    assert message.id == "it"
    assert box_of(message).iou(Box(220.0, 150.0, 30.0, 20.0)) > 0.8
    tracking.wait_status(state="tracking")


def test_the_box_of_a_selection_is_clipped_to_the_image(idle: Any) -> None:
    pixels = picture(Box.from_xywh(0, 0, 30, 20))
    message = idle.begin(pixels, Box.from_edges(-20.5, -10.5, 29.5, 19.5), "corner")
    assert box_of(message).edges == pytest.approx((-0.5, -0.5, 29.5, 19.5))


NAN = math.nan


@pytest.mark.parametrize(
    ("box", "more", "words"),
    [
        (Box(NAN, 80.0, 30.0, 20.0), {}, "not finite"),
        (Box(100.0, 80.0, math.inf, 20.0), {}, "not finite"),
        (START, {"theta": NAN}, "not finite"),
        (Box(0.0, 0.0, 0.0, 0.0), {}, "no size"),
        (Box(100.0, 80.0, -30.0, 20.0), {}, "no size"),
        (Box(2000.0, 80.0, 30.0, 20.0), {}, "outside the 320 x 240 picture"),
        (Box(100.0, 80.0, 3.9, 20.0), {}, "too small"),
        (Box(-14.0, 80.0, 30.0, 20.0), {}, "too small"),
        (START, {"frame_id": "other"}, "its frame_id is 'other', the image's is 'camera'"),
        (START, {"stamp": 5}, "older than the oldest image kept"),
        (START, {"stamp": 9 * 10**12}, "newer than the newest image's"),
    ],
)
def test_refused_selections(
    still_tracks: Any, process: Any, box: Box, more: dict[str, Any], words: str
) -> None:
    stamp = more.pop("stamp", still_tracks.clock)
    still_tracks.select(box, stamp, id="never", **more)
    status = still_tracks.wait_status(
        selection_verdict=words, selection_stamp=stamp_text(stamp), state="tracking"
    )
    assert status["selection_verdict"].startswith("refused: ") and status["id"] == "it"
    still_tracks.wait(lambda: words in process.output)
    assert all(message.id != "never" for message in still_tracks.detections)


def test_a_turned_box_is_followed_upright(tracking: Any, process: Any) -> None:
    for name in ("turned", "turned again"):
        before = len(tracking.detections)
        tracking.select(Box(100.0, 80.0, 20.0, 30.0), id=name, theta=math.pi / 2)
        tracking.wait(lambda n=before: len(tracking.detections) > n)
        assert box_of(tracking.detections[-1]).iou(START) > 0.99
    process.said("a turned box was given")


def test_its_own_output_is_ignored(still_tracks: Any, process: Any) -> None:
    message = still_tracks.detection_of(still_tracks.image(picture()))
    verdict = still_tracks.status()["selection_verdict"]
    for _ in range(3):
        still_tracks.targets.publish(message)
    still_tracks.detection_of(still_tracks.image(picture()))
    assert still_tracks.status()["selection_verdict"] == verdict
    process.said("own detection came back")


def short(number: int) -> dict[str, Any]:
    return {"data": array.array("B", bytes(number))}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "32FC1"}, "encoding '32FC1' is not supported"),
        ({"width": 0}, "the image has no pixels: 0 x 240"),
        ({"step": 959}, "step = 959 is shorter than a row of 320 bgr8 pixels (960 bytes)"),
        (short(1000), "data has 1000 bytes, but a 320 x 240 bgr8 image with step = 960 needs"),
        ({"width": 4_000_000_000}, "the image cannot be that large"),
    ],
)
def test_bad_images(still_tracks: Any, process: Any, changes: dict[str, Any], words: str) -> None:
    before = len(still_tracks.detections)
    for _ in range(3):
        still_tracks.image(picture(), **changes)
    still_tracks.wait_status(message=words, state="tracking")
    assert len(still_tracks.detections) == before
    process.said(f"an image is ignored: {words}")


def test_another_size_with_the_target_in_it(tracking: Any, process: Any) -> None:
    for _ in range(3):
        message = tracking.detection_of(tracking.image(picture(START, 200, 160)))
        assert message.id == "it" and box_of(message).iou(START) > 0.8
    tracking.wait(lambda: "size changed to 200 x 160: target it is followed" in process.output)


def test_another_size_without_the_target(idle: Any, process: Any) -> None:
    far = Box(290.0, 200.0, 30.0, 20.0)
    idle.begin(picture(far), far, "far")
    before = len(idle.detections)
    idle.image(picture(None, 160, 120))
    idle.wait_status(state="idle")
    assert len(idle.detections) == before
    idle.wait(lambda: "size changed to 160 x 120" in process.output)


def test_stamps_that_jump_back(tracking: Any, process: Any) -> None:
    before, said = len(tracking.detections), process.output.count("stamps jumped back")
    tracking.clock -= 60 * 10**9
    for _ in range(3):
        tracking.image(picture())
    process.said("stamps jumped back", said + 1)
    tracking.wait_status(state="idle")
    tracking.begin(picture(), START, "after")
    assert len(tracking.detections) == before + 1
    process.said("stamps jumped back", said + 1)
    tracking.clock += 60 * 10**9


def test_clear_and_pause(tracking: Any) -> None:
    response = tracking.pause(True)
    assert response.success
    tracking.wait_status(state="paused")
    before = len(tracking.detections)
    tracking.image(picture())
    assert tracking.pause(False).success
    header = tracking.image(picture())
    assert tracking.detection_of(header).id == "it"
    assert len(tracking.detections) <= before + 2
    assert tracking.clear() == "target it is cleared: asked for"
    assert tracking.clear() == "there was no target"
    count = len(tracking.detections)
    tracking.image(picture())
    tracking.wait_status(state="idle", id="")
    assert len(tracking.detections) == count


def test_a_camera_that_ends_and_another_of_other_reliability(tracking: Any, process: Any) -> None:
    """The track goes on with the images of the next publisher, whatever its reliability."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    for reliability, name in (("BEST_EFFORT", "best_effort"), ("RELIABLE", "reliable")):
        tracking.node.destroy_publisher(tracking.images)
        said = process.output.count(f"subscribing {name}")
        profile = QoSProfile(depth=5, reliability=getattr(ReliabilityPolicy, reliability))
        tracking.images = tracking.node.create_publisher(Image, "image", profile)
        tracking.wait(lambda n=name, s=said: process.output.count(f"subscribing {n}") > s)
        before = len(tracking.detections)

        def follows(count: int = before) -> bool:
            tracking.image(picture())
            time.sleep(0.05)
            return len(tracking.detections) > count

        tracking.wait(follows)  # the first images may go out before both have met
        assert tracking.detections[-1].id == "it"


def test_the_debug_image_is_there_while_somebody_listens(tracking: Any) -> None:
    from sensor_msgs.msg import Image

    seen: list[Any] = []
    tracking.detection_of(tracking.image(picture()))
    listener = tracking.node.create_subscription(Image, "tracker_node/debug_image", seen.append, 10)
    try:
        while not seen:
            header = tracking.image(picture())
            tracking.detection_of(header)
        image = seen[-1]
        assert (image.width, image.height, image.encoding) == (160, 120, "bgr8")
        pixels = np.frombuffer(image.data, np.uint8).reshape(120, 160, 3)
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 3  # the box and the text
        assert image.header.frame_id == "camera"
    finally:
        tracking.node.destroy_subscription(listener)


def test_annotations_and_markers_tell_where_it_is_and_when_it_is_gone(tracking: Any) -> None:
    from sensor_msgs.msg import CameraInfo
    from visualization_msgs.msg import ImageMarker, Marker, MarkerArray

    outlines: list[Any] = []
    markers: list[Any] = []
    node = tracking.node
    listeners = [
        node.create_subscription(ImageMarker, "tracker_node/annotations", outlines.append, 50),
        node.create_subscription(MarkerArray, "tracker_node/markers", markers.append, 50),
    ]
    infos = node.create_publisher(CameraInfo, "camera_info", 5)
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob")
    info.k = [300.0, 0.0, 160.0, 0.0, 300.0, 120.0, 0.0, 0.0, 1.0]
    try:
        while not (outlines and markers):
            infos.publish(info)
            header = tracking.image(picture())
            tracking.detection_of(header)
        tracking.wait(lambda: outlines[-1].header == header)
        points = [(p.x, p.y) for p in outlines[-1].points]
        x1, y1, x2, y2 = box_of(tracking.detections[-1]).edges
        np.testing.assert_allclose(points, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
        lines, label = markers[-1].markers
        assert lines.header.frame_id == "camera" and label.text == "duck 1.00"
        assert lines.points[1].x == pytest.approx((x1 - 160.0) / 300.0)
        tracking.clear()
        tracking.image(picture())
        tracking.wait(lambda: outlines[-1].action == ImageMarker.REMOVE)
        tracking.wait(lambda: markers[-1].markers[0].action == Marker.DELETEALL)
    finally:
        for listener in listeners:
            node.destroy_subscription(listener)
        node.destroy_publisher(infos)


def test_parameters_may_change_while_it_runs(still_tracks: Any) -> None:
    assert still_tracks.set(history_seconds=2.0, catch_up_budget_ms=100) == (True, "")
    assert still_tracks.set(stale_selection="oldest", history_bytes=1_000_000) == (True, "")
    assert still_tracks.set(presence_lost=0.4, presence_found=0.5) == (True, "")
    assert still_tracks.set(window=1) == (True, "")  # a whole number for a real one
    for values, words in (
        ({"window": 1.5}, "window must be 0 to 1"),
        ({"window": 0.5, "stale_selection": "guess"}, "stale_selection must be one of refuse, ol"),
        ({"history_bytes": -1}, "history_bytes must be 0 to"),
        ({"presence_lost": 0.9}, "presence_lost = 0.9 must not be above presence_found = 0.5"),
        ({"model": "other"}, "model can only be changed before configure"),
        ({"backend": "onnxruntime"}, "backend can only be changed before configure"),
    ):
        successful, reason = still_tracks.set(**values)
        assert not successful and words in reason
    assert still_tracks.set(model="fake", window=-1.0) == (True, "")  # no change
    assert still_tracks.set(presence_lost=-1.0, presence_found=-1.0) == (True, "")
    assert still_tracks.set(stale_selection="refuse", history_bytes=1 << 28) == (True, "")


def test_diagnostics_tell_rates_losses_and_times(tracking: Any) -> None:
    for _ in range(10):
        tracking.detection_of(tracking.image(picture()))
    tracking.diagnostics.clear()
    newest = tracking.wait(lambda: tracking.diagnostics and tracking.diagnostics[-1].status[0])
    assert newest.name == "tracker_node: tracker"
    assert newest.hardware_id == "fake session"
    values = {pair.key: pair.value for pair in newest.values}
    assert int(values["images_received"]) >= int(values["images_processed"]) >= 10
    assert int(values["images_refused"]) >= 0
    assert values["dropped_transport"].isdigit() and values["dropped_busy"].isdigit()
    assert (values["state"], values["model"]) == ("tracking", "fake")
    assert 0 < float(values["overhead_ms_p50"]) < 1000
    assert float(values["step_ms_p50"]) > 0
    assert float(values["memory_mb"]) > 10
    assert int(values["history_images"]) >= 10
    size = int(values["history_images"]) * WIDTH * HEIGHT * 3 / 1e6
    assert float(values["history_mb"]) == pytest.approx(size, abs=0.1)
    assert values["dropped_node"].isdigit() and values["images_replayed"].isdigit()
