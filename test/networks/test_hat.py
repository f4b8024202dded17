"""Hat weights: against grid_sample, against the numbers of the specification, and their derivatives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from siam_tracker_ros.networks.hat import hat, hat_integral


def test_samples_equal_grid_sample():
    features = torch.rand(1, 4, 7, 9, dtype=torch.float64)
    x = torch.rand(30, dtype=torch.float64) * 8
    y = torch.rand(30, dtype=torch.float64) * 6
    grid = torch.stack([x / 4 - 1, y / 3 - 1], dim=-1)[None, None]
    expected = F.grid_sample(features, grid, align_corners=True)[0, :, 0]
    ours = torch.einsum("pi,cij,pj->cp", hat(y, 7), features[0], hat(x, 9))
    assert (ours - expected).abs().max() < 1e-13


def test_samples_fade_to_zero_outside():
    assert hat(torch.tensor([-0.25, -1.0, 3.5, 4.0, 9.0]), 4).tolist() == [
        [0.75, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0.5],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_integral_weights_of_the_specification():
    weights = hat_integral(torch.tensor(0.5), torch.tensor(2.75), 5)
    assert weights.tolist() == [0.125, 0.875, 0.96875, 0.28125, 0]
    assert float(weights.sum()) == 2.25


def test_integral_equals_midpoint_sums():
    for x1, x2 in ((0.3, 3.9), (-0.7, 1.2), (2.2, 6.5), (-3.0, -0.5)):
        steps = 200_000
        points = x1 + (torch.arange(steps, dtype=torch.float64) + 0.5) * (x2 - x1) / steps
        expected = hat(points, 6).sum(0) * (x2 - x1) / steps
        ours = hat_integral(*torch.tensor([x1, x2], dtype=torch.float64), 6)
        assert (ours - expected).abs().max() < 1e-9


@pytest.mark.parametrize("function", ["hat", "hat_integral"])
def test_gradients(function):
    with torch.enable_grad():
        x = torch.tensor([0.3, 2.6, -0.4], dtype=torch.float64, requires_grad=True)
        if function == "hat":
            assert torch.autograd.gradcheck(lambda c: hat(c, 5), (x,))
        else:
            far = (x.detach() + 1.37).requires_grad_()
            assert torch.autograd.gradcheck(lambda a, b: hat_integral(a, b, 5), (x, far))


def test_half_precision_coordinates_are_widened():
    assert hat(torch.tensor(1.5, dtype=torch.float16), 4).dtype == torch.float32
