"""A node's parameters as one frozen data class: declared, checked as a whole, changed at run time.

``tracker_node`` has a table with rules of its own in parameters.py; the smaller nodes use this one.
The fields are the table; :func:`setting` makes one. Reading and printing the table need no ROS.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from siam_tracker_ros.nodes.parameters import Change, ParameterError, Spec


@dataclasses.dataclass(frozen=True)
class Settings:
    """The base of a node's settings; its subclasses have :func:`setting` fields."""

    def problems(self) -> list[str]:
        """Say what is wrong with values that are right one by one."""
        return []


S = TypeVar("S", bound=Settings)


def setting(default: Any, description: str, change: Change = Change.RUN_TIME, **more: Any) -> Any:
    """Return a data class field; ``more`` goes to :class:`Spec` (low, high, choices, unit)."""
    metadata = {"spec": Spec(description, change, **more)}
    return dataclasses.field(default=default, metadata=metadata)


def specs(kind: type) -> dict[str, Spec]:
    """Return what is known of every parameter."""
    return {f.name: f.metadata["spec"] for f in dataclasses.fields(kind)}


def defaults(kind: type[S]) -> dict[str, Any]:
    """Return the defaults by name."""
    return dataclasses.asdict(kind())


def read_settings(kind: type[S], values: Mapping[str, Any]) -> S:
    """Return the typed values, the defaults where none is given.

    A whole number is taken where a real one is wanted.

    Raises:
        ParameterError: with all that is wrong.
    """
    problems: list[str] = []
    typed: dict[str, Any] = {}
    known, default = specs(kind), defaults(kind)
    for name, value in values.items():
        try:
            if name not in known:
                raise ValueError(f"there is no parameter {name}")
            typed[name] = _typed(name, value, default[name], known[name])
        except ValueError as error:
            problems.append(str(error))
    if not problems:
        settings = kind(**typed)
        problems = settings.problems()
    if problems:
        raise ParameterError(problems)
    return settings


def _typed(name: str, value: Any, default: Any, spec: Spec) -> Any:
    kind = type(default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list of texts, got {value!r}")
        if not value or any(entry not in spec.choices for entry in value):
            raise ValueError(f"{name} must be a list of {spec.allowed}, got {list(value)!r}")
        return tuple(value)
    if type(value) is not kind:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise ValueError(f"{name} must be {words[kind]}, got {value!r}")
    if spec.choices and value not in spec.choices:
        raise ValueError(f"{name} must be one of {spec.allowed}, got {value!r}")
    if (
        spec.low is not None
        and spec.high is not None
        and isinstance(value, (int, float))
        and not (math.isfinite(value) and spec.low <= value <= spec.high)
    ):
        raise ValueError(f"{name} must be {spec.allowed}, got {value:g}")
    return value


def as_markdown(kind: type[S]) -> str:
    """Return the table for the documentation."""
    lines = [
        "| parameter | type | default | allowed | may change | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    kinds = {bool: "bool", int: "int", float: "double", str: "string", tuple: "string[]"}
    when = {Change.CONFIGURE: "at start", Change.RUN_TIME: "at any time"}
    values = defaults(kind)
    for name, spec in specs(kind).items():
        shown = ", ".join(values[name]) if isinstance(values[name], tuple) else values[name]
        shown = f"`{shown}`" if shown != "" else ""
        lines.append(
            f"| `{name}` | {kinds[type(values[name])]} | {shown} | {spec.allowed} | "
            f"{when[spec.change]} | {spec.description} |"
        )
    return "\n".join(lines)


class NodeSettings(Generic[S]):
    """Declares the table on a node and guards its changes.

    Args:
        node: an rclpy node.
        kind: the data class.
        changed: gets the new values once a change is accepted.

    Raises:
        ParameterError: if the values given at start cannot be.
    """

    def __init__(self, node: Any, kind: type[S], changed: Callable[[S], None]) -> None:
        from rcl_interfaces.msg import ParameterDescriptor

        self._node, self._kind, self._changed = node, kind, changed
        default = defaults(kind)
        for name, spec in specs(kind).items():
            fixed = "" if spec.change is Change.RUN_TIME else " Takes effect at start."
            node.declare_parameter(
                name,
                list(default[name]) if isinstance(default[name], tuple) else default[name],
                ParameterDescriptor(
                    description=spec.description + fixed,
                    additional_constraints=spec.allowed,
                    dynamic_typing=True,
                ),
            )
        self.values: S = read_settings(kind, self._present())
        node.add_on_set_parameters_callback(self._on_set)

    def _present(self) -> dict[str, Any]:
        return {name: self._node.get_parameter(name).value for name in specs(self._kind)}

    def _on_set(self, parameters: list[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        known = specs(self._kind)
        ours = {p.name: p.value for p in parameters if p.name in known}
        before = self._present()
        fixed = [
            name
            for name, value in ours.items()
            if known[name].change is Change.CONFIGURE and value != before[name]
        ]
        if fixed:
            reason = f"{', '.join(fixed)} can only be given when the node starts"
            return SetParametersResult(successful=False, reason=reason)
        if ours:
            try:
                values = read_settings(self._kind, {**before, **ours})
            except ParameterError as error:
                return SetParametersResult(successful=False, reason=str(error))
            self.values = values
            self._changed(values)
        return SetParametersResult(successful=True)
