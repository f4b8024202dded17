"""Figures of a score, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from siam_tracker_ros.evaluation.reliability import (
    auroc,
    calibration_error,
    plot_reliability,
    reliability,
)


def test_auroc_counts_pairs_and_halves_ties():
    scores = np.array([0.9, 0.5, 0.5, 0.1])
    right = np.array([True, True, False, False])
    # Of four pairs three are in order and one is a tie.
    assert auroc(scores, right) == pytest.approx(3.5 / 4)
    assert auroc(1 - scores, right) == pytest.approx(0.5 / 4)
    assert np.isnan(auroc(scores, np.ones(4, bool)))


def test_bins_hold_equally_many_looks():
    scores = np.linspace(0, 1, 100) ** 3
    bins = reliability(scores, scores > 0.5, bins=4)
    assert [b.looks for b in bins] == [25] * 4
    assert [b.score for b in bins] == sorted(b.score for b in bins)
    assert (bins[0].right, bins[-1].right) == (0.0, 21 / 25)


def test_a_probability_has_a_small_calibration_error_and_another_scale_has_not():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 1, 20_000)
    right = rng.random(20_000) < truth
    assert calibration_error(truth, right) < 0.02
    assert calibration_error(0.5 * truth, right) == pytest.approx(0.25, abs=0.02)
    assert np.isnan(calibration_error(np.array([]), np.array([], dtype=bool)))


def test_the_diagram_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    bins = reliability(np.linspace(0, 1, 30), np.linspace(0, 1, 30) > 0.5)
    plot_reliability({"before": bins}, tmp_path / "new" / "a.png", "title")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
