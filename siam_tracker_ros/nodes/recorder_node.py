"""``recorder_node``: writes what it hears of a run into a folder, and ends when the run does.

Subscribed (relative names): ``detection`` and ``ground_truth`` (vision_msgs/Detection2D), ``status``
(diagnostic_msgs/DiagnosticStatus; remap it to the tracker's ``~/status``), ``/diagnostics``,
``finished`` (std_msgs/UInt32, of video_publisher_node). Published: ``recording`` (std_msgs/Bool,
latched), true once the tracker's status is heard; from then on no detection is missed.

It ends ``quiet`` seconds after the last detection once ``finished`` came, or after ``idle_timeout``
seconds in which nothing at all but ``/diagnostics`` came.

The folder (parameter ``out``; made if it is not there, its files are replaced). Stamps and times are
whole nanoseconds, boxes are ``[x, y, w, h]`` with x, y the first covered pixel from 0. One JSON object
a line, in the order of arrival:

* ``detections.jsonl``: ``stamp`` (of the image), ``received`` (the recorder's ROS clock), ``id``,
  ``visible`` (whether there was a result), ``box`` (null while lost), ``score`` (null while lost),
  ``label``, ``frame_id``;
* ``truth.jsonl``: ``stamp``, ``index`` (number of the picture in the clip), ``known``, ``box`` (null where
  not known or out of sight);
* ``status.jsonl``: ``received``, ``level``, ``message`` and ``values`` (keys and values of ``~/status``, texts);
* ``diagnostics.jsonl``: the same of the tracker's entry in ``/diagnostics``;
* ``summary.json``, written at the end: ``finished`` (whether the publisher said so), ``published``
  (null if it did not), ``detections``, ``visible``, ``truths``, ``started``, ``ended``, ``reason``.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, UInt32
from vision_msgs.msg import Detection2D

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.frames import to_nanoseconds
from siam_tracker_ros.nodes.spinning import interrupted_once

PARAMETERS: dict[str, tuple[Any, str]] = {
    "out": ("recording", "The folder to write into."),
    "quiet": (1.0, "Seconds without a detection, after the publisher has finished."),
    "idle_timeout": (60.0, "Seconds without anything until the recorder ends by itself."),
}


class Recorder(Node):
    """The node; :meth:`run` records until the end."""

    def __init__(self, **options: Any) -> None:
        super().__init__("recorder", **options)
        for name, (default, text) in PARAMETERS.items():
            self.declare_parameter(name, default, ParameterDescriptor(description=text))
        self.folder = Path(str(self.get_parameter("out").value)).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "summary.json").unlink(missing_ok=True)
        self._files = {
            name: open(self.folder / f"{name}.jsonl", "w", encoding="utf-8")  # noqa: SIM115
            for name in ("detections", "truth", "status", "diagnostics")
        }
        self._started = self._now()
        self._heard = self._last_detection = time.monotonic()
        self._published: int | None = None
        self._detections = self._visible = self._truths = 0
        self._reason = "interrupted"
        self._ready = False

        many = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Detection2D, "detection", self._on_detection, many)
        history = QoSProfile(depth=10_000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Detection2D, "ground_truth", self._on_truth, history)
        # After `detection`: a tracker whose status arrives knows of that subscription too.
        self.create_subscription(DiagnosticStatus, "status", self._on_status, latched)
        self._recording = self.create_publisher(Bool, "recording", latched)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self.create_subscription(UInt32, "finished", self._on_finished, latched)

    def run(self) -> None:
        """Record until the run ends."""
        quiet = float(self.get_parameter("quiet").value)
        patience = float(self.get_parameter("idle_timeout").value)
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        while True:
            executor.spin_once(timeout_sec=0.1)
            now = time.monotonic()
            if self._published is not None and now - self._last_detection >= quiet:
                self._reason = "the publisher has finished"
                return
            if now - self._heard >= patience:
                self._reason = f"nothing came for {patience:g} s"
                return

    def close(self) -> None:
        """Write the summary and close the files."""
        for file in self._files.values():
            file.close()
        summary = {
            "finished": self._published is not None,
            "published": self._published,
            "detections": self._detections,
            "visible": self._visible,
            "truths": self._truths,
            "started": self._started,
            "ended": self._now(),
            "reason": self._reason,
        }
        text = json.dumps(summary, indent=2) + "\n"
        (self.folder / "summary.json").write_text(text, encoding="utf-8")

    def summary_line(self) -> str:
        """Say what was recorded."""
        return (
            f"{self._detections} detections ({self._visible} with the target visible), "
            f"{self._truths} ground truths in {self.folder}: {self._reason}"
        )

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(entry) + "\n")

    def _on_detection(self, message: Detection2D) -> None:
        self._heard = self._last_detection = time.monotonic()
        hypothesis = message.results[0].hypothesis if message.results else None
        self._detections += 1
        self._visible += hypothesis is not None
        self._write(
            "detections",
            {
                "stamp": to_nanoseconds(message.header.stamp),
                "received": self._now(),
                "id": message.id,
                "visible": hypothesis is not None,
                "box": None if hypothesis is None else _xywh(message),
                "score": None if hypothesis is None else hypothesis.score,
                "label": "" if hypothesis is None else hypothesis.class_id,
                "frame_id": message.header.frame_id,
            },
        )

    def _on_truth(self, message: Detection2D) -> None:
        self._heard = time.monotonic()
        self._truths += 1
        self._write(
            "truth",
            {
                "stamp": to_nanoseconds(message.header.stamp),
                "index": int(message.id),
                "known": math.isfinite(message.bbox.size_x),
                "box": _xywh(message) if message.results else None,
            },
        )

    def _on_status(self, message: DiagnosticStatus) -> None:
        if not self._ready:
            self._ready = True
            self._recording.publish(Bool(data=True))
        self._write("status", self._diagnosis(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(": tracker"):
                self._write("diagnostics", self._diagnosis(status))

    def _on_finished(self, message: UInt32) -> None:
        self._heard = self._last_detection = time.monotonic()
        self._published = int(message.data)

    def _diagnosis(self, status: DiagnosticStatus) -> dict[str, Any]:
        return {
            "received": self._now(),
            "level": int.from_bytes(bytes(status.level), "little"),
            "message": status.message,
            "values": {pair.key: pair.value for pair in status.values},
        }


def _xywh(message: Detection2D) -> list[float]:
    centre, bbox = message.bbox.center.position, message.bbox
    return list(Box(centre.x, centre.y, bbox.size_x, bbox.size_y).xywh)


def main(args: Sequence[str] | None = None) -> int:
    """Record a run; returns 0, also when interrupted."""
    with interrupted_once():
        rclpy.init(args=args)
        node = Recorder()
        try:
            node.run()
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            node.close()
            if rclpy.ok():
                node.get_logger().info(node.summary_line())
            node.destroy_node()
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
