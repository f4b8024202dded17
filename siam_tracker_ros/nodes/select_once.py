"""One selection on a ROS graph, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.frames import SECOND, stamp_text
from siam_tracker_ros.nodes.messages import to_detection

FINAL = ("accepted", "refused")
"""How a verdict begins that will not change any more."""


class SelectError(RuntimeError):
    """The selection did not arrive or was refused; the message says why, for people."""


def select_once(
    box: Box,
    *,
    stamp: int = 0,
    frame_id: str = "",
    id: str = "",
    label: str = "target",
    target: str = "target",
    status: str = "tracker_node/status",
    namespace: str = "",
    timeout: float = 5.0,
) -> str:
    """Publish a selection and wait for the tracker's verdict.

    Args:
        box: image pixels.
        stamp: of the image it is on, nanoseconds; 0 = the newest.
        frame_id: of that image; empty = whatever it is.
        id: of the track; empty = the tracker gives one.
        label: what it is.
        target: topic of selections.
        status: topic of the tracker's status.
        namespace: what relative topics are in.
        timeout: seconds to wait for a tracker, and then for its verdict.

    Returns:
        The verdict; a word on its absence where nobody publishes ``status``.

    Raises:
        SelectError: nobody listens, no verdict came, or it was refused.
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("select", namespace=namespace, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard: list[tuple[str, str, str]] = []

    def on_status(message: DiagnosticStatus) -> None:
        values = {pair.key: pair.value for pair in message.values}
        names = ("selection_verdict", "selection_stamp", "id")
        verdict, its_stamp, its_id = (values.get(name, "") for name in names)
        heard.append((verdict, its_stamp, its_id))

    def wait(done: Callable[[], Any], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() >= end:
                return False
            executor.spin_once(timeout_sec=0.05)
        return True

    try:
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        publisher = node.create_publisher(Detection2D, target, qos)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        subscription = node.create_subscription(DiagnosticStatus, status, on_status, latched)
        topic = publisher.topic_name
        if not wait(lambda: publisher.get_subscription_count() > 0, timeout):
            raise SelectError(
                f"nobody listens on {topic}: no tracker_node is configured there within "
                f"{timeout:g} s (ROS_DOMAIN_ID, --namespace, --target)"
            )
        # The verdict before this one, so that the new one can be told from it.
        wait(lambda: heard, min(1.5, timeout))
        before = heard[-1] if heard else None
        seen = len(heard)
        header = Header(frame_id=frame_id)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, SECOND)
        publisher.publish(to_detection(header, id, label, box, 1.0))

        def answer() -> tuple[str, str, str] | None:
            for entry in heard[seen:]:
                mine = entry[1] == stamp_text(stamp) and entry[0].startswith(FINAL)
                if mine and entry != before:
                    return entry
            return None

        if not wait(answer, timeout):
            if node.count_publishers(subscription.topic_name) == 0:
                return f"sent on {topic}; nobody publishes {subscription.topic_name} to say more"
            last = heard[-1] if len(heard) > seen else None
            if last is None or last != before or last[1] != stamp_text(stamp):
                raise SelectError(f"sent on {topic}, but no verdict came within {timeout:g} s")
            verdict = last[0]  # the same word as for the same selection before
        else:
            found = answer()
            assert found is not None
            verdict = found[0] if not found[2] else f"{found[0]} as {found[2]}"
        if verdict.startswith("refused"):
            raise SelectError(verdict)
        return verdict
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.shutdown(context=context)
