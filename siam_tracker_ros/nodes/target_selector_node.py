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

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped, PolygonStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D, Detection2DArray

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.errors import ImageError
from siam_tracker_ros.nodes.frames import SECOND, stamp_text, to_nanoseconds
from siam_tracker_ros.nodes.image_messages import picture_from_compressed, picture_from_image
from siam_tracker_ros.nodes.image_reader import ImageReader
from siam_tracker_ros.nodes.messages import to_detection, to_diagnostic_status
from siam_tracker_ros.nodes.parameters import ParameterError
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
from siam_tracker_ros.nodes.picture_cloud import ClickError, Colour
from siam_tracker_ros.nodes.picture_display import PictureDisplay, Shown
from siam_tracker_ros.nodes.selector_settings import SelectorSettings
from siam_tracker_ros.nodes.settings import NodeSettings
from siam_tracker_ros.nodes.spinning import interrupted_once, spin
from siam_tracker_ros.nodes.status import OK, WARN

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

WHITE: Colour = (255, 255, 255)
GREEN: Colour = (80, 220, 80)


class TargetSelector(Node):
    """The node.

    Raises:
        ParameterError: if the parameters cannot be.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("target_selector", **options)
        self._settings = NodeSettings(self, SelectorSettings, lambda values: None)
        values = self._settings.values
        base = self.resolve_topic_name("image")

        self._lock = threading.RLock()
        self._newest: Shown | None = None
        self._candidates: deque[tuple[Header, list[Candidate]]] = deque(maxlen=50)
        self._corner: Corner | None = None
        self._box: Box | None = None
        self._last_shown = 0.0
        self._thaw_at = 0.0
        self._judging = 0
        self._unusable = ""
        self._said: set[str] = set()
        self._state = {"state": "waiting", "verdict": "", "source": "", "stamp": "", "box": ""}
        self._word, self._level = f"no image has been received on {base}", WARN

        self._targets = self.create_publisher(
            Detection2D, "target", QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        )
        self._statuses = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)

        self._display = PictureDisplay(self, values.point_size, values.image_rectified)
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
        self.create_timer(
            0.05,
            self._on_timer,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._reader: ImageReader | None = None
        self._publish_status()

    def start(self) -> None:
        """Read images until :meth:`close`."""
        values = self._settings.values
        topic = self.resolve_topic_name("image")
        compressed = values.image_transport == "compressed"
        if compressed and not topic.endswith("/compressed"):
            topic += "/compressed"
        self._reader = ImageReader(
            self,
            CompressedImage if compressed else Image,
            topic,
            values.image_reliability,
            self._on_image,
            publishers_changed=lambda: None,
            lost=lambda count: None,
        )
        self.get_logger().info(f"ready: select in RViz on {self.resolve_topic_name('~/cloud')}")

    def close(self) -> None:
        """Read no more images."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # --- images -------------------------------------------------------------------------------

    def _on_image(self, message: Any, sequence: int | None) -> None:
        try:
            if isinstance(message, CompressedImage):
                picture = picture_from_compressed(message)
            else:
                picture = picture_from_image(message)
        except ImageError as error:
            self._unusable = str(error)
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
            period = 0.9 / self._settings.values.rate
            if self._frozen(now) or now - self._last_shown < period:
                return
            if self._display.has_viewers():
                self._last_shown = now
                self._show(new)

    def _show(self, new: Shown) -> None:
        """Put an image on the displays (with the lock held)."""
        before = self._display.problem
        frame_id = self._settings.values.optical_frame
        self._display.show(new.header, new.picture, frame_id)
        problem = self._display.problem
        if problem and problem != before:
            self._tell("waiting", WARN, f"nothing can be shown in RViz: {problem}")
        self._draw()

    def _draw(self) -> None:
        """Publish the shown image with all that belongs on it (with the lock held)."""
        shown = self._display.shown
        if shown is None:
            return
        candidates = [(c.box, WHITE) for c in self._candidates_of(shown)[1]]
        boxes = [*candidates, *([(self._box, GREEN)] if self._box else [])]
        try:
            self._display.draw(boxes, self._corner.pixel if self._corner else None)
        except ImageError as error:
            self._say_once(f"an image cannot be used: {error}")

    def _on_candidates(self, message: Detection2DArray) -> None:
        if to_nanoseconds(message.header.stamp) == 0:
            self._say_once("candidates without a stamp are ignored: they belong to no image")
            return
        with self._lock:
            self._candidates.append((message.header, read_candidates(message)))

    def _candidates_of(self, shown: Shown) -> tuple[Header, list[Candidate]]:
        """Return a detector's boxes of the image nearest to a shown one, with their header."""
        best: tuple[Header, list[Candidate]] = (shown.header, [])
        distance = round(SECOND * self._settings.values.candidate_tolerance) + 1
        for header, candidates in self._candidates:
            apart = abs(to_nanoseconds(header.stamp) - shown.stamp)
            known = header.frame_id in ("", shown.header.frame_id)
            if known and apart < distance:
                best, distance = (header, candidates), apart
        return best

    # --- what is pointed at -------------------------------------------------------------------

    def _on_click(self, message: PointStamped) -> None:
        source = self._click_topic
        with self._standing_still():
            shown, newest = self._display.shown, self._newest
            try:
                if newest is None:
                    raise PickError(self._no_image())
                if shown is None or shown.cloud is None:
                    why = self._display.problem or "show ~/cloud in RViz and click on that"
                    raise PickError(f"no picture is shown in RViz: {why}")
                self._check_clickers(source)
                point = (message.point.x, message.point.y, message.point.z)
                frame_id = message.header.frame_id
                if not frame_id:
                    raise PickError("the click has no frame_id")
                if frame_id != shown.frame_id:
                    patience = self._settings.values.transform_timeout
                    point = transformed(point, self._display.transform(shown, frame_id, patience))
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
        with self._standing_still():
            shown = self._newest if live else self._display.shown
            try:
                if shown is None:
                    raise PickError(
                        self._no_image() if self._newest is None else "no picture is shown"
                    )
                self._check_clickers(source)
                check_pixel((message.x, message.y), shown.size)
                self._clicked(source, shown, (message.x, message.y), whole=True)
            except PickError as error:
                self._refuse(source, str(error))

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Let no other picture be shown while it is judged what was clicked on this one."""
        with self._lock:
            self._judging += 1
        try:
            yield
        finally:
            with self._lock:
                self._judging -= 1

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

    def _no_image(self) -> str:
        topic = self.resolve_topic_name("image")
        if self._unusable:
            return f"no image of {topic} can be used: {self._unusable}"
        return f"no image has been received on {topic}"

    def _for_a_box(self, frame_id: str) -> Shown:
        """Return the newest image, for a box that comes whole."""
        with self._lock:
            newest, corner = self._newest, self._corner
        if newest is None:
            raise PickError(self._no_image())
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
        left = self._settings.values.click_timeout - (time.monotonic() - corner.since)
        return (
            f"somebody is drawing a box on {corner.source}: wait {max(left, 0.0):.0f} s, "
            f"or call {self.resolve_service_name('~/cancel')}"
        )

    def _check_clickers(self, source: str) -> None:
        """Check that all clicks on a topic come from one tool.

        Raises:
            PickError: if two corners may be two operators'.
        """
        if self._settings.values.several_clickers:
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

    def _select(self, source: str, header: Header, box: Box, label: str = "", id: str = "") -> None:
        """Publish a selection."""
        self._check_selectors()
        label = label or self._settings.values.label
        self._targets.publish(to_detection(header, id, label, box, 1.0))
        with self._lock:
            self._box = box
            self._thaw_at = time.monotonic() + self._settings.values.preview_seconds
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
            if corner is not None and now - corner.since > self._settings.values.click_timeout:
                self._forget(
                    f"no second click within {self._settings.values.click_timeout:g} s: forgotten"
                )
            if self._box is not None and self._corner is None and now > self._thaw_at:
                self._box = None
                if self._state["state"] == "selected":
                    self._state["state"] = "live"
                    self._publish_status()

    def _frozen(self, now: float) -> bool:
        corner = self._corner
        still = corner is not None and corner.source != self._mouse_topic
        return self._judging > 0 or still or (self._box is not None and now < self._thaw_at)

    def _forget(self, why: str, shown_too: bool = False) -> None:
        """Forget what was begun (with the lock held)."""
        begun = self._corner is not None
        self._corner, self._box = None, None
        if shown_too:
            self._display.forget()
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
        return self._state["state"] == "waiting" and not self._display.problem

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


def node_names(infos: Sequence[Any]) -> list[str]:
    """Return the full names of the nodes behind topic endpoints, where they are known already."""
    return [
        f"{info.node_namespace.rstrip('/')}/{info.node_name}"
        for info in infos
        if "UNKNOWN" not in info.node_name
    ]


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    with interrupted_once():
        rclpy.init(args=args)
        node = None
        try:
            node = TargetSelector()
            node.start()
            spin(node, threads=4)
        except ParameterError as error:
            print(f"target_selector_node: {error}", file=sys.stderr)
            return 2
        finally:
            if node is not None:
                node.close()
                node.destroy_node()
            rclpy.try_shutdown()
            # An interrupt while the reader was being made leaves its thread: it sees the shutdown.
            for thread in threading.enumerate():
                if thread.name == "images":
                    thread.join(5.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
