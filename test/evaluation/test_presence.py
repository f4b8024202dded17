"""A tracker on a clip whose target goes and comes back: what is known of each look, and what the states are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from siam_tracker_ros.bundle import PresenceSpec
from siam_tracker_ros.evaluation.presence import Clip, ClipRun, run_clips, state_figures
from siam_tracker_ros.evaluation.sequences import Sequence
from siam_tracker_ros.tracking import ColourFinder, FakeSession, TrackState, fake_bundle

N, GONE = 60, range(15, 40)


class RedFrames:
    """A red square on grey that moves, and is not there in the frames of ``GONE``."""

    path, fps = Path("red"), 30.0

    def __iter__(self):
        for i in range(N):
            frame = np.full((240, 320, 3), 60, np.uint8)
            if i not in GONE:
                frame[100:140, 100 + i : 140 + i] = (0, 0, 255)
            yield frame


@pytest.fixture(scope="module")
def clip():
    boxes = np.array(
        [[100.0 + i, 100, 40, 40] if i not in GONE else [np.nan] * 4 for i in range(N)]
    )
    sure = np.ones(N, bool)
    sure[GONE.start] = False
    return Clip(Sequence("red", RedFrames(), boxes, Path("red")), sure)


@pytest.fixture(scope="module")
def runs(clip):
    session = FakeSession(ColourFinder((255, 0, 0)))
    return run_clips(fake_bundle(), session, [clip])


def test_every_look_with_a_known_outcome_is_there_once(runs):
    (run,) = runs
    visible = N - 1 - len(GONE)
    right = [look for look in run.looks if look.right]
    # Every frame with the target but those in which it was not yet found again.
    assert visible - 5 <= len(right) <= visible
    assert all(look.score > 0.6 for look in right)
    wrong = [look for look in run.looks if not look.right]
    # One a frame, the unsure frame left out.
    assert len(wrong) == len(GONE) - 1
    assert all(look.score < 0.3 for look in wrong)


def test_the_figures_of_the_states(runs):
    figures = state_figures(runs)
    assert (figures.absences, figures.declared) == (1, 1.0)
    assert figures.frames_to_declare == pytest.approx(10, abs=1)
    assert (figures.returns, figures.recovered) == (1, 1.0)
    assert figures.frames_to_recover <= 5
    assert figures.false_per_1000 == 0
    assert figures.wrong_share == 0


def test_a_tracker_that_believes_everything_never_declares_a_loss(clip):
    trusting = replace(fake_bundle(), presence=PresenceSpec(found=0.0, lost=0.0))
    figures = state_figures(run_clips(trusting, FakeSession(ColourFinder((255, 0, 0))), [clip]))
    assert figures.declared == 0
    assert figures.wrong_share > 0.3


def test_a_loss_of_a_target_that_was_well_followed_is_false():
    tracking, lost = TrackState.TRACKING, TrackState.LOST
    states = (tracking,) * 10 + (TrackState.UNCERTAIN,) * 5 + (lost,) * 5
    right = np.array([True] * 15 + [False] * 5)
    there = np.ones(20, bool)
    good = ClipRun(states, right, there, there, ())
    assert state_figures([good]).false_per_1000 == pytest.approx(50)
    strayed = ClipRun(states, np.array([True] * 5 + [False] * 15), there, there, ())
    assert state_figures([strayed]).false_per_1000 == 0
