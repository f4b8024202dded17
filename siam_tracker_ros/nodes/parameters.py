"""Every parameter of ``tracker_node``: one typed table for the node and the documentation.

``python -m siam_tracker_ros.nodes.parameters`` prints it as markdown; that needs no ROS.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.inference import BACKENDS, PRECISIONS
from siam_tracker_ros.nodes.history import DEFAULT_BYTES, DEFAULT_SECONDS
from siam_tracker_ros.nodes.selection import STALE, SelectionRules
from siam_tracker_ros.tracking import TrackerSettings

Value = bool | int | float | str

OF_THE_MODEL = -1.0
"""A number that stands for "what the model's bundle says"."""


class Change(enum.Enum):
    """When a new value takes effect."""

    CONFIGURE = "configure"
    RUN_TIME = "run-time"


@dataclass(frozen=True)
class Spec:
    """What is known of one parameter beside its name and default.

    ``low`` and ``high`` bound numbers, inclusive. With ``model_default``, :data:`OF_THE_MODEL` is
    allowed too.
    """

    description: str
    change: Change
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    model_default: bool = False
    may_be_empty: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values, for people."""
        if self.choices:
            return ", ".join(self.choices)
        if self.low is None or self.high is None:
            return ""
        bounds = f"{self.low:g} to {self.high:g}{' ' + self.unit if self.unit else ''}"
        return f"{bounds}, or {OF_THE_MODEL:g}" if self.model_default else bounds


class ParameterError(ValueError):
    """Values that cannot be; ``problems`` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _parameter(default: Value, change: Change, description: str, **more: Any) -> Any:
    return field(default=default, metadata={"spec": Spec(description, change, **more)})


@dataclass(frozen=True)
class TrackerParameters:
    """The values of all parameters; the fields are the table."""

    model: str = _parameter(
        "siam_stm_mobilenetv2",
        Change.CONFIGURE,
        "The model bundle: a name (looked for in the package's share, then in "
        "~/.local/share/siam_tracker_ros/models) or the path of its folder.",
    )
    backend: str = _parameter(
        "auto",
        Change.CONFIGURE,
        "What runs the network; auto is TensorRT where there are an NVIDIA GPU and TensorRT, else "
        "ONNX Runtime.",
        choices=BACKENDS,
    )
    precision: str = _parameter(
        "auto",
        Change.CONFIGURE,
        "Of TensorRT's engines; auto is fp16 where the model has it, else fp32.",
        choices=PRECISIONS,
    )
    allow_fallback: str = _parameter(
        "auto",
        Change.CONFIGURE,
        "Whether ONNX Runtime may stand in where TensorRT does not work (no engine, out of GPU "
        "memory, ...); auto is always with `backend` auto, never with tensorrt.",
        choices=("auto", "always", "never"),
    )
    build_in_background: bool = _parameter(
        True,
        Change.CONFIGURE,
        "Where engines have to be built (minutes, once): run on ONNX Runtime until they are there; "
        "false: configure waits for them.",
    )
    cache_dir: str = _parameter(
        "",
        Change.CONFIGURE,
        "Folder of the engines; empty: ~/.cache/siam_tracker_ros/engines.",
        may_be_empty=True,
    )
    force_rebuild: bool = _parameter(
        False,
        Change.CONFIGURE,
        "Build engines with every configure, even those that are there.",
    )
    intra_op_threads: int = _parameter(
        0,
        Change.CONFIGURE,
        "CPU threads of the network; 0 leaves the number to the back end.",
        low=0,
        high=256,
    )
    image_transport: str = _parameter(
        "raw",
        Change.CONFIGURE,
        "raw subscribes sensor_msgs/Image on `image`, compressed sensor_msgs/CompressedImage on "
        "`image`/compressed.",
        choices=("raw", "compressed"),
    )
    image_reliability: str = _parameter(
        "auto",
        Change.CONFIGURE,
        "Reliability of the image subscription; auto takes that of the publishers, and again when "
        "others appear.",
        choices=("auto", "reliable", "best_effort"),
    )
    history_bytes: int = _parameter(
        DEFAULT_BYTES,
        Change.RUN_TIME,
        "Memory for the images of the last seconds, on which late selections are applied; 0 keeps "
        "the newest image alone.",
        low=0,
        high=64_000_000_000,
        unit="bytes",
    )
    history_seconds: float = _parameter(
        DEFAULT_SECONDS,
        Change.RUN_TIME,
        "How old an image of these may be, by its stamp.",
        low=0.0,
        high=3600.0,
        unit="s",
    )
    selection_tolerance: float = _parameter(
        0.05,
        Change.RUN_TIME,
        "How far the stamp of a selection may be from that of the image it is applied to.",
        low=0.0,
        high=10.0,
        unit="s",
    )
    stale_selection: str = _parameter(
        "refuse",
        Change.RUN_TIME,
        "What becomes of a selection that is older than every image kept: refuse it, or take the "
        "oldest image for it.",
        choices=STALE,
    )
    catch_up_budget_ms: float = _parameter(
        500.0,
        Change.RUN_TIME,
        "Time for following the target from the selection's image to the present; images that do "
        "not fit into it are left out evenly.",
        low=0.0,
        high=10_000.0,
        unit="ms",
    )
    presence_found: float = _parameter(
        OF_THE_MODEL,
        Change.RUN_TIME,
        "Presence (the score) at which an uncertain or lost target counts as found.",
        low=0.0,
        high=1.0,
        model_default=True,
    )
    presence_lost: float = _parameter(
        OF_THE_MODEL,
        Change.RUN_TIME,
        "Presence below which a tracked target becomes uncertain, and soon lost; not above "
        "presence_found.",
        low=0.0,
        high=1.0,
        model_default=True,
    )
    redetect_budget_ms: float = _parameter(
        20.0,
        Change.RUN_TIME,
        "Time an image for looking for a lost target; one place is always looked at.",
        low=0.0,
        high=10_000.0,
        unit="ms",
    )
    give_up_after: float = _parameter(
        0.0,
        Change.RUN_TIME,
        "Time (of the images' stamps) after which a lost target is forgotten; 0 looks for it for "
        "ever.",
        low=0.0,
        high=1e9,
        unit="s",
    )
    window: float = _parameter(
        OF_THE_MODEL,
        Change.RUN_TIME,
        "Weight of the cosine window: how strongly a place near the last one is preferred.",
        low=0.0,
        high=1.0,
        model_default=True,
    )
    penalty: float = _parameter(
        OF_THE_MODEL,
        Change.RUN_TIME,
        "Strength of the penalty on changes of size and shape.",
        low=0.0,
        high=10.0,
        model_default=True,
    )
    size_rate: float = _parameter(
        OF_THE_MODEL,
        Change.RUN_TIME,
        "How fast the box's size follows the network; 1 is at once.",
        low=0.0,
        high=1.0,
        model_default=True,
    )
    debug_image_scale: float = _parameter(
        0.5,
        Change.RUN_TIME,
        "Size of ~/debug_image relative to the image.",
        low=0.05,
        high=1.0,
    )
    diagnostics_period: float = _parameter(
        1.0,
        Change.RUN_TIME,
        "Period of /diagnostics and of the repeated ~/status.",
        low=0.1,
        high=60.0,
        unit="s",
    )

    @property
    def may_fall_back(self) -> bool:
        """Whether ONNX Runtime may stand in where TensorRT does not work."""
        if self.allow_fallback == "auto":
            return self.backend == "auto"
        return self.allow_fallback == "always"

    def selection_rules(self) -> SelectionRules:
        """Return what of this concerns selections."""
        return SelectionRules(
            tolerance=self.selection_tolerance,
            stale=self.stale_selection,
            catch_up_budget=self.catch_up_budget_ms / 1e3,
        )

    def tracker_settings(self) -> TrackerSettings:
        """Return what of this concerns the tracker."""

        def given(value: float) -> float | None:
            return None if value == OF_THE_MODEL else value

        return TrackerSettings(
            found=given(self.presence_found),
            lost=given(self.presence_lost),
            size_rate=given(self.size_rate),
            window=given(self.window),
            penalty=given(self.penalty),
            redetect_budget_ms=self.redetect_budget_ms,
            give_up_after=self.give_up_after,
        )


SPECS: dict[str, Spec] = {f.name: f.metadata["spec"] for f in fields(TrackerParameters)}
DEFAULTS: dict[str, Value] = {f.name: f.default for f in fields(TrackerParameters)}  # type: ignore[misc]


def read_parameters(values: Mapping[str, Any], bundle: Bundle | None = None) -> TrackerParameters:
    """Return the typed values, the defaults where none is given.

    Args:
        values: by name. A whole number is taken where a real one is wanted.
        bundle: if given, thresholds are also judged together with those that come from it.

    Raises:
        ParameterError: with all that is wrong.
    """
    problems = []
    typed: dict[str, Value] = {}
    for name, value in values.items():
        try:
            typed[name] = _typed(name, value)
        except ValueError as error:
            problems.append(str(error))
    if not problems:
        parameters = TrackerParameters(**typed)  # type: ignore[arg-type]
        problems = _problems_together(parameters, bundle)
    if problems:
        raise ParameterError(problems)
    return parameters


def _typed(name: str, value: Any) -> Any:
    """Return ``value`` with the type of parameter ``name``, or say what is wrong with it."""
    if name not in SPECS:
        raise ValueError(f"there is no parameter {name}")
    spec, kind = SPECS[name], type(DEFAULTS[name])
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if spec.choices and value not in spec.choices:
        raise ValueError(f"{name} must be one of {spec.allowed}, got {value!r}")
    if type(value) is not kind:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise ValueError(f"{name} must be {words[kind]}, got {value!r}")
    if kind is str and not value and not spec.may_be_empty:
        raise ValueError(f"{name} must not be empty")
    if spec.low is not None and spec.high is not None and isinstance(value, (int, float)):
        inside = math.isfinite(value) and spec.low <= value <= spec.high
        if not inside and not (spec.model_default and value == OF_THE_MODEL):
            raise ValueError(f"{name} must be {spec.allowed}, got {value:g}")
    return value  # type: ignore[no-any-return]


def _problems_together(parameters: TrackerParameters, bundle: Bundle | None) -> list[str]:
    """Say what is wrong with values that are right one by one."""
    found, lost, whose = parameters.presence_found, parameters.presence_lost, ""
    if bundle is not None and OF_THE_MODEL in (found, lost):
        whose = f" (the model {bundle.name} gives what is not set)"
        found = bundle.presence.found if found == OF_THE_MODEL else found
        lost = bundle.presence.lost if lost == OF_THE_MODEL else lost
    if OF_THE_MODEL not in (found, lost) and lost > found:
        return [f"presence_lost = {lost:g} must not be above presence_found = {found:g}{whose}"]
    return []


def as_markdown() -> str:
    """Return the table for the documentation."""
    lines = [
        "| parameter | type | default | allowed | may change | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    when = {Change.CONFIGURE: "before configure", Change.RUN_TIME: "at any time"}
    for name, spec in SPECS.items():
        default = str(DEFAULTS[name])
        default = default.lower() if isinstance(DEFAULTS[name], bool) else default
        kind = {bool: "bool", int: "int", float: "double", str: "string"}[type(DEFAULTS[name])]
        text = spec.description
        if spec.model_default:
            text += f" {OF_THE_MODEL:g}: as the model's bundle says."
        shown = f"`{default}`" if default else ""
        lines.append(
            f"| `{name}` | {kind} | {shown} | {spec.allowed} | {when[spec.change]} | {text} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
