"""What happens to images and selections: the rules of the node, without threads and without ROS."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.errors import ImageError
from siam_tracker_ros.nodes.frames import SECOND, Frame, stamp_text
from siam_tracker_ros.nodes.selection import NoFrameError, Selection, choose_frame
from siam_tracker_ros.tracking import (
    SelectionError,
    Tracker,
    TrackerSettings,
    TrackResult,
    TrackState,
)

WAIT_FOR_FRAME = 0.5
"""Seconds that a selection may wait for its image."""

REPEAT_AFTER = 5.0
"""Seconds after which the same complaint is made again."""

SHOWN_FOR = 2.0
"""Seconds that the status tells of a problem with images after the last bad one."""

NOWHERE = Box(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Report:
    """What is published for one image."""

    frame: Frame
    id: str
    label: str
    result: TrackResult

    @property
    def box(self) -> Box:
        """The published box, image pixels; all zero while the target is lost."""
        return NOWHERE if self.result.box is None else self.result.box


class Outputs(Protocol):
    """Where a follower's results go."""

    def detection(self, report: Report) -> None:
        """Publish what was found in one image."""
        ...

    def picture(self, frame: Frame, report: Report | None) -> None:
        """Show an image to whoever watches, with what was found in it (None: no target)."""
        ...

    def status(self, publish: bool, **changes: Any) -> None:
        """Remember what changed of the status, and publish it at once or with the next one."""
        ...

    def info(self, text: str) -> None:
        """Say something."""
        ...

    def warn(self, text: str) -> None:
        """Say that something is not as it should be."""
        ...

    def error(self, text: str) -> None:
        """Say that something failed."""
        ...


@dataclass(frozen=True)
class _Pending:
    selection: Selection
    deadline: float


class Follower:
    """Applies selections to images, follows the target, and says what it sees.

    Not thread-safe: one owner. What others send never raises here: a bad image or a refused
    selection is said, and a running track goes on.

    Args:
        tracker: idle.
        outputs: where results go.
        tolerance: how far a selection's stamp may be from its image's, seconds.
        clock: seconds, for waiting only.
    """

    def __init__(
        self,
        tracker: Tracker,
        outputs: Outputs,
        tolerance: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tolerance = tolerance
        self._tracker = tracker
        self._out = outputs
        self._clock = clock
        self._paused = False
        self._pending: _Pending | None = None
        self._newest: Frame | None = None
        self._done = -1  # number of the last image that was initialised on or followed in
        self._size: tuple[int, int] | None = None  # of that image
        self._last_box: Box | None = None
        self._id = ""
        self._label = ""
        self._counter = 0
        self._published: deque[tuple[int, str, Box]] = deque(maxlen=512)
        self._said: dict[str, float] = {}
        self._said_once: set[str] = set()
        self._trouble: float | None = None  # when an image last was bad

    @property
    def done(self) -> int:
        """Number of the last image that was initialised on or followed in; -1 before."""
        return self._done

    # --- what comes in ------------------------------------------------------------------------

    def frame(self, frame: Frame) -> None:
        """Take the next image."""
        before = self._newest
        if not self._arrive(frame):
            return
        if self._pending is not None:
            self._resolve([f for f in (before, frame) if f is not None])
        if frame.number <= self._done:
            return
        if self._paused or self._tracker.state is TrackState.IDLE:
            self._out.picture(frame, None)
            return
        self._follow(frame)

    def select(self, selection: Selection, newest: Frame | None = None) -> None:
        """Take a selection.

        Args:
            selection: what is asked for.
            newest: the newest image received when the selection came in, whether or not
                :meth:`frame` had it yet.
        """
        if selection.key in self._published:
            if self._once("own output"):
                self._out.warn(
                    "target: the node's own detection came back and is ignored; is `target` "
                    "remapped onto `detection`?"
                )
            return
        if self._pending is not None:
            self._out.info("target: a selection that waited for its image is replaced by another")
        before = self._newest
        if newest is not None:
            self._arrive(newest)
        in_hand: list[Frame] = []
        for frame in (before, newest, self._newest):
            # What came before the stamps jumped back is of another time.
            if frame is None or self._newest is None or frame.stamp > self._newest.stamp:
                continue
            if all(frame is not other for other in in_hand):
                in_hand.append(frame)
        self._pending = _Pending(selection, self._clock() + WAIT_FOR_FRAME)
        self._resolve(sorted(in_hand, key=lambda frame: frame.number))
        if self._pending is not None:
            self._verdict(selection, "waits for its image", publish=True)

    def clear(self, why: str) -> str:
        """Forget target and waiting selection; return what that meant, for people."""
        if self._pending is not None:
            self._verdict(self._pending.selection, f"refused: {why}", publish=False)
            self._pending = None
        had = self._tracker.state is not TrackState.IDLE
        what = f"target {self._id} is cleared: {why}" if had else "there was no target"
        self._tracker.clear()
        self._id = self._label = ""
        self._last_box = None
        self._out.status(True, state=self._state(), id="", score=None)
        return what

    def pause(self, paused: bool) -> None:
        """Stop following, or go on with the next image; the target is kept."""
        self._paused = paused
        self._out.status(True, state=self._state())

    def set_settings(self, settings: TrackerSettings, tolerance: float) -> None:
        """Take new settings from the next image on."""
        self._tracker.settings = settings
        self.tolerance = tolerance

    def bad_image(self, reason: str) -> None:
        """Say that an image cannot be read; the track goes on with the next one."""
        text = f"an image is ignored: {reason}"
        if self._is_trouble(text):
            self._out.warn(text)

    def time_jumped_back(self, now: int) -> None:
        """The clock was set back to ``now`` (nanoseconds): what was seen of later is void."""
        if self._newest is not None and self._newest.stamp > now:
            self._forget_time(f"the clock jumped back to {stamp_text(now)}")

    def forget_images(self) -> None:
        """What was seen so far says nothing of the images to come."""
        self._newest = None
        self._published.clear()
        self._trouble = None

    def deadline(self) -> float | None:
        """When :meth:`expire` wants to be called, on the clock given; None = never."""
        return None if self._pending is None else self._pending.deadline

    def expire(self) -> None:
        """Refuse a selection that waited for too long."""
        if self._pending is not None and self._clock() >= self._pending.deadline:
            self._resolve([] if self._newest is None else [self._newest], may_wait=False)

    # --- images -------------------------------------------------------------------------------

    def _arrive(self, frame: Frame) -> bool:
        """Make ``frame`` the newest; tell whether it had not been seen before."""
        newest = self._newest
        if newest is not None:
            if frame.number <= newest.number:
                return frame.number > self._done
            if frame.stamp < newest.stamp:
                self._forget_time(
                    f"stamps jumped back by {(newest.stamp - frame.stamp) / SECOND:.3f} s to "
                    f"{stamp_text(frame.stamp)}: the clock was reset, or `image` has two publishers"
                )
        self._newest = frame
        if self._trouble is not None and self._clock() - self._trouble >= SHOWN_FOR:
            self._trouble = None
            self._out.status(True, problem="")
        return True

    def _forget_time(self, why: str) -> None:
        self._newest = None
        self._published.clear()
        if self._tracker.state is not TrackState.IDLE or self._pending is not None:
            self._out.warn(self.clear(why))
        else:
            self._out.info(why)

    def _follow(self, frame: Frame) -> None:
        if frame.size != self._size and not self._survives(frame):
            return
        before = self._tracker.state
        try:
            result = self._tracker.update(
                frame.picture, frame.stamp / SECOND if frame.stamp else None
            )
        except ImageError as error:
            self.bad_image(str(error))
            return
        except Exception as error:  # a back end may raise anything; the next image may be fine
            text = f"the network failed on an image: {type(error).__name__}: {error}"
            if self._is_trouble(text):
                self._out.error(text)
            return
        self._done, self._size = frame.number, frame.size
        if result.state is TrackState.IDLE:
            self._out.info(f"target {self._id} was not found again and is given up")
            self._id = self._label = ""
            self._last_box = None
            self._out.status(True, state=self._state(), id="", score=None, stamp=frame.stamp)
            self._out.picture(frame, None)
            return
        self._last_box = result.box or self._last_box
        if result.state is not before:
            self._say_change(before, result.state)
        self._publish(frame, result, changed=result.state is not before)

    def _survives(self, frame: Frame) -> bool:
        """The images' size changed: keep the track if most of the target lies in the new ones."""
        box, size = self._last_box, f"{frame.size[0]} x {frame.size[1]}"
        inside = 0.0
        if box is not None and box.area > 0:
            inside = box.clipped_to_image(*frame.size).area / box.area
        if inside >= 0.5:
            self._out.warn(
                f"the images' size changed to {size}: target {self._id} is followed on at the same "
                "pixels"
            )
            return True
        self._out.warn(
            self.clear(f"the images' size changed to {size}, and it lay outside of that")
        )
        return False

    # --- selections ---------------------------------------------------------------------------

    def _resolve(self, in_hand: list[Frame], may_wait: bool = True) -> None:
        """Apply the waiting selection to the image it means, if that is in hand."""
        assert self._pending is not None
        selection = self._pending.selection
        try:
            frame = choose_frame(
                selection.stamp, in_hand, round(self.tolerance * SECOND), may_wait=may_wait
            )
            if frame is None:
                return
            self._pending = None
            if selection.frame_id not in ("", frame.frame_id):
                raise NoFrameError(
                    f"its frame_id is {selection.frame_id!r}, the image's is {frame.frame_id!r}"
                )
            result = self._tracker.initialize(frame.picture, selection.box)
        except (NoFrameError, SelectionError) as error:
            self._refuse(selection, str(error))
            return
        except ImageError as error:
            self._refuse(selection, f"its image cannot be read: {error}")
            return
        except Exception as error:  # a back end may raise anything; the running track goes on
            self._refuse(selection, f"the network failed: {type(error).__name__}: {error}")
            return
        self._begin(selection, frame, result)

    def _begin(self, selection: Selection, frame: Frame, result: TrackResult) -> None:
        if selection.rotated and self._once("rotated"):
            self._out.warn("target: a turned box was given; the upright box around it is followed")
        if selection.id:
            self._id = selection.id
        else:
            self._counter += 1
            self._id = str(self._counter)
        self._label = selection.label
        self._done, self._size, self._last_box = frame.number, frame.size, result.box
        box = result.box or NOWHERE
        self._out.info(
            f"target {self._id} ({self._label}) is selected: centre ({box.cx:.1f}, {box.cy:.1f}), "
            f"size {box.w:.1f} x {box.h:.1f} in the image of {stamp_text(frame.stamp)}"
        )
        self._publish(
            frame,
            result,
            changed=True,
            selection_verdict="accepted",
            selection_stamp=selection.stamp,
        )

    def _refuse(self, selection: Selection, reason: str) -> None:
        self._pending = None
        self._out.warn(f"target: the selection is refused: {reason}")
        self._verdict(selection, f"refused: {reason}", publish=True)

    def _verdict(self, selection: Selection, verdict: str, publish: bool) -> None:
        self._out.status(publish, selection_verdict=verdict, selection_stamp=selection.stamp)

    # --- what goes out ------------------------------------------------------------------------

    def _publish(self, frame: Frame, result: TrackResult, changed: bool, **more: Any) -> None:
        report = Report(frame, self._id, self._label, result)
        self._published.append((frame.stamp, self._id, report.box))
        self._out.detection(report)
        self._out.status(
            changed,
            state=self._state(),
            id=self._id,
            score=result.score,
            stamp=frame.stamp,
            **more,
        )
        self._out.picture(frame, report)

    def _say_change(self, before: TrackState, now: TrackState) -> None:
        if now is TrackState.LOST:
            self._out.warn(f"target {self._id} is lost; it is looked for")
        elif before is TrackState.LOST:
            self._out.info(f"target {self._id} is found again")

    def _state(self) -> str:
        if self._paused:
            return "paused"
        return self._tracker.state.value

    def _is_trouble(self, complaint: str) -> bool:
        """Put a complaint on the status; tell whether it is to be logged too.

        It is if it is new or old enough to be made again; different numbers do not make it new.
        """
        self._trouble = self._clock()
        kind, now = re.sub(r"[\d.]+", "#", complaint), self._clock()
        if now - self._said.get(kind, -REPEAT_AFTER) < REPEAT_AFTER:
            return False
        self._said = {k: t for k, t in self._said.items() if now - t < REPEAT_AFTER}
        self._said[kind] = now
        self._out.status(True, problem=complaint)
        return True

    def _once(self, what: str) -> bool:
        if what in self._said_once:
            return False
        self._said_once.add(what)
        return True
