from __future__ import annotations

from pathlib import Path

import pytest

from siam_tracker_ros.bundle import BundleError, load_bundle
from siam_tracker_ros.evaluation import evaluate_tracker, read_sequence, synthetic_sequence
from siam_tracker_ros.evaluation.bundled import BundleTrackerMaker
from siam_tracker_ros.evaluation.speed import WARM_UP_FRAMES, measure_speed
from siam_tracker_ros.tracking import TrackerSettings


def test_a_bundle_is_evaluated_through_its_tracker(colour_bundle: Path, square_clip: Path):
    maker = BundleTrackerMaker(str(colour_bundle), threads=1)
    clip = read_sequence(square_clip)
    summary = evaluate_tracker(maker, [clip])
    assert summary.tracker == "colour"
    assert summary.mean.ao > 0.8, "the square is followed, not just where it was"
    assert set(summary.results[0].run.states) == {"TRACKING"}
    details = summary.details
    assert details["bundle_fingerprint"] == load_bundle(colour_bundle).fingerprint
    assert details["threads"] == 1 and details["settings"]["lost_after"] == 10


def test_the_fingerprint_follows_settings_and_threads(colour_bundle: Path):
    base = BundleTrackerMaker(str(colour_bundle))
    assert base.fingerprint == BundleTrackerMaker(str(colour_bundle)).fingerprint
    assert base.fingerprint != BundleTrackerMaker(str(colour_bundle), threads=1).fingerprint
    changed = BundleTrackerMaker(str(colour_bundle), settings=TrackerSettings(lost=0.1))
    assert base.fingerprint != changed.fingerprint


def test_a_missing_bundle_is_named(tmp_path: Path):
    with pytest.raises(BundleError, match="nowhere"):
        _ = BundleTrackerMaker(str(tmp_path / "nowhere")).name


def test_speed(colour_bundle: Path, square_clip: Path):
    report = measure_speed(
        load_bundle(colour_bundle), read_sequence(square_clip), threads=1, steps=5
    )
    assert report.update_ms["count"] == 20 - 1 - WARM_UP_FRAMES
    assert report.states == {"TRACKING": 20 - 1 - WARM_UP_FRAMES}
    for part in (report.crop_ms, report.step_ms):
        assert 0 < part["p50"] <= part["p95"] <= report.update_ms["max"]
    assert report.update_ms["p50"] >= report.step_ms["p50"]
    assert report.updates_per_second > 1 and report.steps_per_second > 1
    assert report.picture == (160, 120)
    assert report.to_json()["machine"]["cpu"]


def test_speed_needs_some_frames(colour_bundle: Path):
    with pytest.raises(ValueError, match="at least 8 frames"):
        measure_speed(load_bundle(colour_bundle), synthetic_sequence(160, 120, 4), threads=1)
