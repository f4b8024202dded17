"""The formulas: penalty, size rule, presence features."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siam_tracker_ros.bundle import PRESENCE_FEATURES, PresenceSpec, StepResult
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import (
    presence,
    presence_features,
    size_change,
    size_penalty,
    smoothed_size,
)
from siam_tracker_ros.tracking.size_rule import first_bias

sizes = st.tuples(st.floats(1, 1000), st.floats(1, 1000))


@pytest.mark.parametrize(
    ("size", "values"),
    [
        ((64, 64), (1, 1, 1)),
        ((80, 64), (0.983967, 0.979999, 0.969787)),
        ((128, 128), (0.960789, 0.951229, 0.926887)),
        ((64, 32), (0.934093, 0.918306, 0.878613)),
    ],
)
def test_penalty_check_values(size, values):
    for strength, value in zip((0.04, 0.05, 0.0759232), values, strict=True):
        assert size_penalty(size, (64, 64), strength) == pytest.approx(value, abs=1e-6)


@given(sizes, sizes)
def test_penalty_does_not_care_which_size_came_first(a, b):
    assert size_penalty(a, b, 0.05) == pytest.approx(size_penalty(b, a, 0.05))
    assert size_penalty(a, a, 0.05) == pytest.approx(1)
    assert 0 <= size_penalty(a, b, 0.05) <= 1
    assert size_change(a, b) >= 1 - 1e-12


@given(sizes, sizes, st.floats(0.1, 10))
def test_the_change_does_not_depend_on_the_unit(a, b, unit):
    scaled = size_change((a[0] * unit, a[1] * unit), (b[0] * unit, b[1] * unit))
    assert scaled == pytest.approx(size_change(a, b))


@given(sizes, sizes, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_smoothed_size_lies_between_the_two(size, previous, score, rate, strength):
    smoothed = smoothed_size(size, previous, score=score, rate=rate, penalty=strength)
    for side in (0, 1):
        low, high = sorted((size[side], previous[side]))
        assert low - 1e-9 <= smoothed[side] <= high + 1e-9


def test_smoothed_size_check_value():
    # eta = 0.5 * exp(-0.05) * 0.8 with change 2
    smoothed = smoothed_size((128, 128), (64, 64), score=0.8, rate=0.5, penalty=0.05)
    assert smoothed == pytest.approx((64 + 64 * 0.4 * math.exp(-0.05),) * 2)


@pytest.mark.parametrize(("by_score", "eta"), [(1.0, 0.05), (0.0, 0.25), (0.5, 0.15)])
def test_a_tracker_may_follow_the_size_whatever_the_score(by_score, eta):
    smoothed = smoothed_size(
        (80, 40), (64, 64), score=0.2, rate=0.25, penalty=0.0, by_score=by_score
    )
    assert smoothed == pytest.approx((64 + 16 * eta, 64 - 24 * eta))


BOX = Box(127, 127, 64, 32)


@pytest.mark.parametrize(
    ("found", "share", "factors"),
    [
        (Box(127, 127, 64, 32), 0.5, (1, 1)),
        (Box(130, 125, 81, 32), 0.5, (9 / 8, 1)),  # half of ln(81/64)
        (Box(130, 125, 64, 24.5), 0.5, (1, 7 / 8)),
        (Box(127, 127, 81, 18), 0.0, (1, 1)),
        (Box(127, 127, 640, 3.2), 1.0, (math.exp(0.25), math.exp(-0.25))),  # no more than that
        (Box(144, 127, 81, 32), 0.5, (1, 1)),  # that is something else
    ],
)
def test_the_size_bias_of_the_first_look(found, share, factors):
    assert first_bias(found, BOX, share) == pytest.approx(factors)


def result(score=0.8, runner_up=0.2, size=(64.0, 64.0)):
    return StepResult(Box(127, 127, *size), score, runner_up, (127, 127))


def test_features():
    assert presence_features(result(), (64, 64)) == pytest.approx(
        {"score": 0.8, "runner_up_ratio": 0.25, "size_change": 0.0}
    )
    doubled = presence_features(result(size=(128.0, 128.0)), (64, 64))
    assert doubled["size_change"] == pytest.approx(math.log(2))
    assert tuple(doubled) == PRESENCE_FEATURES


@pytest.mark.parametrize(("score", "runner_up"), [(0.0, 0.0), (0.0, 0.3), (1e-9, 0.3), (0.1, 0.9)])
def test_the_runner_up_ratio_is_bounded(score, runner_up):
    assert presence_features(result(score, runner_up), (64, 64))["runner_up_ratio"] == 2.0


def test_uncalibrated_presence_is_the_score():
    assert presence(PresenceSpec(), result(score=0.37), (64, 64)) == 0.37
    assert presence(PresenceSpec(), result(score=1.2), (64, 64)) == 1.0


def test_logistic_presence():
    spec = PresenceSpec(
        "logistic", ("runner_up_ratio", "score"), (-2.0, 5.0), -1.0, found=0.6, lost=0.3
    )
    logit = -1.0 - 2.0 * 0.25 + 5.0 * 0.8
    assert presence(spec, result(), (64, 64)) == pytest.approx(1 / (1 + math.exp(-logit)))


@pytest.mark.parametrize(("weight", "wanted"), [(1e9, 1.0), (-1e9, 0.0)])
def test_logistic_presence_does_not_overflow(weight, wanted):
    spec = PresenceSpec("logistic", ("score",), (weight,), 0.0)
    assert presence(spec, result(), (64, 64)) == pytest.approx(wanted)
