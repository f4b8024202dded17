"""The launch files as users run them, with a real bundle on ONNX Runtime."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import iou_xywh

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("installed")]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_demo_follows_records_and_ends(
    launch: Any, colour_bundle: Path, tmp_path: Path
) -> None:
    process = launch(
        "demo.launch.py",
        f"model:={colour_bundle}",
        f"out:={tmp_path / 'run'}",
        "lockstep:=true",
        "frames:=45",
        FASTRTPS_DEFAULT_PROFILES_FILE="",
    )
    assert process.wait(90) == 0, process.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["published"] == 45 and summary["finished"]
    truths = {t["stamp"]: t["box"] for t in lines(tmp_path / "run" / "truth.jsonl")}
    found = {
        d["stamp"]: d["box"]
        for d in lines(tmp_path / "run" / "detections.jsonl")
        if d["stamp"] in truths
    }
    assert len(truths) == len(found) == 45
    overlaps = iou_xywh(np.array([truths[s] for s in found]), np.array(list(found.values())))
    assert overlaps.mean() > 0.9
    assert "ready: colour on ONNX Runtime" in process.output
    assert "Traceback" not in process.output


def test_the_demo_ends_with_a_reason_where_the_tracker_cannot_start(
    launch: Any, tmp_path: Path
) -> None:
    process = launch("demo.launch.py", "model:=no_such_model", f"out:={tmp_path / 'run'}")
    process.wait(60)
    assert "no model bundle called 'no_such_model'" in process.output
    assert "configure failed" in process.output


def test_the_tracker_comes_up_by_itself_under_its_names(
    launch: Any, remote: Any, colour_bundle: Path, tmp_path: Path
) -> None:
    from lifecycle_msgs.srv import GetState
    from rcl_interfaces.srv import GetParameters

    settings = tmp_path / "mine.yaml"
    settings.write_text("/**:\n  ros__parameters:\n    give_up_after: 7.0\n    backend: auto\n")
    process = launch(
        "tracker.launch.py",
        f"model:={colour_bundle}",
        "backend:=onnxruntime",
        "namespace:=robot",
        "image:=/camera/image_raw",
        "target:=/operator/target",
        "detection:=seen",
        f"params_file:={settings}",
        "use_sim_time:=true",
        "select:=true",
    )

    remote.wait(
        lambda: remote.node.count_publishers("/robot/tracker_node/status"), "the node", 120.0
    )

    def active() -> bool:
        state = remote.call(GetState, "/robot/tracker_node/get_state").current_state.label
        return bool(state == "active")

    remote.wait(active, "activation", 60.0)
    values = remote.call(
        GetParameters,
        "/robot/tracker_node/get_parameters",
        names=["model", "backend", "give_up_after", "use_sim_time"],
    ).values
    assert [v.string_value for v in values[:2]] == [str(colour_bundle), "onnxruntime"]
    assert (values[2].double_value, values[3].bool_value) == (7.0, True)
    node = remote.node
    # The selector sees the same images, and its selections go where the tracker hears them.
    remote.wait(lambda: node.count_subscribers("/camera/image_raw") == 2, "two readers")
    remote.wait(lambda: node.count_subscribers("/operator/target") == 1, "the selection's reader")
    remote.wait(lambda: node.count_publishers("/operator/target") == 1, "the selector")
    remote.wait(lambda: node.count_publishers("/robot/seen") == 1, "the detection")
    assert process.press_ctrl_c() in (0, 1, -signal.SIGINT), process.output
    assert "process has finished cleanly" in process.output, process.output
    assert "Traceback" not in process.output, process.output


def test_two_trackers_side_by_side_do_not_mix(
    launch: Any, remote: Any, colour_bundle: Path
) -> None:
    """One camera, two namespaces, a target for each; what is done to one leaves the other alone."""
    from rclpy.qos import QoSProfile
    from std_srvs.srv import Trigger
    from vision_msgs.msg import Detection2D

    from siam_tracker_ros.nodes.messages import to_detection
    from siam_tracker_ros.nodes.synthetic_scene import SyntheticScene

    sides = ("left", "right")
    views = itertools.cycle(SyntheticScene(320, 240, frames=2).views())
    first = next(views)
    seen: dict[str, list[Any]] = {side: [] for side in sides}
    targets = {}
    for side in sides:
        words = (f"namespace:={side}", "image:=/image", f"model:={colour_bundle}")
        launch("tracker.launch.py", *words)
        remote.node.create_subscription(Detection2D, f"/{side}/detection", seen[side].append, 100)
        targets[side] = remote.node.create_publisher(
            Detection2D, f"/{side}/target", QoSProfile(depth=1)
        )
    remote.wait(lambda: remote.images.get_subscription_count() == 2, "two active trackers", 120.0)

    def follow(side: str, id: str) -> None:
        def heard() -> bool:
            # An early selection may meet a tracker that has no image yet.
            remote.image(next(views).pixels)
            if not seen[side]:
                targets[side].publish(to_detection(remote.header(0, ""), id, "", first.box, 1.0))
            time.sleep(0.05)
            return bool(seen[side])

        remote.wait(heard, f"a detection of {side}")

    follow("left", "a")
    assert not seen["right"]
    follow("right", "b")
    assert {m.id for m in seen["left"]} == {"a"}
    assert {m.id for m in seen["right"]} == {"b"}
    assert remote.call(Trigger, "/left/tracker_node/clear").success
    # What left had taken before may still be on its way.
    header = remote.image(next(views).pixels)
    remote.wait(lambda: any(m.header == header for m in seen["right"]), "right goes on")
    assert all(m.header != header for m in seen["left"])


def test_without_autostart_it_waits_and_a_failed_start_leaves_it_alive(
    launch: Any, remote: Any
) -> None:
    waiting = launch("tracker.launch.py", "autostart:=false")
    assert remote.state(60.0) == "unconfigured"
    waiting.press_ctrl_c()
    failing = launch("tracker.launch.py", "model:=no_such_model")
    remote.wait(lambda: "configure failed; its log and ~/status say why" in failing.output)
    assert remote.state() == "unconfigured"
    failing.press_ctrl_c()
    assert "process has finished cleanly" in failing.output


def test_rviz_is_started_with_the_selector_on_the_same_names() -> None:
    from launch import LaunchContext

    from siam_tracker_ros.nodes.launching import SELECT_ARGUMENTS, TRACKER_ARGUMENTS, selector

    context = LaunchContext()
    for name, (default, _) in {**TRACKER_ARGUMENTS, **SELECT_ARGUMENTS}.items():
        context.launch_configurations[name] = default
    assert selector(context) == []
    context.launch_configurations.update(rviz="true", image="/eye", frame_id="lens")
    (include,) = selector(context)
    given = dict(include.launch_arguments)
    assert (given["rviz"], given["image"], given["frame"]) == ("true", "/eye", "lens")


def test_the_profile_is_given_unless_one_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from launch.actions import SetEnvironmentVariable

    from siam_tracker_ros.nodes.launching import PROFILE_VARIABLES, image_sized_transport

    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    actions = image_sized_transport()
    assert all(isinstance(action, SetEnvironmentVariable) for action in actions)
    values = {a.name[0].text: a.value[0].text for a in actions}
    assert set(values) == set(PROFILE_VARIABLES)
    assert all(os.path.isfile(path) for path in values.values())
    monkeypatch.setenv(PROFILE_VARIABLES[0], "/mine.xml")
    assert image_sized_transport() == []
