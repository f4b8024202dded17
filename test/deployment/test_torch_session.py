"""The torch session keeps the session contract, and agrees with the session that robots use."""

from __future__ import annotations

import numpy as np
import pytest

from siam_tracker_ros.deployment.torch_session import TorchSession
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.tracking import Tracker, TrackerSettings

SIZE = (30.0, 40.0)


def crop(seed: int, side: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def session(small) -> TorchSession:
    return TorchSession(small, small.default_tuning)


def test_step_does_not_change_the_state_and_commit_does(session):
    """What is remembered shows only where ARM finds a frame aberrant: some frame among many does."""
    session.start(crop(0, 65), crop(1, 129), SIZE)

    def outputs():
        result = session.step(crop(2, 129), SIZE)
        return result, {k: v.copy() for k, v in session.outputs.items()}

    def same(one, other):
        return one[0] == other[0] and all(np.array_equal(v, other[1][k]) for k, v in one[1].items())

    before = outputs()
    for seed in range(3, 40):
        session.step(crop(seed, 129), SIZE)
        assert same(outputs(), before)
    changed = 0
    for seed in range(3, 40):
        session.step(crop(seed, 129), SIZE)
        session.commit()
        changed += not same(outputs(), before)
    assert changed > 0


def test_start_forgets_the_track_before(session, small):
    fresh = TorchSession(small, small.default_tuning)
    session.start(crop(8, 65), crop(9, 129), SIZE)
    session.step(crop(7, 129), SIZE)
    session.commit()
    assert session.start(crop(0, 65), crop(1, 129), SIZE) == fresh.start(
        crop(0, 65), crop(1, 129), SIZE
    )
    assert session.step(crop(2, 129), SIZE) == fresh.step(crop(2, 129), SIZE)


def test_wrong_calls_are_refused(session):
    with pytest.raises(RuntimeError, match="step before start"):
        session.step(crop(1, 129), SIZE)
    session.start(crop(0, 65), crop(1, 129), SIZE)
    with pytest.raises(RuntimeError, match="commit without a step"):
        session.commit()
    session.step(crop(1, 129), SIZE)
    session.commit()
    with pytest.raises(RuntimeError, match="commit without a step"):
        session.commit()
    with pytest.raises(ValueError, match="does not read the previous frame"):
        session.step(crop(1, 129), SIZE, crop(2, 129))
    with pytest.raises(ValueError, match="no tuning input size_rate"):
        session.set_tuning("size_rate", 0.5)


def test_warm_up_leaves_the_state(session):
    session.start(crop(0, 65), crop(1, 129), SIZE)
    before = session.step(crop(2, 129), SIZE)
    session.warm_up()
    assert session.step(crop(2, 129), SIZE) == before
    session.close()
    with pytest.raises(RuntimeError, match="step before start"):
        session.step(crop(2, 129), SIZE)


def test_tuning_reaches_the_graph(session):
    session.start(crop(0, 65), crop(1, 129), SIZE)
    session.set_tuning("window", 1.0)
    assert session.step(crop(2, 129), SIZE).peak == (64.0, 64.0)


def test_it_says_what_runs(session):
    assert session.description.startswith("torch ")
    assert session.description.endswith("CPU, 1 thread")


def test_onnx_session_does_the_same_through_start_step_and_commit(session, small_bundle):
    """Steps with and without commit, growing windows, other tuning: both say the same all along."""
    other = open_session(small_bundle, "onnxruntime", intra_op_threads=1)
    rng = np.random.default_rng(4)
    for track in range(2):
        template, first = crop(50 + track, 65), crop(60 + track, 129)
        assert_close(session.start(template, first, SIZE), other.start(template, first, SIZE))
        for i in range(12):
            for each in (session, other):
                each.set_tuning("window", 0.1 * (i % 3))
            search, size = crop(100 + i, 129), tuple(rng.uniform(15, 60, 2))
            assert_close(session.step(search, size), other.step(search, size))
            if i % 3:
                session.commit()
                other.commit()
    other.close()


def assert_close(a, b):
    assert b.peak == a.peak
    assert (b.box.cx, b.box.cy, b.box.w, b.box.h) == pytest.approx(
        (a.box.cx, a.box.cy, a.box.w, a.box.h), abs=1e-3
    )
    assert (b.score, b.runner_up) == pytest.approx((a.score, a.runner_up), abs=1e-5)


def test_tracker_runs_on_it(session, small_bundle):
    settings = TrackerSettings(found=0.0, lost=0.0)
    tracker = Tracker(small_bundle, session, settings)
    clip = synthetic_sequence(320, 240, 5)
    frames = [ArrayPicture(frame, "bgr") for frame in clip]
    assert tracker.initialize(frames[0], Box.from_xywh(*clip.first_box)).box is not None
    for frame in frames[1:]:
        assert tracker.update(frame).box is not None
