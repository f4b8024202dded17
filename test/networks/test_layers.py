"""The correlation, as torch and as exported, against a loop; and the small layers around it."""

from __future__ import annotations

import pytest
import torch

from siam_tracker_ros.networks.layers import (
    center_crop,
    depthwise_correlation,
    depthwise_correlation_as_products,
    unit_length,
)


@pytest.mark.parametrize("correlate", [depthwise_correlation, depthwise_correlation_as_products])
def test_correlation_is_the_sum_over_every_window(correlate):
    kernel, features = torch.randn(2, 3, 7, 7), torch.randn(2, 3, 13, 13)
    out = correlate(kernel, features)
    assert out.shape == (2, 3, 7, 7)
    for b in range(2):
        for c in range(3):
            for i in range(7):
                for j in range(7):
                    expected = (kernel[b, c] * features[b, c, i : i + 7, j : j + 7]).sum()
                    assert out[b, c, i, j] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(("channels", "k", "side"), [(96, 9, 33), (256, 7, 31), (4, 5, 9)])
def test_exported_form_of_the_correlation_equals_torchs(channels, k, side):
    kernel, features = torch.randn(1, channels, k, k), torch.randn(1, channels, side, side)
    difference = depthwise_correlation(kernel, features) - depthwise_correlation_as_products(
        kernel, features
    )
    assert difference.abs().max() < 1e-4


def test_center_crop_of_15_takes_rows_and_columns_4_to_10():
    features = torch.arange(15 * 15.0).view(1, 1, 15, 15)
    assert torch.equal(center_crop(features, 7), features[:, :, 4:11, 4:11])


def test_unit_length_of_a_large_and_of_a_zero_vector():
    features = torch.zeros(1, 4, 1, 2)
    features[0, :, 0, 0] = 3e4  # its square does not fit FP16
    unit = unit_length(features)
    assert unit[0, :, 0, 0].norm() == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(unit[0, :, 0, 1], torch.zeros(4))
