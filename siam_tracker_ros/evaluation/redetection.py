"""Re-detection, measured: a target is hidden or leaves the view, and comes back.

From each annotated clip absences are made whose truth is known: the target is *covered* by a piece of
another clip's picture that slides over it, or the view is *panned* away from it onto another clip's
picture. With a *look-alike*, the target's own crop of another frame stands elsewhere from the moment
that the target is hidden until the end. The time budget a frame is counted in looks, so that the same
seed gives the same figures on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Several
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.bundle import Bundle, Memory, StepResult
from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.evaluation.protocol import EvaluationError
from siam_tracker_ros.evaluation.sequences import Sequence, SequenceError
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.tracking import (
    StatefulSession,
    Tracker,
    TrackerSettings,
    TrackResult,
    TrackState,
)

KINDS = ("covered", "panned")

COVER = 1.6
"""Sides of what covers the target, in sides of the target."""

RIGHT, WRONG = 0.5, 0.1
"""IoU from which on the target counts as found again, and below which as taken for something else."""


@dataclass(frozen=True)
class AbsenceTimes:
    """Frames of one made clip, in order.

    Attributes:
        before: frames that the tracker follows undisturbed, the selection's among them.
        going: frames on which the target disappears, and on which it comes back.
        absent: frames on which nothing of it can be seen.
        after: frames from the first on which it is whole again; later it counts as never found.
    """

    before: int = 20
    going: int = 5
    absent: int = 40
    after: int = 60

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be one frame at least, got {value}")

    @property
    def hidden(self) -> int:
        """The first frame on which nothing of the target can be seen."""
        return self.before + self.going

    @property
    def back(self) -> int:
        """The first frame on which it is whole again."""
        return self.hidden + self.absent + self.going

    @property
    def total(self) -> int:
        """Frames in all."""
        return self.back + self.after

    def share(self, index: int) -> float:
        """Return how far away the target is on a frame: 0 undisturbed, 1 wholly absent."""
        if index < self.hidden:
            return max(0.0, (index - self.before + 1) / (self.going + 1))
        if index < self.hidden + self.absent:
            return 1.0
        return max(0.0, (self.back - index) / (self.going + 1))


@dataclass(frozen=True)
class Case:
    """One made clip.

    Attributes:
        sequence: the clip it is made from.
        donor: the clip whose picture hides the target.
        kind: one of :data:`KINDS`.
        look_alike: whether one stands in the picture from the hiding on.
    """

    sequence: Sequence
    donor: Sequence
    kind: str
    look_alike: bool


@dataclass(frozen=True)
class Outcome:
    """What a tracker did on one made clip; frames are counted, None means never.

    Attributes:
        sequence, kind, look_alike: of the case.
        followed: whether the target was followed (IoU 0.5) when it began to disappear; if not, the
            rest says nothing.
        loss: frames from the first without the target to the first LOST, while it is absent.
        recovery: frames from the first with the whole target to the first TRACKING on it.
        false_recoveries: times that it became TRACKING on nothing of the target (IoU < 0.1).
        false_frames: frames without the target that were reported as TRACKING.
    """

    sequence: str
    kind: str
    look_alike: bool
    followed: bool
    loss: int | None
    recovery: int | None
    false_recoveries: int
    false_frames: int


def cases(sequences: Several[Sequence]) -> list[Case]:
    """Return all made clips of ``sequences``; each one's donor is the next.

    Raises:
        ValueError: if there are fewer than two sequences.
    """
    if len(sequences) < 2:
        raise ValueError("two sequences at least: what hides one target is another clip's picture")
    return [
        Case(sequence, sequences[(i + 1) % len(sequences)], kind, look_alike)
        for i, sequence in enumerate(sequences)
        for kind in KINDS
        for look_alike in (False, True)
    ]


def made_clip(case: Case, times: AbsenceTimes, seed: int) -> Iterator[tuple[Frame, Box, float]]:
    """Yield each frame (BGR), the target's true box in it, and how far away it is.

    The box is that of the target were it in sight; the third is 0 where all of it can be seen, 1
    where nothing can. A clip that is too short is played back and forth. The same arguments give the
    same pixels.

    Raises:
        SequenceError: if the target is absent from some of the frames used.
    """
    # The same start, place and side with and without a look-alike.
    random = np.random.default_rng([seed, *case.sequence.name.encode()])
    order = _order(len(case.sequence), times.total, random)
    if not case.sequence.present[order].all():
        raise SequenceError(
            f"{case.sequence.name}: the target is absent from some frames already; leave it out"
        )
    needed = set(order)
    frames = {i: frame for i, frame in enumerate(case.sequence) if i in needed}
    boxes = [Box.from_xywh(*(float(v) for v in case.sequence.boxes[i])) for i in order]
    height, width = frames[order[0]].shape[:2]
    first = next(iter(case.donor.frames))
    donor = np.asarray(cv2.resize(first, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    side = int(random.integers(2))
    other = int(random.integers(times.total))
    corner = random.uniform(0.0, 1.0, 2)
    shown = [boxes[i] for i in range(times.hidden, times.total)]
    alike = _cut(frames[order[other]], boxes[other]) if case.look_alike else None
    place = _place(alike, shown, (width, height), random) if alike is not None else None
    reach = max(_way_out(boxes[i], width, side) for i in range(times.before, times.back))
    for index, number in enumerate(order):
        frame, box, away = frames[number].copy(), boxes[index], times.share(index)
        if case.kind == "covered":
            if away:
                _cover(
                    frame, box, donor, corner, (away - 1.0) * (1 if index < times.hidden else -1)
                )
        elif away:
            shift = round(reach * away)
            frame = _panned(frame, donor, shift, side)
            box = replace(box, cx=box.cx + (shift if side else -shift))
        if alike is not None and place is not None and index >= times.hidden:
            x, y = place
            frame[y : y + alike.shape[0], x : x + alike.shape[1]] = alike
        yield frame, box, away


def _order(length: int, total: int, random: np.random.Generator) -> list[int]:
    """Return the numbers of ``total`` frames from some start on, turning round at the clip's ends."""
    start = int(random.integers(max(1, length - total + 1)))
    period = max(1, 2 * (length - 1))
    return [min(i % period, period - i % period) for i in range(start, start + total)]


def _cut(frame: Frame, box: Box) -> Frame:
    """Return a copy of the whole pixels of a box that are in the picture, one at least."""
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = (round(v + 0.5) for v in box.edges)
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return frame[y1 : max(y1 + 1, min(y2, height)), x1 : max(x1 + 1, min(x2, width))].copy()


def _place(
    alike: Frame, boxes: Several[Box], size: tuple[int, int], random: np.random.Generator
) -> tuple[int, int] | None:
    """Return a corner for a look-alike that touches none of ``boxes``; None where there is none."""
    h, w = alike.shape[:2]
    free_x, free_y = size[0] - w, size[1] - h
    if free_x < 1 or free_y < 1:
        return None
    for _ in range(500):
        x, y = int(random.integers(free_x + 1)), int(random.integers(free_y + 1))
        here = Box.from_xywh(x, y, w, h)
        if all(here.iou(box) == 0.0 for box in boxes):
            return x, y
    return None


def _cover(
    frame: Frame, box: Box, donor: Frame, corner: npt.NDArray[np.float64], off: float
) -> None:
    """Paint a piece of ``donor`` over the target; ``off`` is how far beside it, 1 = beyond its edge."""
    height, width = frame.shape[:2]
    w, h = math.ceil(COVER * box.w), math.ceil(COVER * box.h)
    x = round(box.cx - w / 2 + off * (w + box.w) / 2)
    y = round(box.cy - h / 2)
    dx, dy = (
        int(c * max(0, n - m)) for c, n, m in zip(corner, (width, height), (w, h), strict=True)
    )
    piece = cv2.resize(donor[dy : dy + h, dx : dx + w], (w, h))
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x2 > x1 and y2 > y1:
        frame[y1:y2, x1:x2] = piece[y1 - y : y2 - y, x1 - x : x2 - x]


def _way_out(box: Box, width: int, side: int) -> float:
    """Return by how much the picture must move (0: left, 1: right) until the box is outside."""
    way = width - 0.5 - box.edges[0] if side else box.edges[2] + 0.5
    return min(max(way, 0.0) + 1.0, float(width))


def _panned(frame: Frame, donor: Frame, shift: int, side: int) -> Frame:
    """Return the frame moved by ``shift`` columns (0: left, 1: right), ``donor`` beside it."""
    joined = np.hstack([donor, frame] if side else [frame, donor])
    begin = frame.shape[1] - shift if side else shift
    return np.ascontiguousarray(joined[:, begin : begin + frame.shape[1]])


class CountedLooks:
    """A session that is its tracker's clock: each step takes a millisecond, all else no time.

    Args:
        session: what answers; the caller closes it.
    """

    STEP = 1e-3

    def __init__(self, session: StatefulSession) -> None:
        self._session = session
        self.steps = 0

    def __call__(self) -> float:
        """Return the time, seconds."""
        return self.steps * self.STEP

    @property
    def description(self) -> str:
        """That of the session."""
        return self._session.description

    def start(self, template: Frame, search: Frame, size: tuple[float, float]) -> StepResult:
        """Begin a track."""
        return self._session.start(template, search, size)

    def step(
        self, search: Frame, previous_size: tuple[float, float], memory: Memory | None = None
    ) -> StepResult:
        """Search, and count."""
        self.steps += 1
        return self._session.step(search, previous_size, memory)

    def commit(self) -> None:
        """Make the last step's state current."""
        self._session.commit()

    def set_tuning(self, name: str, value: float) -> None:
        """Set a graph's input."""
        self._session.set_tuning(name, value)

    def warm_up(self) -> None:
        """Run once."""
        self._session.warm_up()

    def close(self) -> None:
        """Leave the session to its owner."""


def counted_tracker(
    bundle: Bundle, session: StatefulSession, settings: TrackerSettings, looks: int
) -> Tracker:
    """Return a tracker that looks for a lost target ``looks`` times a frame, however fast it is."""
    counted = CountedLooks(session)
    # Half a look more: sums of milliseconds are not exact.
    budget = 1e3 * counted.STEP * (looks + 0.5)
    return Tracker(bundle, counted, settings.with_changes(redetect_budget_ms=budget), clock=counted)


def play(tracker: Tracker, case: Case, times: AbsenceTimes, seed: int) -> Outcome:
    """Run a tracker over one made clip."""
    results: list[TrackResult] = []
    truth: list[Box] = []
    for index, (frame, box, _) in enumerate(made_clip(case, times, seed)):
        picture = ArrayPicture(frame, "bgr")
        # The clip's own time: what the tracker is told must not depend on the machine.
        results.append(
            tracker.update(picture, index / 30) if index else tracker.initialize(picture, box)
        )
        truth.append(box)
    return judge(case, times, results, truth)


def judge(
    case: Case, times: AbsenceTimes, results: Several[TrackResult], truth: Several[Box]
) -> Outcome:
    """Return what ``results`` mean, one a frame, with the box that the target has or would have."""

    def overlap(index: int) -> float:
        box = results[index].box
        return 0.0 if box is None else box.iou(truth[index])

    def tracking(index: int) -> bool:
        return results[index].state is TrackState.TRACKING

    hidden, seen = times.hidden, times.hidden + times.absent
    loss = next((i for i in range(times.before, seen) if results[i].state is TrackState.LOST), None)
    recovery = next(
        (i for i in range(times.back, times.total) if tracking(i) and overlap(i) >= RIGHT), None
    )
    false = 0
    for i in range(hidden, times.total):
        if tracking(i) and not tracking(i - 1) and (i < seen or overlap(i) < WRONG):
            false += 1
    last = times.before - 1
    return Outcome(
        case.sequence.name,
        case.kind,
        case.look_alike,
        tracking(last) and overlap(last) >= RIGHT,
        None if loss is None else max(0, loss - hidden),
        None if recovery is None else recovery - times.back,
        false,
        sum(tracking(i) for i in range(hidden, seen)),
    )


@dataclass(frozen=True)
class Figures:
    """What several outcomes say; frames are inf where it never happened.

    Attributes:
        cases: outcomes whose target was followed when it disappeared.
        not_followed: outcomes that say nothing.
        loss_median, loss_p90, never_lost: frames to declare the loss; share of cases never declared.
        recovery_median, recovery_p90, never_recovered: frames to recover; share of cases never.
        false_recoveries: in all.
        falsely_recovered: share of cases with one at least.
        false_frames: share of the frames without the target that say TRACKING.
    """

    cases: int
    not_followed: int
    loss_median: float
    loss_p90: float
    never_lost: float
    recovery_median: float
    recovery_p90: float
    never_recovered: float
    false_recoveries: int
    falsely_recovered: float
    false_frames: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures, ready for JSON: never is null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def summarise(outcomes: Iterable[Outcome], times: AbsenceTimes) -> Figures:
    """Return the figures of outcomes.

    Raises:
        EvaluationError: if there is none whose target was followed.
    """
    given = list(outcomes)
    used = [outcome for outcome in given if outcome.followed]
    if not used:
        raise EvaluationError("in no case was the target followed when it began to disappear")

    def frames(values: list[int | None]) -> tuple[float, float, float]:
        known = np.array([math.inf if v is None else v for v in values], dtype=np.float64)
        # Of the sorted values, never an average of two: one of them may be infinite.
        median, p90 = (np.percentile(known, q, method="higher") for q in (50, 90))
        return float(median), float(p90), float(np.isinf(known).mean())

    return Figures(
        len(used),
        len(given) - len(used),
        *frames([o.loss for o in used]),
        *frames([o.recovery for o in used]),
        sum(o.false_recoveries for o in used),
        sum(o.false_recoveries > 0 for o in used) / len(used),
        sum(o.false_frames for o in used) / (len(used) * times.absent),
    )


COLUMNS = (
    "model",
    "look-alike",
    "absence",
    "cases",
    "loss, median",
    "loss, p90",
    "never lost",
    "found, median",
    "found, p90",
    "never found",
    "false",
    "cases with false",
    "false frames",
)


def table_rows(model: str, outcomes: Several[Outcome], times: AbsenceTimes) -> list[list[str]]:
    """Return the rows of a model's table under :data:`COLUMNS`: all absences, then each kind."""
    rows = []
    for look_alike in (False, True):
        for kind in ("", *KINDS):
            chosen = [o for o in outcomes if o.look_alike == look_alike and kind in ("", o.kind)]
            if not any(o.followed for o in chosen):
                continue
            f = summarise(chosen, times)
            rows.append(
                [
                    model,
                    "yes" if look_alike else "no",
                    kind or "all",
                    str(f.cases),
                    _frames(f.loss_median),
                    _frames(f.loss_p90),
                    f"{100 * f.never_lost:.0f} %",
                    _frames(f.recovery_median),
                    _frames(f.recovery_p90),
                    f"{100 * f.never_recovered:.0f} %",
                    str(f.false_recoveries),
                    f"{100 * f.falsely_recovered:.0f} %",
                    f"{100 * f.false_frames:.1f} %",
                ]
            )
    return rows


def markdown(rows: Iterable[Several[str]]) -> str:
    """Return rows under :data:`COLUMNS` as a markdown table."""
    lines = [COLUMNS, ["---", "---", "---", *["---:"] * (len(COLUMNS) - 3)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _frames(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "never"
