"""Parity: small where the bundle is the network's, and loud where it is not."""

from __future__ import annotations

import json

import pytest

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.deployment.export import export_bundle
from siam_tracker_ros.deployment.parity import failures, measure_parity
from siam_tracker_ros.deployment.torch_session import TorchSession
from siam_tracker_ros.evaluation.agreement import compare_trajectories
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.tracking import Tracker, TrackerSettings


@pytest.fixture(scope="module")
def followers_bundle(following, tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("models") / "following"
    return export_bundle(
        following, folder, name="following", clips=[synthetic_sequence(320, 240, 2)]
    )[0]


def test_rendered_clip_of_120_frames(following, followers_bundle):
    parity = measure_parity(following, followers_bundle)
    assert failures(parity) == []
    (outputs,) = parity["onnxruntime"]["outputs"]
    (trajectory,) = parity["onnxruntime"]["trajectories"]
    assert outputs["frames"] == trajectory["frames"] == 120
    assert outputs["frames_with_another_peak"] == 0
    assert outputs["max_difference"].keys() == {
        "result.box",
        "result.score",
        "result.runner_up",
        "result.peak",
        "state.heatmap.next",
        "state.label.next",
        "state.peak.next",
    }
    assert max(outputs["max_difference"].values()) < 1e-3
    assert trajectory["median_iou"] > 0.99
    assert parity["tensorrt"] is None
    assert "not measured" in parity["tensorrt_reason"]
    assert json.loads(json.dumps(parity)) == parity


def test_the_network_of_that_test_moves_with_its_target(following, followers_bundle):
    """Otherwise its trajectories would agree for want of anything to disagree about."""
    clip = synthetic_sequence(640, 360, 120)
    tracker = Tracker(
        followers_bundle,
        TorchSession(following, following.default_tuning),
        TrackerSettings(found=0.0, lost=0.0),
    )
    overlaps = []
    for index, frame in enumerate(clip):
        picture, truth = ArrayPicture(frame, "bgr"), Box.from_xywh(*clip.boxes[index])
        result = tracker.update(picture) if index else tracker.initialize(picture, truth)
        overlaps.append(result.box.iou(truth))
    assert sum(overlaps) / len(overlaps) > 0.6


def test_outputs_of_a_network_with_lively_maps(small, small_export):
    """Trajectories of random maps are chaotic; with crops forced to the reference's, every output agrees."""
    _, parity = small_export
    (outputs,) = parity["onnxruntime"]["outputs"]
    assert outputs["frames"] == 30
    assert max(outputs["median_difference"].values()) < 1e-4
    assert outputs["max_difference"]["result.score"] < 1e-4


@pytest.mark.data
def test_real_clip(data_root, following, followers_bundle):
    from siam_tracker_ros.evaluation.sequences import read_sequence

    clip = read_sequence(data_root / "sequences" / "Deer.mp4")
    parity = measure_parity(following, followers_bundle, [clip])
    assert parity["onnxruntime"]["outputs"][0]["clip"] == "Deer"
    assert failures(parity) == []


def test_bundle_of_another_network_is_noticed(make_network, small_config, small_bundle):
    other = make_network(small_config, seed=6)
    parity = measure_parity(other, small_bundle, [synthetic_sequence(320, 240, 20)])
    found = failures(parity)
    assert any("result.score differs by" in line for line in found)
    assert any("median IoU of the trajectories" in line for line in found)
    assert failures(parity, trajectories=False) == found[:-1]


def test_trajectories_that_part():
    still = [Box(50, 50, 20, 20)] * 5
    moved = [*still[:3], Box(52, 50, 20, 20), Box(50, 50, 20, 20)]
    assert compare_trajectories(still, still) == {
        "frames": 5,
        "median_iou": 1.0,
        "min_iou": 1.0,
        "first_divergence": None,
        "lost": 0,
    }
    parted = compare_trajectories(still, moved)
    assert parted["first_divergence"] == 3
    assert parted["min_iou"] == pytest.approx(18 / 22, abs=1e-6)
    assert parted["median_iou"] == 1.0
    assert compare_trajectories(still, [*still[:4], Box(90, 50, 20, 20)])["lost"] == 1


def test_report_of_nonsense_fails():
    """NaN is no small number."""
    nan = float("nan")
    parity = {
        "onnxruntime": {
            "outputs": [{"clip": "a", "median_difference": {"result.box": nan}}],
            "trajectories": [{"clip": "a", "median_iou": nan, "noise": {"median_iou": 1.0}}],
        }
    }
    assert len(failures(parity)) == 2


def test_a_trajectory_may_differ_by_what_noise_does_to_the_network_itself():
    def report(median, noise):
        entry = {"clip": "a", "median_iou": median, "noise": {"median_iou": noise}}
        return {"onnxruntime": {"outputs": [], "trajectories": [entry]}}

    assert failures(report(0.991, 0.999)) == []
    assert failures(report(0.97, 0.98)) == []
    assert failures(report(0.97, 0.999)) == [
        "a: median IoU of the trajectories is 0.9700 (the network's own noise: 0.9990)"
    ]
    assert failures(report(0.9, 0.98))


def test_a_trajectory_that_leaves_the_other_counts_as_lost():
    entry = {"clip": "a", "median_iou": 1.0, "lost": 3, "noise": {"median_iou": 1.0, "lost": 0}}
    parity = {"onnxruntime": {"outputs": [], "trajectories": [entry]}}
    assert failures(parity) == ["a: the trajectories do not touch in 3 frames"]
    entry["noise"]["lost"] = 1
    assert failures(parity) == []
