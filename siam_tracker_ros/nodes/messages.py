"""Messages from what the follower and the status say."""

from __future__ import annotations

import array
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.geometry.pictures import UInt8Array


def to_detection(
    header: Header, id: str, label: str = "", box: Box | None = None, score: float = 0.0
) -> Detection2D:
    """Return a vision_msgs/Detection2D; without a box ``results`` is empty and the box all zero.

    The centre is in pixel-centre coordinates: the middle of the first pixel is (0, 0).
    """
    message = Detection2D(header=header, id=id)
    if box is None:
        return message
    centre = message.bbox.center
    centre.position.x, centre.position.y = float(box.cx), float(box.cy)
    message.bbox.size_x, message.bbox.size_y = float(box.w), float(box.h)
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id = label
    result.hypothesis.score = float(score)
    message.results = [result]
    return message


def to_diagnostic_status(
    level: int, name: str, message: str, hardware: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    """Return a diagnostic_msgs/DiagnosticStatus."""
    return DiagnosticStatus(
        level=bytes([level]),
        name=name,
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def to_image(header: Header, pixels: UInt8Array, encoding: str = "bgr8") -> Image:
    """Return a sensor_msgs/Image of ``uint8 [H,W]`` or ``[H,W,3]``; the pixels are copied once."""
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding)
    message.step = width * (1 if pixels.ndim == 2 else pixels.shape[2])
    message.data = to_bytes(pixels)
    return message


def to_bytes(pixels: UInt8Array) -> array.array[int]:
    """Return the bytes in the one container that rclpy takes over without looking at every byte."""
    data = array.array("B")
    data.frombytes(memoryview(pixels.reshape(-1)))
    return data
