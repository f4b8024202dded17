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
    SequenceError,
    evaluate_tracker,
    synthetic_sequence,
)
from siam_tracker_ros.evaluation.metrics import RULES
from siam_tracker_ros.evaluation.peers import PeerMaker
from siam_tracker_ros.evaluation.protocol import PROTOCOL, SKIPPED, RealTime, run_tracker
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


def test_a_real_time_run_skips_what_arrives_while_it_is_busy(clip: Sequence):
    tracker = PlaysTruth(clip.boxes)
    # 10 frames a second; the start costs 2.5 frames, each further frame 1.5
    arrival = RealTime(10.0, (0.25, 0.15))
    summary = evaluate_tracker(lambda: tracker, [clip], name="slow", realtime=arrival)
    run = summary.results[0].run
    seen = [0, 3, 5, 7, 9, 11]
    assert [i for i, state in enumerate(run.states) if state != SKIPPED] == seen
    assert np.isfinite(run.seconds).nonzero()[0].tolist() == seen
    assert (run.skipped, tracker.calls) == (6, 5)
    np.testing.assert_array_equal(run.boxes[4], run.boxes[3])
    assert run.fps == pytest.approx(6 / (0.25 + 5 * 0.15))
    assert (summary.tracker, summary.missed) == ("slow-realtime10", 0.5)
    content = summary.to_json()
    assert content["sequences"][clip.name]["skipped_frames"] == 6
    assert "10 a second" in content["protocol"]["realtime"]
    quick = evaluate_tracker(lambda: tracker, [clip], realtime=RealTime(10.0, (0.1,)))
    assert quick.missed == 0
    for fps in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="frames a second above 0"):
            RealTime(fps)


def test_a_real_time_run_has_results_of_its_own(clip: Sequence, tmp_path: Path):
    tracker = PlaysTruth(clip.boxes)
    common = {"name": "played", "fingerprint": "f" * 64, "cache": tmp_path}
    slow = RealTime(10.0, (0.25,))
    plain = evaluate_tracker(lambda: tracker, [clip], **common)
    late = evaluate_tracker(lambda: tracker, [clip], **common, realtime=slow)
    again = evaluate_tracker(lambda: tracker, [clip], **common, realtime=slow)
    assert tracker.starts == 2 and again.results[0].cached
    assert late.auc < plain.auc and again.results[0].scores == late.results[0].scores
    assert again.results[0].run.skipped == late.results[0].run.skipped > 0


def test_a_run_that_was_ended_goes_on(clip: Sequence, tmp_path: Path):
    clips = [clip, *(synthetic_sequence(160, 120, 12, seed=s) for s in (1, 2))]
    common = {"name": "played", "fingerprint": "f" * 64, "cache": tmp_path}

    class EndedInTheSecond(PlaysTruth):
        def track(self, frame):
            if self.starts == 2 and self.index == 5:
                raise KeyboardInterrupt
            return super().track(frame)

    tracker = EndedInTheSecond(clip.boxes)
    with pytest.raises(KeyboardInterrupt):
        evaluate_tracker(lambda: tracker, clips, **common)
    second = PlaysTruth(clip.boxes)
    summary = evaluate_tracker(lambda: second, clips, **common)
    assert second.starts == 2, "the first sequence is not run again"
    assert [r.cached for r in summary.results] == [True, False, False]


def test_a_sequence_that_cannot_be_read_stops_or_is_counted(clip: Sequence):
    short = Sequence("short", clip.frames, clip.boxes[:8], Path("short.txt"))
    unseen = Sequence(
        "unseen", clip.frames, clip.boxes, Path("unseen.txt"), hidden=np.ones(12, dtype=bool)
    )
    with pytest.raises(SequenceError, match=r"short.txt: 8 boxes, but .* more frames"):
        evaluate_tracker(lambda: PlaysTruth(clip.boxes), [short, clip])
    for workers in (1, 2):
        summary = evaluate_tracker(
            PeerMaker("static"), [short, clip, unseen], on_bad="skip", workers=workers
        )
        assert [r.name for r in summary.results] == [clip.name]
        assert sorted(summary.skipped) == ["short", "unseen"]
        assert "at least two frames" in summary.skipped["unseen"]
        assert "short" in summary.to_json()["left_out"]
    with pytest.raises(EvaluationError, match=r"no sequence can be read: short.txt: 8 boxes"):
        evaluate_tracker(PeerMaker("static"), [short], on_bad="skip")


def test_rules_decide_the_figures(clip: Sequence):
    tracker = PlaysTruth(clip.boxes)
    hidden = np.zeros(12, dtype=bool)
    hidden[6:] = True
    half = Sequence("half", clip.frames, clip.boxes, clip.source, hidden, (160, 120))
    lasot = evaluate_tracker(lambda: tracker, [half], rules=RULES["lasot"])
    assert lasot.mean.precision == 0.5, "absent frames are failures"
    assert "full_occlusion" in lasot.to_json()["protocol"]["rules"]
    got10k = evaluate_tracker(lambda: tracker, [half, clip_of(clip)], rules=RULES["got10k"])
    assert got10k.mean.frames == 6 + 12
    with pytest.raises(SequenceError, match="clips boxes to the picture, whose size is not known"):
        evaluate_tracker(lambda: tracker, [clip], rules=RULES["got10k"])


def clip_of(clip: Sequence) -> Sequence:
    return Sequence("whole", clip.frames, clip.boxes, clip.source, None, (160, 120))


def test_unscored_sequences_are_run(clip: Sequence):
    boxes = np.full((12, 4), np.nan)
    boxes[0] = clip.boxes[0]
    test = Sequence("test", clip.frames, boxes, clip.source, scored=False)
    seen = []
    runs = run_tracker(
        lambda: PlaysTruth(clip.boxes), [test], name="toy", on_run=lambda *a: seen.append(a)
    )
    assert len(runs.runs["test"].boxes) == 12 and len(seen) == 1


def test_importing_evaluation_costs_no_torch_ros_or_matplotlib():
    code = (
        "import sys, siam_tracker_ros.evaluation\n"
        "heavy = ('torch', 'rclpy', 'matplotlib', 'onnxruntime', 'typer')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
