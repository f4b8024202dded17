"""``target_selector_node``: makes a selection for the tracker out of what an operator points at.

Subscribed (relative names):

* ``image`` (sensor_msgs/Image, or ``image/compressed`` with ``image_transport: compressed``) and
  ``camera_info`` (sensor_msgs/CameraInfo; only what is shown in RViz needs it);
* ``clicked_point`` (geometry_msgs/PointStamped): RViz's Publish Point on ``~/cloud``, twice;
* ``<image>_mouse_left`` and ``~/picture_mouse_left`` (geometry_msgs/Point): rqt_image_view's clicks
  on the camera's images and on ``~/picture``, twice;
* ``polygon`` (geometry_msgs/PolygonStamped) and ``roi`` (sensor_msgs/RegionOfInterest), pixels;
* ``candidates`` (vision_msgs/Detection2DArray): with them, one click inside a box selects it.

Published:

* ``target`` (vision_msgs/Detection2D): the selection, with the header of the image it was made on;
* ``~/cloud`` (sensor_msgs/PointCloud2): the newest picture on the image plane, only while somebody
  listens, and ``~/picture`` (sensor_msgs/Image), the same picture with what is drawn;
* ``~/preview`` (visualization_msgs/MarkerArray): corner, box and candidates;
* ``~/status`` (diagnostic_msgs/DiagnosticStatus, latched): keys ``state`` (waiting, live, corner or
  selected), ``verdict``, ``source``, ``stamp``, ``box``.

Service ``~/cancel`` (std_srvs/Trigger) forgets the first corner.

Between the first click and the second the picture stands still; the box belongs to that image.
What cannot be is said on ``~/status`` and in the log, and nothing is published.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped, PolygonStamped
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import (
    CameraInfo,
    CompressedImage,
    Image,
    PointCloud2,
    RegionOfInterest,
)
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_ros import Buffer, TransformException, TransformListener
from vision_msgs.msg import Detection2D, Detection2DArray
from visualization_msgs.msg import MarkerArray

from siam_tracker_ros.geometry import Box, Picture
from siam_tracker_ros.nodes.camera_rays import CameraInfoError, camera_from_info
from siam_tracker_ros.nodes.errors import ImageError
from siam_tracker_ros.nodes.frames import SECOND, stamp_text, to_nanoseconds
from siam_tracker_ros.nodes.image_messages import picture_from_compressed, picture_from_image
from siam_tracker_ros.nodes.image_reader import ImageReader
from siam_tracker_ros.nodes.messages import to_detection, to_diagnostic_status, to_image
from siam_tracker_ros.nodes.picking import (
    Candidate,
    Corner,
    PickError,
    Pixel,
    box_of_corners,
    box_of_pixels,
    box_of_polygon,
    box_of_region,
    candidate_at,
    check_box,
    check_pixel,
    read_candidates,
    transformed,
)
from siam_tracker_ros.nodes.picture_cloud import ClickError, Colour, PictureCloud
from siam_tracker_ros.nodes.selector_messages import to_lines, to_point_cloud
from siam_tracker_ros.nodes.spinning import interrupted_once, spin
from siam_tracker_ros.nodes.status import OK, WARN

PARAMETERS: dict[str, tuple[Any, str]] = {
    "image_transport": ("raw", "raw or compressed."),
    "image_reliability": ("auto", "auto (the publisher's), reliable or best_effort."),
    "rectified": (
        "auto",
        "Whether the images are rectified: true, false, or auto (true where the topic says rect).",
    ),
    "optical_frame": ("", "Frame of ~/cloud; empty = the image's."),
    "rate": (10.0, "Pictures a second on ~/cloud and ~/picture, at most; above 0, up to 10."),
    "point_size": (
        0.1,
        "Metres from one point of ~/cloud to the next, 0.01 at least: the size of RViz's squares.",
    ),
    "click_timeout": (20.0, "Seconds after which the first click is forgotten."),
    "preview_seconds": (1.0, "Seconds for which the picture with the new box stands still."),
    "transform_timeout": (0.5, "Seconds to wait for the transform of a click."),
    "candidate_tolerance": (0.3, "Seconds between the picture clicked on and the boxes of it."),
    "several_clickers": (
        False,
        "Accept clicks although several tools publish them: whose corners belong together then "
        "is for the operators to see to.",
    ),
    "label": ("target", "What the selection says the target is."),
}

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

WHITE: Colour = (255, 255, 255)
YELLOW: Colour = (255, 220, 0)
GREEN: Colour = (80, 220, 80)


@dataclass(frozen=True, eq=False)
class Shown:
    """An image that a selection can be made on.

    Attributes:
        header: the image's own.
        picture: its pixels.
        cloud: where its pixels are on ``~/cloud``; None where that cannot be said.
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


class TargetSelector(Node):
    """The node.

    Raises:
        ValueError: if a parameter cannot be.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("target_selector", **options)
        for name, (default, text) in PARAMETERS.items():
            self.declare_parameter(name, default, ParameterDescriptor(description=text))
        compressed = self._choice("image_transport", "raw", "compressed") == "compressed"
        reliability = self._choice("image_reliability", "auto", "reliable", "best_effort")
        self._period = 1.0 / self._number("rate", above=0.0, up_to=10.0)
        self._point_size = self._number("point_size", at_least=0.01)
        self._click_timeout = self._number("click_timeout", above=0.0)
        self._hold = self._number("preview_seconds", at_least=0.0)
        self._patience = self._number("transform_timeout", at_least=0.0)
        self._tolerance = round(SECOND * self._number("candidate_tolerance", at_least=0.0))
        base = self.resolve_topic_name("image")
        rectified = self._choice("rectified", "auto", "true", "false")
        named = re.search("(^|[/_])rect", base) is not None
        self._rectified = named if rectified == "auto" else rectified == "true"

        self._lock = threading.RLock()
        self._newest: Shown | None = None
        self._shown: Shown | None = None
        self._info: CameraInfo | None = None
        self._cloud: tuple[Any, PictureCloud] | None = None
        self._candidates: deque[tuple[Header, list[Candidate]]] = deque(maxlen=50)
        self._corner: Corner | None = None
        self._box: Box | None = None
        self._lines = 0
        self._last_shown = 0.0
        self._thaw_at = 0.0
        self._problem = ""
        self._said: set[str] = set()
        self._state = {"state": "waiting", "verdict": "", "source": "", "stamp": "", "box": ""}
        self._word, self._level = f"no image has been received on {base}", WARN
        self._buffer: Buffer | None = None
        self._listener: TransformListener | None = None

        self._targets = self.create_publisher(
            Detection2D, "target", QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        )
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._clouds = self.create_publisher(PointCloud2, "~/cloud", newest)
        self._pictures = self.create_publisher(Image, "~/picture", newest)
        self._previews = self.create_publisher(MarkerArray, "~/preview", LATCHED)
        self._statuses = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)

        operator = MutuallyExclusiveCallbackGroup()  # what is pointed at, one after the other

        def listen(kind: type, topic: str, callback: Any, qos: Any = RELIABLE) -> None:
            self.create_subscription(kind, topic, callback, qos, callback_group=operator)

        self._click_topic = self.resolve_topic_name("clicked_point")
        self._mouse_topic = f"{base}_mouse_left"
        self._picture_mouse = f"{self.resolve_topic_name('~/picture')}_mouse_left"
        listen(PointStamped, "clicked_point", self._on_click)
        listen(Point, self._mouse_topic, self._on_mouse)
        listen(Point, self._picture_mouse, self._on_picture_mouse)
        listen(PolygonStamped, "polygon", self._on_polygon)
        listen(RegionOfInterest, "roi", self._on_region)
        self.create_service(Trigger, "~/cancel", self._on_cancel, callback_group=operator)
        self.create_subscription(
            Detection2DArray,
            "candidates",
            self._on_candidates,
            qos_profile_sensor_data,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self.create_subscription(
            CameraInfo,
            "camera_info",
            self._on_camera_info,
            qos_profile_sensor_data,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self.create_timer(
            0.05,
            self._on_timer,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        topic = f"{base}/compressed" if compressed and not base.endswith("/compressed") else base
        self._reader = ImageReader(
            self,
            CompressedImage if compressed else Image,
            topic,
            reliability,
            self._on_image,
            publishers_changed=lambda: None,
            lost=lambda count: None,
        )
        self._publish_status()
        self.get_logger().info(f"ready: select in RViz on {self._clouds.topic_name}")

    def close(self) -> None:
        """Read no more images."""
        self._reader.close()

    # --- images -------------------------------------------------------------------------------

    def _on_image(self, message: Any, sequence: int | None) -> None:
        try:
            if isinstance(message, CompressedImage):
                picture = picture_from_compressed(message)
            else:
                picture = picture_from_image(message)
        except ImageError as error:
            self._say_once(f"an image cannot be used: {error}")
            return
        with self._lock:
            before = self._newest
            new = Shown(message.header, picture)
            if new.stamp == 0:
                self._say_once("the images have stamps of zero: a selection means the newest image")
            elif before is not None and new.stamp < before.stamp:
                self._forget("the images' stamps jumped back", shown_too=True)
            elif before is not None and new.size != before.size:
                self._forget("the images have another size now", shown_too=True)
            self._newest = new
            if self._word_is_about_waiting():
                self._tell("live", OK, "live")
            now = time.monotonic()
            if self._frozen(now) or now - self._last_shown < 0.9 * self._period:
                return
            if self._listeners() == 0:
                return
            self._last_shown = now
            self._show(new)

    def _listeners(self) -> int:
        return int(self._clouds.get_subscription_count() + self._pictures.get_subscription_count())

    def _show(self, new: Shown) -> None:
        """Publish an image on ``~/cloud`` and ``~/picture`` (with the lock held)."""
        cloud, frame_id = None, ""
        if self._clouds.get_subscription_count():
            try:
                cloud, frame_id = self._placed(new)
                self._problem = ""
            except CameraInfoError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    self._tell("waiting", WARN, f"nothing can be shown in RViz: {error}")
        self._shown = Shown(new.header, new.picture, cloud, frame_id)
        self._draw()

    def _placed(self, new: Shown) -> tuple[PictureCloud, str]:
        """Return where the image's points are, and in which frame."""
        info = self._info
        if info is None:
            topic = self.resolve_topic_name("camera_info")
            raise CameraInfoError(f"no CameraInfo has been received on {topic}")
        frame_id = (
            str(self.get_parameter("optical_frame").value)
            or new.header.frame_id
            or info.header.frame_id
        )
        if not frame_id:
            raise CameraInfoError(
                "neither image nor camera_info has a frame_id: set the parameter optical_frame"
            )
        key = (
            new.size,
            tuple(info.k),
            tuple(info.p),
            tuple(info.d),
            info.distortion_model,
            (info.width, info.height, info.binning_x, info.binning_y),
            (info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height),
        )
        # NaN is unequal to itself: such a key never fits, and is refused again.
        if self._cloud is None or self._cloud[0] != key:
            rays = camera_from_info(info, new.size, rectified=self._rectified)
            cloud = PictureCloud(rays, self._point_size)
            self._cloud = (key, cloud)
            if not cloud.complete:
                self._say_once("what is more than 65 degrees off the axis is not shown in RViz")
        if self._buffer is None:
            # From now on transforms are remembered; before, nobody could click.
            self._buffer = Buffer()
            self._listener = TransformListener(self._buffer, self)
        return self._cloud[1], frame_id

    def _draw(self) -> None:
        """Publish the shown image with all that belongs on it (with the lock held)."""
        shown = self._shown
        if shown is None:
            return
        candidates = [(c.box, WHITE) for c in self._candidates_of(shown)[1]]
        boxes = [*candidates, *([(self._box, GREEN)] if self._box else [])]
        corner = self._corner.pixel if self._corner else None
        try:
            if shown.cloud is not None:
                self._draw_cloud(shown, shown.cloud, boxes, corner)
            if self._pictures.get_subscription_count():
                self._pictures.publish(to_image(shown.header, drawn(shown.picture, boxes, corner)))
        except ImageError as error:
            self._say_once(f"an image cannot be used: {error}")

    def _draw_cloud(
        self,
        shown: Shown,
        cloud: PictureCloud,
        boxes: Sequence[tuple[Box, Colour]],
        corner: Pixel | None,
    ) -> None:
        points = cloud.points(shown.picture)
        for box, colour in boxes:
            cloud.draw_box(points, box, colour)
        if corner is not None:
            cloud.draw_cross(points, corner, YELLOW)
        header = Header(stamp=shown.header.stamp, frame_id=shown.frame_id)
        self._clouds.publish(to_point_cloud(header, points))
        lines = [(cloud.outline(box), colour) for box, colour in boxes]
        if corner is not None:
            (x, y), arm = corner, 6 * cloud.pixels_per_point
            bars = (Box(x, y, 2 * arm, 0.0), Box(x, y, 0.0, 2 * arm))
            lines += [(cloud.outline(bar), YELLOW) for bar in bars]
        if lines or self._lines:
            self._previews.publish(to_lines(header, lines, cloud.point_size))
        self._lines = len(lines)

    def _on_camera_info(self, message: CameraInfo) -> None:
        with self._lock:
            self._info = message

    def _on_candidates(self, message: Detection2DArray) -> None:
        if to_nanoseconds(message.header.stamp) == 0:
            self._say_once("candidates without a stamp are ignored: they belong to no image")
            return
        with self._lock:
            self._candidates.append((message.header, read_candidates(message)))

    def _candidates_of(self, shown: Shown) -> tuple[Header, list[Candidate]]:
        """Return a detector's boxes of the image nearest to a shown one, with their header."""
        best: tuple[Header, list[Candidate]] = (shown.header, [])
        distance = self._tolerance + 1
        for header, candidates in self._candidates:
            apart = abs(to_nanoseconds(header.stamp) - shown.stamp)
            known = header.frame_id in ("", shown.header.frame_id)
            if known and apart < distance:
                best, distance = (header, candidates), apart
        return best

    # --- what is pointed at -------------------------------------------------------------------

    def _on_click(self, message: PointStamped) -> None:
        source = self._click_topic
        with self._lock:
            shown = self._shown
            newest = self._newest
        try:
            if newest is None:
                raise PickError(f"no image has been received on {self.resolve_topic_name('image')}")
            if shown is None or shown.cloud is None:
                why = self._problem or "show ~/cloud in RViz and click on that"
                raise PickError(f"no picture is shown in RViz: {why}")
            self._check_clickers(source)
            point = (message.point.x, message.point.y, message.point.z)
            frame_id = message.header.frame_id
            if not frame_id:
                raise PickError("the click has no frame_id")
            if frame_id != shown.frame_id:
                point = transformed(point, self._transform(shown, frame_id))
            pixel = shown.cloud.pixel_of(point)
            self._clicked(source, shown, pixel, whole=False)
        except (PickError, ClickError) as error:
            self._refuse(source, str(error))

    def _on_mouse(self, message: Point) -> None:
        # Those images do not stand still: the box belongs to the newest at the second click.
        self._mouse(self._mouse_topic, message, live=True)

    def _on_picture_mouse(self, message: Point) -> None:
        self._mouse(self._picture_mouse, message, live=False)

    def _mouse(self, source: str, message: Point, live: bool) -> None:
        with self._lock:
            shown = self._newest if live else self._shown
        try:
            if shown is None:
                raise PickError(
                    f"no image has been received on {self.resolve_topic_name('image')}"
                    if live or self._newest is None
                    else "no picture is shown"
                )
            self._check_clickers(source)
            check_pixel((message.x, message.y), shown.size)
            self._clicked(source, shown, (message.x, message.y), whole=True)
        except PickError as error:
            self._refuse(source, str(error))

    def _on_polygon(self, message: PolygonStamped) -> None:
        source = self.resolve_topic_name("polygon")
        try:
            shown = self._for_a_box(message.header.frame_id)
            box = box_of_polygon(message.polygon.points)
            check_box(box, shown.size)
            header = Header(stamp=message.header.stamp, frame_id=shown.header.frame_id)
            if to_nanoseconds(header.stamp) == 0:
                header = shown.header
            self._select(source, header, box)
        except PickError as error:
            self._refuse(source, str(error))

    def _on_region(self, message: RegionOfInterest) -> None:
        source = self.resolve_topic_name("roi")
        try:
            shown = self._for_a_box("")
            box = box_of_region(message)
            check_box(box, shown.size)
            self._select(source, shown.header, box)
        except PickError as error:
            self._refuse(source, str(error))

    def _for_a_box(self, frame_id: str) -> Shown:
        """Return the newest image, for a box that comes whole."""
        with self._lock:
            newest, corner = self._newest, self._corner
        if newest is None:
            raise PickError(f"no image has been received on {self.resolve_topic_name('image')}")
        if corner is not None:
            raise PickError(self._busy(corner))
        if frame_id not in ("", newest.header.frame_id):
            raise PickError(
                f"it is in frame {frame_id!r}, the images are in {newest.header.frame_id!r}"
            )
        return newest

    def _clicked(self, source: str, shown: Shown, pixel: Pixel, whole: bool) -> None:
        """Take a click on an image: a candidate, the first corner or the second."""
        with self._lock:
            corner = self._corner
            if corner is not None and corner.source != source:
                raise PickError(self._busy(corner))
            if corner is None:
                header, candidates = self._candidates_of(shown)
                picked = candidate_at(candidates, pixel)
                if picked is not None:
                    check_box(picked.box, shown.size)
                    self._select(source, header, picked.box, picked.label, picked.id)
                    return
                self._corner = Corner(pixel, source, time.monotonic())
                self._box = None
                self._draw()
                self._tell(
                    "corner",
                    OK,
                    f"first corner at ({pixel[0]:.1f}, {pixel[1]:.1f}): click the opposite corner",
                    source=source,
                    stamp=stamp_text(shown.stamp),
                    box="",
                )
                return
            self._corner = None
            try:
                box = (box_of_pixels if whole else box_of_corners)(corner.pixel, pixel)
                check_box(box, shown.size)
                self._select(source, shown.header, box)
            except PickError:
                self._draw()
                raise

    def _busy(self, corner: Corner) -> str:
        left = self._click_timeout - (time.monotonic() - corner.since)
        return (
            f"somebody is drawing a box on {corner.source}: wait {max(left, 0.0):.0f} s, "
            f"or call {self.resolve_service_name('~/cancel')}"
        )

    def _check_clickers(self, source: str) -> None:
        """Check that all clicks on a topic come from one tool.

        Raises:
            PickError: if two corners may be two operators'.
        """
        if self.get_parameter("several_clickers").value:
            return
        infos = self.get_publishers_info_by_topic(source)
        if len(infos) > 1:
            names = ", ".join(sorted(node_names(infos)))
            raise PickError(
                f"{len(infos)} tools publish on {source} ({names}): whose corners belong together "
                "cannot be told. Close one, or set several_clickers"
            )

    def _check_selectors(self) -> None:
        """Check that no other selector makes selections of the same clicks.

        Raises:
            PickError: if one does.
        """
        selecting = node_names(self.get_publishers_info_by_topic(self._targets.topic_name))
        hearing = node_names(self.get_subscriptions_info_by_topic(self._click_topic))
        mine = self.get_fully_qualified_name()
        for list_ in (selecting, hearing):
            if mine in list_:
                list_.remove(mine)
        both = sorted(set(selecting) & set(hearing))
        if both:
            raise PickError(
                f"another selector hears the same clicks and publishes on "
                f"{self._targets.topic_name} too: {', '.join(both)}. Stop one of the two"
            )

    def _transform(self, shown: Shown, frame_id: str) -> Any:
        """Return the transform from a click's frame to the cloud's when the image was taken.

        Raises:
            PickError: if there is none in time.
        """
        assert self._buffer is not None
        when = Time(nanoseconds=shown.stamp, clock_type=ClockType.ROS_TIME)
        end = time.monotonic() + self._patience
        while True:
            try:
                found = self._buffer.lookup_transform(shown.frame_id, frame_id, when)
                return found.transform
            except TransformException as error:
                if time.monotonic() >= end or not self.context.ok():
                    raise PickError(
                        f"the click is in frame {frame_id!r}, the picture in {shown.frame_id!r}, and "
                        f"at {stamp_text(shown.stamp)} nothing leads from one to the other: {error}"
                    ) from error
            time.sleep(0.02)

    def _select(self, source: str, header: Header, box: Box, label: str = "", id: str = "") -> None:
        """Publish a selection."""
        self._check_selectors()
        label = label or str(self.get_parameter("label").value)
        self._targets.publish(to_detection(header, id, label, box, 1.0))
        with self._lock:
            self._box = box
            self._thaw_at = time.monotonic() + self._hold
            x, y, w, h = box.xywh
            text = f"{x:.1f},{y:.1f},{w:.1f},{h:.1f}"
            stamp = stamp_text(to_nanoseconds(header.stamp))
            self._draw()
            self._tell(
                "selected",
                OK,
                f"selected {label} {text} on the image of {stamp}",
                source=source,
                stamp=stamp,
                box=text,
                verdict="published",
            )

    def _on_cancel(self, request: Any, response: Any) -> Any:
        with self._lock:
            response.success = True
            response.message = "forgotten" if self._corner else "there was no corner"
            if self._corner:
                self._forget("the first corner was cancelled")
        return response

    # --- what is said -------------------------------------------------------------------------

    def _on_timer(self) -> None:
        with self._lock:
            now = time.monotonic()
            corner = self._corner
            if corner is not None and now - corner.since > self._click_timeout:
                self._forget(f"no second click within {self._click_timeout:g} s: forgotten")
            if self._box is not None and self._corner is None and now > self._thaw_at:
                self._box = None
                if self._state["state"] == "selected":
                    self._state["state"] = "live"
                    self._publish_status()

    def _frozen(self, now: float) -> bool:
        corner = self._corner
        still = corner is not None and corner.source != self._mouse_topic
        return still or (self._box is not None and now < self._thaw_at)

    def _forget(self, why: str, shown_too: bool = False) -> None:
        """Forget what was begun (with the lock held)."""
        begun = self._corner is not None
        self._corner, self._box = None, None
        if shown_too:
            self._shown = None
            self._candidates.clear()
        if begun:
            self._draw()
            self._tell("live", WARN, why, verdict=f"refused: {why}", box="")
        else:
            self._say_once(why)

    def _refuse(self, source: str, why: str) -> None:
        with self._lock:
            state = "corner" if self._corner is not None else self._state["state"]
            if state == "selected" or (state == "corner" and self._corner is None):
                state = "live"
            self._tell(
                state,
                WARN,
                f"nothing selected: {why}",
                source=source,
                verdict=f"refused: {why}",
                box="",
            )

    def _word_is_about_waiting(self) -> bool:
        return self._state["state"] == "waiting" and not self._problem

    def _tell(self, state: str, level: int, word: str, **changes: str) -> None:
        """Log and publish what is the case now."""
        with self._lock:
            self._state = {**self._state, "state": state, **changes}
            self._word, self._level = word, level
            log = self.get_logger()
            if level == OK:
                log.info(word)
            else:
                log.warning(word)
            self._publish_status()

    def _say_once(self, word: str) -> None:
        if word not in self._said:
            self._said.add(word)
            self.get_logger().warning(word)

    def _publish_status(self) -> None:
        if not self.context.ok():
            return
        name = self.get_fully_qualified_name().lstrip("/")
        self._statuses.publish(to_diagnostic_status(self._level, name, self._word, "", self._state))

    # --- parameters ---------------------------------------------------------------------------

    def _choice(self, name: str, *allowed: str) -> str:
        value = self.get_parameter(name).value
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if text not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}, got {text!r}")
        return text

    def _number(
        self,
        name: str,
        above: float = float("-inf"),
        at_least: float = float("-inf"),
        up_to: float = float("inf"),
    ) -> float:
        value = float(self.get_parameter(name).value)
        if not (above < value <= up_to and value >= at_least):
            limits = [
                text
                for text, limit in (
                    (f"above {above:g}", above),
                    (f"at least {at_least:g}", at_least),
                    (f"at most {up_to:g}", up_to),
                )
                if abs(limit) != float("inf")
            ]
            raise ValueError(f"{name} must be {' and '.join(limits)}, got {value:g}")
        return value


def node_names(infos: Sequence[Any]) -> list[str]:
    """Return the full names of the nodes behind topic endpoints, where they are known already."""
    return [
        f"{info.node_namespace.rstrip('/')}/{info.node_name}"
        for info in infos
        if "UNKNOWN" not in info.node_name
    ]


def drawn(
    picture: Picture, boxes: Sequence[tuple[Box, Colour]], corner: Pixel | None
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return ``uint8 [H,W,3]`` BGR of a picture with boxes and a cross through a corner."""
    rgb = picture.rgb_region(0, 0, picture.width, picture.height)
    canvas = np.array(rgb[..., ::-1], dtype=np.uint8, order="C")
    thick = max(1, round(picture.height / 360))
    for box, (r, g, b) in boxes:
        x1, y1, x2, y2 = (round(v) for v in box.edges)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (b, g, r), thick)
    if corner is not None:
        x, y = round(corner[0]), round(corner[1])
        r, g, b = YELLOW
        cv2.line(canvas, (x, 0), (x, picture.height), (b, g, r), 1)
        cv2.line(canvas, (0, y), (picture.width, y), (b, g, r), 1)
    return canvas


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    with interrupted_once():
        rclpy.init(args=args)
        try:
            node = TargetSelector()
        except ValueError as error:
            print(f"target_selector_node: {error}", file=sys.stderr)
            rclpy.try_shutdown()
            return 2
        try:
            spin(node, threads=4)
        finally:
            node.close()
            node.destroy_node()
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
