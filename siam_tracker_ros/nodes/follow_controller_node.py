"""``follow_controller_node``: drives a robot after the target, for robots without Nav2.

See docs/follow_controller_node.md for topics, parameters and what stops the robot within what time; the
arithmetic is in follow_control.py.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
import tf2_ros
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from vision_msgs.msg import Detection2D

from siam_tracker_ros.nodes.follow_control import Command, FollowController, FollowSettings
from siam_tracker_ros.nodes.frames import SECOND, to_nanoseconds
from siam_tracker_ros.nodes.localization import LocalizationError, to_matrix
from siam_tracker_ros.nodes.messages import to_diagnostic_status
from siam_tracker_ros.nodes.parameters import ParameterError
from siam_tracker_ros.nodes.settings import NodeSettings
from siam_tracker_ros.nodes.spinning import interrupted_once, spin
from siam_tracker_ros.nodes.status import ERROR, OK, WARN
from siam_tracker_ros.nodes.throttle import Throttle

FROZEN = 0.5
"""Seconds of real time after which a clock that stands still stops the robot."""

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class FollowControllerNode(Node):
    """The node.

    Raises:
        ParameterError: if the parameters cannot be.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("follow_controller", **options)
        self._settings = NodeSettings(self, FollowSettings, self._on_settings)
        values = self._settings.values
        log = self.get_logger()
        self._warn = Throttle(lambda text: log.warning(text))
        self._controller = FollowController(values)
        self._stamp = 0  # of the newest pose that was taken
        self._lost = ""  # why the newest detection may not be followed
        self._gone = False  # whether it says that the target is lost
        self._detected = -math.inf  # when it came, on the steady clock
        self._target_id = ""
        self._permission: tuple[bool, float] | None = None  # and when, on the steady clock
        self._time, self._time_moved = 0, time.monotonic()
        self._zero_since: float | None = None
        self._silent = True
        self._command = Command(0.0, 0.0, False, "no target")
        self._ending = False

        kind = TwistStamped if values.stamped else Twist
        self._cmd_vel = self.create_publisher(kind, "cmd_vel", 1)
        self._status = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self._buffer = None
        if values.base_frame:
            self._buffer = tf2_ros.Buffer(node=self)
            self._listener = tf2_ros.TransformListener(self._buffer, self)
        self.create_subscription(PoseStamped, "target_pose", self._on_pose, 1)
        self.create_subscription(Detection2D, "detection", self._on_detection, 10)
        if values.deadman == "bool":
            self.create_subscription(Bool, "deadman", self._on_bool, 1)
        elif values.deadman == "joy":
            self.create_subscription(Joy, "joy", self._on_joy, 1)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / values.rate, self._on_timer, clock=steady)
        self.create_timer(0.5, self._publish_status, clock=steady)
        permission = {
            "bool": f"while true comes on {self.resolve_topic_name('deadman')}",
            "joy": f"while button {values.deadman_button} on {self.resolve_topic_name('joy')} is held",
            "none": "at once: there is no dead-man switch",
        }[values.deadman]
        log.info(
            f"keeps {values.distance:g} m, drives {permission}; stands at most "
            f"{values.stop_time:.2f} s after the last good pose's stamp"
        )

    # --- what comes in ------------------------------------------------------------------------

    def _on_settings(self, values: FollowSettings) -> None:
        self._controller.settings = values

    def _on_bool(self, message: Bool) -> None:
        self._permission = (bool(message.data), time.monotonic())

    def _on_joy(self, message: Joy) -> None:
        button = self._settings.values.deadman_button
        if button >= len(message.buttons):
            self._warn(
                "button", f"the joystick has {len(message.buttons)} buttons, none is {button}"
            )
            return
        self._permission = (bool(message.buttons[button]), time.monotonic())

    def _on_detection(self, message: Detection2D) -> None:
        """Stop at once where the tracker itself says that the target is not there."""
        least = self._settings.values.min_score
        self._gone, self._detected = not message.results, time.monotonic()
        if self._gone:
            self._lost = "the target is lost"
        elif not message.results[0].hypothesis.score >= least:
            self._lost = f"the score is below min_score = {least:g}"
        else:
            self._lost = ""
        if message.id != self._target_id:
            self._controller.forget_side()
        if self._lost or message.id != self._target_id:
            self._controller.forget()
            self._stamp = 0
        self._target_id = message.id

    def _on_pose(self, message: PoseStamped) -> None:
        """Take a pose if it is fresh and can be brought into the robot's frame."""
        values = self._settings.values
        stamp = to_nanoseconds(message.header.stamp)
        age = (self.get_clock().now().nanoseconds - stamp) / SECOND
        p = message.pose.position
        if stamp == 0:
            self._warn("stamp", "a pose without a stamp is not followed")
        elif age < -values.future_tolerance:
            self._warn(
                "future",
                f"a pose is {-age:.2f} s in the future and not followed: the clocks of camera and "
                "robot differ, or use_sim_time is not the same everywhere",
            )
        elif age > values.target_timeout:
            self._warn(
                "old",
                f"a pose is {age:.2f} s old when it comes (target_timeout = "
                f"{values.target_timeout:g} s) and not followed: what is before this node is too "
                "slow, or clocks differ",
            )
        elif not all(math.isfinite(v) for v in (p.x, p.y, p.z)):
            self._warn("number", "a pose that is not finite is not followed")
        elif self._lost:
            pass  # late, from before the loss
        elif (place := self._place(message)) is not None:
            self._controller.see(stamp / SECOND, *place)
            self._stamp = stamp

    def _place(self, message: PoseStamped) -> tuple[float, float] | None:
        """Return where a pose is, x forward and y left of the robot; None where TF is missing."""
        values, frame = self._settings.values, message.header.frame_id
        p = message.pose.position
        if self._buffer is None:
            return p.z, -p.x
        if frame == values.base_frame:
            return p.x, p.y
        try:
            # The newest: where a target fixed in odom is from the robot's present place.
            found = self._buffer.lookup_transform(values.base_frame, frame, Time())
            matrix = to_matrix(found.transform.translation, found.transform.rotation)
        except (tf2_ros.TransformException, LocalizationError) as error:
            self._warn("tf", f"no TF from {frame!r} to {values.base_frame!r}: {error}")
            return None
        stamp = to_nanoseconds(found.header.stamp)
        age = (self.get_clock().now().nanoseconds - stamp) / SECOND
        if stamp != 0 and age > values.target_timeout:
            self._warn("tf age", f"TF from {frame!r} to {values.base_frame!r} is {age:.2f} s old")
            return None
        x, y, _ = matrix[:3, :3] @ (p.x, p.y, p.z) + matrix[:3, 3]
        return float(x), float(y)

    # --- what goes out --------------------------------------------------------------------------

    def _on_timer(self) -> None:
        if self._ending:
            return
        try:
            now = self.get_clock().now().nanoseconds
            if now != self._time:
                self._time, self._time_moved = now, time.monotonic()
            if time.monotonic() - self._time_moved > FROZEN:
                self._controller = FollowController(self._settings.values)
                self._stamp = 0
                command = Command(0.0, 0.0, False, "the clock stands still (/clock, use_sim_time)")
            else:
                stop = self._why_not(now)
                command = self._controller.step(now / SECOND, stop, self._may_search(stop))
        except Exception as error:
            command = Command(0.0, 0.0, False, f"{type(error).__name__}: {error}")
            self._controller = FollowController(self._settings.values)
            self._warn("failure", f"stopped, because of {command.reason}")
        self._drive(command)

    def _why_not(self, now: int) -> str:
        """Return why the robot must stop; empty if it may drive."""
        values = self._settings.values
        if values.deadman != "none":
            if self._permission is None:
                return f"no message from the dead-man switch ({values.deadman})"
            allowed, when = self._permission
            if time.monotonic() - when > values.deadman_timeout:
                return "the dead-man switch has fallen silent"
            if not allowed:
                return "the dead-man switch is not held"
        if self._lost:
            return self._lost
        if self._stamp == 0:
            return "no target"
        age = (now - self._stamp) / SECOND
        if age > values.target_timeout or age < -values.future_tolerance:
            return "no fresh pose"
        return ""

    def _may_search(self, stop: str) -> bool:
        """Return whether the robot stops only because a tracker that is alive says lost."""
        silent = time.monotonic() - self._detected > self._settings.values.target_timeout
        return self._gone and not silent and bool(stop) and stop == self._lost

    def _drive(self, command: Command) -> None:
        """Publish a command; after a stop zeros for a while, then nothing, so that others may drive."""
        before, self._command = self._command, command
        changed = (command.moving, command.searching, command.reason) != (
            before.moving,
            before.searching,
            before.reason,
        )
        now = time.monotonic()
        if command.moving or command.searching or command.speed or command.turn_rate:
            self._zero_since, self._silent = None, False
        elif self._zero_since is None:
            self._zero_since = now
        elif now - self._zero_since > self._settings.values.zero_hold:
            self._silent = True
        if not self._silent:
            self._send(command.speed, command.turn_rate)
        if changed:
            what = "follows" if command.moving else f"stops: {command.reason}"
            self.get_logger().info(f"{what}, and looks for it" if command.searching else what)
            self._publish_status()

    def _send(self, speed: float, turn_rate: float) -> None:
        twist = Twist()
        twist.linear.x, twist.angular.z = float(speed), float(turn_rate)
        if not self._settings.values.stamped:
            self._cmd_vel.publish(twist)
            return
        message = TwistStamped(twist=twist)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self._settings.values.base_frame
        self._cmd_vel.publish(message)

    def _publish_status(self) -> None:
        if not self.context.ok():
            return
        command = self._command
        number = {
            "speed": command.speed,
            "turn_rate": command.turn_rate,
            "distance": command.distance,
            "bearing": command.bearing,
        }
        self._status.publish(
            to_diagnostic_status(
                OK if command.moving else (WARN if "Error" not in command.reason else ERROR),
                self.get_fully_qualified_name().lstrip("/"),
                command.reason or "follows",
                "",
                {
                    "state": _state(command),
                    "reason": command.reason,
                    **{k: "" if v is None else f"{v:.3f}" for k, v in number.items()},
                },
            )
        )

    def stop(self) -> None:
        """Say zero, and see it out; for the end of the process."""
        self._ending = True
        if not self.context.ok():
            return
        for _ in range(3):
            self._send(0.0, 0.0)
            time.sleep(0.02)
        self._cmd_vel.wait_for_all_acked(Duration(seconds=1))


def _state(command: Command) -> str:
    if command.moving:
        return "following"
    return "searching" if command.searching else "stopped"


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted; returns 0, or 2 if its parameters cannot be."""
    status = 0
    with interrupted_once():
        # rclpy's own handlers would close the way to the robot before the last zero is sent.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
        node = None
        try:
            node = FollowControllerNode()
            spin(node, threads=2)
        except ParameterError as error:
            rclpy.logging.get_logger("follow_controller").error(str(error))
            status = 2
        finally:
            if node is not None:
                node.stop()
                node.destroy_node()
            rclpy.try_shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
