"""video_publisher_node, tracker_node and recorder_node, each in a process of its own."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from siam_tracker_ros.geometry import iou_xywh
from siam_tracker_ros.nodes.synthetic_scene import SyntheticScene

pytestmark = pytest.mark.ros


def node(name: str, *parameters: str, remap: str = "") -> list[str]:
    words = [word for text in parameters for word in ("-p", text)]
    if remap:
        words += ["-r", remap]
    return [sys.executable, "-m", f"siam_tracker_ros.nodes.{name}", "--ros-args", *words]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tracker(start: Any, fake_tracker: list[str], remote: Any) -> Iterator[Any]:
    remote.node.destroy_publisher(remote.images)  # the publisher node is the camera here
    process = start([*fake_tracker, "--ros-args", "-p", "model:=fake"])
    assert remote.change("configure") and remote.change("activate")
    yield process
    assert process.stop() == 0, process.output
    assert "Traceback" not in process.output


@pytest.fixture
def idle(tracker: Any, remote: Any) -> Any:
    remote.clear()
    remote.wait_status(state="idle")
    return remote


def record(start: Any, folder: Path) -> Any:
    recorder = start(
        node("recorder_node", f"out:={folder}", "quiet:=0.5", remap="status:=tracker_node/status")
    )
    return recorder


def test_in_lockstep_every_picture_is_followed_exactly_once(
    idle: Any, start: Any, tmp_path: Path
) -> None:
    recorder = record(start, tmp_path / "run")
    video = start(
        node(
            "video_publisher_node",
            "lockstep:=true",
            "select_first:=true",
            "wait_for_recorder:=true",
            "scene.frames:=60",
            "scene.absent:=[40, 55]",
            "label:=duck",
            "frame_id:=eye",
        )
    )
    assert video.wait() == 0, video.output
    assert recorder.wait() == 0, recorder.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["finished"] and summary["published"] == summary["truths"] == 60
    assert summary["reason"] == "the publisher has finished"
    truths = lines(tmp_path / "run" / "truth.jsonl")
    assert [t["index"] for t in truths] == list(range(60))
    assert [t["known"] for t in truths] == [True] * 60
    by_stamp: dict[int, list[dict[str, Any]]] = {}
    for detection in lines(tmp_path / "run" / "detections.jsonl"):
        by_stamp.setdefault(detection["stamp"], []).append(detection)
    answers = [by_stamp.get(t["stamp"], []) for t in truths]
    assert [len(a) for a in answers] == [1] * 60
    seen = [(t["box"], a[0]["box"]) for t, a in zip(truths, answers, strict=True) if t["box"]]
    overlaps = iou_xywh(*(np.array(boxes) for boxes in zip(*seen[:40], strict=True)))
    assert overlaps[0] == pytest.approx(1.0) and overlaps.mean() > 0.9
    assert all(not answers[i][0]["visible"] for i in range(52, 55))
    assert truths[45]["box"] is None
    assert {a[0]["frame_id"] for a in answers} == {"eye"}
    assert answers[0][0]["label"] == "duck"
    assert all(a[0]["received"] > a[0]["stamp"] for a in answers)
    statuses = lines(tmp_path / "run" / "status.jsonl")
    assert {"accepted"} <= {s["values"]["selection_verdict"] for s in statuses}
    assert "60 frames published" in video.output


def bad_compressed_images(remote: Any, tracker: Any) -> None:
    """Truncated and foreign files are said; the next whole one is followed in."""
    from sensor_msgs.msg import CompressedImage

    publisher = remote.node.create_publisher(CompressedImage, "image/compressed", 5)
    remote.wait(lambda: publisher.get_subscription_count() == 1)
    pixels = SyntheticScene(320, 240).view(29).pixels
    whole = cv2.imencode(".jpg", pixels)[1].tobytes()

    def send(data: bytes) -> None:
        header = remote.header(remote.node.get_clock().now().nanoseconds)
        publisher.publish(CompressedImage(header=header, format="jpeg", data=data))
        time.sleep(0.1)

    try:
        for data, words in (
            (whole[: len(whole) // 2], "the JPEG image is truncated"),
            (b"GIF89a, not what was promised", "neither JPEG nor PNG"),
        ):
            count = len(remote.detections)
            remote.wait(lambda d=data, w=words: send(d) or w in tracker.output)
            remote.wait_status(message=words)
            assert len(remote.detections) == count
        count = len(remote.detections)
        remote.wait(lambda: send(whole) or len(remote.detections) > count)
    finally:
        remote.node.destroy_publisher(publisher)


def test_a_clip_in_real_time_compressed(
    idle: Any, tracker: Any, start: Any, tmp_path: Path
) -> None:
    """A file with boxes beside it, as JPEG, at its own rate."""
    scene = SyntheticScene(320, 240, frames=30, rate=20.0)
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (320, 240)
    )
    for view in scene.views():
        writer.write(view.pixels)
    writer.release()
    boxes = [scene.box(i) for i in range(30)]
    (tmp_path / "clip.txt").write_text(
        "".join(",".join(f"{v:.3f}" for v in box.xywh) + "\n" for box in boxes if box)
    )
    assert idle.change("deactivate") and idle.change("cleanup")
    assert idle.set(image_transport="compressed") == (True, "")
    assert idle.change("configure") and idle.change("activate")
    try:
        before = len(idle.detections)
        video = start(
            node(
                "video_publisher_node",
                f"source:={tmp_path / 'clip.avi'}",
                "select_first:=true",
                "image_transport:=compressed",
            )
        )
        assert video.wait() == 0, video.output
        found = idle.detections[before:]
        assert "20 Hz, /image/compressed" in video.output and len(found) >= 15
        assert all(message.results for message in found)
        bad_compressed_images(idle, tracker)
    finally:
        assert idle.change("deactivate") and idle.change("cleanup")
        assert idle.set(image_transport="raw") == (True, "")
        assert idle.change("configure") and idle.change("activate")


def test_the_camera_is_killed_and_started_again(idle: Any, tracker: Any, start: Any) -> None:
    from sensor_msgs.msg import CameraInfo

    camera = node(
        "video_publisher_node", "scene.frames:=0", "scene.width:=320", "scene.height:=240"
    )
    before = len(idle.detections)
    first = start([*camera, "-p", "select_first:=true"])
    idle.wait(lambda: len(idle.detections) > before + 3)
    id = idle.detections[-1].id
    first.process.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    count = len(idle.detections)
    infos: list[Any] = []
    listener = idle.node.create_subscription(CameraInfo, "camera_info", infos.append, 10)
    second = start([*camera, "-p", "horizontal_fov:=60.0"])
    idle.wait(lambda: len(idle.detections) > count + 20)
    assert {message.id for message in idle.detections[count + 1 :]} == {id}
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in idle.detections[count:]]
    assert stamps == sorted(stamps)
    idle.wait(lambda: idle.detections[-1].results)
    idle.wait(lambda: infos, "camera_info")
    idle.node.destroy_subscription(listener)
    assert (infos[0].width, infos[0].height) == (320, 240)
    assert infos[0].k[0] == pytest.approx(160 / np.tan(np.radians(30)))
    assert second.stop() == 0, second.output
    assert tracker.process.poll() is None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["source:=/nowhere/clip.mp4"], "there is no video file /nowhere/clip.mp4"),
        (["image_transport:=theora"], "image_transport must be one of raw, compressed"),
        (
            ["select_first:=true", "scene.absent:=[0, 5]"],
            "select_first needs the first picture's box",
        ),
        (
            ["wait_for_subscribers:=7", "start_timeout:=0.2"],
            "nobody subscribed to /image",
        ),
        (
            ["lockstep:=true", "start_timeout:=8.0", "offer_period:=0.2", "scene.frames:=3"],
            "no detection for the first picture came back within 8 s",
        ),
    ],
    ids=["no file", "transport", "no box", "no subscribers", "no target"],
)
def test_a_publisher_that_cannot_go_on_says_why(
    idle: Any, start: Any, parameters: list[str], words: str
) -> None:
    video = start(node("video_publisher_node", *parameters))
    assert video.wait() == 1
    assert words in video.output and "Traceback" not in video.output


def test_a_recorder_that_hears_nothing_ends(start: Any, tmp_path: Path) -> None:
    recorder = start(node("recorder_node", f"out:={tmp_path}", "idle_timeout:=0.5"))
    assert recorder.wait() == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["finished"], summary["published"]) == (False, None)
    assert summary["reason"] == "nothing came for 0.5 s"
    interrupted = start(node("recorder_node", f"out:={tmp_path / 'again'}"))
    end = time.monotonic() + 20
    while not (tmp_path / "again" / "diagnostics.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)
    assert interrupted.stop() == 0
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["reason"] == "interrupted"
