from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from siam_tracker_ros.evaluation import synthetic_sequence
from siam_tracker_ros.evaluation.report import plot_success, plot_track
from siam_tracker_ros.evaluation.track_log import FrameEntry, TrackLog, percentiles
from siam_tracker_ros.evaluation.video import VideoError, VideoFile, annotate, write_annotated_video

TRUTH = np.array([[10, 10, 20, 20]] * 4, dtype=float)


def log(truth: np.ndarray | None = TRUTH) -> TrackLog:
    return TrackLog(
        "toy",
        (
            FrameEntry(0, (10, 10, 20, 20), 1.0, "TRACKING", 5.0),
            FrameEntry(1, (10, 10, 20, 10), 0.8, "UNCERTAIN", 7.0),
            FrameEntry(3, None, 0.1, "LOST"),
        ),
        truth,
        "image to detection",
    )


def test_figures_with_truth():
    track = log()
    assert track.overlap() == pytest.approx([1.0, 0.5, 0.0])
    assert track.average_overlap() == pytest.approx(0.25)
    scores = track.scores()
    assert scores is not None and scores.ao == pytest.approx(0.5), "the protocol keeps the last box"
    figures = json.loads(json.dumps(track.figures()))
    assert (figures["processed"], figures["final_state"]) == (3, "LOST")
    assert (figures["average_overlap"], figures["ao"]) == (0.25, 0.5)
    assert figures["lost_share"] == pytest.approx(1 / 3)
    assert figures["latency_ms"] == {"p50": 6.0, "p95": pytest.approx(6.9), "max": 7.0, "count": 2}


def test_figures_without_truth_or_frames():
    figures = log(None).figures()
    assert figures["average_overlap"] is None and figures["success_auc"] is None
    assert figures["mean_score"] == pytest.approx(1.9 / 3)
    empty = TrackLog("empty", ()).figures()
    assert (empty["processed"], empty["final_state"], empty["latency_ms"]) == (0, None, None)
    json.dumps(empty)
    assert percentiles([float("nan")]) is None


def test_csv_leaves_a_lost_box_empty(tmp_path: Path):
    log().write_csv(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "frame,x,y,w,h,score,state,latency_ms"
    assert lines[3] == "3,,,,,0.1000,LOST,"


def test_plots_are_pictures(tmp_path: Path):
    plot_track(log(), tmp_path / "a" / "track.png", thresholds=(0.3, 0.6))
    plot_track(log(None), tmp_path / "b.png")
    plot_success({"x": np.linspace(1, 0, 21), "y": np.full(21, 0.5)}, tmp_path / "c.png", "both")
    with_truth, without, success = (
        cv2.imread(str(tmp_path / n)) for n in ("a/track.png", "b.png", "c.png")
    )
    assert with_truth.shape[0] > without.shape[0], "the truth has a panel of its own"
    assert success.std() > 5
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_track(TrackLog("empty", ()), tmp_path / "d.png")
    with pytest.raises(ValueError, match="no trackers"):
        plot_success({}, tmp_path / "d.png")


def test_annotation_draws_box_truth_and_words():
    frame = np.zeros((60, 80, 3), np.uint8)
    entry = FrameEntry(0, (20, 25, 20, 20), 0.9, "TRACKING")
    drawn = annotate(frame, entry, (50, 25, 20, 20), zoom=2)
    assert drawn.shape == (120, 160, 3)
    assert drawn[70, 40].tolist() != [0, 0, 0], "left edge of the box, at x = 20"
    assert drawn[70, 100].min() > 100, "left edge of the truth, at x = 50"
    assert annotate(frame, None, None)[:30].any(), "a skipped frame says so"
    assert not annotate(frame, FrameEntry(0, None, 0.1, "LOST"), None)[40:].any(), "no box"


def test_annotated_video_can_be_read_back(tmp_path: Path):
    clip = synthetic_sequence(160, 120, 6)
    entries = tuple(
        FrameEntry(i, tuple(map(float, b)), 0.9, "TRACKING") for i, b in enumerate(clip.boxes)
    )
    path = tmp_path / "out.mp4"
    written = write_annotated_video(path, clip, 30.0, TrackLog("s", entries, clip.boxes), until=5)
    assert written == 5
    capture = cv2.VideoCapture(str(path))
    assert int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == 480, "small clips are enlarged"
    assert sum(1 for _ in iter(capture.grab, False)) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    with pytest.raises(VideoError, match="no frames"):
        write_annotated_video(tmp_path / "none.mp4", [], 30.0, TrackLog("s", ()))


def test_a_video_that_does_not_read_back_is_an_error(tmp_path: Path):
    video = VideoFile(tmp_path / "a.mp4", 64, 48, 30.0)
    video.write(np.zeros((48, 64, 3), np.uint8))
    video.written += 1
    with pytest.raises(VideoError, match="wrote 2 frames, but 1"):
        video.close()
