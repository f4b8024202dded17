"""Pictures for operators to click on: ``~/cloud`` for RViz, ``~/picture`` for rqt_image_view."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Transform
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from tf2_ros import Buffer, TransformException, TransformListener
from visualization_msgs.msg import MarkerArray

from siam_tracker_ros.geometry import Box, Picture
from siam_tracker_ros.geometry.pictures import UInt8Array
from siam_tracker_ros.nodes.camera_rays import CameraInfoError, camera_from_info
from siam_tracker_ros.nodes.frames import stamp_text, to_nanoseconds
from siam_tracker_ros.nodes.messages import to_image
from siam_tracker_ros.nodes.picking import PickError, Pixel
from siam_tracker_ros.nodes.picture_cloud import Colour, PictureCloud
from siam_tracker_ros.nodes.selector_messages import to_lines, to_point_cloud

CORNER_COLOUR: Colour = (255, 220, 0)

Boxes = Sequence[tuple[Box, Colour]]


@dataclass(frozen=True, eq=False)
class Shown:
    """An image that a selection can be made on.

    Attributes:
        header: the image's own.
        picture: its pixels.
        cloud: where its pixels are on ``~/cloud``; None where it is not on it.
        frame_id: of the cloud.
    """

    header: Header
    picture: Picture
    cloud: PictureCloud | None = None
    frame_id: str = ""

    @property
    def stamp(self) -> int:
        """The image's stamp, nanoseconds."""
        return to_nanoseconds(self.header.stamp)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return (self.picture.width, self.picture.height)


class PictureDisplay:
    """Publishes pictures with what is drawn on them while somebody looks.

    Not thread-safe, except :meth:`transform`: the owner holds a lock.

    Args:
        node: in whose name.
        point_size: distance of the cloud's points, metres.
        rectified: whether the images are.

    Attributes:
        shown: the picture that stands on the displays; None before the first.
        problem: why there is no cloud although somebody wants one; empty if there is.
    """

    def __init__(self, node: Node, point_size: float, rectified: bool) -> None:
        self.shown: Shown | None = None
        self.problem = ""
        self._node = node
        self._point_size = point_size
        self._rectified = rectified
        self._info: CameraInfo | None = None
        self._cloud: tuple[Any, PictureCloud] | None = None
        self._lines = 0
        self._buffer: Buffer | None = None
        self._listener: TransformListener | None = None
        self._found: tuple[Shown, str, Transform] | None = None
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._clouds = node.create_publisher(PointCloud2, "~/cloud", newest)
        self._pictures = node.create_publisher(Image, "~/picture", newest)
        self._previews = node.create_publisher(MarkerArray, "~/preview", latched)
        node.create_subscription(
            CameraInfo,
            "camera_info",
            self._on_camera_info,
            qos_profile_sensor_data,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )

    def has_viewers(self) -> bool:
        """Tell whether somebody looks."""
        viewers = self._clouds.get_subscription_count() + self._pictures.get_subscription_count()
        return bool(viewers > 0)

    def show(self, header: Header, picture: Picture, optical_frame: str = "") -> None:
        """Make an image the one that stands on the displays; :meth:`draw` publishes it."""
        cloud, frame_id = None, ""
        if self._clouds.get_subscription_count():
            try:
                cloud, frame_id = self._placed(header, picture, optical_frame)
                self.problem = ""
            except CameraInfoError as error:
                self.problem = str(error)
        self.shown = Shown(header, picture, cloud, frame_id)

    def draw(self, boxes: Boxes, corner: Pixel | None) -> None:
        """Publish what is shown, with boxes and a cross through a corner (image pixels).

        Raises:
            ImageError: if the picture cannot be read.
        """
        shown = self.shown
        if shown is None:
            return
        if shown.cloud is not None:
            self._draw_cloud(shown, shown.cloud, boxes, corner)
        if self._pictures.get_subscription_count():
            self._pictures.publish(to_image(shown.header, drawn(shown.picture, boxes, corner)))

    def forget(self) -> None:
        """Show nothing any more."""
        self.shown = None

    def transform(self, shown: Shown, frame_id: str, patience: float) -> Transform:
        """Return the transform from a frame to the cloud's at the shown image's stamp.

        Args:
            shown: the image.
            frame_id: of what is to be transformed.
            patience: seconds to wait for it.

        Raises:
            PickError: if there is none in time.
        """
        assert self._buffer is not None
        known = self._found
        # tf2 forgets in ten seconds; the second corner may take longer.
        if known is not None and known[0] is shown and known[1] == frame_id:
            return known[2]
        when = Time(nanoseconds=shown.stamp, clock_type=ClockType.ROS_TIME)
        end = time.monotonic() + patience
        while True:
            try:
                found = self._buffer.lookup_transform(shown.frame_id, frame_id, when).transform
                self._found = (shown, frame_id, found)
                return found
            except TransformException as error:
                if time.monotonic() >= end or not self._node.context.ok():
                    raise PickError(
                        f"the click is in frame {frame_id!r}, the picture in {shown.frame_id!r}, "
                        f"and at {stamp_text(shown.stamp)} nothing leads from one to the other: "
                        f"{error}"
                    ) from error
            time.sleep(0.02)

    def _placed(
        self, header: Header, picture: Picture, optical_frame: str
    ) -> tuple[PictureCloud, str]:
        """Return where the image's points are, and in which frame."""
        info = self._info
        if info is None:
            topic = self._node.resolve_topic_name("camera_info")
            raise CameraInfoError(f"no CameraInfo has been received on {topic}")
        frame_id = optical_frame or header.frame_id or info.header.frame_id
        if not frame_id:
            raise CameraInfoError(
                "neither image nor camera_info has a frame_id: set the parameter optical_frame"
            )
        size = (picture.width, picture.height)
        key = (
            size,
            tuple(info.k),
            tuple(info.p),
            tuple(info.d),
            info.distortion_model,
            (info.width, info.height, info.binning_x, info.binning_y),
            (info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height),
        )
        if self._cloud is None or self._cloud[0] != key:
            rays = camera_from_info(info, size, rectified=self._rectified)
            cloud = PictureCloud(rays, self._point_size)
            self._cloud = (key, cloud)
            if not cloud.complete:
                self._node.get_logger().warning(
                    "what is more than 65 degrees off the axis is not shown in RViz"
                )
        if self._buffer is None:
            # From now on transforms are remembered; before, nobody could click.
            self._buffer = Buffer()
            self._listener = TransformListener(self._buffer, self._node)
        return self._cloud[1], frame_id

    def _draw_cloud(
        self, shown: Shown, cloud: PictureCloud, boxes: Boxes, corner: Pixel | None
    ) -> None:
        points = cloud.points(shown.picture)
        for box, colour in boxes:
            cloud.draw_box(points, box, colour)
        if corner is not None:
            cloud.draw_cross(points, corner, CORNER_COLOUR)
        header = Header(stamp=shown.header.stamp, frame_id=shown.frame_id)
        self._clouds.publish(to_point_cloud(header, points))
        lines = [(cloud.outline(box), colour) for box, colour in boxes]
        if corner is not None:
            (x, y), arm = corner, 6 * cloud.pixels_per_point
            bars = (Box(x, y, 2 * arm, 0.0), Box(x, y, 0.0, 2 * arm))
            lines += [(cloud.outline(bar), CORNER_COLOUR) for bar in bars]
        if lines or self._lines:
            self._previews.publish(to_lines(header, lines, cloud.point_size))
        self._lines = len(lines)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info = message


def drawn(picture: Picture, boxes: Boxes, corner: Pixel | None) -> UInt8Array:
    """Return ``uint8 [H,W,3]`` BGR of a picture with boxes and a cross through a corner.

    Raises:
        ImageError: if the picture cannot be read.
    """
    rgb = picture.rgb_region(0, 0, picture.width, picture.height)
    canvas = np.array(rgb[..., ::-1], dtype=np.uint8, order="C")
    thick = max(1, round(picture.height / 360))
    for box, (r, g, b) in boxes:
        x1, y1, x2, y2 = (round(v) for v in box.edges)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (b, g, r), thick)
    if corner is not None:
        x, y = round(corner[0]), round(corner[1])
        r, g, b = CORNER_COLOUR
        cv2.line(canvas, (x, 0), (x, picture.height), (b, g, r), 1)
        cv2.line(canvas, (0, y), (picture.width, y), (b, g, r), 1)
    return canvas
