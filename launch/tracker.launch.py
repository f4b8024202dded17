"""The tracker on a camera's images: ros2 launch siam_tracker_ros tracker.launch.py image:=/camera/image_raw."""

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from siam_tracker_ros.nodes.launching import (
    SELECT_ARGUMENTS,
    TRACKER_ARGUMENTS,
    declare,
    image_sized_transport,
    selector,
    tracker,
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *declare({**TRACKER_ARGUMENTS, **SELECT_ARGUMENTS}),
            *image_sized_transport(),
            OpaqueFunction(function=tracker),
            OpaqueFunction(function=selector),
        ]
    )
