"""What the launch files share: bringing a lifecycle node up, and a transport that images fit into."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from geometry_msgs.msg import Twist, TwistStamped
from launch import LaunchContext
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState

from siam_tracker_ros.nodes.transport import PROFILE_VARIABLES

PACKAGE = "siam_tracker_ros"

TRACKER_ARGUMENTS: dict[str, tuple[str, str]] = {
    "image": (
        "image",
        "Topic of the images (the base topic, with image_transport compressed too).",
    ),
    "camera_info": ("camera_info", "Topic of the camera's CameraInfo; optional."),
    "target": ("target", "Topic on which selections come."),
    "detection": ("detection", "Topic on which the target is published."),
    "model": ("", "Model bundle: a name or a path; empty = as params_file says."),
    "backend": ("", "auto, tensorrt or onnxruntime; empty = as params_file says."),
    "precision": ("", "Of TensorRT: auto, fp32, fp16 or int8; empty = as params_file says."),
    "image_transport": ("", "raw or compressed; empty = as params_file says."),
    "namespace": ("", "Namespace of the node and of its relative topics."),
    "params_file": ("", "Parameters; empty = the package's config/tracker.yaml."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "autostart": ("true", "Configure and activate at once."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}
"""Arguments of tracker.launch.py: default and meaning."""

SELECT_ARGUMENTS: dict[str, tuple[str, str]] = {
    "select": ("false", "Start select.launch.py too: select by clicking."),
    "rviz": ("false", "That, with RViz."),
}
"""Arguments for selecting in the same launch, see :func:`selector`: default and meaning."""


def share() -> Path:
    """Return the package's share folder."""
    return Path(get_package_share_directory(PACKAGE))


def need_package(package: str, why: str) -> None:
    """Check that a package of ROS is installed.

    Raises:
        RuntimeError: saying what asked for it and how to install it.
    """
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        distro = os.environ.get("ROS_DISTRO", "$ROS_DISTRO")
        raise RuntimeError(
            f"{why} needs the package {package}, which is not installed: "
            f"sudo apt install ros-{distro}-{package.replace('_', '-')}"
        ) from None


def declare(arguments: dict[str, tuple[str, str]]) -> list[Action]:
    """Declare launch arguments."""
    return [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in arguments.items()
    ]


def value(context: LaunchContext, name: str) -> str:
    """Return a launch argument's value."""
    return str(LaunchConfiguration(name).perform(context))


def is_true(text: str) -> bool:
    """Read a launch argument that is true or false.

    Raises:
        ValueError: if it is neither.
    """
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"true or false is needed, got {text!r}")
    return text.lower() in ("true", "1")


def image_sized_transport() -> list[Action]:
    """Give the launched processes the shipped Fast DDS profile, unless one is set already."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return []
    profile = str(share() / "config" / "fastdds.xml")
    return [SetEnvironmentVariable(name, profile) for name in PROFILE_VARIABLES]


def tracker(
    context: LaunchContext,
    parameters: dict[str, Any] | None = None,
    on_failure: Callable[[str], Shutdown] | None = None,
) -> list[Action]:
    """Return ``tracker_node`` as the arguments of :data:`TRACKER_ARGUMENTS` say.

    Args:
        context: of the launch.
        parameters: more of them, stronger than all else.
        on_failure: gives the event to emit where the node cannot be brought up; by default the
            node stays, so that it can be mended and configured again.
    """
    given = {
        name: text
        for name in ("model", "backend", "precision", "image_transport")
        if (text := value(context, name))
    }
    given["use_sim_time"] = is_true(value(context, "use_sim_time"))  # type: ignore[assignment]
    file = value(context, "params_file") or str(share() / "config" / "tracker.yaml")
    node = LifecycleNode(
        package=PACKAGE,
        executable="tracker_node",
        name="tracker_node",
        namespace=value(context, "namespace"),
        parameters=[file, given, parameters or {}],
        remappings=[
            (name, value(context, name)) for name in ("image", "camera_info", "target", "detection")
        ],
        arguments=["--ros-args", "--log-level", value(context, "log_level")],
        output="screen",
    )
    autostart = context.launch_configurations.get("autostart", "true")
    return [bring_up(node, on_failure), node] if is_true(autostart) else [node]


def selector(context: LaunchContext) -> list[Action]:
    """Return ``select.launch.py`` for the same images, where :data:`SELECT_ARGUMENTS` ask for it."""
    with_rviz = is_true(value(context, "rviz"))
    if not with_rviz and not is_true(value(context, "select")):
        return []
    same = ("image", "camera_info", "target", "namespace", "use_sim_time", "log_level")
    arguments = {
        **{name: value(context, name) for name in same},
        # An argument that is empty here would be there too, where it has another default.
        "image_transport": value(context, "image_transport") or "raw",
        "frame": context.launch_configurations.get("frame_id", ""),
        "rviz": str(with_rviz).lower(),
    }
    file = str(share() / "launch" / "select.launch.py")
    source = PythonLaunchDescriptionSource(file)
    return [IncludeLaunchDescription(source, launch_arguments=arguments.items())]


def bring_up(node: LifecycleNode, on_failure: Callable[[str], Shutdown] | None = None) -> Action:
    """Configure and activate a lifecycle node whenever its process starts.

    Humble's LifecycleNode has no ``autostart``. The answers of the node's own service lead from one
    transition to the next: transition events may be published before anybody listens.
    """

    def start(context: LaunchContext) -> None:
        context.add_completion_future(
            context.asyncio_loop.run_in_executor(None, _bring_up, context, node, on_failure)
        )

    return RegisterEventHandler(
        OnProcessStart(target_action=node, on_start=[OpaqueFunction(function=start)])
    )


ASK_AGAIN = 5.0
"""Seconds without an answer of a transition after which the node is asked for its state."""


def _bring_up(
    context: LaunchContext, node: LifecycleNode, on_failure: Callable[[str], Shutdown] | None
) -> None:
    """Run in a thread of its own; ends early when the launch does."""
    log = get_logger("bring_up")
    ros = get_ros_node(context)
    change = ros.create_client(ChangeState, f"{node.node_name}/change_state")
    state = ros.create_client(GetState, f"{node.node_name}/get_state")
    try:
        for name, transition, start, goal in (
            ("configure", Transition.TRANSITION_CONFIGURE, "unconfigured", "inactive"),
            ("activate", Transition.TRANSITION_ACTIVATE, "inactive", "active"),
        ):
            request = ChangeState.Request()
            request.transition.id = transition
            done = None
            while done is None:
                answer = _ask(context, change, request)
                if context.is_shutdown:
                    return
                # An answer may be lost while both sides still discover one another, or come late
                # because the transition takes long: the state tells which.
                while answer is None:
                    now = _ask(context, state, GetState.Request())
                    if context.is_shutdown:
                        return
                    label = "" if now is None else now.current_state.label
                    if label in (start, goal):
                        break
                if answer is not None:
                    done = bool(answer.success)
                elif label == goal:
                    done = True
            if not done:
                reason = f"{node.node_name}: {name} failed; its log and ~/status say why"
                log.error(reason)
                if on_failure is not None:
                    event = on_failure(reason)
                    context.asyncio_loop.call_soon_threadsafe(context.emit_event_sync, event)
                return
    finally:
        if not context.is_shutdown:
            ros.destroy_client(change)
            ros.destroy_client(state)


def _ask(context: LaunchContext, client: Any, request: Any) -> Any:
    """Return a service's answer; None if none comes in time or the launch ends."""
    while not client.wait_for_service(timeout_sec=0.5):
        if context.is_shutdown:
            return None
    answered = threading.Event()
    future = client.call_async(request)
    future.add_done_callback(lambda _: answered.set())
    end = time.monotonic() + ASK_AGAIN
    while not answered.wait(0.2):
        if context.is_shutdown or time.monotonic() > end:
            client.remove_pending_request(future)
            return None
    return future.result()


def zero_when_it_ends(node: Node, topic: str, stamped: bool) -> list[Action]:
    """Tell a robot to stand when the process that drives it ends, however it does.

    A process that is killed cannot send a last zero. The publisher is made when the process starts,
    so that the robot has found it by then.

    Args:
        node: what drives.
        topic: its velocity commands.
        stamped: TwistStamped instead of Twist.
    """
    kind = TwistStamped if stamped else Twist
    publishers: list[Any] = []

    def begin(context: LaunchContext) -> None:
        if not publishers:
            full = topic if topic.startswith("/") else f"{value(context, 'namespace')}/{topic}"
            full = full if full.startswith("/") else f"/{full}"
            publishers.append(get_ros_node(context).create_publisher(kind, full, 1))

    def zero(context: LaunchContext) -> Any:
        message = kind()
        if stamped:
            message.header.stamp = get_ros_node(context).get_clock().now().to_msg()
        return message

    def end(event: Any, context: LaunchContext) -> None:
        if publishers and not context.is_shutdown:
            context.add_completion_future(
                context.asyncio_loop.run_in_executor(None, _say_zero, context, publishers[0], zero)
            )

    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[OpaqueFunction(function=begin)])
        ),
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end)),
    ]


def _say_zero(context: LaunchContext, publisher: Any, zero: Callable[[LaunchContext], Any]) -> None:
    get_logger("follow_me").warning(f"the controller has ended: zero on {publisher.topic_name}")
    for _ in range(10):
        if context.is_shutdown:
            return
        publisher.publish(zero(context))
        time.sleep(0.05)
