"""Selecting with RViz, rqt_image_view or a detector: ros2 launch siam_tracker_ros select.launch.py rviz:=true."""

from __future__ import annotations

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from siam_tracker_ros.nodes.launching import (
    PACKAGE,
    declare,
    image_sized_transport,
    is_true,
    share,
    value,
)

TOPICS = {
    "image": "The camera's images (the base topic, with image_transport compressed too).",
    "camera_info": "Their CameraInfo; what is shown in RViz needs it.",
    "target": "Where selections go: the tracker's `target`.",
    "candidates": "A detector's Detection2DArray; with it one click inside a box selects.",
    "polygon": "PolygonStamped with the corners in pixels.",
    "roi": "RegionOfInterest in pixels.",
}

ARGUMENTS: dict[str, tuple[str, str]] = {
    **{name: (name, text) for name, text in TOPICS.items()},
    "clicked_point": ("/clicked_point", "RViz's Publish Point."),
    "namespace": ("", "Namespace of the node and of its relative topics: the tracker's."),
    "image_transport": ("raw", "raw or compressed."),
    "image_rectified": ("false", "The images are rectified: CameraInfo's P holds, not K and D."),
    "label": ("target", "What a selection says the target is."),
    "rviz": ("false", "Start RViz with the package's config/rviz/select.rviz."),
    "frame": ("", "RViz's fixed frame: the images' frame_id; empty = as the configuration says."),
    "rviz_config": ("", "Another configuration."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [*declare(ARGUMENTS), *image_sized_transport(), OpaqueFunction(function=selecting)]
    )


def selecting(context: LaunchContext) -> list[Action]:
    simulated = is_true(value(context, "use_sim_time"))
    settings = {
        "use_sim_time": simulated,
        "image_rectified": is_true(value(context, "image_rectified")),
        "image_transport": value(context, "image_transport"),
        "label": value(context, "label"),
    }
    node = Node(
        package=PACKAGE,
        executable="target_selector_node",
        name="target_selector",
        namespace=value(context, "namespace"),
        parameters=[settings],
        remappings=[(name, value(context, name)) for name in (*TOPICS, "clicked_point")],
        arguments=["--ros-args", "--log-level", value(context, "log_level")],
        output="screen",
    )
    return [node, rviz(context, simulated)] if is_true(value(context, "rviz")) else [node]


def rviz(context: LaunchContext, simulated: bool) -> Node:
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError(
            "rviz:=true needs RViz: sudo apt install ros-$ROS_DISTRO-rviz2, or run this launch file "
            "without it, and RViz with config/rviz/select.rviz on another machine"
        ) from None
    config = value(context, "rviz_config") or str(share() / "config" / "rviz" / "select.rviz")
    frame, namespace = value(context, "frame"), value(context, "namespace").strip("/")
    renamed = [("/clicked_point", value(context, "clicked_point"))]
    if namespace:
        renamed += [
            (name, f"/{namespace}{name}")
            for name in (
                "/target_selector/cloud",
                "/target_selector/preview",
                "/tracker_node/debug_image",
            )
        ]
    return Node(
        package="rviz2",
        executable="rviz2",
        name="select_rviz",
        arguments=["-d", config, *(["-f", frame] if frame else [])],
        parameters=[{"use_sim_time": simulated}],
        remappings=renamed,
        output="screen",
    )
