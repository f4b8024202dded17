"""``target_localizer_node``: where the tracked target is, from its box, the camera and a range.

See docs/target_localizer_node.md for topics and parameters; the arithmetic is in localization.py.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
import tf2_ros
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Pose, PoseStamped, PoseWithCovarianceStamped, TransformStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2D

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.camera_rays import CameraRays
from siam_tracker_ros.nodes.compressed import compressed_size
from siam_tracker_ros.nodes.errors import ImageError
from siam_tracker_ros.nodes.frames import SECOND, stamp_text, to_nanoseconds
from siam_tracker_ros.nodes.localization import (
    FloatArray,
    LocalizationError,
    LocalizerSettings,
    Position,
    at_depth,
    check_box,
    depth_in_box,
    depth_unregistered,
    from_ground,
    from_height,
    heading,
    moved,
    read_camera,
    read_depth,
    to_depth_box,
    to_matrix,
)
from siam_tracker_ros.nodes.messages import to_diagnostic_status
from siam_tracker_ros.nodes.parameters import ParameterError
from siam_tracker_ros.nodes.settings import NodeSettings
from siam_tracker_ros.nodes.spinning import interrupted_once, spin
from siam_tracker_ros.nodes.status import OK, WARN
from siam_tracker_ros.nodes.throttle import Throttle

KEPT_DEPTHS = 8
"""Depth images kept until the detection of their stamp comes."""

KEPT_DETECTIONS = 60
JUMP = SECOND
"""Stamps that go back by more than this mean that the clock was set back (a bag's loop)."""

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class NotYetError(LocalizationError):
    """Something that may still come is missing."""


class TargetLocalizer(Node):
    """The node.

    Raises:
        ParameterError: if the parameters cannot be.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("target_localizer", **options)
        self._settings = NodeSettings(self, LocalizerSettings, lambda values: None)
        log = self.get_logger()
        self._warn = Throttle(lambda text: log.warning(text))
        self._info: CameraInfo | None = None
        self._depth_info: CameraInfo | None = None
        self._image_size: tuple[int, int] | None = None
        self._size_asked: tuple[int, int] | None = None
        self._image_reader: Any = None
        self._depths: deque[Image] = deque(maxlen=KEPT_DEPTHS)
        self._pending: deque[tuple[Detection2D, float]] = deque(maxlen=KEPT_DETECTIONS)
        self._tracker_state = ""
        self._newest = 0
        self._state, self._why, self._method = "no target", "", ""
        self._poses = self._refused = 0

        values = self._settings.values
        self._pose_publisher = self.create_publisher(PoseStamped, "target_pose", 10)
        self._covariance_publisher = self.create_publisher(
            PoseWithCovarianceStamped, "target_pose_with_covariance", 10
        )
        self._status_publisher = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self._buffer = tf2_ros.Buffer(node=self)
        self._listener = tf2_ros.TransformListener(self._buffer, self)
        self._broadcaster = tf2_ros.TransformBroadcaster(self) if values.child_frame else None
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(Detection2D, "detection", self._on_detection, reliable)
        self.create_subscription(DiagnosticStatus, "status", self._on_status, LATCHED)
        sensor = qos_profile_sensor_data
        self.create_subscription(CameraInfo, "camera_info", self._on_camera_info, sensor)
        if "depth" in values.methods:
            self.create_subscription(Image, "depth", self._on_depth, sensor)
            self.create_subscription(CameraInfo, "depth_camera_info", self._on_depth_info, sensor)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.02, self._work, clock=steady)
        self.create_timer(1.0, self._on_second, clock=steady)
        log.info(f"range from {', '.join(values.methods)}; poses on {self._pose_publisher.topic}")

    # --- what comes in ------------------------------------------------------------------------

    def _on_status(self, message: DiagnosticStatus) -> None:
        """Take the tracker's state: uncertain detections have a box, but nobody may drive to it."""
        pairs = {pair.key: pair.value for pair in message.values}
        self._tracker_state = pairs.get("state", "")

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info = message
        size = (int(message.width), int(message.height))
        if size != self._size_asked and self._settings.values.image_transport != "off":
            self._size_asked, self._image_size = size, None
            self._read_one_image()

    def _read_one_image(self) -> None:
        """Subscribe to the images until one has told their size."""
        if self._image_reader is not None:
            return
        compressed = self._settings.values.image_transport == "compressed"
        topic = self.resolve_topic_name("image")
        if compressed and not topic.endswith("/compressed"):
            topic += "/compressed"
        self._image_reader = self.create_subscription(
            CompressedImage if compressed else Image,
            topic,
            self._on_image,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        )

    def _on_image(self, message: Any) -> None:
        if isinstance(message, CompressedImage):
            try:
                self._image_size = compressed_size(bytes(message.data))
            except ImageError:
                return  # the tracker says what is wrong with it
        else:
            self._image_size = (int(message.width), int(message.height))

    def _on_depth(self, message: Image) -> None:
        self._depths.append(message)
        self._work()

    def _on_depth_info(self, message: CameraInfo) -> None:
        self._depth_info = message

    def _on_detection(self, message: Detection2D) -> None:
        stamp = to_nanoseconds(message.header.stamp)
        if stamp < self._newest - JUMP:
            self.get_logger().warning(
                f"stamps went back from {stamp_text(self._newest)} to {stamp_text(stamp)}: depth "
                "images and transforms from before are forgotten"
            )
            self._pending.clear()
            self._depths.clear()
            self._buffer.clear()
        self._newest = stamp
        if not message.results:
            self._say_state("no pose", "the target is lost")
            return
        score = message.results[0].hypothesis.score
        least = self._settings.values.min_score
        if self._tracker_state not in ("", "tracking"):
            self._say_state("no pose", f"the tracker is {self._tracker_state}")
        elif not score >= least:
            self._say_state("no pose", f"the score is below min_score = {least:g}")
        elif stamp == 0:
            self._refuse(LocalizationError("the images' stamps are zero: poses would be too"))
        else:
            self._pending.append((message, time.monotonic() + self._settings.values.wait))
            self._work()

    # --- work -----------------------------------------------------------------------------------

    def _work(self) -> None:
        """Do what can be done, in the order of the detections."""
        while self._pending:
            detection, deadline = self._pending[0]
            final = time.monotonic() >= deadline
            try:
                self._localize(detection, final)
            except NotYetError as error:
                if not final:
                    return
                self._refuse(error)
            except LocalizationError as error:
                self._refuse(error)
            self._pending.popleft()

    def _localize(self, detection: Detection2D, final: bool) -> None:
        """Publish the pose of one detection.

        Raises:
            NotYetError: something may still come; never where ``final`` leaves another method.
            LocalizationError: there is no pose.
        """
        camera = self._camera(detection.header.frame_id)
        centre, bbox = detection.bbox.center.position, detection.bbox
        box = Box(centre.x, centre.y, bbox.size_x, bbox.size_y)
        check_box(camera, box)
        position = self._position(detection, camera, box, final)
        frame = detection.header.frame_id
        output = self._settings.values.output_frame or frame
        pose = Pose()
        if output != frame:
            transform = self._transform(output, frame, detection.header.stamp)
            position = moved(position, transform)
            o = pose.orientation
            o.x, o.y, o.z, o.w = heading(position.point, transform[:3, 3])
        pose.position.x, pose.position.y, pose.position.z = (float(v) for v in position.point)
        self._publish(detection, output, pose, position)

    def _camera(self, frame: str) -> CameraRays:
        info = self._info
        if info is None:
            topic = self.resolve_topic_name("camera_info")
            raise NotYetError(f"no camera_info on {topic} yet")
        camera = read_camera(info, self._settings.values.image_rectified)
        if self._image_size is not None and self._image_size != camera.size:
            raise LocalizationError(
                f"camera_info is for {camera.size[0]} x {camera.size[1]} pixels, the images have "
                f"{self._image_size[0]} x {self._image_size[1]}"
            )
        if info.header.frame_id and info.header.frame_id != frame:
            self._warn(
                "frames",
                f"camera_info is of frame {info.header.frame_id!r}, the images of {frame!r}; the "
                "images' is used",
            )
        return camera

    def _position(
        self, detection: Detection2D, camera: CameraRays, box: Box, final: bool
    ) -> Position:
        ways: dict[str, Callable[[Detection2D, CameraRays, Box], Position]] = {
            "depth": self._from_depth,
            "height": self._from_height,
            "ground": self._from_ground,
        }
        reasons = []
        for method in self._settings.values.methods:
            try:
                return ways[method](detection, camera, box)
            except NotYetError as error:
                if not final:
                    raise
                reasons.append((method, str(error)))
            except LocalizationError as error:
                reasons.append((method, str(error)))
        if len(reasons) == 1:
            raise LocalizationError(reasons[0][1])
        raise LocalizationError("; ".join(f"{method}: {text}" for method, text in reasons))

    def _from_depth(self, detection: Detection2D, camera: CameraRays, box: Box) -> Position:
        values = self._settings.values
        message = self._depth_at(to_nanoseconds(detection.header.stamp))
        depth, rules = read_depth(message), values.depth_rules
        if values.depth_registered:
            z, spread = depth_in_box(depth, to_depth_box(box, camera, depth), rules)
        else:
            if self._depth_info is None:
                topic = self.resolve_topic_name("depth_camera_info")
                raise NotYetError(f"no camera_info of the depth camera on {topic} yet")
            transform = self._transform(
                detection.header.frame_id, message.header.frame_id, message.header.stamp
            )
            z, spread = depth_unregistered(
                depth, read_camera(self._depth_info), transform, camera, box, rules
            )
        sigma = float(np.hypot(values.depth_sigma * z, spread))
        return at_depth(camera, box, z, sigma, values.box_sigma, "depth")

    def _depth_at(self, stamp: int) -> Image:
        """Return the depth image nearest in time."""
        if not self._depths:
            raise NotYetError(f"no depth image on {self.resolve_topic_name('depth')} yet")
        stamps = [to_nanoseconds(m.header.stamp) for m in self._depths]
        gaps = [abs(s - stamp) for s in stamps]
        best = int(np.argmin(gaps))
        tolerance = self._settings.values.depth_tolerance
        if gaps[best] <= tolerance * SECOND and (gaps[best] == 0 or max(stamps) >= stamp):
            return self._depths[best]
        text = (
            f"no depth image within {tolerance:g} s of the image's stamp; the nearest is "
            f"{gaps[best] / SECOND:.3f} s off"
        )
        raise NotYetError(text) if max(stamps) < stamp else LocalizationError(text)

    def _from_height(self, detection: Detection2D, camera: CameraRays, box: Box) -> Position:
        v = self._settings.values
        return from_height(camera, box, v.target_height, v.target_height_sigma, v.box_sigma)

    def _from_ground(self, detection: Detection2D, camera: CameraRays, box: Box) -> Position:
        values, header = self._settings.values, detection.header
        transform = self._transform(values.ground_frame, header.frame_id, header.stamp)
        return from_ground(camera, box, transform, values.box_sigma)

    def _transform(self, target: str, source: str, stamp: Any) -> FloatArray:
        """Return the ``[4, 4]`` transform from ``source`` to ``target`` at a stamp."""
        try:
            found = self._buffer.lookup_transform(target, source, Time.from_msg(stamp)).transform
        except tf2_ros.TransformException as error:
            raise NotYetError(f"no TF from {source!r} to {target!r}: {error}") from None
        return to_matrix(found.translation, found.rotation)

    # --- what goes out --------------------------------------------------------------------------

    def _publish(self, detection: Detection2D, frame: str, pose: Pose, position: Position) -> None:
        message = PoseStamped(pose=pose)
        message.header.stamp, message.header.frame_id = detection.header.stamp, frame
        self._pose_publisher.publish(message)
        covariant = PoseWithCovarianceStamped(header=message.header)
        covariant.pose.pose = pose
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = position.covariance
        # A point has no orientation: whatever is said is a guess.
        covariance[3:, 3:] = np.diag([np.pi**2] * 3)
        covariant.pose.covariance = covariance.ravel().tolist()
        self._covariance_publisher.publish(covariant)
        if self._broadcaster is not None:
            transform = TransformStamped(header=message.header)
            transform.child_frame_id = self._settings.values.child_frame
            p, t = pose.position, transform.transform.translation
            t.x, t.y, t.z = p.x, p.y, p.z
            transform.transform.rotation = pose.orientation
            self._broadcaster.sendTransform(transform)
        self._poses += 1
        self._method = position.method
        self._say_state("localized", "")

    def _refuse(self, error: LocalizationError) -> None:
        self._refused += 1
        text = str(error)
        # Numbers in a reason change from image to image; its first words do not.
        self._warn(" ".join(text.split()[:4]), f"no pose: {text}")
        self._say_state("no pose", text)

    def _say_state(self, state: str, why: str) -> None:
        changed = state != self._state
        self._state, self._why = state, why
        if changed:
            self._publish_status()

    def _publish_status(self) -> None:
        if not self.context.ok():
            return
        self._status_publisher.publish(
            to_diagnostic_status(
                OK if self._state != "no pose" else WARN,
                self.get_fully_qualified_name().lstrip("/"),
                self._why or self._state,
                "",
                {
                    "state": self._state,
                    "reason": self._why,
                    "method": self._method,
                    "poses": str(self._poses),
                    "refused": str(self._refused),
                },
            )
        )

    def _on_second(self) -> None:
        if self._image_reader is not None and self._image_size is not None:
            self.destroy_subscription(self._image_reader)
            self._image_reader = None
        self._publish_status()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted; returns 0, or 2 if its parameters cannot be."""
    status = 0
    with interrupted_once():
        rclpy.init(args=args)
        node = None
        try:
            node = TargetLocalizer()
            spin(node, threads=2)
        except ParameterError as error:
            rclpy.logging.get_logger("target_localizer").error(str(error))
            status = 2
        finally:
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
