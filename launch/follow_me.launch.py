"""The tracker, the target's place in 3D, and a robot that follows it.

Without Nav2: ros2 launch siam_tracker_ros follow_me.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info
depth:=/camera/depth/image_raw. With Nav2: controller:=false output_frame:=map pose:=/goal_update (follow_point.xml), or
output_frame:=odom pose:=/detected_dynamic_pose (Following Server).
"""

from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from siam_tracker_ros.nodes.launching import (
    PACKAGE,
    TRACKER_ARGUMENTS,
    declare,
    image_sized_transport,
    is_true,
    share,
    tracker,
    value,
    zero_when_it_ends,
)

ARGUMENTS = {
    "depth": ("depth", "Topic of the depth images."),
    "depth_camera_info": ("depth_camera_info", "CameraInfo of the depth camera, if unregistered."),
    "methods": (
        "",
        "Of the range: depth,height,ground, in the order tried; empty = as the file says.",
    ),
    "target_height": (
        "",
        "Height of the target, m, for the method height; empty = as the file says.",
    ),
    "output_frame": ("", "TF frame of the poses; empty = as the file says (the camera's)."),
    "pose": ("target_pose", "Topic of the poses: /goal_update, /detected_dynamic_pose, ..."),
    "controller": ("true", "Start follow_controller_node; false: Nav2 or another drives."),
    "cmd_vel": ("cmd_vel", "Topic of the velocity commands."),
    "stamped": (
        "false",
        "true: TwistStamped. Give it here, not in a file: the launch itself says zero too.",
    ),
    "base_frame": ("", "The robot's frame; empty = as the file says (base_link)."),
    "distance": ("", "Distance to keep, m; empty = as the file says."),
    "max_speed": ("", "Forward speed at most, m/s; empty = as the file says."),
    "deadman": ("", "What must allow driving: bool, joy or none; empty = as the file says (bool)."),
    "deadman_topic": ("deadman", "Topic of std_msgs/Bool for deadman:=bool."),
    "joy": ("joy", "Topic of sensor_msgs/Joy for deadman:=joy."),
    "follow_params_file": (
        "",
        "Parameters of localizer and controller; empty = the package's config/follow_me.yaml.",
    ),
}


def follow_me(context: LaunchContext) -> list[Action]:
    namespace = value(context, "namespace")
    file = value(context, "follow_params_file") or str(share() / "config" / "follow_me.yaml")
    common: dict[str, Any] = {"use_sim_time": is_true(value(context, "use_sim_time"))}

    def given(*names: str) -> dict[str, Any]:
        texts = {name: value(context, name) for name in names}
        return {name: text for name, text in texts.items() if text}

    def numbers(*names: str) -> dict[str, Any]:
        return {name: float(text) for name, text in given(*names).items()}

    def node(executable: str, name: str, more: dict[str, Any], remappings: dict[str, str]) -> Node:
        return Node(
            package=PACKAGE,
            executable=executable,
            name=name,
            namespace=namespace,
            parameters=[file, {**common, **more}],
            remappings=[
                ("target_pose", value(context, "pose")),
                ("detection", value(context, "detection")),
                *remappings.items(),
            ],
            arguments=["--ros-args", "--log-level", value(context, "log_level")],
            output="screen",
        )

    places: dict[str, Any] = {
        **given("output_frame", "image_transport"),
        **numbers("target_height"),
    }
    if methods := value(context, "methods"):
        places["methods"] = [name.strip() for name in methods.split(",")]
    localizer = node(
        "target_localizer_node",
        "target_localizer",
        places,
        {
            "status": "tracker_node/status",
            **{
                name: value(context, name)
                for name in ("image", "camera_info", "depth", "depth_camera_info")
            },
        },
    )
    actions: list[Action] = [*tracker(context), localizer]
    if is_true(value(context, "controller")):
        driving: dict[str, Any] = {
            **given("base_frame", "deadman"),
            **numbers("distance", "max_speed"),
        }
        stamped = is_true(value(context, "stamped"))
        driving["stamped"] = stamped
        controller = node(
            "follow_controller_node",
            "follow_controller",
            driving,
            {
                "cmd_vel": value(context, "cmd_vel"),
                "deadman": value(context, "deadman_topic"),
                "joy": value(context, "joy"),
            },
        )
        actions += zero_when_it_ends(controller, value(context, "cmd_vel"), stamped)
        actions.append(controller)
    return actions


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *declare({**TRACKER_ARGUMENTS, **ARGUMENTS}),
            *image_sized_transport(),
            OpaqueFunction(function=follow_me),
        ]
    )
