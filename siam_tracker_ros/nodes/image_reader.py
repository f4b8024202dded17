"""Images in a thread of their own, with the reliability of whoever publishes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from siam_tracker_ros.nodes.transport import Offer

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


class ImageReader:
    """Subscribes to images from construction until :meth:`close`.

    rclpy's executors look at every entity of a node several times for each message. A node with some
    twenty services and topics spends more on that than on the image, and takes the interpreter from
    the thread that works on it. So the subscription lives on a helper node (hidden: its name begins
    with an underscore) with a small executor and a thread of its own.

    Keep-last 1; depth and history may be overridden by the owner's parameters
    ``qos_overrides.<topic>.subscription.depth`` and ``.history``. With reliability ``auto`` the
    subscription is reliable if every publisher is, else best effort (which receives from both), and
    it is made anew when publishers with another reliability come.

    Args:
        owner: the node in whose name it reads.
        message_type: sensor_msgs/Image or CompressedImage.
        topic: resolved.
        reliability: auto, reliable or best_effort.
        callback: gets a message and the publisher's number of it (None where that says nothing).
        publishers_changed: called when publishers came or went.
        lost: gets the number of messages that the middleware just found lost.

    Raises:
        ValueError: if an override cannot be.
    """

    def __init__(
        self,
        owner: Node,
        message_type: type,
        topic: str,
        reliability: str,
        callback: Callable[[Any, int | None], None],
        publishers_changed: Callable[[], None],
        lost: Callable[[int], None],
    ) -> None:
        self.topic = topic
        self._owner = owner
        self._type = message_type
        self._callback = callback
        self._publishers_changed = publishers_changed
        self._lost = lost
        self._history, self._depth = _overrides(owner, topic)
        self._fixed = RELIABILITIES.get(reliability)
        self._publishers: frozenset[bytes] = frozenset()
        self._offers: tuple[Offer, ...] = ()
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._reliability = self._wanted(owner.get_publishers_info_by_topic(topic))
        self._helper = rclpy.create_node(
            f"_{owner.get_name()}_images",
            namespace=owner.get_namespace(),
            context=owner.context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
            parameter_overrides=[Parameter("start_type_description_service", value=False)],
        )
        self._executor = SingleThreadedExecutor(context=owner.context)
        self._executor.add_node(self._helper)
        self._subscription = self._create()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="images", daemon=True)
        self._thread.start()

    @property
    def reliability(self) -> str:
        """The reliability in use."""
        return str(self._reliability.name).lower()

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Who publishes on the topic, as last seen."""
        return self._offers

    def close(self) -> None:
        """Read no more. Not to be called from the callback."""
        self._ending = True
        if self._owner.context.ok():
            self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self._helper.destroy_node()

    def _run(self) -> None:
        look_at = time.monotonic()
        while not self._ending and self._owner.context.ok():
            try:
                self._executor.spin_once(timeout_sec=max(0.0, look_at - time.monotonic()))
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + LOOK_EVERY
                    self._look()
            except (ExternalShutdownException, KeyboardInterrupt):
                return
            except InvalidHandle:
                continue  # an event of a subscription that was just replaced
            except Exception as error:  # the thread must live on
                if self._owner.context.ok():
                    text = f"an image was lost: {type(error).__name__}: {error}"
                    self._owner.get_logger().error(text)

    def _create(self) -> Any:
        # A group of its own for each: where rclpy is about to handle something of a subscription
        # that is destroyed meanwhile, it leaves the group locked for ever.
        group = MutuallyExclusiveCallbackGroup()

        def create(events: Any) -> Any:
            return self._helper.create_subscription(
                self._type,
                self.topic,
                # Humble's callbacks take the message alone.
                self._receive_with_info if _HAS_INFO else self._receive,
                QoSProfile(
                    history=self._history,
                    depth=self._depth,
                    reliability=self._reliability,
                    durability=DurabilityPolicy.VOLATILE,
                ),
                callback_group=group,
                event_callbacks=events,
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
        infos = self._helper.get_publishers_info_by_topic(self.topic)
        self._offers = tuple(offer_of(info) for info in infos)
        publishers = frozenset(bytes(info.endpoint_gid) for info in infos)
        if publishers != self._publishers:
            self._publishers = publishers
            self._publishers_changed()
        wanted = self._wanted(infos)
        if wanted != self._reliability:
            self._reliability = wanted
            self._owner.get_logger().info(f"{self.topic}: subscribing {self.reliability}")
            self._helper.destroy_subscription(self._subscription)
            self._subscription = self._create()

    def _wanted(self, infos: list[Any]) -> ReliabilityPolicy:
        if self._fixed is not None:
            return self._fixed
        mine = type_name(self._type)
        offered = {info.qos_profile.reliability for info in infos if info.topic_type == mine}
        if not offered:
            return self._reliability
        if offered == {ReliabilityPolicy.RELIABLE}:
            return ReliabilityPolicy.RELIABLE
        return ReliabilityPolicy.BEST_EFFORT


def type_name(message_type: type) -> str:
    """Return a message type's name as the graph tells it: sensor_msgs/msg/Image."""
    package = message_type.__module__.split(".")[0]
    return f"{package}/msg/{message_type.__name__}"


def offer_of(info: Any) -> Offer:
    """Return what the graph tells of a publisher."""
    return Offer(
        node=f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        type=str(info.topic_type),
        reliable=info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
    )


def _overrides(owner: Node, topic: str) -> tuple[HistoryPolicy, int]:
    """Return history and depth as the owner's parameters say, declared where rclpy would."""

    def read(policy: str, default: str | int) -> Any:
        name = f"qos_overrides.{topic}.subscription.{policy}"
        if not owner.has_parameter(name):
            text = f"{policy} of the subscription to {topic}"
            owner.declare_parameter(
                name, default, ParameterDescriptor(description=text, read_only=True)
            )
        return owner.get_parameter(name).value

    history, depth = read("history", "keep_last"), read("depth", 1)
    if history not in ("keep_last", "keep_all"):
        raise ValueError(f"qos_overrides: history must be keep_last or keep_all, got {history!r}")
    if depth < 1:
        raise ValueError(f"qos_overrides: depth must be at least 1, got {depth}")
    return HistoryPolicy[history.upper()], depth
