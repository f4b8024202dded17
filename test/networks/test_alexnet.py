"""AlexNet at stride 8: sizes, channels, alignment, normalisation and weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.networks.backbones.alexnet import (  # noqa: E402
    CAFFE_MEAN,
    AlexNetS8,
    response_norm,
)


@pytest.fixture(scope="module")
def grouped():
    torch.manual_seed(1)
    return AlexNetS8("grouped").eval()


@pytest.mark.parametrize(("crop", "cells"), [(127, 16), (271, 34)])
def test_maps_of_the_specifications_table(grouped, crop, cells):
    with torch.no_grad():
        second, fourth, fifth = grouped(torch.rand(1, 3, crop, crop) * 255)
    assert second.shape == (1, 256, cells, cells)
    assert fourth.shape == (1, 384, cells, cells)
    assert fifth.shape == (1, 256, cells, cells)
    assert AlexNetS8.map_size(crop) == cells
    assert AlexNetS8.centred_crop(crop) == crop


def test_crops_that_do_not_halve_evenly_have_a_neighbour_that_does():
    assert [AlexNetS8.centred_crop(n) for n in (129, 255, 257, 272)] == [127, 255, 255, 271]


def test_parameters_are_the_tables(grouped):
    assert sum(p.numel() for p in grouped.parameters()) == pytest.approx(2.334e6, rel=1e-3)
    assert sum(grouped.channels[:2]) == 640
    assert sum(AlexNetS8("torchvision").channels[:2]) == 448
    assert list(grouped.stages()) == ["conv1", "conv2", "conv3", "conv4", "conv5"]


def test_feature_n_lies_on_pixel_8n(grouped):
    """The receptive field of a feature is centred on 8 n: gradients of a linearised net are symmetric around it."""
    net = AlexNetS8("grouped")
    for conv in net.stages().values():
        torch.nn.init.constant_(conv.weight, 1e-3)
        torch.nn.init.constant_(conv.bias, 1.0)
    image = torch.full((1, 3, 127, 127), 200.0, requires_grad=True)
    with torch.enable_grad():
        x = net.conv1(image - net.mean)
        for conv in (net.conv2, net.conv3, net.conv4, net.conv5):
            if conv in (net.conv2, net.conv3):  # the pools, linear
                x = torch.nn.functional.avg_pool2d(x, 3, 2, 1)
            x = conv(x)
        x[0, 0, 8, 7].backward()
    weight = image.grad[0].sum(0)
    pixel = torch.arange(127.0)
    assert float((weight.sum(1) * pixel).sum() / weight.sum()) == pytest.approx(64, abs=1e-2)
    assert float((weight.sum(0) * pixel).sum() / weight.sum()) == pytest.approx(56, abs=1e-2)


def test_template_and_search_crop_see_the_same_phase(grouped):
    """A smooth picture cut to 127 and 271 px: the central cells of both agree to 1 %."""
    coarse = torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(3))
    search = torch.nn.functional.interpolate(coarse, (271, 271), mode="bicubic") * 255
    start = 135 - 63
    template = search[:, :, start : start + 127, start : start + 127]
    with torch.no_grad():
        z, x = grouped(template)[2], grouped(search)[2]
    # Receptive field 87 px: cells 6 to 9 of the template's 16 see nothing of its padding.
    ours, theirs = z[..., 6:10, 6:10], x[..., 15:19, 15:19]
    assert (ours - theirs).abs().max() < 0.01 * theirs.abs().max()
    other = x[..., 14:18, 15:19]  # a cell further
    assert (ours - other).abs().max() > 0.05 * theirs.abs().max()


def test_response_norm_is_caffes():
    x = 30 * torch.randn(2, 12, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
    assert torch.allclose(response_norm(x), expected, rtol=1e-5, atol=1e-6)


def test_weights_with_caffes_names_expect_bgr():
    source = AlexNetS8("grouped").state_dict()
    weights = {k: torch.randn_like(v) * 0.01 for k, v in source.items()}
    net = AlexNetS8("grouped", {**weights, "fc6.weight": torch.zeros(3)}).eval()
    image = torch.rand(1, 3, 63, 63) * 255
    bgr = image.flip(1) - torch.tensor(CAFFE_MEAN[::-1]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = torch.nn.functional.conv2d(
            bgr, weights["conv1.weight"], weights["conv1.bias"], stride=2, padding=5
        )
        got = net.conv1((image - net.mean) / net.std)
    assert torch.allclose(got, expected, atol=1e-3)
    assert CAFFE_MEAN[::-1] == (104, 117, 123)


def test_torchvisions_weights_load():
    torchvision = pytest.importorskip("torchvision")
    weights = torchvision.models.AlexNet().state_dict()
    net = AlexNetS8("torchvision", weights)
    assert torch.equal(net.conv4.weight, weights["features.8.weight"])
    assert not net.lrn
    with pytest.raises(ValueError, match=r"alexnet \(grouped\)"):
        AlexNetS8("grouped", weights)
