"""Made absences: what is in their pictures, and what the figures say about known answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from siam_tracker_ros.bundle import StepResult
from siam_tracker_ros.evaluation import EvaluationError, Sequence, SequenceError
from siam_tracker_ros.evaluation.redetection import (
    COLUMNS,
    KINDS,
    AbsenceTimes,
    Case,
    cases,
    counted_tracker,
    judge,
    made_clip,
    markdown,
    play,
    summarise,
    table_rows,
)
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import (
    ColourFinder,
    FakeSession,
    Timing,
    TrackerSettings,
    TrackResult,
    TrackState,
    fake_bundle,
)

RED = (30, 30, 220)  # BGR
TIMES = AbsenceTimes(before=4, going=2, absent=14, after=12)
# 0 TRACKING on the target, 1 TRACKING elsewhere, 2 UNCERTAIN, 3 LOST
STATES = {"t": TrackState.TRACKING, "w": TrackState.TRACKING, "u": TrackState.UNCERTAIN}


class Pictures:
    """A red square that moves over grey; or, without one, a plain colour."""

    fps = 30.0

    def __init__(self, count: int, ground: int, square: bool = True) -> None:
        self.path, self.count, self.ground, self.square = Path("made"), count, ground, square

    def __iter__(self):
        for index in range(self.count):
            frame = np.full((120, 160, 3), self.ground, np.uint8)
            if self.square:
                frame[50:70, 40 + index : 60 + index] = RED
            yield frame


def sequence(name: str, count: int = 30, ground: int = 120, square: bool = True) -> Sequence:
    boxes = np.array([[40.0 + i, 50.0, 20.0, 20.0] for i in range(count)])
    return Sequence(name, Pictures(count, ground, square), boxes, Path("made"))


PAIR = (sequence("square"), sequence("ground", 30, 60, square=False))


def red_pixels(frame: np.ndarray) -> np.ndarray:
    return (frame == RED).all(axis=2)


@pytest.mark.parametrize("look_alike", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_where_the_truth_says_and_nowhere_while_absent(kind, look_alike) -> None:
    case = Case(*PAIR, kind, look_alike)
    clip = list(made_clip(case, TIMES, seed=1))
    assert len(clip) == TIMES.total
    for index, (frame, box, away) in enumerate(clip):
        red = red_pixels(frame)
        x1, y1, x2, y2 = (round(v + 0.5) for v in box.edges)
        inside = red[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)].sum()
        assert frame.shape == (120, 160, 3)
        if index < TIMES.before or index >= TIMES.back:
            assert away == 0.0 and inside == 400
        elif TIMES.hidden <= index < TIMES.hidden + TIMES.absent:
            assert away == 1.0 and inside == 0
        else:
            assert 0.0 < away < 1.0
        alone = red.sum() - inside
        assert alone == (400 if look_alike and index >= TIMES.hidden else 0)
    again = list(made_clip(case, TIMES, seed=1))
    assert all((a[0] == b[0]).all() and a[1] == b[1] for a, b in zip(clip, again, strict=True))


def test_a_clip_that_is_too_short_is_played_back_and_forth() -> None:
    short = sequence("square", 7)
    clip = list(made_clip(Case(short, PAIR[1], "panned", False), TIMES, 0))
    steps = np.abs(np.diff([box.cx for _, box, away in clip[TIMES.back :] if not away]))
    assert len(clip) == TIMES.total and steps.max() == 1.0


def test_a_target_that_is_absent_anyway_is_refused() -> None:
    clip = sequence("gone")
    clip.boxes[:, 2:] = 0.0
    with pytest.raises(SequenceError, match="gone: the target is absent"):
        list(made_clip(Case(clip, PAIR[1], "covered", False), TIMES, 0))


def judged(said: str):
    """The outcome of a tracker whose answers are letters: t, w (elsewhere), u, l (lost)."""
    here, elsewhere = Box(50, 50, 20, 20), Box(120, 50, 20, 20)
    boxes = {"t": here, "w": elsewhere, "u": elsewhere, "l": None}
    results = [TrackResult(boxes[c], 0.5, STATES.get(c, TrackState.LOST), Timing()) for c in said]
    return judge(Case(*PAIR, "covered", False), TIMES, results, [here] * TIMES.total)


def test_what_is_told_is_counted() -> None:
    # before 4, going 2, absent 14, coming 2, after 12
    good = judged("tttt" + "tt" + "wwwuu" + "lllllllll" + "ll" + "lllttttttttt")
    assert (good.followed, good.loss, good.recovery) == (True, 5, 3)
    assert (good.false_recoveries, good.false_frames) == (0, 3)
    wrong = judged("tttt" + "tu" + "llllwwwlllwwww" + "ww" + "wwwwwwwwwwww")
    assert (wrong.loss, wrong.recovery) == (0, None)
    assert (wrong.false_recoveries, wrong.false_frames) == (2, 7)
    blind = judged("tttt" + "tt" + "tttttttttttttt" + "tt" + "tttttttttttt")
    assert (blind.loss, blind.recovery, blind.false_recoveries) == (None, 0, 0)
    late = judged("tttt" + "tt" + "llllllllllllll" + "ll" + "lwwwllllllll")
    assert (late.recovery, late.false_recoveries, late.false_frames) == (None, 1, 0)
    assert not judged("ttlw" + "l" * 30).followed

    figures = summarise([good, wrong, blind, judged("ttlw" + "l" * 30)], TIMES)
    assert (figures.cases, figures.not_followed) == (3, 1)
    assert (figures.loss_median, figures.loss_p90) == (5, math.inf)
    assert figures.never_lost == figures.never_recovered == pytest.approx(1 / 3)
    assert (figures.recovery_median, figures.recovery_p90) == (3, math.inf)
    assert (figures.false_recoveries, figures.falsely_recovered) == (2, pytest.approx(1 / 3))
    assert figures.false_frames == pytest.approx((3 + 7 + 14) / (3 * 14))
    assert figures.to_json()["loss_p90"] is None
    with pytest.raises(EvaluationError, match="in no case"):
        summarise([judged("ttlw" + "l" * 30)], TIMES)
    rows = table_rows("it", [good, wrong], TIMES)
    assert [row[2] for row in rows] == ["all", "covered"] and "never" in rows[0]
    assert markdown(rows).count("\n") == 4 and COLUMNS[0] in markdown(rows)


@pytest.mark.parametrize("looks", [1, 3])
def test_looks_are_counted_not_timed(looks: int) -> None:
    def blind(search, previous_size):
        middle = (search.shape[0] - 1) / 2
        return StepResult(Box(middle, middle, *previous_size), 0.0, 0.0, (middle, middle))

    session = FakeSession(blind)
    tracker = counted_tracker(fake_bundle(), session, TrackerSettings(lost_after=2), looks)
    outcome = play(tracker, Case(*PAIR, "panned", False), TIMES, 2)
    assert not outcome.followed
    assert session.steps == 2 + (TIMES.total - 3) * looks


def test_a_tracker_that_looks_finds_what_comes_back_and_takes_the_look_alike() -> None:
    outcomes = []
    for case in cases(PAIR)[:4]:
        tracker = counted_tracker(
            fake_bundle(), FakeSession(ColourFinder(RED[::-1])), TrackerSettings(lost_after=2), 4
        )
        outcomes.append(play(tracker, case, TIMES, 0))
    alone = [o for o in outcomes if not o.look_alike]
    assert all(o.loss is not None and o.recovery is not None for o in alone)
    assert all(o.false_recoveries == 0 for o in alone)
    assert any(o.false_recoveries for o in outcomes if o.look_alike)


def test_one_sequence_is_not_enough() -> None:
    with pytest.raises(ValueError, match="two sequences"):
        cases(PAIR[:1])
    with pytest.raises(ValueError, match="going must be one frame"):
        AbsenceTimes(going=0)
