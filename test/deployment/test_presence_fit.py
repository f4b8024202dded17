"""The presence model that is fitted, and where it is written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from siam_tracker_ros.bundle import StepResult, load_bundle
from siam_tracker_ros.deployment.model_card import ModelCard
from siam_tracker_ros.deployment.presence_fit import (
    Calibration,
    PresenceError,
    calibrate,
    fit_presence,
    logistic_regression,
    presence_figures,
    rewrite_bundle,
    thresholds,
    write_report,
)
from siam_tracker_ros.evaluation.presence import Clip, Look
from siam_tracker_ros.evaluation.sequences import Sequence
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import ColourFinder, FakeSession, fake_bundle, presence

RED = (255, 0, 0)


def looks(count=2000, seed=1, slope=6.0):
    """Looks that are right with the probability sigmoid(slope * score - slope / 2)."""
    rng = np.random.default_rng(seed)
    found = []
    for score in rng.uniform(0, 1, count):
        result = StepResult(Box(64, 64, 40, 40), float(score), 0.2, (64, 64))
        right = rng.random() < 1 / (1 + np.exp(-slope * (score - 0.5)))
        found.append(Look(result, (40.0, 40.0), bool(right), float(score)))
    return found


def test_newton_finds_the_weights_that_made_the_data():
    rng = np.random.default_rng(2)
    x = rng.normal([3, -1], [2, 0.1], (20_000, 2))
    right = rng.random(len(x)) < 1 / (1 + np.exp(-(0.7 * x[:, 0] - 8 * x[:, 1] - 9)))
    weights, bias = logistic_regression(x, right)
    assert weights == pytest.approx([0.7, -8], rel=0.1)
    assert bias == pytest.approx(-9, rel=0.15)


def test_data_that_a_line_parts_give_finite_weights():
    x = np.linspace(0, 1, 200)[:, None]
    weights, bias = logistic_regression(x, x[:, 0] > 0.5)
    assert 0 < weights[0] < 1000
    assert np.isfinite(bias)


def test_a_higher_score_is_never_less_likely_right():
    rng = np.random.default_rng(3)
    # Large changes of size on right looks: that weight would have the wrong sign.
    made = [
        replace(
            look,
            previous_size=(40.0 / (2.0 if look.right else 1.0), 40.0),
            result=replace(look.result, runner_up=float(rng.uniform(0, 0.3))),
        )
        for look in looks()
    ]
    spec = fit_presence(made)
    assert "size_change" not in spec.features
    values = [
        presence(spec, StepResult(Box(64, 64, 40, 40), s, 0.2, (64, 64)), (40.0, 40.0))
        for s in np.linspace(0.01, 1, 50)
    ]
    assert values == sorted(values)
    assert values[-1] > 0.9


def test_a_score_that_tells_nothing_is_refused():
    with pytest.raises(PresenceError, match="the score tells nothing"):
        fit_presence(looks(slope=-6.0))
    with pytest.raises(PresenceError, match=r"too few looks .* 0 right and 100 wrong"):
        fit_presence([replace(look, right=False) for look in looks(100)])


def test_the_thresholds_keep_their_promise():
    rng = np.random.default_rng(4)
    scores = rng.uniform(0, 1, 5000)
    right = rng.random(5000) < scores
    found, lost = thresholds(scores, right)
    assert found == 0.75
    assert np.mean(scores[right] < lost) == pytest.approx(0.01, abs=0.005)
    assert thresholds(np.array([0.8, 0.9] * 50), np.array([False, True] * 50)) == (0.75, 0.75)


class RedFrames:
    """A red square that is not there in the middle of the clip; a darker one stands beside it."""

    path, fps = Path("red"), 30.0

    def __init__(self, gone):
        self.gone = gone

    def __iter__(self):
        for i in range(40):
            frame = np.full((120, 160, 3), 60, np.uint8)
            if i not in self.gone:
                frame[40:70, 40 + i : 70 + i] = (0, 0, 255)
            yield frame


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    clips = []
    for first in (10, 11, 12, 13):
        gone = range(first, first + 18)
        boxes = np.array(
            [[40.0 + i, 40, 30, 30] if i not in gone else [np.nan] * 4 for i in range(40)]
        )
        clips.append(
            Clip(Sequence("red", RedFrames(gone), boxes, Path("red")), np.ones(40, np.bool_))
        )
    return calibrate(fake_bundle(), FakeSession(ColourFinder(RED)), clips[:3] * 4, clips[3:])


def test_calibration_is_measured_on_other_clips_than_it_was_fitted_on(calibration):
    spec = calibration.spec
    assert spec.kind == "logistic"
    assert 0 <= spec.lost <= spec.found == 0.75
    assert calibration.after.auroc == 1
    assert calibration.after.states.declared == 1
    assert 0 < calibration.after.looks < 100


def test_the_report_has_numbers_and_a_picture(calibration, tmp_path):
    pytest.importorskip("matplotlib")
    write_report(calibration, tmp_path / "report", "red")
    assert '"logistic"' in (tmp_path / "report" / "presence.json").read_text()
    assert (tmp_path / "report" / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_presence_of_a_bundle_is_rewritten(calibration, bundle_folder, tmp_path):
    folder = tmp_path / bundle_folder.name
    shutil.copytree(bundle_folder, folder)
    before = load_bundle(folder)
    figures = ModelCard.from_dict({"presence": presence_figures(calibration, "Measured here.")})
    for _ in range(2):  # the second time there is a section to replace
        rewrite_bundle(load_bundle(folder), calibration, figures.presence)
    after = load_bundle(folder)
    assert after.presence == calibration.spec
    assert replace(after, presence=before.presence, fingerprint=before.fingerprint) == before
    card, old = ((f / "README.md").read_text() for f in (folder, bundle_folder))
    assert card.count("## Presence") == 1
    assert "Measured here." in card
    assert "Uncalibrated" in old
    assert card.split("## Speed")[1] == old.split("## Speed")[1]
