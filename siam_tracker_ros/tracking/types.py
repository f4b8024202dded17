"""What goes into and comes out of a tracker."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.bundle import Memory, StepResult
from siam_tracker_ros.geometry import Box

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[float, float]


class StatefulSession(Protocol):
    """A bundle's graphs on some back end, with the state they carry. One owner, one thread."""

    @property
    def description(self) -> str:
        """What runs where, for people: "ONNX Runtime 1.31 CPU, 2 threads"."""
        ...

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Begin a track: the template graph, then the search graph with first = 1.

        The state this leaves is current. If it raises, a track that was running before goes on.

        Args:
            template: ``uint8 [n,n,3]`` RGB, C-contiguous, the template's crop of the first frame.
            search: the search region of the first frame, likewise.
            size: (w, h) of the given box in pixels of the search crop.
        """
        ...

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Search one crop from the current state; never changes that state.

        Args:
            search: ``uint8 [n,n,3]`` RGB, C-contiguous.
            previous_size: (w, h) of the target's last box, in pixels of this crop.
            memory: the last committed frame cropped at its final box; given exactly when the
                bundle's search graph lists that input.
        """
        ...

    def commit(self) -> None:
        """Make the last step's new state current. At most once a step."""
        ...

    def set_tuning(self, name: str, value: float) -> None:
        """Set graph input ``tuning.<name>`` from the next step on."""
        ...

    def warm_up(self) -> None:
        """Run the graphs once so that the first frame is as fast as the next; the state stays."""
        ...

    def close(self) -> None:
        """Give everything back; nothing but close may follow."""
        ...


class TrackState(enum.Enum):
    """Where a tracker stands."""

    IDLE = "idle"
    TRACKING = "tracking"
    UNCERTAIN = "uncertain"
    LOST = "lost"


@dataclass(frozen=True)
class Timing:
    """Where the time of one call went, milliseconds (all crops, all steps, the whole call)."""

    crop_ms: float = 0.0
    step_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True)
class TrackResult:
    """What a tracker says about one frame.

    Attributes:
        box: the target in image pixels; None while IDLE or LOST.
        score: presence, the probability that the target is visible and the box right. While LOST,
            that of the best place looked at in this frame.
        state: after this frame.
        timing: of this call.
    """

    box: Box | None
    score: float
    state: TrackState
    timing: Timing


class SelectionError(ValueError):
    """A box that cannot be tracked; ``reason`` says why, for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class TrackerSettings:
    """Settings of a tracker that may change while it runs. None = the bundle's default.

    Attributes:
        found: presence at which an uncertain or lost target counts as found, in [0, 1].
        lost: presence below which a tracked target becomes uncertain, in [0, found].
        size_rate: how fast the size follows the network, in [0, 1].
        window: weight of the cosine window while tracking, in [0, 1].
        penalty: strength of the penalty on size and shape changes, >= 0.
        lost_after: frames in a row below ``lost`` until an uncertain target is lost.
        grow_rate: growth of the search region with each frame below ``lost`` in the second half of
            ``lost_after``, as a fraction of its side.
        grow_limit: largest growth of the search region, in [1, 2].
        redetect_budget_ms: time a frame for looking for a lost target; one place is always looked
            at.
        give_up_after: seconds lost until the target is forgotten; 0 = never.
    """

    found: float | None = None
    lost: float | None = None
    size_rate: float | None = None
    window: float | None = None
    penalty: float | None = None
    lost_after: int = 10
    grow_rate: float = 0.05
    grow_limit: float = 1.5
    redetect_budget_ms: float = 20.0
    give_up_after: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None or name not in _FROM_BUNDLE:
                _check(name, value, low, high)
        if int(self.lost_after) != self.lost_after:
            raise ValueError(f"lost_after must be a whole number of frames, got {self.lost_after}")
        if self.found is not None and self.lost is not None and self.lost > self.found:
            raise ValueError(
                f"lost must not be above found, got lost = {self.lost}, found = {self.found}"
            )

    def with_changes(self, **changes: Any) -> TrackerSettings:
        """Return these settings with some changed.

        Raises:
            ValueError: naming a setting that does not exist, or a value out of range.
        """
        known = [f.name for f in fields(self)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ValueError(
                f"no setting called {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return replace(self, **changes)


_FROM_BUNDLE = ("found", "lost", "size_rate", "window", "penalty")

_RANGES = (
    ("found", 0.0, 1.0),
    ("lost", 0.0, 1.0),
    ("size_rate", 0.0, 1.0),
    ("window", 0.0, 1.0),
    ("penalty", 0.0, 10.0),
    ("lost_after", 1.0, 10_000.0),
    ("grow_rate", 0.0, 1.0),
    ("grow_limit", 1.0, 2.0),
    ("redetect_budget_ms", 0.0, 10_000.0),
    ("give_up_after", 0.0, 1e9),
)


def _check(name: str, value: object, low: float, high: float) -> None:
    """Refuse a value that is no number or outside [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value:g}")
