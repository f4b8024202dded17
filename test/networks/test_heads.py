"""Dense heads: towers, norms and outputs as the configuration says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from siam_tracker_ros.networks.config import DenseHeadConfig
from siam_tracker_ros.networks.heads import DenseHead

OUTPUTS = {"score": ("classification", 2), "box": ("regression", 4)}


def head(**changes):
    return DenseHead(24, DenseHeadConfig(width=48, depth=3, **changes), OUTPUTS).eval()


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("sampler", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_maps_keep_the_grid(separable, norm, sampler, kernel):
    made = head(separable=separable, norm=norm, sampler=sampler, output_kernel=kernel)
    maps = made(torch.randn(2, 24, 9, 9))
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "score": (2, 2, 9, 9),
        "box": (2, 4, 9, 9),
    }


def test_an_output_depends_on_its_own_tower_alone():
    made, response = head(), torch.randn(1, 24, 9, 9)
    before = made(response)
    with torch.no_grad():
        for parameter in made.regression.parameters():
            parameter.add_(1.0)
    after = made(response)
    assert torch.equal(before["score"], after["score"])
    assert not torch.equal(before["box"], after["box"])


@pytest.mark.parametrize("last", [True, False])
def test_the_last_relu_is_a_choice(last):
    made = head(last_relu=last, norm="none", separable=False)
    tower = made.classification(torch.randn(1, 24, 9, 9))
    assert bool((tower < 0).any()) is not last
    convolutions = [m for m in made.classification if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 3
    assert sum(isinstance(m, nn.ReLU) for m in made.classification) == 2 + last


def test_groups_divide_the_width():
    norms = [m for m in head(norm="group").modules() if isinstance(m, nn.GroupNorm)]
    assert {m.num_groups for m in norms} == {16}  # 48 channels: 32 do not divide them


def test_bias_of_an_output():
    made = head()
    made.set_bias("box", 3.0)
    assert float(made(torch.zeros(1, 24, 5, 5))["box"].mean()) == pytest.approx(3.0, abs=0.5)
    assert made.outputs["box"][0].bias.tolist() == [3.0] * 4
