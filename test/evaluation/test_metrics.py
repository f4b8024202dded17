from __future__ import annotations

import math

import numpy as np
import pytest

from siam_tracker_ros.evaluation.metrics import (
    RULES,
    curves,
    figure_name,
    mean_curves,
    mean_scores,
    overlaps,
    score,
    success_curve,
)


def test_identical_boxes_are_perfect_but_for_the_last_threshold():
    boxes = np.array([[10, 10, 20, 30]] * 5, dtype=float)
    s = score(boxes, boxes)
    assert s.auc == pytest.approx(20 / 21)  # overlap 1 is not above the threshold 1
    assert (s.ao, s.sr50, s.sr75, s.precision, s.normalised_precision) == (1, 1, 1, 1, 1)
    assert s.frames == 5


def test_hand_computed_case():
    truth = np.array([[0, 0, 10, 10]] * 4, dtype=float)
    predicted = np.array(
        [
            [0, 0, 10, 10],  # IoU 1, distance 0
            [0, 0, 10, 6],  # IoU 0.6, centre 2 px up: 0.2 of the height
            [5, 0, 10, 10],  # IoU 1/3, centre 5 px right: 0.5 of the width
            [30, 0, 10, 10],  # IoU 0, centre 30 px right
        ],
        dtype=float,
    )
    np.testing.assert_allclose(overlaps(predicted, truth), [1, 0.6, 1 / 3, 0])
    s = score(predicted, truth)
    # IoU 1 is above 20 thresholds, 0.6 above 0 ... 0.55 (12), 1/3 above 0 ... 0.3 (7), 0 none
    assert s.auc == pytest.approx((20 + 12 + 7) / (4 * 21))
    assert s.ao == pytest.approx((0.6 + 1 / 3) / 3)
    assert s.sr50 == pytest.approx(1 / 3)
    assert s.sr75 == 0
    assert s.precision == pytest.approx(3 / 4)
    # 0: all 51 thresholds; 0.2: from 0.2 on (31); 0.5: the last one; 3: none
    assert s.normalised_precision == pytest.approx((51 + 31 + 1) / (4 * 51), abs=1 / (4 * 51))


def test_frames_without_target_are_left_out():
    truth = np.array([[0, 0, 10, 10], [np.nan] * 4, [0, 0, 0, 0], [0, 0, 10, 10]], dtype=float)
    predicted = np.array(
        [[0, 0, 10, 10], [90, 90, 1, 1], [5, 5, 5, 5], [0, 0, 10, 10]], dtype=float
    )
    s = score(predicted, truth)
    assert s.frames == 2
    assert s.ao == 1
    assert np.isnan(overlaps(predicted, truth)).tolist() == [False, True, True, False]


def test_agrees_with_a_plain_restatement_on_random_boxes():
    random = np.random.default_rng(3)
    truth = np.concatenate(
        [random.uniform(0, 100, (200, 2)), random.uniform(5, 60, (200, 2))], axis=1
    )
    predicted = truth + random.normal(0, 6, truth.shape)
    predicted[:, 2:] = np.maximum(predicted[:, 2:], 1)
    o, d, n = [], [], []
    for p, t in zip(predicted, truth, strict=True):
        iw = max(0.0, min(p[0] + p[2], t[0] + t[2]) - max(p[0], t[0]))
        ih = max(0.0, min(p[1] + p[3], t[1] + t[3]) - max(p[1], t[1]))
        o.append(iw * ih / (p[2] * p[3] + t[2] * t[3] - iw * ih))
        dx, dy = p[0] + p[2] / 2 - t[0] - t[2] / 2, p[1] + p[3] / 2 - t[1] - t[3] / 2
        d.append(math.hypot(dx, dy))
        n.append(math.hypot(dx / t[2], dy / t[3]))
    s = score(predicted, truth)
    assert s.auc == pytest.approx(sum(x > i / 20 for x in o for i in range(21)) / (21 * 200))
    assert s.ao == pytest.approx(sum(o[1:]) / 199)
    assert s.precision == pytest.approx(sum(x <= 20 for x in d) / 200)
    expected = sum(x <= i / 100 for x in n for i in range(51)) / (51 * 200)
    assert s.normalised_precision == pytest.approx(expected)


def test_success_curve_falls():
    curve = success_curve([0.2, 0.8, 0.5])
    assert curve[0] == 1 and curve[-1] == 0
    assert (np.diff(curve) <= 0).all()


def test_mean_counts_each_sequence_the_same():
    truth = np.array([[0, 0, 10, 10]] * 10, dtype=float)
    good = score(truth, truth)
    bad = score(np.array([[0, 0, 10, 10], [50, 50, 10, 10]], dtype=float), truth[:2])
    mean = mean_scores([good, bad])
    assert mean.ao == 0.5
    assert mean.frames == 12


def test_refuses_what_cannot_be_scored():
    boxes = np.array([[0, 0, 10, 10]] * 3, dtype=float)
    with pytest.raises(ValueError, match="one length"):
        score(boxes[:2], boxes)
    wrong = boxes.copy()
    wrong[1, 0] = np.nan
    with pytest.raises(ValueError, match="frame 1 is not finite"):
        score(wrong, boxes)
    with pytest.raises(ValueError, match="at least two frames"):
        score(boxes[:1], boxes[:1])
    with pytest.raises(ValueError, match="no sequences"):
        mean_scores([])


TRUTH = np.array([[0, 0, 10, 10]] * 5, dtype=float)
MOVED = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [2, 0, 10, 10], [30, 0, 10, 10], [0, 0, 10, 10]])
HIDDEN = np.array([False, False, False, False, True])


def test_lasot_counts_absent_frames_as_failures():
    s = score(MOVED, TRUTH, RULES["lasot"], HIDDEN)
    assert s.precision == pytest.approx(3 / 5)
    assert s.normalised_precision == pytest.approx(3 / 5), "1 and 2 px of 10 are within 0.2"
    # overlaps 1, 9/11, 8/12 and 0 are above 20, 17, 14 and 0 thresholds of 21
    assert s.auc == pytest.approx((20 + 17 + 14) / (5 * 21))
    shares = curves(MOVED, TRUTH, RULES["lasot"], HIDDEN)
    assert shares.success.mean() == pytest.approx(s.auc)
    assert shares.precision[20] == pytest.approx(s.precision)
    assert shares.normalised[20] == pytest.approx(s.normalised_precision)


def test_trackingnet_rounds_and_takes_areas():
    s = score(MOVED + 0.3, TRUTH, RULES["trackingnet"])
    whole = score(MOVED, TRUTH, RULES["trackingnet"])
    assert s == whole, "0.3 px round to nothing"
    # errors 0, 1, 2, 30 and 0 px; thresholds 0, 2.5 ... 50, half weight at both ends
    within = np.array([(np.array([0, 1, 2, 30, 0]) <= t).mean() for t in np.linspace(0, 50, 21)])
    assert s.precision == pytest.approx((within.sum() - (within[0] + within[-1]) / 2) / 20)
    relative = np.array([0, 0.1, 0.2, 3, 0])
    within = np.array([(relative <= t).mean() for t in np.linspace(0, 0.5, 21)])
    area = (within.sum() - (within[0] + within[-1]) / 2) / 20
    assert s.normalised_precision == pytest.approx(area, abs=1 / 100)


def test_got10k_weighs_by_frames():
    rules, size = RULES["got10k"], (100, 100)
    long = score(np.tile(TRUTH, (5, 1)), np.tile(TRUTH, (5, 1)), rules, None, size)
    short = score(MOVED, TRUTH, rules, HIDDEN, size)
    assert (long.frames, short.frames) == (25, 4)
    mean = mean_scores([long, short], rules)
    assert mean.ao == pytest.approx((24 * long.ao + 3 * short.ao) / 27)
    both = [curves(MOVED, TRUTH, rules, HIDDEN, size), curves(TRUTH, TRUTH, rules, None, size)]
    total = mean_curves(both, rules)
    assert total.success[50] == pytest.approx((2 + 4) / 7)
    with pytest.raises(ValueError, match="size is not known"):
        score(MOVED, TRUTH, rules)
    with pytest.raises(ValueError, match="no sequences"):
        mean_curves([], rules)


def test_names_of_figures_say_the_threshold():
    assert figure_name("precision") == "P 20 px"
    assert figure_name("precision", RULES["trackingnet"]) == "P"
    assert figure_name("auc") == "AUC"
