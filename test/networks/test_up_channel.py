"""Up-channel correlation: the explicit loop, the order of its outputs, and its scale."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.networks.config import UpChannelConfig  # noqa: E402
from siam_tracker_ros.networks.layers import center_crop, unit_length  # noqa: E402
from siam_tracker_ros.networks.matching.up_channel import (  # noqa: E402
    UpXCorr,
    correlate,
)


def test_correlation_equals_the_loop():
    kernel, features = torch.randn(2, 3, 4, 4, 4), torch.randn(2, 4, 9, 8)
    expected = torch.zeros(2, 3, 6, 5)
    for b in range(2):
        for o in range(3):
            for i in range(6):
                for j in range(5):
                    window = features[b, :, i : i + 4, j : j + 4]
                    expected[b, o, i, j] = (kernel[b, o] * window).sum()
    assert torch.allclose(correlate(kernel, features), expected, atol=1e-4)


def test_batch_of_two_is_two_single_runs_and_torchs_grouped_convolution():
    kernel, features = torch.randn(2, 10, 16, 4, 4), torch.randn(2, 16, 22, 22)
    both = correlate(kernel, features)
    for b in range(2):
        alone = correlate(kernel[b : b + 1], features[b : b + 1])
        assert torch.allclose(both[b : b + 1], alone, atol=1e-4)
    grouped = torch.nn.functional.conv2d(
        features.reshape(1, 32, 22, 22), kernel.reshape(20, 16, 4, 4), groups=2
    )
    assert torch.allclose(both.reshape(1, 20, 19, 19), grouped, atol=1e-3)


def test_shapes_of_the_paper():
    matching = UpXCorr(256, 5, UpChannelConfig()).eval()
    state = matching.template(torch.randn(1, 256, 16, 16))
    assert state["class_kernel"].shape == (1, 10, 256, 4, 4)
    assert state["box_kernel"].shape == (1, 20, 256, 4, 4)
    logits, deltas = matching(**state, features=torch.randn(1, 256, 34, 34))
    assert logits.shape == (1, 1805, 2) and deltas.shape == (1, 1805, 4)
    template = sum(
        p.numel()
        for conv in (matching.template_class, matching.template_box)
        for p in conv.parameters()
    )
    assert template == pytest.approx(17.702e6, rel=1e-3)
    assert sum(p.numel() for p in matching.parameters()) - template == pytest.approx(
        1.181e6, rel=1e-3
    )


@pytest.fixture
def small():
    return UpXCorr(6, 3, UpChannelConfig(template_cells=5, search_cells=11, width=4)).eval()


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(4)
    return torch.randn(1, 6, 9, 9, generator=generator), torch.randn(
        1, 6, 15, 15, generator=generator
    )


def test_outputs_are_the_definition_in_the_order_row_column_anchor(small, pair):
    z, x = pair
    small.class_bias.copy_(torch.randn(6))
    small.adjust.weight.normal_()
    state = small.template(z)
    logits, deltas = small(**state, features=x)
    z, x = center_crop(z, 5), center_crop(x, 11)
    conv = torch.nn.functional.conv2d
    classes = 1e-3 * conv(small.search_class(x), small.template_class(z).view(6, 4, 3, 3))
    classes = classes + small.class_bias.view(1, -1, 1, 1)
    boxes = small.adjust(1e-3 * conv(small.search_box(x), small.template_box(z).view(12, 4, 3, 3)))
    for row, column, anchor in ((0, 0, 0), (2, 6, 1), (5, 3, 2)):
        n = (row * 7 + column) * 3 + anchor
        expected = classes[0, [anchor, 3 + anchor], row, column]  # class * A + anchor
        assert torch.allclose(logits[0, n], expected, atol=1e-5)
        expected = boxes[0, 4 * anchor : 4 * anchor + 4, row, column]  # anchor * 4 + delta
        assert torch.allclose(deltas[0, n], expected, atol=1e-5)


def test_kernels_are_kept_small(small, pair):
    kernel = small.template(pair[0])["class_kernel"]
    raw = small.template_class(center_crop(pair[0], 5))
    assert torch.allclose(kernel.flatten(), raw.flatten() / 32, atol=1e-6)


def test_a_matching_start_finds_the_template():
    """The target's map begins as the cosine of the features: highest where the template was cut from."""
    torch.manual_seed(0)
    config = UpChannelConfig(template_cells=5, search_cells=15, width=6, unit=True, start="match")
    matching = UpXCorr(6, 2, config).eval()
    x = torch.randn(1, 6, 15, 15)
    z = x[:, :, 7:12, 3:8]
    logits, _ = matching(**matching.template(z), features=x)
    heat = (logits[0, :, 1] - logits[0, :, 0]).view(11, 11, 2)
    for anchor in range(2):
        assert divmod(int(heat[..., anchor].argmax()), 11) == (7, 3)
    scaled, _ = matching(**matching.template(7 * z), features=3 * x)
    assert torch.allclose(scaled, logits, atol=1e-4)  # lengths of features do not matter
    assert float(unit_length(x).square().sum(1).mean()) == pytest.approx(1, abs=1e-4)
