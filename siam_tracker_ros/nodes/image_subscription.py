"""A subscription to images with the reliability of whoever publishes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

_HAS_INFO = hasattr(Subscription, "CallbackType")

LOOK_EVERY = 0.25
"""Seconds between looks at who publishes."""

RELIABILITIES = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
}


class ImageSubscription:
    """Keep-last 1; its depth and history may be overridden (``qos_overrides``).

    With reliability ``auto`` it is reliable if every publisher is, else best effort (which receives
    from both); it looks again when publishers come and go.

    Args:
        node: the subscriber.
        message_type: sensor_msgs/Image or CompressedImage.
        topic: resolved.
        reliability: auto, reliable or best_effort.
        callback: gets a message and the publisher's number of it (None where that says nothing);
            while one subscription replaces another it may be called by two threads.
        publishers_changed: called when publishers came or went.
        lost: gets the number of messages that the middleware just found lost.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        reliability: str,
        callback: Callable[[Any, int | None], None],
        publishers_changed: Callable[[], None],
        lost: Callable[[int], None],
    ) -> None:
        self.topic = topic
        self._node = node
        self._type = message_type
        self._callback = callback
        self._publishers_changed = publishers_changed
        self._lost = lost
        self._fixed = RELIABILITIES.get(reliability)
        self._publishers: frozenset[bytes] = frozenset()
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._reliability = self._wanted(node.get_publishers_info_by_topic(topic))
        self._subscription = self._create()
        self._timer = node.create_timer(
            LOOK_EVERY,
            self._look,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),  # simulated time may stand still
        )

    @property
    def reliability(self) -> str:
        """The reliability in use."""
        return str(self._reliability.name).lower()

    def destroy(self) -> None:
        """Subscribe no more."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)

    def _create(self) -> Any:
        # A group of its own for each: where rclpy is about to handle something of a subscription
        # that is destroyed meanwhile, it leaves the group locked for ever.
        group = MutuallyExclusiveCallbackGroup()

        def create(events: Any) -> Any:
            return self._node.create_subscription(
                self._type,
                self.topic,
                # Humble's callbacks take the message alone.
                self._receive_with_info if _HAS_INFO else self._receive,
                QoSProfile(
                    history=HistoryPolicy.KEEP_LAST,
                    depth=1,
                    reliability=self._reliability,
                    durability=DurabilityPolicy.VOLATILE,
                ),
                callback_group=group,
                event_callbacks=events,
                qos_overriding_options=QoSOverridingOptions(
                    (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)
                ),
            )

        try:
            return create(SubscriptionEventCallbacks(message_lost=self._on_lost))
        except UnsupportedEventTypeError:  # a middleware that does not know of losses
            return create(None)

    def _receive(self, message: Any) -> None:
        self._callback(message, None)

    def _receive_with_info(self, message: Any, info: dict[str, Any]) -> None:
        sequence = info.get("publication_sequence_number")
        self._callback(message, sequence if len(self._publishers) == 1 else None)

    def _on_lost(self, event: Any) -> None:
        self._lost(int(event.total_count_change))

    def _look(self) -> None:
        infos = self._node.get_publishers_info_by_topic(self.topic)
        publishers = frozenset(bytes(info.endpoint_gid) for info in infos)
        if publishers != self._publishers:
            self._publishers = publishers
            self._publishers_changed()
        wanted = self._wanted(infos)
        if wanted != self._reliability:
            self._reliability = wanted
            self._node.get_logger().info(f"{self.topic}: subscribing {self.reliability}")
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._create()

    def _wanted(self, infos: list[Any]) -> ReliabilityPolicy:
        if self._fixed is not None:
            return self._fixed
        if not infos:
            return self._reliability
        offered = {info.qos_profile.reliability for info in infos}
        if offered == {ReliabilityPolicy.RELIABLE}:
            return ReliabilityPolicy.RELIABLE
        return ReliabilityPolicy.BEST_EFFORT
