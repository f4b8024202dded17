"""A tracker in its closed loop on clips whose target comes and goes: what it says, and what is true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.bundle import Bundle, Memory, PresenceSpec, StepResult
from siam_tracker_ros.evaluation.redetection import CountedLooks, counted_tracker
from siam_tracker_ros.evaluation.sequences import Sequence as Annotated
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.tracking import (
    StatefulSession,
    Tracker,
    TrackerSettings,
    TrackResult,
    TrackState,
    presence,
)

Bools = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]
Size = tuple[float, float]

RIGHT_IOU = 0.5
"""A box with more overlap than this is right."""

LOOKS = 4
"""Places that are looked at in a frame while LOST, whatever the machine's speed: the same answers everywhere."""


@dataclass(frozen=True, eq=False)
class Clip:
    """An annotated clip in which the target may be absent.

    Attributes:
        sequence: the frames and the target's boxes; NaN where it is absent.
        sure: bool [N]: false where so little of it is to be seen that neither answer is wrong.
        kind: what happens in it, for tables.
    """

    sequence: Annotated
    sure: Bools
    kind: str = ""


@dataclass(frozen=True)
class Look:
    """One search whose outcome is known.

    Attributes:
        result: the graph's answer.
        previous_size: (w, h) of the last box, pixels of that crop.
        right: the target was visible, and the box that became of the answer overlaps it by more
            than :data:`RIGHT_IOU`.
        score: the presence that the tracker gave it.
    """

    result: StepResult
    previous_size: Size
    right: bool
    score: float


@dataclass(frozen=True, eq=False)
class ClipRun:
    """A tracker on one clip, from its second frame on.

    Attributes:
        states: of N frames.
        right: bool [N]: a box was given, and it is right.
        visible: bool [N]: the target is to be seen.
        sure: bool [N], as the clip's.
        looks: one a frame, where its outcome is known: every sure frame with a box; while LOST, the
            best look of sure frames without the target.
    """

    states: tuple[TrackState, ...]
    right: Bools
    visible: Bools
    sure: Bools
    looks: tuple[Look, ...]


class _Recorder(CountedLooks):
    """A session that keeps the answers of its steps."""

    def __init__(self, session: StatefulSession) -> None:
        super().__init__(session)
        self.answers: list[tuple[StepResult, Size]] = []

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Search, and keep the answer."""
        result = super().step(search, previous_size, memory)
        self.answers.append((result, previous_size))
        return result


def run_clips(
    bundle: Bundle,
    session: StatefulSession,
    clips: Iterable[Clip],
    on_clip: Callable[[ClipRun], None] = lambda _: None,
) -> list[ClipRun]:
    """Follow the target of each clip from its first box.

    Args:
        bundle: with the presence model and thresholds to run with.
        session: of that bundle.
        clips: the target is visible in their first frames.
        on_clip: called after each clip.

    Raises:
        SelectionError: if a first box cannot be tracked.
    """
    recorder = _Recorder(session)
    tracker = counted_tracker(bundle, recorder, TrackerSettings(), LOOKS)
    runs = []
    for clip in clips:
        runs.append(_run(bundle.presence, tracker, recorder, clip))
        on_clip(runs[-1])
    return runs


def _run(spec: PresenceSpec, tracker: Tracker, recorder: _Recorder, clip: Clip) -> ClipRun:
    truth, present = clip.sequence.boxes, clip.sequence.present
    states: list[TrackState] = []
    right: list[bool] = []
    looks: list[Look] = []
    for index, frame in enumerate(clip.sequence):
        picture = ArrayPicture(frame, "bgr")
        if index == 0:
            tracker.initialize(picture, Box.from_xywh(*clip.sequence.first_box))
            continue
        recorder.answers.clear()
        result = tracker.update(picture, stamp=index / clip.sequence.frames.fps)
        good = result.box is not None and bool(present[index])
        if good and result.box is not None:
            good = result.box.iou(Box.from_xywh(*map(float, truth[index]))) > RIGHT_IOU
        states.append(result.state)
        right.append(good)
        if clip.sure[index]:
            looks += _known(spec, result, recorder.answers, good, bool(present[index]))
    return ClipRun(
        tuple(states), np.array(right), present[1:].copy(), clip.sure[1:].copy(), tuple(looks)
    )


def _known(
    spec: PresenceSpec,
    result: TrackResult,
    answers: Sequence[tuple[StepResult, Size]],
    right: bool,
    visible: bool,
) -> list[Look]:
    """The looks of one frame whose outcome is known."""
    looks = [Look(*answer, right, presence(spec, *answer)) for answer in answers]
    if result.box is not None:
        # The one that the frame's box came from.
        return [min(looks, key=lambda look: abs(look.score - result.score))] if looks else []
    # While LOST the tracker says how good the best place was.
    return [] if visible or not looks else [max(looks, key=lambda look: look.score)]


@dataclass(frozen=True)
class StateFigures:
    """What the states of a track are worth, over clips.

    Attributes:
        absences: times that the target went away while it was followed, long enough to be
            declared lost (15 frames).
        declared: share of them in which the track became LOST before the target was back.
        frames_to_declare: mean number of frames that took.
        false_per_1000: times that it became LOST on a visible target that it was right about in
            the frame before it first doubted, per 1000 frames with the target.
        returns: times that the target came back after it had been declared lost.
        recovered: share of them after which the track was TRACKING the target again.
        frames_to_recover: mean number of frames that took.
        wrong_share: share of the TRACKING frames in which the target is absent or the box wrong.
    """

    absences: int
    declared: float
    frames_to_declare: float
    false_per_1000: float
    returns: int
    recovered: float
    frames_to_recover: float
    wrong_share: float


LONG_ABSENCE = 15


def state_figures(runs: Iterable[ClipRun]) -> StateFigures:
    """Return the figures of the states over ``runs``; NaN where nothing was to be counted."""
    declared: list[int] = []
    recovered: list[int] = []
    absences = returns = false = visible = tracking = wrong = 0
    for run in runs:
        lost = np.array([s is TrackState.LOST for s in run.states])
        follows = np.array([s is TrackState.TRACKING for s in run.states])
        there = run.visible & run.sure
        visible += int(there.sum())
        tracking += int((follows & run.sure).sum())
        wrong += int((follows & run.sure & ~run.right).sum())
        for begin, end in _stretches(~run.visible):
            was = run.right[max(begin - 5, 0) : begin]
            if end - begin < LONG_ABSENCE or not was.any() or lost[begin - 1]:
                continue
            absences += 1
            when = np.flatnonzero(lost[begin:end])
            if not len(when):
                continue
            declared.append(int(when[0]) + 1)
            if not lost[end - 1] or end >= len(lost):
                continue
            returns += 1
            again = np.flatnonzero((follows & run.right)[end:])
            if len(again):
                recovered.append(int(again[0]) + 1)
        for begin, _ in _stretches(lost):
            doubt = begin
            while doubt > 0 and not follows[doubt - 1]:
                doubt -= 1
            whole = there[max(doubt - 1, 0) : begin + 1].all()
            false += bool(whole and doubt > 0 and run.right[doubt - 1])
    return StateFigures(
        absences,
        _ratio(len(declared), absences),
        float(np.mean(declared)) if declared else float("nan"),
        1000 * _ratio(false, visible),
        returns,
        _ratio(len(recovered), returns),
        float(np.mean(recovered)) if recovered else float("nan"),
        _ratio(wrong, tracking),
    )


def _stretches(flags: Bools) -> list[tuple[int, int]]:
    """First index and one past the last of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
