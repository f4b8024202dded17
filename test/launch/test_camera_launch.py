"""camera.launch.py: a driver and the tracker in one launch, over real DDS, and what it says where it cannot be."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from pathlib import Path
from typing import Any

import cv2
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("installed")]

FILE = Path(__file__).resolve().parents[2] / "launch" / "camera.launch.py"


@pytest.fixture(scope="module")
def camera_launch() -> Any:
    """The launch file as a module."""
    spec = importlib.util.spec_from_file_location("camera_launch", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(output: str, name: str) -> list[int]:
    """The numbers of the processes that the launch started under a name, in order."""
    return [
        int(n) for n in re.findall(rf"\[{name}-\d+\]: process started with pid \[(\d+)\]", output)
    ]


def environment(process: int) -> dict[str, str]:
    pairs = Path(f"/proc/{process}/environ").read_text(encoding="utf-8").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_driver_and_tracker_come_up_together_and_the_driver_again(
    launch: Any, remote: Any, colour_bundle: Path, tmp_path: Path
) -> None:
    from vision_msgs.msg import Detection2D

    from siam_tracker_ros.nodes.messages import to_detection
    from siam_tracker_ros.nodes.synthetic_scene import SyntheticScene

    views = list(SyntheticScene(320, 240, frames=5).views())
    for view in views:
        cv2.imwrite(str(tmp_path / f"{view.index}.png"), view.pixels)
    seen: list[Any] = []
    remote.node.create_subscription(Detection2D, "/bot/detection", seen.append, 100)
    targets = remote.node.create_publisher(Detection2D, "/bot/target", 1)
    running = launch(
        "camera.launch.py",
        "camera:=video",
        f"clip:={tmp_path}",
        "fps:=20",
        "frame_id:=eye",
        "camera_name:=front",
        "namespace:=bot",
        f"model:={colour_bundle}",
        FASTRTPS_DEFAULT_PROFILES_FILE="",
    )

    # An active tracker alone subscribes to images.
    seen_by = remote.node.count_subscribers
    remote.wait(lambda: seen_by("/bot/front/image_raw") == 1, "activation", 120.0)
    remote.wait(lambda: remote.node.count_publishers("/bot/front/camera_info") == 1)

    profile = FILE.parents[1] / "config" / "fastdds.xml"
    processes = {
        name: started(running.output, name)[0] for name in ("video_publisher_node", "tracker_node")
    }
    for process in processes.values():
        given = environment(process)["FASTRTPS_DEFAULT_PROFILES_FILE"]
        assert Path(given).read_bytes() == profile.read_bytes()

    def follows() -> bool:
        # An offer may be early: the tracker refuses a selection while it has no image.
        targets.publish(to_detection(remote.header(0, ""), "thing", "", views[0].box, 1.0))
        return bool(seen)

    remote.wait(follows, "a detection")
    assert (seen[-1].id, seen[-1].header.frame_id) == ("thing", "eye")

    os.kill(processes["video_publisher_node"], signal.SIGKILL)
    remote.wait(
        lambda: len(started(running.output, "video_publisher_node")) == 2, "a second driver"
    )
    count = len(seen)
    remote.wait(lambda: len(seen) > count + 5 and seen[-1].results, "images again")
    assert running.press_ctrl_c() in (0, 1, -signal.SIGINT), running.output
    assert "Traceback" not in running.output


@pytest.mark.once
def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(launch: Any) -> None:
    running = launch("camera.launch.py", "camera:=realsense")
    assert running.wait(60) != 0
    distro = os.environ["ROS_DISTRO"]
    assert (
        "camera:=realsense needs the package realsense2_camera, which is not installed: "
        f"sudo apt install ros-{distro}-realsense2-camera" in running.output
    )
    assert "tracker_node" not in running.output


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (
            {"camera": "usb_cam", "device": "/dev/video2", "width": "1280", "fps": "30"},
            {"video_device": "/dev/video2", "image_width": 1280, "framerate": 30.0},
        ),
        (
            {"camera": "v4l2", "width": "640", "height": "480", "fps": "15", "frame_id": "eye"},
            {"image_size": [640, 480], "time_per_frame": [1, 15], "camera_frame_id": "eye"},
        ),
        (
            {"camera": "realsense", "width": "1280", "height": "720", "fps": "30", "device": "12"},
            {"rgb_camera.color_profile": "1280x720x30", "serial_no": "12"},
        ),
        ({"camera": "realsense"}, {}),
    ],
)
def test_arguments_become_the_drivers_own_parameters(
    camera_launch: Any, given: dict[str, str], settings: dict[str, Any]
) -> None:
    assert camera_launch.driver_of(given).settings(given) == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"camera": "webcam"},
            "camera:=webcam: choose one of usb_cam, v4l2, realsense, video or other",
        ),
        ({"camera": "other", "driver_package": "gscam"}, "camera:=other needs driver_executable:="),
        ({"camera": "v4l2", "width": "640"}, "camera:=v4l2: give all of width, height, or none"),
        (
            {"camera": "realsense", "fps": "30"},
            "camera:=realsense: give all of width, height, fps, or none",
        ),
    ],
)
def test_what_is_missing_is_said(camera_launch: Any, given: dict[str, str], words: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(words)):
        camera_launch.driver_of(given).settings(given)


def test_another_driver_is_taken_as_given(camera_launch: Any) -> None:
    given = {"camera": "other", "driver_package": "gscam", "driver_executable": "gscam_node"}
    driver = camera_launch.driver_of(given)
    assert (driver.package, driver.executable) == ("gscam", "gscam_node")
    assert driver.settings(given) == {}
