"""``follow_simulator_node``: a robot with a camera in a made-up place, for trying follow-me without one.

It publishes what a robot would (`image`, `camera_info`, `depth`, TF), selects the target on `target`,
holds the dead-man switch, and drives as `cmd_vel` says. What happened, with the truth, goes to
``run.jsonl``; the scene is in follow_scene.py. It ends after ``duration`` seconds from the first detection
on; exit status 1 says that none came.

Parameters: duration (s), rate (images a second), seed, hiding (whether a wall passes before the target),
rests (s that the wall rests before it, in turn), distance (m to the target at the start), depth (whether
depth images are published), out (folder), start_timeout (s).
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
import tf2_ros
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TransformStamped, Twist
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Bool, Header
from vision_msgs.msg import Detection2D

from siam_tracker_ros.nodes.follow_scene import CAMERA_HEIGHT, HIDINGS, FollowScene, Place
from siam_tracker_ros.nodes.frames import to_nanoseconds
from siam_tracker_ros.nodes.messages import to_bytes, to_detection, to_image
from siam_tracker_ros.nodes.spinning import interrupted_once

CAMERA_FRAME = "camera_optical"
TICK = 0.02
"""Seconds between steps of the robot's motion and its TF."""

LAG = 0.08
"""Time constant with which the robot's speeds follow the command, seconds."""

BASE_TIMEOUT = 0.5
"""As robots' bases do, this one stops without a command for so long, seconds."""

OFFER_PERIOD = 1.0


class FollowSimulator(Node):
    """Robot, camera and operator."""

    def __init__(self) -> None:
        super().__init__("follow_simulator")
        parameters = {
            "duration": 60.0,
            "rate": 15.0,
            "seed": 0,
            "hiding": True,
            "rests": list(HIDINGS),
            "distance": 2.0,
            "depth": True,
            "out": "follow_run",
            "start_timeout": 90.0,
        }
        for name, default in parameters.items():
            self.declare_parameter(name, default)
        self.duration = float(self._value("duration"))
        self.scene = FollowScene(
            self.duration,
            hiding=bool(self._value("hiding")),
            seed=int(self._value("seed")),
            rests=self._value("rests"),
        )
        self.place = self.scene.start(float(self._value("distance")))
        self.speed = self.turn_rate = 0.0
        self._command, self._commanded = (0.0, 0.0), -math.inf
        self._started: float | None = None
        folder = Path(str(self._value("out")))
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "run.jsonl").open("w", encoding="utf-8")
        latched = QoSProfile(
            depth=10,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._images = self.create_publisher(Image, "image", qos_profile_sensor_data)
        self._infos = self.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        self._depths = self.create_publisher(Image, "depth", qos_profile_sensor_data)
        self._targets = self.create_publisher(Detection2D, "target", 1)
        self._deadman = self.create_publisher(Bool, "deadman", 1)
        self._tf = tf2_ros.TransformBroadcaster(self)
        self._static_tf = tf2_ros.StaticTransformBroadcaster(self)
        self._static_tf.sendTransform(_camera_on_robot(self.get_clock().now().to_msg()))
        self.create_subscription(Twist, "cmd_vel", self._on_command, 10)
        self.create_subscription(Detection2D, "detection", self._on_detection, 100)
        self.create_subscription(PoseStamped, "target_pose", self._on_pose, 100)
        self.create_subscription(
            DiagnosticStatus, "controller_status", self._on_controller, latched
        )
        self._controller = ""

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    @property
    def time(self) -> float:
        """Seconds of the walk; 0 until the target is followed."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def run(self) -> bool:
        """Play the walk; returns whether the target was ever followed."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        begun = before = time.monotonic()
        image_at = tick_at = offer_at = before
        period = 1.0 / float(self._value("rate"))
        while self.time < self.duration:
            now = time.monotonic()
            if self._started is None and now - begun > float(self._value("start_timeout")):
                return False
            if now >= tick_at:
                self._move(min(now - before, 0.2))
                before, tick_at = now, max(tick_at + TICK, now)
                self._deadman.publish(Bool(data=True))
            if now >= image_at:
                image_at = max(image_at + period, now)
                self._publish(offer=self._started is None and now >= offer_at)
                offer_at = now + OFFER_PERIOD if now >= offer_at else offer_at
            until = min(tick_at, image_at)
            while (left := until - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=left)
        return True

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _move(self, passed: float) -> None:
        wanted = self._command
        if time.monotonic() - self._commanded > BASE_TIMEOUT:
            wanted = (0.0, 0.0)
        share = 1 - math.exp(-passed / LAG)
        self.speed += share * (wanted[0] - self.speed)
        self.turn_rate += share * (wanted[1] - self.turn_rate)
        yaw = self.place.yaw + self.turn_rate * passed / 2
        self.place = Place(
            self.place.x + self.speed * passed * math.cos(yaw),
            self.place.y + self.speed * passed * math.sin(yaw),
            self.place.yaw + self.turn_rate * passed,
        )
        transform = TransformStamped()
        transform.header.stamp = self.get_clock().now().to_msg()
        transform.header.frame_id, transform.child_frame_id = "odom", "base_link"
        t, q = transform.transform.translation, transform.transform.rotation
        t.x, t.y = self.place.x, self.place.y
        q.z, q.w = math.sin(self.place.yaw / 2), math.cos(self.place.yaw / 2)
        self._tf.sendTransform(transform)

    def _publish(self, offer: bool) -> None:
        """Publish what the camera sees now, and select the target in it if asked to."""
        header = Header(frame_id=CAMERA_FRAME)
        header.stamp = self.get_clock().now().to_msg()
        t, place = self.time, self.place
        view = self.scene.view(t, place)
        if self._value("depth"):
            depth = Image(header=header, encoding="16UC1")
            depth.height, depth.width = view.depth.shape
            depth.step = 2 * depth.width
            depth.data = to_bytes(view.depth.view("u1"))
            self._depths.publish(depth)
        self._infos.publish(self._info(header))
        self._images.publish(to_image(header, view.pixels))
        if offer and view.box is not None:
            self._targets.publish(to_detection(header, "target", "target", view.box, 1.0))
        x, y = self.scene.target(t)
        self._write(
            "image",
            t,
            stamp=to_nanoseconds(header.stamp),
            robot=[place.x, place.y, place.yaw],
            target=[x, y],
            speed=self.speed,
            turn_rate=self.turn_rate,
            visible=view.visible,
            box=None if view.box is None else list(view.box.xywh),
            controller=self._controller,
        )

    def _info(self, header: Header) -> CameraInfo:
        scene = self.scene
        info = CameraInfo(header=header, width=scene.width, height=scene.height)
        info.distortion_model, info.d = "plumb_bob", [0.0] * 5
        f, cx, cy = scene.focal, scene.cx, scene.cy
        info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    # --- what comes back ----------------------------------------------------------------------

    def _write(self, kind: str, t: float, **entry: Any) -> None:
        if self._started is not None:
            self._log.write(json.dumps({"kind": kind, "t": round(t, 4), **entry}) + "\n")

    def _on_command(self, message: Twist) -> None:
        self._command = (message.linear.x, message.angular.z)
        self._commanded = time.monotonic()
        self._write("command", self.time, speed=message.linear.x, turn_rate=message.angular.z)

    def _on_detection(self, message: Detection2D) -> None:
        visible = bool(message.results)
        if self._started is None and visible:
            self._started = time.monotonic()
        centre, bbox = message.bbox.center.position, message.bbox
        self._write(
            "detection",
            self.time,
            stamp=to_nanoseconds(message.header.stamp),
            visible=visible,
            score=message.results[0].hypothesis.score if visible else 0.0,
            box=[centre.x, centre.y, bbox.size_x, bbox.size_y] if visible else None,
        )

    def _on_pose(self, message: PoseStamped) -> None:
        p = message.pose.position
        self._write(
            "pose",
            self.time,
            stamp=to_nanoseconds(message.header.stamp),
            frame=message.header.frame_id,
            point=[p.x, p.y, p.z],
        )

    def _on_controller(self, message: DiagnosticStatus) -> None:
        values = {pair.key: pair.value for pair in message.values}
        state = f"{values.get('state', '')}: {values.get('reason', '')}".rstrip(": ")
        if state != self._controller:
            self._controller = state
            self._write("controller", self.time, state=state)


def _camera_on_robot(stamp: Any) -> TransformStamped:
    """Return where the camera is: looking forward, x right and y down."""
    transform = TransformStamped()
    transform.header.stamp = stamp
    transform.header.frame_id, transform.child_frame_id = "base_link", CAMERA_FRAME
    transform.transform.translation.z = CAMERA_HEIGHT
    q = transform.transform.rotation
    q.x, q.y, q.z, q.w = -0.5, 0.5, -0.5, 0.5
    return transform


def main(args: Sequence[str] | None = None) -> int:
    """Play; returns 0 at the end or when interrupted, 1 if the target was never followed."""
    status = 0
    with interrupted_once():
        rclpy.init(args=args)
        node = None
        try:
            node = FollowSimulator()
            if not node.run():
                node.get_logger().error("no detection came: is the tracker active?")
                status = 1
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            if node is not None:
                node.close()
                node.destroy_node()
            rclpy.try_shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
