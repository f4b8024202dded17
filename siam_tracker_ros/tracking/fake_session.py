"""A session without a network: it plays a known trajectory, to test trackers and nodes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from siam_tracker_ros.bundle import Bundle, Memory, PresenceSpec, StepResult
from siam_tracker_ros.geometry import Box, CropSpec
from siam_tracker_ros.tracking.types import Size, UInt8Array

Player = Callable[[UInt8Array, Size], StepResult]
Item = StepResult | Exception | Player


class FakeSession:
    """A :class:`StatefulSession` that answers from a list, or by calling a function.

    Args:
        trajectory: what successive ``step`` calls answer: a :class:`StepResult` (crop pixels), a
            function ``(search, previous_size) -> StepResult``, or an exception to raise; the last
            one repeats. Or one such function for all steps.
        first: what ``start`` answers; by default the given size at the crop's centre with score 1.

    Attributes:
        starts, steps, commits: how often each was called.
        searches: the search crops of all steps, only kept with ``keep_searches``.
        memories: what memory each step was given.
        tuning: the values set, by name.
        state: number of commits since the last start; what a real session would carry.
    """

    description = "fake session"

    def __init__(
        self,
        trajectory: Sequence[Item] | Player,
        *,
        first: Item | None = None,
        keep_searches: bool = False,
    ) -> None:
        if not callable(trajectory) and not trajectory:
            raise ValueError("a fake session needs at least one result to play")
        self.trajectory = trajectory
        self.first = first
        self.keep_searches = keep_searches
        self.starts = self.steps = self.commits = self.warm_ups = self.state = 0
        self.searches: list[UInt8Array] = []
        self.memories: list[Memory | None] = []
        self.previous_sizes: list[Size] = []
        self.tuning: dict[str, float] = {}
        self.closed = False
        self._pending = False

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Answer ``first``."""
        self._check_open()
        self.starts += 1
        if self.first is None:
            mid = (search.shape[0] - 1) / 2
            result = StepResult(Box(mid, mid, *size), 1.0, 0.0, (mid, mid))
        else:
            result = _play(self.first, search, size)
        self.state, self._pending = 0, False
        return result

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Answer the trajectory's next item."""
        self._check_open()
        if self.starts == 0:
            raise RuntimeError("step before start")
        index = self.steps
        self.steps += 1
        if self.keep_searches:
            self.searches.append(search.copy())
        self.memories.append(memory)
        self.previous_sizes.append(previous_size)
        self._pending = False
        items = self.trajectory
        item = items if callable(items) else items[min(index, len(items) - 1)]
        result = _play(item, search, previous_size)
        self._pending = True
        return result

    def commit(self) -> None:
        """Count."""
        self._check_open()
        if not self._pending:
            raise RuntimeError("commit without a step before it")
        self.commits += 1
        self.state += 1
        self._pending = False

    def set_tuning(self, name: str, value: float) -> None:
        """Remember."""
        self._check_open()
        self.tuning[name] = value

    def warm_up(self) -> None:
        """Count."""
        self._check_open()
        self.warm_ups += 1

    def close(self) -> None:
        """Refuse everything from now on."""
        self.closed = True

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("the session is closed")


class ColourFinder:
    """A player for :class:`FakeSession` that really looks: it boxes the pixels of one colour.

    The score is the fraction of that box that has the colour; 0 where there is none.

    Args:
        rgb: the target's colour.
        tolerance: largest difference in any channel.
    """

    def __init__(self, rgb: tuple[int, int, int], tolerance: int = 60) -> None:
        self.rgb = np.array(rgb, dtype=np.int16)
        self.tolerance = tolerance

    def __call__(self, search: UInt8Array, previous_size: Size) -> StepResult:
        """Return the box of the colour in ``search``, crop pixels."""
        hit = (np.abs(search.astype(np.int16) - self.rgb) <= self.tolerance).all(axis=2)
        rows, columns = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
        mid = (search.shape[0] - 1) / 2
        if rows.size == 0:
            return StepResult(Box(mid, mid, *previous_size), 0.0, 0.0, (mid, mid))
        left, right = float(columns[0]), float(columns[-1])
        top, bottom = float(rows[0]), float(rows[-1])
        box = Box.from_edges(left - 0.5, top - 0.5, right + 0.5, bottom + 0.5)
        return StepResult(box, float(hit.sum() / box.area), 0.0, (box.cx, box.cy))


def fake_bundle(**changes: Any) -> Bundle:
    """Return a bundle without files for a :class:`FakeSession`; ``changes`` replace its fields."""
    bundle = Bundle(
        path=Path("fake"),
        name="fake",
        tracker="fake",
        crop=CropSpec(template=127, search=255),
        graphs={},
        tuning={"window": 0.42, "penalty": 0.05, "size_rate": 1.0},
        presence=PresenceSpec(found=0.6, lost=0.3),
    )
    return replace(bundle, **changes)


def _play(item: Item, search: UInt8Array, size: Size) -> StepResult:
    if isinstance(item, Exception):
        raise item
    return item(search, size) if callable(item) else item
