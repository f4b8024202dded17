"""A camera's driver and the tracker on its images.

ros2 launch siam_tracker_ros camera.launch.py camera:=usb_cam rviz:=true. Both processes get the Fast DDS profile that
images fit into, and the tracker takes over the driver's quality of service. See docs/camera.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from siam_tracker_ros.nodes.launching import (
    PACKAGE,
    SELECT_ARGUMENTS,
    TRACKER_ARGUMENTS,
    declare,
    image_sized_transport,
    is_true,
    need_package,
    selector,
    tracker,
    value,
)

RESPAWN_DELAY = 2.0
"""Seconds after which a driver that ended is started again."""


class Driver(NamedTuple):
    """A node that publishes a camera's images.

    Attributes:
        package: its package.
        executable: in that package.
        image: topic of the images, relative to the driver's namespace.
        camera_info: topic of their CameraInfo, the same.
        settings: gives parameters from the launch arguments that are not empty.
        remappings: of the driver's topics.
    """

    package: str
    executable: str
    image: str
    camera_info: str
    settings: Callable[[dict[str, str]], dict[str, Any]]
    remappings: tuple[tuple[str, str], ...] = ()


def usb_cam(given: dict[str, str]) -> dict[str, Any]:
    names = {"device": "video_device", "frame_id": "frame_id"}
    numbers: dict[str, tuple[str, type]] = {
        "width": ("image_width", int),
        "height": ("image_height", int),
        "fps": ("framerate", float),
    }
    return {
        **{name: given[key] for key, name in names.items() if key in given},
        **{name: kind(given[key]) for key, (name, kind) in numbers.items() if key in given},
    }


def v4l2(given: dict[str, str]) -> dict[str, Any]:
    names = {"device": "video_device", "frame_id": "camera_frame_id"}
    settings: dict[str, Any] = {name: given[key] for key, name in names.items() if key in given}
    if size := together(given, "width", "height"):
        settings["image_size"] = [int(text) for text in size]
    if "fps" in given:
        settings["time_per_frame"] = [1, round(float(given["fps"]))]
    return settings


def realsense(given: dict[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if "device" in given:
        settings["serial_no"] = given["device"]
    if profile := together(given, "width", "height", "fps"):
        settings["rgb_camera.color_profile"] = "x".join(profile)
    return settings


def video(given: dict[str, str]) -> dict[str, Any]:
    numbers: dict[str, tuple[str, type]] = {
        "width": ("scene.width", int),
        "height": ("scene.height", int),
        "fps": ("rate", float),
    }
    return {
        "source": given.get("clip", ""),
        "loop": True,
        "horizontal_fov": 60.0,
        **{name: given[name] for name in ("frame_id", "image_transport") if name in given},
        **{name: kind(given[key]) for key, (name, kind) in numbers.items() if key in given},
    }


def together(given: dict[str, str], *names: str) -> list[str]:
    """Return the values of arguments that make sense only together; none if none is given."""
    found = [given[name] for name in names if name in given]
    if found and len(found) < len(names):
        raise RuntimeError(f"camera:={given['camera']}: give all of {', '.join(names)}, or none")
    return found


DRIVERS = {
    "usb_cam": Driver("usb_cam", "usb_cam_node_exe", "image_raw", "camera_info", usb_cam),
    "v4l2": Driver("v4l2_camera", "v4l2_camera_node", "image_raw", "camera_info", v4l2),
    "realsense": Driver(
        "realsense2_camera",
        "realsense2_camera_node",
        "camera/color/image_raw",
        "camera/color/camera_info",
        realsense,
    ),
    "video": Driver(
        PACKAGE,
        "video_publisher_node",
        "image_raw",
        "camera_info",
        video,
        (("image", "image_raw"),),
    ),
}

ARGUMENTS = {
    "camera": (
        "usb_cam",
        f"The driver: {', '.join(DRIVERS)}, or other (with driver_package and driver_executable).",
    ),
    "camera_name": ("camera", "Namespace of the driver, below `namespace`."),
    "device": ("", "/dev/video0, ...; of realsense the serial number; empty = the driver's own."),
    "clip": ("", "For video: a file or a folder of pictures, again and again; empty = a scene."),
    "width": ("", "Of the images, px; empty = the driver's own."),
    "height": ("", "Of the images, px; empty = the driver's own."),
    "fps": ("", "Images a second; empty = the driver's own."),
    "frame_id": ("", "Of the images (not of realsense); empty = the driver's own."),
    "driver_package": ("", "For other: the driver's package."),
    "driver_executable": ("", "For other: its executable."),
    "driver_params": ("", "A file with more parameters of the driver, stronger than the above."),
    "respawn": ("true", "Start the driver again when it ends, as when a cable is pulled."),
    **SELECT_ARGUMENTS,
    **TRACKER_ARGUMENTS,
    "image": ("", "Topic of the images; empty = where the driver publishes them."),
    "camera_info": ("", "Topic of CameraInfo; empty = where the driver publishes it."),
}


def driver_of(given: dict[str, str]) -> Driver:
    """Return the driver that the arguments ask for.

    Raises:
        RuntimeError: if there is none of that name, or something of it is not given.
    """
    name = given["camera"]
    if name in DRIVERS:
        return DRIVERS[name]
    if name != "other":
        raise RuntimeError(f"camera:={name}: choose one of {', '.join(DRIVERS)} or other")
    missing = [key for key in ("driver_package", "driver_executable") if key not in given]
    if missing:
        raise RuntimeError(f"camera:=other needs {' and '.join(f'{key}:=' for key in missing)}")
    return Driver(
        given["driver_package"],
        given["driver_executable"],
        "image_raw",
        "camera_info",
        lambda _: {},
    )


def camera(context: LaunchContext) -> list[Action]:
    given = {name: text for name in ARGUMENTS if (text := value(context, name))}
    driver = driver_of(given)
    need_package(driver.package, f"camera:={given['camera']}")
    simulated = is_true(given["use_sim_time"])
    node = Node(
        package=driver.package,
        executable=driver.executable,
        name="camera",
        namespace="/".join(part for part in (given.get("namespace"), given["camera_name"]) if part),
        parameters=[
            {"use_sim_time": simulated, **driver.settings(given)},
            *([given["driver_params"]] if "driver_params" in given else []),
        ],
        remappings=list(driver.remappings),
        output="screen",
        respawn=is_true(given["respawn"]),
        respawn_delay=RESPAWN_DELAY,
    )
    for name in ("image", "camera_info"):
        topic = given.get(name) or f"{given['camera_name']}/{getattr(driver, name)}"
        context.launch_configurations[name] = topic
    return [*tracker(context), node, *selector(context)]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [*declare(ARGUMENTS), *image_sized_transport(), OpaqueFunction(function=camera)]
    )
