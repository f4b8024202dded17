"""The parameter table on a ROS node: declared, described, and checked as a whole before a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.nodes.parameters import (
    DEFAULTS,
    SPECS,
    Change,
    ParameterError,
    TrackerParameters,
    read_parameters,
)


class NodeParameters:
    """Declares all parameters on a node and guards their changes.

    Values that were given at start are taken as they are, so that a node with a wrong one lives and can
    say so when it is configured. Types are declared dynamic for the same reason, and so that ``1`` may
    stand for ``1.0``; :func:`read_parameters` checks them.

    Args:
        node: the node.
        configured: tells whether the node is configured; then only run-time parameters may change.
        bundle: the open bundle, whose thresholds count too.
        changed: gets the new values once a change of run-time parameters is accepted.
    """

    def __init__(
        self,
        node: Node,
        configured: Callable[[], bool],
        bundle: Callable[[], Bundle | None],
        changed: Callable[[TrackerParameters], None],
    ) -> None:
        self._node = node
        self._configured = configured
        self._bundle = bundle
        self._changed = changed
        for name, spec in SPECS.items():
            when = "" if spec.change is Change.RUN_TIME else " Takes effect with configure."
            descriptor = ParameterDescriptor(
                description=spec.description + when,
                additional_constraints=spec.allowed,
                dynamic_typing=True,
            )
            node.declare_parameter(name, DEFAULTS[name], descriptor)
        node.add_on_set_parameters_callback(self._on_set)

    def read(self) -> TrackerParameters:
        """Return the present values.

        Raises:
            ParameterError: if they cannot be.
        """
        return read_parameters(self._values())

    def _values(self) -> dict[str, Any]:
        return {name: self._node.get_parameter(name).value for name in SPECS}

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        ours = {p.name: p.value for p in parameters if p.name in SPECS}
        if not ours:
            return SetParametersResult(successful=True)
        configured = self._configured()
        before = self._values()
        fixed = [
            name
            for name, value in ours.items()
            if SPECS[name].change is Change.CONFIGURE and value != before[name]
        ]
        if configured and fixed:
            return SetParametersResult(
                successful=False,
                reason=f"{', '.join(fixed)} can only be changed before configure: clean up first",
            )
        try:
            values = read_parameters({**before, **ours}, self._bundle() if configured else None)
        except ParameterError as error:
            # Before configure, what else is still wrong must not stand in the way of mending it.
            mine = [p for p in error.problems if configured or any(n in p for n in ours)]
            if mine:
                return SetParametersResult(successful=False, reason="; ".join(mine))
            return SetParametersResult(successful=True)
        self._changed(values)
        return SetParametersResult(successful=True)
