"""Space-variant channel-guided correlation: section 8 of SiamSTM's specification, properties 1 to 4."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from siam_tracker_ros.networks.config import SVCCorrConfig
from siam_tracker_ros.networks.layers import depthwise_correlation
from siam_tracker_ros.networks.matching.svc_corr import SVCCorr

PAPER = SVCCorrConfig(kernel=7, hidden=8, separable=False, pixel=False)


def matching(config: SVCCorrConfig, channels: int = 16) -> SVCCorr:
    net = SVCCorr(channels, config)
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
    return net.eval()


def test_shapes_and_template_crop():
    net = matching(PAPER)
    z, x = torch.randn(1, 16, 15, 15), torch.randn(1, 16, 31, 31)
    state = net.template(z)
    assert torch.equal(state["kernel"], z[:, :, 4:11, 4:11])
    assert state["descriptor"].shape == (1, 16, 1, 1)
    assert net.phi1(state["kernel"]).shape == (1, 16, 5, 5)
    assert net.phi1(x).shape == (1, 16, 29, 29)
    assert net.channel_transform(x).shape == (1, 16, 25, 25)
    assert net(state, x).shape == (1, 16, 25, 25)


def test_result_is_channel_term_plus_correlation():
    net = matching(PAPER)
    state = net.template(torch.randn(1, 16, 15, 15))
    x = torch.randn(1, 16, 31, 31)
    spatial = depthwise_correlation(state["kernel"], x)
    channel = net.phi2(F.relu(state["descriptor"] + net.channel_transform(x)))
    assert torch.allclose(net(state, x), spatial + channel, atol=1e-5)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("cell", [(0, 0), (0, 24), (24, 7), (12, 12), (24, 24), (3, 19)])
def test_window_equal_to_the_template_has_the_templates_descriptor(separable, cell):
    net = matching(SVCCorrConfig(kernel=7, hidden=8, separable=separable, pixel=False))
    state = net.template(torch.randn(1, 16, 15, 15))
    x = torch.randn(1, 16, 31, 31)
    i, j = cell
    x[:, :, i : i + 7, j : j + 7] = state["kernel"]
    windows = net.channel_transform(x)
    assert torch.allclose(windows[:, :, i : i + 1, j : j + 1], state["descriptor"], atol=1e-5)


def test_padding_phi1_would_break_that():
    net = matching(SVCCorrConfig(kernel=7, hidden=8, separable=False, pixel=False, phi1_pad=True))
    state = net.template(torch.randn(1, 16, 15, 15))
    x = torch.randn(1, 16, 31, 31)
    x[:, :, 9:16, 9:16] = state["kernel"]
    windows = net.channel_transform(x)
    assert windows.shape == (1, 16, 25, 25)
    assert (windows[:, :, 9:10, 9:10] - state["descriptor"]).abs().max() > 1e-3


def mixed_difference(f, a, b, other_a, other_b):
    return f(a, b) - f(other_a, b) - f(a, other_b) + f(other_a, other_b)


def test_template_and_window_interact():
    net = matching(PAPER)
    descriptors = [torch.randn(1, 16, 1, 1) for _ in range(4)]
    assert mixed_difference(net.channel, *descriptors).abs().max() > 1e-2

    def without_relu(template, windows):
        return net.phi2(template + windows)

    assert mixed_difference(without_relu, *descriptors).abs().max() < 1e-5


def test_channel_term_can_be_left_out():
    net = matching(SVCCorrConfig(kernel=7, channel=False, pixel=False))
    state = net.template(torch.randn(1, 16, 15, 15))
    x = torch.randn(1, 16, 31, 31)
    assert list(state) == ["kernel"]
    assert torch.equal(net(state, x), depthwise_correlation(state["kernel"], x))


@pytest.mark.parametrize("pixel", [False, True])
def test_convolution_before_the_correlation_keeps_the_response(pixel):
    net = matching(SVCCorrConfig(kernel=7, hidden=8, pixel=pixel, xcorr_pre_conv=True))
    state = net.template(torch.randn(1, 16, 15, 15))
    assert net(state, torch.randn(1, 16, 31, 31)).shape == (1, 16, 25, 25)


def test_cosine_peaks_where_the_template_lies():
    net = matching(SVCCorrConfig(kernel=9, hidden=8, pixel=True))
    z, x = torch.randn(1, 16, 17, 17), torch.randn(1, 16, 33, 33)
    state = net.template(z)
    x[:, :, 6:15, 11:20] = state["kernel"]
    seen = {}
    net.mix.register_forward_pre_hook(lambda module, inputs: seen.update(joined=inputs[0]))
    net(state, x)
    joined = seen["joined"]
    assert joined.shape == (1, 16 + 81 + 16 + 16, 25, 25)
    # Template cell (4,4) is its middle; it lies on search cell (10,15), response cell (6,11).
    middle = joined[0, 16 + 4 * 9 + 4] / net.gain
    assert middle[6, 11] == pytest.approx(1.0, abs=1e-4)
    assert middle.flatten().argmax() == 6 * 25 + 11
    correlation = joined[0, :16].mean(0)
    assert correlation[6, 11] == pytest.approx(1.0, abs=1e-4)
    assert correlation.flatten().argmax() == 6 * 25 + 11


def test_two_samples_of_a_batch_do_not_mix():
    net = matching(SVCCorrConfig(kernel=9, hidden=8))
    z, x = torch.randn(2, 16, 17, 17), torch.randn(2, 16, 33, 33)
    both = net(net.template(z), x)
    for i in range(2):
        alone = net(net.template(z[i : i + 1]), x[i : i + 1])
        assert torch.allclose(both[i : i + 1], alone, atol=1e-4)
