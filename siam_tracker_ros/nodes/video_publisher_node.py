"""``video_publisher_node``: a clip, a folder of pictures, a camera or a made-up scene as camera images.

Published (relative names):

* ``image`` (sensor_msgs/Image, bgr8), or ``image/compressed`` (JPEG) with ``image_transport: compressed``;
* ``camera_info`` (sensor_msgs/CameraInfo) if ``horizontal_fov`` is given;
* ``ground_truth`` (vision_msgs/Detection2D, latched: who comes late hears of the last 10,000 too),
  one message for each picture, with the image's header and ``id`` = number of the picture.
  ``results`` holds one entry where the place of the target is known. Where the target is known to
  be out of sight the box is all zero; where nothing is known it is NaN. A clip's boxes are read
  from NAME.txt beside it (x,y,w,h a line, from 0);
* ``target`` (vision_msgs/Detection2D), the first picture's box, with ``select_first``;
* ``finished`` (std_msgs/UInt32, latched): how many pictures were published, once all are.

Pace: ``rate`` (0 = the source's own), or with ``lockstep`` as fast as acknowledged: the next picture
goes out when the ``detection`` for the one before is back.

The first picture. With ``lockstep`` or ``select_first`` it is sent again (with a new stamp, and a new
selection if the node makes one) every ``offer_period`` until a detection for the newest of these
stamps comes back. Repeats stop there, so in lock-step every picture of the source is followed exactly
once: the first as the one of the selection, each later one when the one before is answered.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import rclpy
import rclpy.logging
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Bool, Header, UInt32
from vision_msgs.msg import Detection2D

from siam_tracker_ros.nodes.frames import to_nanoseconds
from siam_tracker_ros.nodes.messages import to_bytes, to_detection, to_image
from siam_tracker_ros.nodes.spinning import interrupted_once
from siam_tracker_ros.nodes.synthetic_scene import SyntheticScene
from siam_tracker_ros.nodes.video_sources import Source, SourceError, View, open_source

DEFAULT_RATE = 30.0
UNANSWERED_LIMIT = 3
SETTLING = 0.5
"""Seconds between the first subscriber and the first picture."""

PARAMETERS: dict[str, tuple[Any, str]] = {
    "source": (
        "",
        "A video file, a folder of pictures, camera:0, /dev/video0; empty = a made-up scene.",
    ),
    "rate": (0.0, "Pictures a second; 0 = the source's own, 30 if it does not say."),
    "lockstep": (False, "Send a picture when the detection for the one before is back."),
    "ack_timeout": (5.0, "Seconds to wait for that; then the next picture is sent anyway."),
    "select_first": (False, "Select the target from the first picture's known box."),
    "offer_period": (1.0, "Seconds until the first picture is sent again, see above."),
    "start_timeout": (60.0, "Seconds to wait for subscribers and for the first detection."),
    "label": ("target", "What the selection says the target is."),
    "loop": (False, "Begin again at the end."),
    "frames": (0, "Stop after so many pictures; 0 = at the end of the source."),
    "wait_for_subscribers": (1, "Begin when so many subscribe to the images."),
    "wait_for_recorder": (False, "And when recorder_node says on `recording` that it is ready."),
    "image_transport": ("raw", "raw or compressed."),
    "jpeg_quality": (90, "0 to 100."),
    "reliability": ("reliable", "Of the images: reliable or best_effort."),
    "frame_id": ("camera", "In every header."),
    "horizontal_fov": (0.0, "Degrees; if above 0, camera_info of such a pinhole camera is sent."),
    "scene.width": (640, "Of the made-up scene."),
    "scene.height": (480, "Of the made-up scene."),
    "scene.frames": (300, "Of the made-up scene; 0 = without end."),
    "scene.seed": (0, "The same seed gives the same pixels."),
    "scene.absent": ([0, 0], "The thing is out of sight from the first to before the second."),
}


class GivenUp(RuntimeError):  # noqa: N818 - it ends the node, with a reason
    """The node cannot go on; the message says why."""


class VideoPublisher(Node):
    """The node; :meth:`run` publishes the whole source."""

    def __init__(self, **options: Any) -> None:
        super().__init__("video_publisher", **options)
        for name, (default, text) in PARAMETERS.items():
            self.declare_parameter(name, default, ParameterDescriptor(description=text))
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)
        self._answers: dict[int, set[str]] = {}  # ids of the detections for a stamp
        self.published = self.repeats = self.unanswered = self.late = 0

        self._compressed = self._choice("image_transport", "raw", "compressed") == "compressed"
        reliability = (
            ReliabilityPolicy.RELIABLE
            if self._choice("reliability", "reliable", "best_effort") == "reliable"
            else ReliabilityPolicy.BEST_EFFORT
        )
        images = QoSProfile(depth=5, reliability=reliability)
        many = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        topic = self.resolve_topic_name("image")
        self._images = (
            self.create_publisher(CompressedImage, f"{topic}/compressed", images)
            if self._compressed
            else self.create_publisher(Image, topic, images)
        )
        history = QoSProfile(depth=10_000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._truths = self.create_publisher(Detection2D, "ground_truth", history)
        self._finished = self.create_publisher(UInt32, "finished", latched)
        self._infos = self.create_publisher(CameraInfo, "camera_info", 5)
        self._targets = self.create_publisher(Detection2D, "target", 1)
        self.create_subscription(Detection2D, "detection", self._on_detection, many)
        self.create_subscription(Bool, "recording", self._on_recording, latched)
        self._recording = False

    def run(self) -> None:
        """Publish the source.

        Raises:
            GivenUp: if nobody subscribes, no detections come back, or the parameters do not fit.
            SourceError: if the source cannot be read.
        """
        source = self._source()
        lockstep, select = bool(self._value("lockstep")), bool(self._value("select_first"))
        if lockstep and source.live:
            raise GivenUp(f"{source.name} cannot wait: lockstep is for files and made-up scenes")
        views = self._views(source)
        first = next(views, None)
        if first is None:
            raise GivenUp(f"{source.name} has no pictures")
        if select and first.box is None:
            raise GivenUp(
                f"select_first needs the first picture's box, and {source.name} has none; put it "
                "into NAME.txt beside the clip (x,y,w,h a line)"
            )
        rate = float(self._value("rate")) or source.rate or DEFAULT_RATE
        pace = "as fast as acknowledged" if lockstep else f"{rate:g} Hz"
        self.get_logger().info(f"{source.name}: {pace}, {self._images.topic_name}")
        self._wait_for_subscribers(select)
        if lockstep or select:
            self._offer(first, select)
        else:
            self._publish(first, truth=True)
        begin = time.monotonic()
        # A camera sets the pace itself.
        step = 0.0 if source.live else 1.0 / rate
        silent = 0
        for number, view in enumerate(views, start=1):
            if not lockstep:
                self._spin(until=begin + number * step)
                self.late += time.monotonic() > begin + (number + 1) * step if step else 0
            stamp = self._publish(view, truth=True)
            if lockstep:
                timeout = float(self._value("ack_timeout"))
                answered = self._wait(partial(self._is_answered, stamp), timeout)
                silent = 0 if answered else silent + 1
                self.unanswered += not answered
                if not answered:
                    self.get_logger().warning(f"no detection for picture {view.index} came back")
                if silent >= UNANSWERED_LIMIT:
                    raise GivenUp(f"no detections come back ({silent} pictures in a row)")
        self._finish(source)

    def _finish(self, source: Source) -> None:
        self._finished.publish(UInt32(data=self.published))
        self.get_logger().info(
            f"finished {source.name}: {self.published} frames published, {self.repeats} repeats of "
            f"the first, {self.unanswered} unanswered, {self.late} late"
        )
        # What was sent last must be out before the process ends.
        for publisher in (self._finished, self._truths):
            publisher.wait_for_all_acked(Duration(seconds=2))
        self._spin(until=time.monotonic() + 0.3)

    # --- parameters ---------------------------------------------------------------------------

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _choice(self, name: str, *allowed: str) -> str:
        value = str(self._value(name))
        if value not in allowed:
            raise GivenUp(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        return value

    def _source(self) -> Source:
        name = str(self._value("source"))
        if name:
            return open_source(name)
        absent = list(self._value("scene.absent"))
        return SyntheticScene(
            width=self._value("scene.width"),
            height=self._value("scene.height"),
            frames=self._value("scene.frames"),
            rate=float(self._value("rate")) or DEFAULT_RATE,
            seed=self._value("scene.seed"),
            absent=(absent[0], absent[1]),
        )

    def _views(self, source: Source) -> Iterator[View]:
        loop = bool(self._value("loop")) and not source.live
        rounds = itertools.count() if loop else range(1)
        views = itertools.chain.from_iterable(source.views() for _ in rounds)
        return itertools.islice(views, self._value("frames") or None)

    # --- going out ----------------------------------------------------------------------------

    def _publish(self, view: View, truth: bool) -> int:
        """Publish a picture and what goes with it; return its stamp, nanoseconds."""
        header = Header(frame_id=str(self._value("frame_id")))
        header.stamp = self.get_clock().now().to_msg()
        if self._compressed:
            message = CompressedImage(header=header, format="jpeg")
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(self._value("jpeg_quality"))]
            message.data = to_bytes(np.asarray(cv2.imencode(".jpg", view.pixels, quality)[1]))
        else:
            message = to_image(header, view.pixels)
        fov = float(self._value("horizontal_fov"))
        if fov > 0:
            self._infos.publish(_pinhole(header, view.pixels.shape[1], view.pixels.shape[0], fov))
        self._images.publish(message)
        if truth:
            self._publish_truth(view, header)
        self.published += 1
        return to_nanoseconds(header.stamp)

    def _publish_truth(self, view: View, header: Header) -> None:
        message = to_detection(header, str(view.index), str(self._value("label")), view.box, 1.0)
        if not view.known:
            message.bbox.center.position.x = message.bbox.center.position.y = math.nan
            message.bbox.size_x = message.bbox.size_y = math.nan
        self._truths.publish(message)

    def _offer(self, first: View, select: bool) -> None:
        """Send the first picture until it is followed, see the module's text."""
        deadline = time.monotonic() + float(self._value("start_timeout"))
        for offer in itertools.count(1):
            name = None
            stamp = self._publish(first, truth=False)
            self.published = 1
            header = Header(frame_id=str(self._value("frame_id")))
            header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
            if select:
                name = f"{self._value('label')}-{offer}"
                label = str(self._value("label"))
                self._targets.publish(to_detection(header, name, label, first.box, 1.0))
            period = float(self._value("offer_period"))
            if self._wait(partial(self._is_answered, stamp, name), period):
                self._publish_truth(first, header)
                return
            self.repeats += 1
            if time.monotonic() > deadline:
                raise GivenUp(
                    f"no detection for the first picture came back within "
                    f"{self._value('start_timeout'):g} s: is the tracker active and a target set?"
                )

    # --- waiting ------------------------------------------------------------------------------

    def _wait_for_subscribers(self, select: bool) -> None:
        wanted = int(self._value("wait_for_subscribers"))

        def ready() -> bool:
            if self._images.get_subscription_count() < wanted:
                return False
            if self._value("wait_for_recorder") and not self._recording:
                return False
            return not select or self._targets.get_subscription_count() > 0

        if not ready():
            self.get_logger().info("waiting for subscribers")
        if not self._wait(ready, float(self._value("start_timeout"))):
            if self._images.get_subscription_count() < wanted:
                raise GivenUp(f"nobody subscribed to {self._images.topic_name}")
            raise GivenUp("no subscriber to `target`, or no recorder that hears the tracker")
        if wanted > 0:
            # A subscriber may change its reliability to that of the publisher it just found.
            self._spin(until=time.monotonic() + SETTLING)

    def _wait(self, done: Callable[[], bool], timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._spinner.spin_once(timeout_sec=min(left, 0.05))
        return True

    def _spin(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            self._spinner.spin_once(timeout_sec=left)

    def _on_recording(self, message: Bool) -> None:
        self._recording = bool(message.data)

    def _on_detection(self, message: Detection2D) -> None:
        self._answers.setdefault(to_nanoseconds(message.header.stamp), set()).add(message.id)

    def _is_answered(self, stamp: int, name: str | None = None) -> bool:
        ids = self._answers.get(stamp, set())
        return bool(ids) if name is None else name in ids


def _pinhole(header: Header, width: int, height: int, fov: float) -> CameraInfo:
    """Return camera_info of a camera without distortion, its centre in the picture's middle."""
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    info = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def main(args: Sequence[str] | None = None) -> int:
    """Publish the source; returns 0 at its end or when interrupted, 1 if that cannot be."""
    status = 0
    with interrupted_once():
        rclpy.init(args=args)
        node = None
        try:
            node = VideoPublisher()
            node.run()
        except (GivenUp, SourceError, ValueError) as error:
            logger = (
                rclpy.logging.get_logger("video_publisher") if node is None else node.get_logger()
            )
            logger.error(str(error))
            status = 1
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
