"""What happens to images and selections: the rules of the node, without threads and without ROS."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.errors import ImageError
from siam_tracker_ros.nodes.frames import SECOND, Frame, stamp_text
from siam_tracker_ros.nodes.history import History
from siam_tracker_ros.nodes.selection import (
    NoFrameError,
    Selection,
    SelectionRules,
    choose_frame,
)
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
    """What is published for one image; ``selected`` if that is the image of a selection."""

    frame: Frame
    id: str
    label: str
    result: TrackResult
    selected: bool = False

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

    def caught_up(self, followed: int, skipped: int) -> None:
        """Count the images that were followed in, or left out, from a selection to the present."""
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


@dataclass
class _CatchUp:
    """The way from a selection's image to the present.

    Attributes:
        begin, until: on the clock, seconds.
        cost: time for one image as measured last, seconds.
        followed, skipped: images so far.
    """

    begin: float
    until: float
    cost: float
    followed: int = 0
    skipped: int = 0


class Follower:
    """Applies selections to images, follows the target, and says what it sees.

    Not thread-safe: one owner. What others send never raises here: a bad image or a refused
    selection is said, and a running track goes on.

    A selection begins on the image it was made on, however old; the owner then calls
    :meth:`catch_up` until nothing is :attr:`behind`, between other calls and before the next image.

    Args:
        tracker: idle.
        outputs: where results go.
        history: the images received so far; whoever receives an image puts it there first.
        rules: for selections.
        clock: seconds, for waiting and budgets only.
    """

    def __init__(
        self,
        tracker: Tracker,
        outputs: Outputs,
        history: History,
        rules: SelectionRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = SelectionRules() if rules is None else rules
        self._tracker = tracker
        self._out = outputs
        self._history = history
        self._clock = clock
        self._paused = False
        self._pending: _Pending | None = None
        self._catch_up: _CatchUp | None = None
        self._newest: Frame | None = None
        self._taken = -1  # number of the last image that came through `frame`
        self._done = -1  # number of the last image that was initialised on or followed in
        self._shown: int | None = None  # stamp of the last image with a published detection
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

    @property
    def behind(self) -> bool:
        """Whether the target is to be followed through images of the past: :meth:`catch_up`."""
        return self._catch_up is not None

    # --- what comes in ------------------------------------------------------------------------

    def frame(self, frame: Frame) -> None:
        """Take the next image."""
        self._taken = frame.number
        if not self._arrive(frame):
            return
        if self._pending is not None:
            self._resolve(self._in_hand())
        if frame.number <= self._done or self.behind:
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
        if newest is not None:
            self._arrive(newest)
        self._pending = _Pending(selection, self._clock() + WAIT_FOR_FRAME)
        in_hand = self._in_hand()
        # Unless what was the newest is from before the stamps jumped back.
        if selection.stamp == 0 and newest and self._newest and newest.stamp <= self._newest.stamp:
            in_hand = [newest]
        self._resolve(in_hand)
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
        self._catch_up = None
        self._id = self._label = ""
        self._last_box = None
        self._out.status(True, state=self._state(), id="", score=None)
        return what

    def pause(self, paused: bool) -> None:
        """Stop following, or go on with the next image; the target is kept."""
        self._paused = paused
        self._catch_up = None
        self._out.status(True, state=self._state())

    def set_settings(self, settings: TrackerSettings, rules: SelectionRules) -> None:
        """Take new settings from the next image and the next selection on."""
        self._tracker.settings = settings
        self._rules = rules

    def bad_image(self, reason: str) -> None:
        """Say that an image cannot be read; the track goes on with the next one."""
        text = f"an image is ignored: {reason}"
        if self._is_trouble(text):
            self._out.warn(text)

    def time_jumped_back(self, now: int) -> None:
        """The clock was set back to ``now`` (nanoseconds): what was seen of later is void."""
        if self._newest is not None and self._newest.stamp > now:
            self._history.clear()
            self._forget_time(f"the clock jumped back to {stamp_text(now)}")

    def forget_images(self) -> None:
        """What was seen so far says nothing of the images to come."""
        self._newest = None
        self._shown = None
        self._history.clear()
        self._published.clear()
        self._trouble = None

    def deadline(self) -> float | None:
        """When :meth:`expire` wants to be called, on the clock given; None = never."""
        return None if self._pending is None else self._pending.deadline

    def expire(self) -> None:
        """Refuse a selection that waited for too long."""
        if self._pending is not None and self._clock() >= self._pending.deadline:
            self._resolve(self._in_hand(), may_wait=False)

    def catch_up(self) -> None:
        """Follow the target in one of the images between the selection's and the present one.

        Nothing is published for images of the past. Of more than the time allows, some are left out
        evenly. With the newest image it is over, unless that is still to come through
        :meth:`frame`.
        """
        way = self._catch_up
        if way is None:
            return
        now = self._clock()
        frames = self._history.frames(after=self._done)
        if frames and self._newest is not None and frames[-1].stamp < self._newest.stamp:
            frames = []  # from after a jump back, of which the next image tells
        present = frames.pop() if frames else None
        if not frames or now >= way.until:
            way.skipped += len(frames)
            self._end_catch_up(way, now)
            if present is not None and present.number <= self._taken:
                self._follow(present)
            return
        affordable = max(1.0, (way.until - now) / way.cost) if way.cost > 0 else math.inf
        left_out = max(0, math.ceil(len(frames) / affordable) - 1)
        frame = frames[left_out]
        self._follow(frame, silent=True)
        self._done = max(self._done, frame.number)  # also if it could not be read
        way.cost = self._clock() - now
        way.followed += 1
        way.skipped += left_out

    def _end_catch_up(self, way: _CatchUp, now: float) -> None:
        self._catch_up = None
        if way.followed + way.skipped == 0:
            return
        self._out.caught_up(way.followed, way.skipped)
        took, state = 1e3 * (now - way.begin), self._tracker.state.value
        text = (
            f"target {self._id} is {state} after {way.followed} images of the past in {took:.0f} ms"
        )
        if way.skipped:
            text += f"; {way.skipped} were left out (catch_up_budget_ms)"
        self._out.info(text)
        self._out.status(True, state=self._state())

    # --- images -------------------------------------------------------------------------------

    def _in_hand(self) -> list[Frame]:
        """Return the images that a selection may mean, oldest first."""
        newest, frames = self._newest, self._history.frames()
        # The one that was taken may be decoded already.
        return [newest if newest and f.number == newest.number else f for f in frames]

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
        self._shown = None
        self._published.clear()
        if self._tracker.state is not TrackState.IDLE or self._pending is not None:
            self._out.warn(self.clear(why))
        else:
            self._out.info(why)

    def _follow(self, frame: Frame, silent: bool = False) -> None:
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
            self._catch_up = None
            self._id = self._label = ""
            self._last_box = None
            self._out.status(True, state=self._state(), id="", score=None, stamp=frame.stamp)
            self._out.picture(frame, None)
            return
        self._last_box = result.box or self._last_box
        if result.state is not before:
            self._say_change(before, result.state)
        if not silent:
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
            frame = choose_frame(selection.stamp, in_hand, self._rules, may_wait=may_wait)
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
        if not self._paused:
            now = self._clock()
            self._catch_up = _CatchUp(
                begin=now,
                until=now + self._rules.catch_up_budget,
                cost=result.timing.total_ms / 1e3,
            )
        box = result.box or NOWHERE
        self._out.info(
            f"target {self._id} ({self._label}) is selected: centre ({box.cx:.1f}, {box.cy:.1f}), "
            f"size {box.w:.1f} x {box.h:.1f} in the image of {stamp_text(frame.stamp)}"
        )
        verdict, late = "accepted", frame.stamp - selection.stamp
        if selection.stamp and late > round(self._rules.tolerance * SECOND):
            verdict = f"accepted on the oldest image kept, {late / SECOND:.3f} s after its stamp"
        self._publish(
            frame,
            result,
            changed=True,
            selected=True,
            selection_verdict=verdict,
            selection_stamp=selection.stamp,
        )

    def _refuse(self, selection: Selection, reason: str) -> None:
        self._pending = None
        self._out.warn(f"target: the selection is refused: {reason}")
        self._verdict(selection, f"refused: {reason}", publish=True)

    def _verdict(self, selection: Selection, verdict: str, publish: bool) -> None:
        self._out.status(publish, selection_verdict=verdict, selection_stamp=selection.stamp)

    # --- what goes out ------------------------------------------------------------------------

    def _publish(
        self,
        frame: Frame,
        result: TrackResult,
        changed: bool,
        selected: bool = False,
        **more: Any,
    ) -> None:
        report = Report(frame, self._id, self._label, result, selected)
        # On `detection` stamps never go back: of a selection on an image older than what the target
        # before was followed in, the first word is the next image's.
        if self._shown is None or frame.stamp >= self._shown:
            self._shown = frame.stamp
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
