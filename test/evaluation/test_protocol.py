from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from siam_tracker_ros.evaluation import (
    Answer,
    EvaluationError,
    Sequence,
    evaluate_tracker,
    synthetic_sequence,
)
from siam_tracker_ros.evaluation.peers import PeerMaker
from siam_tracker_ros.evaluation.protocol import PROTOCOL
from siam_tracker_ros.evaluation.runs import Run, read_run, write_run
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import Timing, TrackResult, TrackState


class PlaysTruth:
    """Answers the truth shifted by ``shift`` pixels; counts its calls."""

    def __init__(self, boxes: np.ndarray, shift: float = 0.0) -> None:
        self.boxes, self.shift, self.starts, self.calls = boxes, shift, 0, 0

    def start(self, frame, box):
        self.starts += 1
        self.index = 0
        return Answer(box)

    def track(self, frame):
        self.calls += 1
        self.index += 1
        x, y, w, h = (float(v) for v in self.boxes[self.index])
        return Answer((x + self.shift, y, w, h), 0.5, "TRACKING")


@pytest.fixture(scope="module")
def clip() -> Sequence:
    return synthetic_sequence(160, 120, 12)


def test_a_perfect_tracker(clip: Sequence):
    tracker = PlaysTruth(clip.boxes)
    seen = []
    summary = evaluate_tracker(lambda: tracker, [clip], name="perfect", on_result=seen.append)
    assert summary.mean.ao == 1
    assert summary.auc == pytest.approx(20 / 21)
    assert (tracker.starts, tracker.calls) == (1, 11)
    assert [r.name for r in seen] == [clip.name]
    assert math.isnan(summary.standard_error())


def test_one_tracker_for_all_sequences_of_a_process(clip: Sequence):
    other = synthetic_sequence(160, 120, 12, seed=1)
    made = []

    def make():
        made.append(PlaysTruth(clip.boxes))
        return made[-1]

    summary = evaluate_tracker(make, [clip, other])
    assert len(made) == 1 and made[0].starts == 2
    assert [r.name for r in summary.results] == [clip.name, other.name]
    assert summary.standard_error() == pytest.approx(0)


class LosesIt:
    """A ``Tracker`` that says LOST from the third frame on."""

    def __init__(self) -> None:
        self.frames = 0

    def initialize(self, picture, box: Box) -> TrackResult:
        assert picture.rgb_region(0, 0, 1, 1).shape == (1, 1, 3)
        self.box, self.frames = box, 0
        return TrackResult(box, 1.0, TrackState.TRACKING, Timing())

    def update(self, picture) -> TrackResult:
        self.frames += 1
        if self.frames >= 2:
            return TrackResult(None, 0.1, TrackState.LOST, Timing())
        return TrackResult(self.box.scaled(2.0), 0.9, TrackState.TRACKING, Timing())


def test_a_lost_target_is_scored_by_its_last_known_box(clip: Sequence):
    result = evaluate_tracker(LosesIt, [clip]).results[0]
    x, y, w, h = clip.first_box
    last = Box.from_xywh(x, y, w, h).scaled(2.0).xywh
    assert result.run.boxes[0].tolist() == [x, y, w, h]
    np.testing.assert_allclose(result.run.boxes[1:], [last] * 11)
    assert result.lost_frames == 10
    assert result.run.states[:3] == ("TRACKING", "TRACKING", "LOST")
    assert "last known box" in PROTOCOL["lost"]


class Fails:
    def start(self, frame, box):
        return Answer(box)

    def track(self, frame):
        raise RuntimeError("no such layer")


class Nonsense(Fails):
    def track(self, frame):
        return Answer((math.nan, 0.0, 1.0, 1.0))


def test_failures_name_tracker_sequence_and_frame(clip: Sequence):
    with pytest.raises(EvaluationError, match=rf"bad on {clip.name}, frame 1: .*no such layer"):
        evaluate_tracker(Fails, [clip], name="bad")
    with pytest.raises(EvaluationError, match=r"frame 1: the box .* is not finite"):
        evaluate_tracker(Nonsense, [clip])
    with pytest.raises(ValueError, match="no sequences"):
        evaluate_tracker(Fails, [])


def test_results_are_cached_as_text(clip: Sequence, tmp_path: Path):
    tracker = PlaysTruth(clip.boxes, shift=1 / 3)
    arguments = {"name": "played", "fingerprint": "f" * 64, "cache": tmp_path}
    first = evaluate_tracker(lambda: tracker, [clip], **arguments)
    again = evaluate_tracker(lambda: tracker, [clip], **arguments)
    assert tracker.starts == 1
    assert (first.results[0].cached, again.results[0].cached) == (False, True)
    assert again.results[0].scores == first.results[0].scores
    np.testing.assert_allclose(
        again.results[0].run.seconds, first.results[0].run.seconds, atol=1e-6
    )
    plain = tmp_path / f"played-{'f' * 12}" / f"{clip.name}.txt"
    np.testing.assert_allclose(
        np.loadtxt(plain, delimiter=","), first.results[0].run.boxes, atol=1e-3
    )

    evaluate_tracker(lambda: tracker, [clip], **{**arguments, "fingerprint": "f" * 12 + "0" * 52})
    assert tracker.starts == 2, "another fingerprint in the same folder must not be taken"
    with pytest.raises(ValueError, match="fingerprint"):
        evaluate_tracker(lambda: tracker, [clip], cache=tmp_path)


def test_a_damaged_result_file_is_run_again(tmp_path: Path):
    run = Run(np.ones((3, 4)), np.ones(3), np.full(3, np.nan), ("", "", ""))
    write_run(tmp_path, "a", "key", run)
    back = read_run(tmp_path, "a", "key", 3)
    assert back is not None and np.isnan(back.scores).all() and back.fps == 1.0
    assert read_run(tmp_path, "a", "other key", 3) is None
    assert read_run(tmp_path, "a", "key", 4) is None
    file = tmp_path / "a.frames.csv"
    file.write_text(file.read_text()[:-20])
    assert read_run(tmp_path, "a", "key", 3) is None
    assert read_run(tmp_path, "b", "key", 3) is None
    assert not list(tmp_path.glob(".*part")), "no partial files stay behind"


@dataclass(frozen=True)
class Shifted:
    """A maker that other processes can be given."""

    shift: float
    name: str = "shifted"
    fingerprint: str = "0123456789abcdef"

    def __call__(self) -> PlaysTruth:
        return PlaysTruth(synthetic_sequence(160, 120, 12).boxes, self.shift)


def test_several_processes_give_the_same(clip: Sequence):
    # PeerMaker lives in the package, so that spawned processes can import it
    other = synthetic_sequence(160, 120, 12, seed=1)
    alone = evaluate_tracker(PeerMaker("static"), [clip, other])
    together = evaluate_tracker(PeerMaker("static"), [clip, other], workers=2)
    assert [r.name for r in together.results] == [clip.name, other.name]
    assert [r.scores for r in together.results] == [r.scores for r in alone.results]


def test_json_says_protocol_machine_and_model(clip: Sequence, tmp_path: Path):
    summary = evaluate_tracker(Shifted(2.0), [clip])
    summary.write(tmp_path / "out" / "summary.json")
    data = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert data["tracker"] == {"name": "shifted", "fingerprint": "0123456789abcdef"}
    assert data["protocol"]["name"].startswith("one-pass")
    assert data["machine"]["cores"] >= 1 and "numpy" in data["machine"]["versions"]
    assert data["mean"]["auc"] == pytest.approx(data["sequences"][clip.name]["auc"])
    assert data["standard_error"]["auc"] is None


def test_importing_evaluation_costs_no_torch_ros_or_matplotlib():
    code = (
        "import sys, siam_tracker_ros.evaluation\n"
        "heavy = ('torch', 'rclpy', 'matplotlib', 'onnxruntime', 'typer')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
