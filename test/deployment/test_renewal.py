"""A renewed template is the same in every session."""

from __future__ import annotations

import numpy as np
import pytest

from siam_tracker_ros.deployment.torch_session import TorchSession
from siam_tracker_ros.evaluation.agreement import ComparedSession, StepRecorder, replay
from siam_tracker_ros.evaluation.redetection import CountedLooks
from siam_tracker_ros.evaluation.reference_session import ReferenceSession
from siam_tracker_ros.inference import open_session

SIZE = (30.0, 26.0)


@pytest.fixture
def crops(small_bundle):
    bundle = small_bundle
    rng = np.random.default_rng(2)

    def noise(size):
        coarse = rng.integers(0, 256, (size // 4 + 1, size // 4 + 1, 3), dtype=np.uint8)
        return np.ascontiguousarray(coarse.repeat(4, 0).repeat(4, 1)[:size, :size])

    return [noise(bundle.crop.template) for _ in range(3)], noise(bundle.crop.search)


def played(session, crops):
    """What a session says before its template is renewed, after once and after twice."""
    (first, *newer), search = crops
    session.start(first, search, SIZE)
    said = [session.step(search, SIZE)]
    for template in newer:
        session.renew(template, SIZE, 0.3, 0.5)
        said.append(session.step(search, SIZE))
        session.commit()
    return np.array([(*s.box, s.score, s.runner_up) for s in said])


def test_torch_onnx_runtime_and_the_reference_agree(small, small_bundle, crops):
    robot = open_session(small_bundle, "onnxruntime", intra_op_threads=1)
    found = played(robot, crops)
    assert np.abs(np.diff(found, axis=0)).max(1).min() > 1e-3  # each renewal shows
    for other in (TorchSession(small, small_bundle.tuning), ReferenceSession(small_bundle)):
        np.testing.assert_allclose(played(other, crops), found, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(played(other, crops), found, rtol=1e-3, atol=1e-3)  # anew
    robot.close()


def test_torch_refuses_to_renew_what_was_not_begun(small, small_bundle, crops):
    with pytest.raises(RuntimeError, match="renew before start"):
        TorchSession(small, small_bundle.tuning).renew(crops[0][0], SIZE, 0.3, 0.5)


def test_sessions_around_others_pass_it_on(small_bundle, crops):
    alone = played(ReferenceSession(small_bundle), crops)
    np.testing.assert_array_equal(
        played(CountedLooks(ReferenceSession(small_bundle)), crops), alone
    )
    compared = ComparedSession(
        ReferenceSession(small_bundle), {"again": ReferenceSession(small_bundle)}
    )
    np.testing.assert_array_equal(played(compared, crops), alone)
    assert compared.differences["again"].report()["max_difference"]["result.box"] == 0


def test_a_recording_of_steps_has_the_first_template(small_bundle, crops):
    recorder = StepRecorder(ReferenceSession(small_bundle), "noise", 10)
    said = played(recorder, crops)
    assert not np.array_equal(said, played(ReferenceSession(small_bundle), crops))
    report = replay(recorder.recording, ReferenceSession(small_bundle))
    assert report["max_difference"]["result.box"] == 0
