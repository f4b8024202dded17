"""A lifecycle node whose transitions never raise, never overlap and never silence its services."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

Transition = Callable[[Any, LifecycleState], Any]


def transition(name: str) -> Callable[[Transition], Transition]:
    """Make a method a transition: SUCCESS if it returns, FAILURE with the reason said if it raises.

    In Humble and Jazzy an exception inside a transition ends the process or puts the node into an
    error state without a word.
    """

    def decorate(method: Transition) -> Transition:
        @functools.wraps(method)
        def guarded(self: SafeLifecycleNode, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                method(self, state)
            except Exception as error:
                self.transition_failed(name, str(error) or type(error).__name__)
                return TransitionCallbackReturn.FAILURE
            return TransitionCallbackReturn.SUCCESS

        return guarded

    return decorate


class SafeLifecycleNode(LifecycleNodeMixin, Node):
    """A lifecycle node with its lifecycle services in a callback group of their own.

    ``rclpy.lifecycle.LifecycleNode`` has no way to say that; in the default group get_state and the
    parameter services would not answer while a transition runs.
    """

    def __init__(self, name: str, **options: Any) -> None:
        Node.__init__(self, name, **options)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._in_transition = threading.Lock()
        service = self._service_change_state
        service.callback = self._guarded(service.callback)

    @property
    def lifecycle_state(self) -> str:
        """The label of the present state."""
        return str(self._state_machine.current_state[1])

    def transition_failed(self, name: str, reason: str) -> None:
        """Say why a transition failed."""
        if self.context.ok():
            self.get_logger().error(f"{name} failed: {reason}")

    def _guarded(self, change_state: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Refuse a second transition while one runs, and those that the state does not allow."""

        def callback(request: Any, response: Any) -> Any:
            wanted = request.transition.label or str(request.transition.id)
            if not self._in_transition.acquire(blocking=False):
                self.get_logger().warning(f"transition {wanted} is refused: another one is running")
                response.success = False
                return response
            try:
                return change_state(request, response)
            except Exception as error:  # rclpy raises for transitions that the state does not have
                reason = str(error).split(", at /")[0] or type(error).__name__
                if self.context.ok():
                    self.get_logger().warning(
                        f"transition {wanted} is refused in state {self.lifecycle_state}: {reason}"
                    )
                response.success = False
                return response
            finally:
                self._in_transition.release()

        return callback
