"""One target through a stream of pictures: states, box and size, when to trust, where to look."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from siam_tracker_ros.bundle import Bundle, Memory, StepResult
from siam_tracker_ros.geometry import (
    MIN_SIDE,
    Box,
    Crop,
    Picture,
    Rgb,
    extract_crop,
    search_crop,
    template_crop,
)
from siam_tracker_ros.tracking.presence import presence
from siam_tracker_ros.tracking.redetection import places
from siam_tracker_ros.tracking.size_rule import first_bias, smoothed_size
from siam_tracker_ros.tracking.types import (
    SelectionError,
    Size,
    StatefulSession,
    Timing,
    TrackerSettings,
    TrackResult,
    TrackState,
    UInt8Array,
)

_NEVER = float("-inf")


@dataclass(frozen=True)
class _Track:
    """What is known of the target; replaced as a whole, so that a failed update changes nothing."""

    box: Box  # image px, after the last frame that was not LOST
    confident: Box  # image px, after the last TRACKING frame
    fill: Rgb  # first frame's mean
    bias: Size  # the network's sizes of this target are too large by these factors
    state: TrackState
    low: int = 0  # frames in a row below the threshold ``lost``
    memory: Memory | None = None  # the last committed frame cropped at its final box
    lost_at: float = _NEVER  # stamp of the frame that lost it
    candidate: Box | None = None  # LOST: a place that looked right in the last frame
    hint: tuple[Box, float] | None = None  # LOST: a place half seen, and its presence


@dataclass(frozen=True)
class _Limits:
    """Settings with the bundle's defaults filled in."""

    found: float
    lost: float
    size_rate: float
    window: float
    penalty: float
    size_by_score: float
    size_bias: float


class _Clock:
    """Sums up where the time of one call goes."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.begin = now()
        self.crop = self.step = 0.0

    def elapsed(self) -> float:
        return self.now() - self.begin

    def timing(self) -> Timing:
        return Timing(1e3 * self.crop, 1e3 * self.step, 1e3 * self.elapsed())


class Tracker:
    """Follows one target with a bundle's network on a session.

    The box lives here, in image pixels; what else is carried from frame to frame lives in the
    session, and only frames on which the target was surely seen are committed to it.

    * IDLE: no target.
    * TRACKING: presence has not been below ``lost`` since it was last at or above ``found``.
    * UNCERTAIN: it fell below ``lost``; nothing is committed, and when half of ``lost_after`` has
      gone by the search region grows with each frame that stays below. At or above ``found``:
      TRACKING.
    * LOST: ``lost_after`` frames in a row below ``lost``. Every frame, search regions around the
      last place and ever further are looked at within ``redetect_budget_ms``. A place at or above
      ``found`` is looked at again on the next frame, and only if it holds there is the target
      TRACKING again.

    Not thread-safe: one owner.

    Args:
        bundle: crop sizes, tuning and presence model.
        session: runs the bundle's graphs; the caller closes it.
        settings: see :class:`TrackerSettings`.
        clock: seconds, for the budget of re-detection and for timings; must advance with each look.
    """

    def __init__(
        self,
        bundle: Bundle,
        session: StatefulSession,
        settings: TrackerSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._now = clock
        self._bundle = bundle
        self._session = session
        self._graph_tuning = bundle.graph_tuning
        self._reads_memory = bundle.reads_memory
        self._in_session: dict[str, float] = {}
        self._track: _Track | None = None
        self._scan: Iterator[Box] | None = None
        self._scanned = (0, 0)  # size of the pictures that are scanned
        self._look_s = 0.0  # measured time of one look, seconds
        self.settings = TrackerSettings() if settings is None else settings

    @property
    def bundle(self) -> Bundle:
        """The bundle that is running."""
        return self._bundle

    @property
    def state(self) -> TrackState:
        """The state after the last frame."""
        return TrackState.IDLE if self._track is None else self._track.state

    @property
    def settings(self) -> TrackerSettings:
        """The settings; new ones hold from the next frame on.

        Raises:
            ValueError: if ``lost`` ends up above ``found`` with the bundle's defaults filled in.
        """
        return self._settings

    @settings.setter
    def settings(self, settings: TrackerSettings) -> None:
        self._limits = _filled_in(settings, self._bundle)
        self._settings = settings

    def initialize(self, picture: Picture, box: Box) -> TrackResult:
        """Begin to track what ``box`` (image px) holds; replaces the target that was tracked
        before.

        The box is clipped to the picture.

        Raises:
            SelectionError: if the box cannot be tracked (:func:`selectable`); the running track is
                untouched.
        """
        clock = _Clock(self._now)
        box = selectable(box, picture)
        fill = picture.mean_rgb()
        region = search_crop(box, self._bundle.crop)
        template = self._cut(picture, template_crop(box, self._bundle.crop), fill, clock)
        search = self._cut(picture, region, fill, clock)
        self._tune(self._limits.window)
        size = _size(region.box_to_crop(box))
        begin = clock.now()
        result = _usable(self._session.start(template, search, size), region)
        clock.step += clock.now() - begin
        self._track = _Track(
            box=box,
            confident=box,
            fill=fill,
            bias=first_bias(result.box, region.box_to_crop(box), self._limits.size_bias),
            state=TrackState.TRACKING,
            memory=Memory(search, size) if self._reads_memory else None,
        )
        score = presence(self._bundle.presence, result, size)
        return TrackResult(box, score, TrackState.TRACKING, clock.timing())

    def update(self, picture: Picture, stamp: float | None = None) -> TrackResult:
        """Find the target in the next picture.

        Args:
            picture: the next frame; its size may change.
            stamp: its time in seconds, any origin, for ``give_up_after``; a monotonic clock if
                None.

        Raises:
            Exception: whatever the session raises; the tracker then stands where it stood before
                the call.
        """
        clock = _Clock(self._now)
        track = self._track
        if track is None:
            return TrackResult(None, 0.0, TrackState.IDLE, clock.timing())
        now = time.monotonic() if stamp is None else stamp
        if track.state is TrackState.LOST:
            return self._update_lost(picture, track, now, clock)
        return self._update_seen(picture, track, now, clock)

    def clear(self) -> None:
        """Forget the target."""
        self._track = None

    def _update_seen(
        self, picture: Picture, track: _Track, now: float, clock: _Clock
    ) -> TrackResult:
        """TRACKING or UNCERTAIN: search around the last box."""
        settings, limits = self._settings, self._limits
        # Only when nothing has been seen for a while: what is there is seen worse in a wider region.
        wider = max(0, track.low - settings.lost_after // 2)
        grow = min(1.0 + settings.grow_rate * wider, settings.grow_limit)
        box, score = self._look(picture, track.box, grow, limits.window, track, clock)

        tracking = track.state is TrackState.TRACKING
        if score >= limits.found or (tracking and score >= limits.lost):
            after = self._seen(picture, track, box, clock)
        else:
            low = track.low + 1 if score < limits.lost else 0
            lost = low >= settings.lost_after
            after = replace(
                track,
                box=box,
                state=TrackState.LOST if lost else TrackState.UNCERTAIN,
                low=low,
                lost_at=now if lost else _NEVER,
            )
            self._scan = None
        self._track = after
        shown = None if after.state is TrackState.LOST else box
        return TrackResult(shown, score, after.state, clock.timing())

    def _update_lost(
        self, picture: Picture, track: _Track, now: float, clock: _Clock
    ) -> TrackResult:
        """LOST: look at last frame's candidate again, else at what places the budget allows."""
        settings, found = self._settings, self._limits.found
        best = 0.0
        if track.candidate is not None:
            box, best = self._look(picture, track.candidate, 1.0, 0.0, track, clock)
            if best >= found and _same_place(box, track.candidate):
                self._track = self._seen(picture, track, box, clock)
                return TrackResult(box, best, TrackState.TRACKING, clock.timing())

        if settings.give_up_after > 0 and now - track.lost_at >= settings.give_up_after:
            self.clear()
            return TrackResult(None, best, TrackState.IDLE, clock.timing())

        # A clock that jumped back must not keep a lost target for ever.
        after = replace(track, candidate=None, lost_at=min(track.lost_at, now))
        hint = track.hint
        size = (picture.width, picture.height)
        if self._scan is None or size != self._scanned:
            side = search_crop(track.confident, self._bundle.crop).side
            self._scan, self._scanned = places(track.confident, side, *size), size
        budget = settings.redetect_budget_ms / 1e3
        looked = track.candidate is not None
        while not looked or clock.elapsed() + self._look_s <= budget:
            # What was half seen, at the edge of a region or at another size, is looked at from where
            # it seems to be, for as long as that makes it clearer.
            place = next(self._scan) if hint is None else hint[0]
            box, score = self._look(picture, place, 1.0, 0.0, track, clock)
            looked, best = True, max(best, score)
            if score >= found:
                after, hint = replace(after, candidate=box), None
                break
            worth = score >= self._limits.lost and score > (0.0 if hint is None else hint[1])
            hint = (box, score) if worth else None
        self._track = replace(after, hint=hint)
        return TrackResult(None, best, TrackState.LOST, clock.timing())

    def _look(
        self,
        picture: Picture,
        around: Box,
        grow: float,
        window: float,
        track: _Track,
        clock: _Clock,
    ) -> tuple[Box, float]:
        """Search one region, without committing; return the new box (image px) and its presence."""
        begin = clock.elapsed()
        limits = self._limits
        region = search_crop(around, self._bundle.crop, grow)
        pixels = self._cut(picture, region, track.fill, clock)
        previous = _size(region.box_to_crop(around))
        self._tune(window)
        start = clock.now()
        result = self._session.step(pixels, previous, track.memory)
        clock.step += clock.now() - start
        result = _usable(_unbiased(result, track.bias), region)
        size = smoothed_size(
            _size(result.box),
            previous,
            score=result.score,
            rate=limits.size_rate,
            penalty=limits.penalty,
            by_score=limits.size_by_score,
        )
        box = region.box_to_image(Box(result.box.cx, result.box.cy, *size))
        score = presence(self._bundle.presence, result, previous)
        took = clock.elapsed() - begin
        self._look_s = took if self._look_s == 0.0 else 0.8 * self._look_s + 0.2 * took
        return box.kept_in_image(picture.width, picture.height), score

    def _seen(self, picture: Picture, track: _Track, box: Box, clock: _Clock) -> _Track:
        """Commit the last step and return the track with the target at ``box``."""
        memory = None
        if self._reads_memory:
            region = search_crop(box, self._bundle.crop)
            crop = self._cut(picture, region, track.fill, clock)
            memory = Memory(crop, _size(region.box_to_crop(box)))
        self._session.commit()
        return _Track(
            box=box,
            confident=box,
            fill=track.fill,
            bias=track.bias,
            state=TrackState.TRACKING,
            memory=memory,
        )

    def _cut(self, picture: Picture, crop: Crop, fill: Rgb, clock: _Clock) -> UInt8Array:
        begin = clock.now()
        pixels = extract_crop(picture, crop, fill)
        clock.crop += clock.now() - begin
        return pixels

    def _tune(self, window: float) -> None:
        """Send the session those tuning values that its graphs read and that changed."""
        for name in self._graph_tuning:
            if name == "window":
                value = window
            elif name == "penalty":
                value = self._limits.penalty
            elif name == "size_rate":
                value = self._limits.size_rate
            else:
                value = self._bundle.tuning[name]
            if self._in_session.get(name) != value:
                self._session.set_tuning(name, value)
                self._in_session[name] = value


def selectable(box: Box, picture: Picture) -> Box:
    """Return the part of ``box`` inside ``picture`` (image px), if it can be tracked.

    Raises:
        SelectionError: if it is not finite, has no size, lies outside, or has a side below MIN_SIDE
            inside.
    """
    if not box.is_finite():
        raise SelectionError(f"the box is not finite: {_text(box)}")
    if box.w <= 0 or box.h <= 0:
        raise SelectionError(f"the box has no size: {_text(box)}")
    clipped = box.clipped_to_image(picture.width, picture.height)
    size = f"{picture.width} x {picture.height}"
    if clipped.w <= 0 or clipped.h <= 0:
        raise SelectionError(f"the box lies outside the {size} picture: {_text(box)}")
    # Decimal fractions are not exact in binary: a side of 4 px may come out of the clipping a hair
    # smaller.
    if min(clipped.w, clipped.h) < MIN_SIDE - 1e-6:
        raise SelectionError(
            f"the box is too small: {clipped.w:.4g} x {clipped.h:.4g} px inside the {size} "
            f"picture; at least {MIN_SIDE:g} x {MIN_SIDE:g} px are needed"
        )
    return clipped


def _text(box: Box) -> str:
    return f"centre ({box.cx:g}, {box.cy:g}), size {box.w:g} x {box.h:g}"


def _size(box: Box) -> Size:
    return (box.w, box.h)


def _usable(result: StepResult, region: Crop) -> StepResult:
    """Refuse what is not finite; hold sizes above the least (linear heads go negative)."""
    numbers = (*result.box, result.score, result.runner_up)
    if not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"the network's result is not finite: {result}")
    low = MIN_SIDE * region.scale
    box = result.box
    if box.w >= low and box.h >= low:
        return result
    return replace(result, box=Box(box.cx, box.cy, max(box.w, low), max(box.h, low)))


def _unbiased(result: StepResult, bias: Size) -> StepResult:
    """Take the size bias of the target off the network's box."""
    box = result.box
    return replace(result, box=Box(box.cx, box.cy, box.w / bias[0], box.h / bias[1]))


def _same_place(box: Box, candidate: Box) -> bool:
    """Tell whether two looks one frame apart may be of one target: it moved less than its size."""
    moved = max(abs(box.cx - candidate.cx) / candidate.w, abs(box.cy - candidate.cy) / candidate.h)
    ratio = math.sqrt(box.area / candidate.area)
    return moved <= 1.0 and 1 / 1.5 <= ratio <= 1.5


def _filled_in(settings: TrackerSettings, bundle: Bundle) -> _Limits:
    """Return the settings with the bundle's defaults for what is None."""
    presence_spec, tuning = bundle.presence, bundle.tuning

    def default(value: float | None, name: str, otherwise: float) -> float:
        return tuning.get(name, otherwise) if value is None else value

    limits = _Limits(
        found=presence_spec.found if settings.found is None else settings.found,
        lost=presence_spec.lost if settings.lost is None else settings.lost,
        size_rate=default(settings.size_rate, "size_rate", 1.0),
        window=default(settings.window, "window", 0.0),
        penalty=default(settings.penalty, "penalty", 0.0),
        size_by_score=tuning.get("size_by_score", 1.0),
        size_bias=tuning.get("size_bias", 0.0),
    )
    if limits.lost > limits.found:
        raise ValueError(
            f"lost must not be above found, got lost = {limits.lost:g}, found = {limits.found:g} "
            f"(what was not set comes from bundle {bundle.name})"
        )
    return limits
