"""A clip as camera images, the tracker on it, and a recorder of what comes back.

The target is the first picture's box from NAME.txt beside the clip. Without a clip a made-up scene is
played. The launch ends when the clip does; the folder `out` then holds the run (see recorder_node.py).
"""

from pathlib import Path
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch_ros.actions import Node

from siam_tracker_ros.nodes.launching import (
    PACKAGE,
    TRACKER_ARGUMENTS,
    declare,
    image_sized_transport,
    is_true,
    tracker,
    value,
)

ARGUMENTS = {
    "clip": ("", "A video file or a folder of pictures, with boxes in NAME.txt; empty = a scene."),
    "out": ("siam_tracker_demo", "Folder for what is recorded."),
    "lockstep": ("false", "Send a picture when the detection for the one before is back."),
    "rate": ("0.0", "Pictures a second without lockstep; 0 = the clip's own."),
    "frames": ("0", "Stop after so many pictures; 0 = at the end of the clip."),
}


def demo(context: LaunchContext) -> list[Action]:
    namespace = value(context, "namespace")
    transport = value(context, "image_transport")

    def node(executable: str, name: str, parameters: dict[str, Any], *remappings: str) -> Node:
        return Node(
            package=PACKAGE,
            executable=executable,
            name=name,
            namespace=namespace,
            parameters=[parameters],
            remappings=[(topic, value(context, topic)) for topic in remappings]
            + [("status", "tracker_node/status")],
            output="screen",
        )

    publisher = node(
        "video_publisher_node",
        "video_publisher",
        {
            "source": value(context, "clip"),
            "lockstep": is_true(value(context, "lockstep")),
            "rate": float(value(context, "rate")),
            "frames": int(value(context, "frames")),
            "select_first": True,
            "wait_for_recorder": True,
            "horizontal_fov": 60.0,
            **({"image_transport": transport} if transport else {}),
        },
        "image",
        "camera_info",
        "target",
        "detection",
    )
    recorder = node(
        "recorder_node",
        "recorder",
        {"out": str(Path(value(context, "out")).resolve())},
        "detection",
    )

    def when_the_publisher_ends(event: Any, context: LaunchContext) -> list[Action] | None:
        if event.returncode == 0:
            return None  # the recorder hears the rest and ends by itself
        return [EmitEvent(event=Shutdown(reason="the clip could not be published"))]

    return [
        RegisterEventHandler(
            OnProcessExit(target_action=publisher, on_exit=when_the_publisher_ends)
        ),
        RegisterEventHandler(
            OnProcessExit(
                target_action=recorder,
                on_exit=[EmitEvent(event=Shutdown(reason="the run is recorded"))],
            )
        ),
        recorder,
        *tracker(context, on_failure=lambda reason: Shutdown(reason=reason)),
        publisher,
    ]


def generate_launch_description() -> LaunchDescription:
    arguments = {
        name: argument for name, argument in TRACKER_ARGUMENTS.items() if name != "autostart"
    }
    return LaunchDescription(
        [
            *declare({**ARGUMENTS, **arguments}),
            *image_sized_transport(),
            OpaqueFunction(function=demo),
        ]
    )
