"""``tracker_node``: the lifecycle node that follows a selected target through a camera's images.

Callbacks of the executor only read messages and leave them in the worker's mailbox; the worker alone
touches tracker, session and device. Topics, services and parameters: docs/tracker_node.md.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2D
from visualization_msgs.msg import ImageMarker, MarkerArray

from siam_tracker_ros.inference import BuildCancelledError
from siam_tracker_ros.nodes.camera_rays import CameraInfoError, CameraRays, camera_from_info
from siam_tracker_ros.nodes.drawing import annotated
from siam_tracker_ros.nodes.errors import ImageError
from siam_tracker_ros.nodes.follower import Report
from siam_tracker_ros.nodes.frames import Frame, to_nanoseconds
from siam_tracker_ros.nodes.image_messages import picture_from_compressed, picture_from_image
from siam_tracker_ros.nodes.image_reader import ImageReader, type_name
from siam_tracker_ros.nodes.lifecycle import SafeLifecycleNode, transition
from siam_tracker_ros.nodes.messages import to_detection, to_diagnostic_status, to_image
from siam_tracker_ros.nodes.model_session import open_model
from siam_tracker_ros.nodes.node_parameters import NodeParameters
from siam_tracker_ros.nodes.overlays import to_annotation, to_markers
from siam_tracker_ros.nodes.parameters import TrackerParameters
from siam_tracker_ros.nodes.selection import read_selection
from siam_tracker_ros.nodes.spinning import interrupted_once, spin
from siam_tracker_ros.nodes.statistics import FOREIGN_CLOCK_SECONDS, Figures, Statistics
from siam_tracker_ros.nodes.status import (
    Status,
    diagnostic_values,
    resident_memory_mb,
    status_values,
)
from siam_tracker_ros.nodes.transport import (
    Reading,
    shared_memory_bytes,
    transport_problem,
    transport_remedy,
)
from siam_tracker_ros.nodes.worker import OpenModel, Worker

HAND_OVER = 0.0001
"""Seconds that the image thread sleeps after it left a frame: the worker gets the interpreter at
once, not when the executor has done its bookkeeping."""

SERVICE_TIMEOUT = 5.0
"""Seconds that a service waits for the worker."""

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class TrackerNode(SafeLifecycleNode):
    """The node; ``open_model`` gives bundle and session when it is configured."""

    def __init__(self, open_model: OpenModel = open_model, **options: Any) -> None:
        super().__init__("tracker_node", **options)
        self._open_model = open_model
        self._statistics = Statistics()
        self._status = Status()
        self._status_lock = threading.RLock()
        self._worker: Worker | None = None
        self._opening: Worker | None = None  # while configure waits for it
        self._opening_lock = threading.Lock()
        self._images: ImageReader | None = None
        self._values: TrackerParameters = TrackerParameters()
        self._closing = False
        self._number = 0
        self._image_size: tuple[int, int] | None = None
        self._info: CameraInfo | None = None
        self._info_size: tuple[int, int] | None = None
        self._info_said: tuple[int, int] | None = None
        self._marked = False  # whether viewers were last sent a box
        self._active_since = 0.0

        self._status_publisher = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._node_parameters = NodeParameters(
            self,
            configured=lambda: self._worker is not None,
            bundle=lambda: None if self._worker is None else self._worker.bundle,
            changed=self._on_parameters,
        )
        commands = ReentrantCallbackGroup()  # they wait for the worker, not for one another
        self.create_service(Trigger, "~/clear", self._on_clear, callback_group=commands)
        self.create_service(SetBool, "~/pause", self._on_pause, callback_group=commands)
        self._timer = self.create_timer(
            self._values.diagnostics_period,
            self._on_timer,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=self._on_clock_jump,
        )
        self.status(True)

    # --- transitions --------------------------------------------------------------------------

    @transition("configure")
    def on_configure(self, state: LifecycleState) -> None:
        """Read the parameters, open the model, warm up, make the topics."""
        self.status(True, **_nothing("configuring"))
        self._values = self._node_parameters.read()
        self._timer.timer_period_ns = int(1e9 * self._values.diagnostics_period)
        self._statistics.reset()
        ready = self._open()
        # What is destroyed again has a callback group of its own, see ImageReader.
        overridable = QoSOverridingOptions.with_default_policies()
        self._detections = self.create_lifecycle_publisher(
            Detection2D,
            "detection",
            QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE),
            callback_group=MutuallyExclusiveCallbackGroup(),
            qos_overriding_options=overridable,
        )
        self._debug_images, self._annotations, self._markers = (
            self.create_lifecycle_publisher(
                kind, name, 1, callback_group=MutuallyExclusiveCallbackGroup()
            )
            for kind, name in (
                (Image, "~/debug_image"),
                (ImageMarker, "~/annotations"),
                (MarkerArray, "~/markers"),
            )
        )
        self._targets = self.create_subscription(
            Detection2D,
            "target",
            self._on_target,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
            callback_group=MutuallyExclusiveCallbackGroup(),
            qos_overriding_options=overridable,
        )
        if self.resolve_topic_name("target") == self.resolve_topic_name("detection"):
            self.warn("`target` and `detection` are one topic: the node's own output is ignored")
        self.get_logger().info(f"ready: {ready}")
        self.status(True, state="inactive")

    def _open(self) -> str:
        """Open the model, which may take minutes, unless :meth:`_cancel_configure` is called."""
        worker = self._opening = Worker(self, self._open_model, ending=lambda: self._silent)
        try:
            ready = worker.open(self._values).result()
            with self._opening_lock:
                if worker.stopping:
                    raise BuildCancelledError("it was cancelled")
                self._worker, self._opening = worker, None
        except BaseException:
            self._opening = None
            worker.stop()
            self.status(False, engine_build="", backend_problem="")
            raise
        return ready

    def _cancel_configure(self) -> bool:
        """Make configure give up opening the model; tell whether it was at that."""
        with self._opening_lock:
            if self._opening is None:
                return False
            self._opening.stop(timeout=0.0)
            return True

    def _guarded(self, change_state: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Let cleanup and shutdown cancel a configure that waits for the model."""
        guarded = super()._guarded(change_state)

        def callback(request: Any, response: Any) -> Any:
            wanted = request.transition
            cleanup = wanted.label == "cleanup" or wanted.id == Transition.TRANSITION_CLEANUP
            shutdown = wanted.label == "shutdown" or wanted.id in _SHUTDOWNS
            if (cleanup or shutdown) and self._cancel_configure():
                with self._in_transition:  # until configure has failed
                    pass
                if cleanup:
                    response.success = self.lifecycle_state == "unconfigured"
                    return response
                wanted.label, wanted.id = "", Transition.TRANSITION_UNCONFIGURED_SHUTDOWN
            return guarded(request, response)

        return callback

    @transition("activate")
    def on_activate(self, state: LifecycleState) -> None:
        """Subscribe to the images."""
        assert self._worker is not None
        compressed = self._values.image_transport == "compressed"
        topic = self.resolve_topic_name("image")
        if compressed and not topic.endswith("/compressed"):
            topic += "/compressed"
        self._image_type = CompressedImage if compressed else Image
        self._active_since = time.monotonic()
        super().on_activate(state)
        self._worker.activate().result(SERVICE_TIMEOUT)
        self._images = ImageReader(
            self,
            self._image_type,
            topic,
            self._values.image_reliability,
            self._on_image,
            publishers_changed=self._statistics.new_publisher,
            lost=self._statistics.lost_in_transport,
        )
        self._infos = self.create_subscription(
            CameraInfo,
            "camera_info",
            self._on_camera_info,
            qos_profile_sensor_data,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self.get_logger().info(f"active: {topic} ({self._images.reliability})")

    @transition("deactivate")
    def on_deactivate(self, state: LifecycleState) -> None:
        """Unsubscribe and forget the target."""
        self._stop_images()
        super().on_deactivate(state)
        self.status(True, state="inactive", id="", score=None, problem="", transport="")

    @transition("cleanup")
    def on_cleanup(self, state: LifecycleState) -> None:
        """Close the model."""
        self._close()
        self.status(True, **_nothing("unconfigured"))

    @transition("shutdown")
    def on_shutdown(self, state: LifecycleState) -> None:
        """Stop and close, from every state."""
        self._stop_images()
        self._close()
        self.status(True, **_nothing("finalized"))

    @transition("error handling")
    def on_error(self, state: LifecycleState) -> None:
        """Stop and close, so that the node can be configured again."""
        self._stop_images()
        self._close()
        self.status(True, state="unconfigured")

    def transition_failed(self, name: str, reason: str) -> None:
        """Say why a transition failed, in the log and on ``~/status``."""
        super().transition_failed(name, reason)
        self.status(True, state=_BEFORE[name], problem=f"{name} failed: {reason}", failed=True)

    def close(self) -> None:
        """Stop the worker; for the end of the process, when nothing can be published any more."""
        self._closing = True
        self._cancel_configure()
        if self._images is not None:
            self._images.close()
            self._images = None
        if self._worker is not None and not self._worker.stop(timeout=5.0):
            print("tracker_node: the network did not come to an end within 5 s", file=sys.stderr)
        self._worker = None

    def _stop_images(self) -> None:
        if self._images is not None:
            self._images.close()
            self._images = None
            self.destroy_subscription(self._infos)
        if self._worker is not None:
            self._worker.deactivate().result(SERVICE_TIMEOUT)

    def _close(self) -> None:
        if self._worker is None:
            return
        self.destroy_subscription(self._targets)
        self.destroy_lifecycle_publisher(self._detections)
        for publisher in (self._debug_images, self._annotations, self._markers):
            self.destroy_lifecycle_publisher(publisher)
        worker, self._worker = self._worker, None
        worker.stop()

    # --- what comes in ------------------------------------------------------------------------

    def _on_image(self, message: Any, sequence: int | None) -> None:
        received = time.perf_counter()
        worker = self._worker
        if worker is None:
            return
        self._statistics.image_received(sequence, len(message.data))
        try:
            if isinstance(message, CompressedImage):
                picture = picture_from_compressed(message)
            else:
                picture = picture_from_image(message)
        except ImageError as error:
            self._statistics.image_refused()
            worker.bad_image(str(error))
            return
        header = message.header
        self._number += 1
        frame = Frame(
            number=self._number,
            stamp=to_nanoseconds(header.stamp),
            frame_id=header.frame_id,
            header=header,
            picture=picture,
            received=received,
            nbytes=len(message.data),
        )
        if worker.frame(frame):
            self._statistics.frame_replaced()
        time.sleep(HAND_OVER)
        self._image_size = frame.size
        self._compare_sizes()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info = message
        self._info_size = (int(message.width), int(message.height))
        self._compare_sizes()

    def _compare_sizes(self) -> None:
        """Say once that camera_info is of images of another size."""
        info, image = self._info_size, self._image_size
        if info is not None and image is not None and info != image and info != self._info_said:
            self._info_said = info
            self.warn(
                f"camera_info is for {info[0]} x {info[1]} pixels, the images have "
                f"{image[0]} x {image[1]}"
            )

    def _on_target(self, message: Detection2D) -> None:
        if self._worker is not None:
            self._worker.select(read_selection(message))

    def _on_clear(self, request: Any, response: Any) -> Any:
        worker = self._worker
        response.success = True
        if worker is None:
            response.message = "there was no target: the node is not configured"
        else:
            response.message = worker.clear("asked for").result(SERVICE_TIMEOUT)
            self.get_logger().info(response.message)
        return response

    def _on_pause(self, request: Any, response: Any) -> Any:
        worker = self._worker
        if worker is None or self._images is None:
            response.success, response.message = False, "the node is not active"
            return response
        worker.pause(request.data).result(SERVICE_TIMEOUT)
        response.success = True
        response.message = "paused; the target is kept" if request.data else "goes on"
        return response

    def _on_parameters(self, parameters: TrackerParameters) -> None:
        self._values = parameters
        self._timer.timer_period_ns = int(1e9 * parameters.diagnostics_period)
        if self._worker is not None:
            self._worker.set_parameters(parameters)

    def _on_clock_jump(self, jump: Any) -> None:
        if self._worker is not None:
            self._worker.time_jumped_back(self.get_clock().now().nanoseconds)

    # --- what goes out (Outputs; called by the worker) ----------------------------------------

    def detection(self, report: Report) -> None:
        """Publish what was found in one image."""
        if self._silent:
            return
        frame, result = report.frame, report.result
        self._detections.publish(
            to_detection(frame.header, report.id, report.label, result.box, result.score)
        )
        if report.selected:
            self._statistics.selection_published()
            return
        published = time.perf_counter()
        self._statistics.detection_published(
            latency_ns=self.get_clock().now().nanoseconds - frame.stamp,
            overhead_ms=1e3 * (published - frame.received) - result.timing.step_ms,
            timing=result.timing,
        )

    def picture(self, frame: Frame, report: Report | None) -> None:
        """Show the image and what is in it on those topics that somebody listens to."""
        if self._silent:
            return
        self._show_box(frame, report)
        if self._debug_images.get_subscription_count() == 0:
            return
        text, box, state = "no target", None, "idle"
        if report is not None:
            state, box = report.result.state.value, report.result.box
            text = f"{report.label} {report.id}: {state} {report.result.score:.2f}"
        late = (self.get_clock().now().nanoseconds - frame.stamp) / 1e6
        if 0 <= late < 1e3 * FOREIGN_CLOCK_SECONDS:
            text += f", {late:.0f} ms"
        try:
            pixels = annotated(frame.picture, self._values.debug_image_scale, box, state, text)
        except ImageError:
            return  # said when it was followed in
        self._debug_images.publish(to_image(frame.header, pixels))

    def _show_box(self, frame: Frame, report: Report | None) -> None:
        """Publish ``~/annotations`` and ``~/markers``; once more when there is no box any longer."""
        box = None if report is None else report.result.box
        if box is None and not self._marked:
            return
        self._marked = box is not None
        state = "idle" if report is None else report.result.state.value
        if self._annotations.get_subscription_count():
            self._annotations.publish(to_annotation(frame.header, box, state))
        if self._markers.get_subscription_count():
            camera = self._camera(frame)
            if camera is not None:
                text = "" if report is None else f"{report.label} {report.result.score:.2f}"
                self._markers.publish(to_markers(frame.header, box, state, text, camera))

    def _camera(self, frame: Frame) -> CameraRays | None:
        """Return the camera of a frame; None if camera_info does not tell."""
        if self._info is None:
            return None
        try:
            rectified = re.search(r"[/_]rect", self.resolve_topic_name("image")) is not None
            return camera_from_info(self._info, frame.size, rectified=rectified)
        except CameraInfoError:
            return None

    def caught_up(self, followed: int, skipped: int) -> None:
        """Count the images from a selection to the present."""
        self._statistics.caught_up(followed)

    def status(self, publish: bool, **changes: Any) -> None:
        """Remember what changed of the status, and publish it at once or with the next one."""
        with self._status_lock:
            self._status = dataclasses.replace(self._status, **changes)
            if not publish or self._silent:
                return
            status = self._status
            self._status_publisher.publish(
                to_diagnostic_status(
                    status.level,
                    self.get_fully_qualified_name().lstrip("/"),
                    status.message,
                    "",
                    status_values(status, self._statistics.figures()),
                )
            )

    def info(self, text: str) -> None:
        """Log."""
        if not self._silent:
            self.get_logger().info(text)

    def warn(self, text: str) -> None:
        """Log a warning."""
        if not self._silent:
            self.get_logger().warning(text)

    def error(self, text: str) -> None:
        """Log an error."""
        if not self._silent:
            self.get_logger().error(text)

    @property
    def _silent(self) -> bool:
        """Whether the process is ending and nothing can be published any more."""
        return self._closing or not self.context.ok()

    def _on_timer(self) -> None:
        figures = self._statistics.figures()
        self._look_at_transport(figures)
        self.status(True)
        status, worker = self._status, self._worker
        history = (0, 0) if worker is None else (len(worker.history), worker.history.nbytes)
        values = diagnostic_values(status, figures, resident_memory_mb(), history)
        array = DiagnosticArray()
        array.header.stamp = self._now()
        array.status = [
            to_diagnostic_status(
                status.level,
                f"{self.get_fully_qualified_name().lstrip('/')}: tracker",
                status.message,
                status.backend,
                values,
            )
        ]
        if not self._silent:
            self._diagnostics_publisher.publish(array)

    def _look_at_transport(self, figures: Figures) -> None:
        """Say when images do not arrive or are lost, what that may come from and what helps."""
        images = self._images
        if images is None:
            return
        offers = images.offers
        compressed = not offers and bool(
            self.get_publishers_info_by_topic(f"{images.topic}/compressed")
        )
        reading = Reading(
            topic=images.topic,
            type=type_name(self._image_type),
            reliability=self._values.image_reliability,
            offers=offers,
            compressed_offered=compressed,
            for_seconds=time.monotonic() - self._active_since,
        )
        problem = transport_problem(reading, figures, _remedy())
        before = self._status.transport
        if problem and _kind(problem) != _kind(before):
            self.warn(problem)
        elif before and not problem:
            self.info("images arrive as they should")
        if self._images is images:  # else deactivated meanwhile
            self.status(False, transport=problem)

    def _now(self) -> Time:
        return self.get_clock().now().to_msg()


_SHUTDOWNS = (
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
)

_BEFORE = {
    "configure": "unconfigured",
    "activate": "inactive",
    "deactivate": "active",
    "cleanup": "inactive",
    "shutdown": "finalized",
    "error handling": "finalized",
}
"""Where a failed transition leaves the node."""


def _kind(text: str) -> str:
    """Return a text without its numbers."""
    return re.sub(r"[\d.]+", "#", text)


def _remedy() -> str:
    try:
        share = get_package_share_directory("siam_tracker_ros")
    except PackageNotFoundError:  # run from the sources
        share = "siam_tracker_ros"
    return transport_remedy(
        get_rmw_implementation_identifier(),
        f"{share}/config/fastdds.xml",
        shared_memory=shared_memory_bytes(),
    )


def _nothing(state: str) -> dict[str, Any]:
    """Return the status of a node without a model."""
    return {
        field.name: field.default for field in dataclasses.fields(Status) if field.name != "state"
    } | {"state": state}


def main(args: Sequence[str] | None = None, open_model: OpenModel = open_model) -> int:
    """Run the node until it is interrupted; returns the exit status."""
    with interrupted_once():
        rclpy.init(args=args)
        node = TrackerNode(open_model)
        try:
            spin(node, threads=4)
        finally:
            node.close()
            node.destroy_node()
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
