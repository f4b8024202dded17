from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from siam_tracker_ros.evaluation import evaluate_tracker, read_sequences, synthetic_sequence
from siam_tracker_ros.evaluation.peers import PEERS, OpenCvTracker, PeerError, PeerMaker


def test_static_box_needs_nothing():
    clip = synthetic_sequence(160, 120, 8)
    summary = evaluate_tracker(PeerMaker("static"), [clip])
    np.testing.assert_allclose(summary.results[0].run.boxes, [clip.first_box] * 8)
    assert summary.tracker == "static" and summary.details["title"] == "a box that never moves"


def test_unknown_peer():
    with pytest.raises(PeerError, match=r"no peer 'sort'; there are fear_xs, nano"):
        PeerMaker("sort")


@pytest.mark.parametrize("kind", ["csrt", "kcf"])
def test_opencvs_own_trackers_run_or_say_what_is_missing(kind: str):
    clip = synthetic_sequence(160, 120, 6)
    maker = PeerMaker(kind)
    if any(
        hasattr(m, f"Tracker{kind.upper()}_create")
        for m in (cv2, getattr(cv2, "legacy", None))
        if m
    ):
        assert evaluate_tracker(maker, [clip]).mean.frames == 6
    else:
        with pytest.raises(PeerError, match=rf"has no Tracker{kind.upper()}.*contrib"):
            maker()


def test_missing_model_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"peers/vitTracker.onnx is not in"):
        _ = PeerMaker("vit").fingerprint


class Stubborn:
    """Finds the target once, then never again."""

    def init(self, frame, box):
        assert all(isinstance(v, int) for v in box)
        self.calls = 0

    def update(self, frame):
        self.calls += 1
        return self.calls == 1, (5, 6, 7, 8)


def test_a_failure_of_opencv_keeps_the_last_box():
    tracker = OpenCvTracker(Stubborn)
    frame = np.zeros((20, 20, 3), np.uint8)
    tracker.start(frame, (1.4, 2.6, 3.0, 4.0))
    assert tracker.track(frame).box == (5, 6, 7, 8)
    lost = tracker.track(frame)
    assert lost.box == (5, 6, 7, 8) and lost.score == 0


@pytest.mark.data
@pytest.mark.parametrize(
    ("kind", "auc"),
    # Deer, measured with the data's own scorer on the same files
    [("fear_xs", 0.779), ("nano", 0.645), ("vit", 0.227), ("static", 0.086)],
)
def test_peers_reach_what_the_datas_own_scorer_measures(data_root: Path, kind: str, auc: float):
    sequences = read_sequences(data_root / "sequences", ["Deer"])
    summary = evaluate_tracker(PeerMaker(kind), sequences)
    assert summary.auc == pytest.approx(auc, abs=0.02)


def test_fingerprints_differ():
    assert PeerMaker("static").fingerprint != PeerMaker("static", threads=1).fingerprint
    assert set(PEERS) == {"fear_xs", "nano", "vit", "csrt", "kcf", "static"}
