"""Thresholds: what the quantiles promise holds."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from siam_tracker_ros.training.thresholds import choose_thresholds


def test_few_right_boxes_fall_below_lost_and_few_empty_crops_reach_found():
    rng = np.random.default_rng(1)
    right, absent = rng.beta(6, 3, 500), rng.beta(2, 6, 500)
    chosen = choose_thresholds(right, absent)
    assert np.mean(right < chosen["lost"]) == pytest.approx(0.02, abs=0.01)
    assert np.mean(absent >= chosen["found"]) == pytest.approx(0.10, abs=0.01)
    assert 0.9 < chosen["auroc"] < 1


def test_lost_is_never_above_found():
    chosen = choose_thresholds(np.linspace(0.8, 0.9, 50), np.linspace(0.0, 0.1, 50))
    assert chosen["lost"] == chosen["found"]
    assert chosen["auroc"] == 1


def test_too_few_scores_are_refused():
    with pytest.raises(ValueError, match="3 right, 50 absent"):
        choose_thresholds(np.ones(3), np.zeros(50))
