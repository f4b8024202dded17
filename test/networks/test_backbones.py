"""Where features look: receptive-field centres measured on linearised nets; and how weights get in."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from siam_tracker_ros.networks.backbones import AtrousResNet50, MobileBackbone
from siam_tracker_ros.networks.necks import PyramidNeck


def linearised(network: nn.Module) -> nn.Module:
    """The same strides, paddings and dilations with one channel, equal weights and nothing between them."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                conv = nn.Conv2d(
                    1, 1, child.kernel_size, child.stride, child.padding, child.dilation, bias=False
                )
                nn.init.constant_(conv.weight, 1 / conv.weight.numel())
                setattr(module, name, conv)
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, (nn.BatchNorm2d, nn.ReLU, nn.ReLU6)):
                setattr(module, name, nn.Identity())
    for buffer, value in (("mean", 0.0), ("std", 1.0)):
        if hasattr(network, buffer):
            setattr(network, buffer, torch.full((1, 1, 1, 1), value))
    return network


def centre_of_gradient(features: torch.Tensor, image: torch.Tensor, row: int, column: int):
    (gradient,) = torch.autograd.grad(features[0, 0, row, column], image, retain_graph=True)
    index = torch.arange(image.shape[-1], dtype=torch.float64)
    weight = gradient[0, 0].double()
    return (
        float((weight.sum(1) * index).sum() / weight.sum()),
        float((weight.sum(0) * index).sum() / weight.sum()),
    )


def middle_features(cells: int) -> list[tuple[int, int]]:
    """Features of both parities whose receptive field lies inside the picture."""
    mid = cells // 2
    return [(mid, mid), (mid - 3, mid + 4), (mid + 1, mid - 2)]


@pytest.mark.parametrize("shortcut", ["1x1", "3x3"])
def test_resnets_feature_i_is_centred_on_pixel_7_plus_8_i(shortcut):
    with torch.enable_grad():
        image = torch.zeros(1, 1, 511, 511, requires_grad=True)
        (features,) = linearised(AtrousResNet50(shortcut))(image)
        assert features.shape[-1] == AtrousResNet50.map_size(511) == 63
        for row, column in middle_features(63):
            y, x = centre_of_gradient(features, image, row, column)
            assert (y, x) == pytest.approx((7 + 8 * row, 7 + 8 * column), abs=1e-3)


@pytest.mark.parametrize("kind", ["mobilenetv2_100", "tf_efficientnet_lite0"])
def test_mobile_nets_feature_i_is_centred_on_pixel_8_i_and_16_i(kind):
    with torch.enable_grad():
        image = torch.zeros(1, 1, 513, 513, requires_grad=True)
        at8, at16 = linearised(MobileBackbone(kind))(image)
        assert at8.shape[-1] == MobileBackbone.map_size(513) == 65
        assert at16.shape[-1] == 33
        for features, stride in ((at8, 8), (at16, 16)):
            for row, column in middle_features(features.shape[-1]):
                y, x = centre_of_gradient(features, image, row, column)
                assert (y, x) == pytest.approx((stride * row, stride * column), abs=1e-3)


def test_pyramid_neck_lays_stride_16_exactly_over_stride_8():
    """Upsampled, feature i of stride 16 sits on feature 2 i, and odd features are centred too."""
    neck = PyramidNeck((1, 1), 1)
    for conv, weight in ((neck.lateral, 0.0), (neck.top, 1.0)):
        nn.init.constant_(conv.weight, weight)
        nn.init.zeros_(conv.bias)
    with torch.enable_grad():
        image = torch.zeros(1, 1, 513, 513, requires_grad=True)
        at8, at16 = linearised(MobileBackbone("mobilenetv2_100"))(image)
        features = neck((at8, at16))
        for row, column in [(32, 32), (27, 36), (33, 24)]:
            y, x = centre_of_gradient(features, image, row, column)
            assert (y, x) == pytest.approx((8 * row, 8 * column), abs=1e-3)
    assert torch.allclose(features[0, 0, ::2, ::2], at16[0, 0], atol=1e-6)


def test_resnet_has_the_papers_stages():
    net = AtrousResNet50().eval()
    x = net.relu(net.bn1(net.conv1(torch.zeros(1, 3, 127, 127))))
    assert x.shape == (1, 64, 61, 61)
    x = net.maxpool(x)
    assert x.shape == (1, 64, 31, 31)
    x = net.layer1(x)
    assert x.shape == (1, 256, 31, 31)
    x = net.layer2(x)
    assert x.shape == (1, 512, 15, 15)
    assert net.layer3(x).shape == (1, 1024, 15, 15)
    assert [block.conv2.dilation[0] for block in net.layer3] == [1, 2, 2, 2, 2, 2]


def test_torchvisions_names_load_and_others_are_refused():
    weights = AtrousResNet50().state_dict()
    torchvision = {**weights, "fc.weight": torch.zeros(1), "layer4.0.conv1.weight": torch.zeros(1)}
    loaded = AtrousResNet50("1x1", torchvision)
    assert torch.equal(loaded.layer3[5].conv3.weight, weights["layer3.5.conv3.weight"])
    del torchvision["layer1.0.conv1.weight"]
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight"):
        AtrousResNet50("1x1", torchvision)


def test_resnets_statistics_do_not_move_in_training():
    net = AtrousResNet50().train()
    before = net.bn1.running_mean.clone()
    net(torch.rand(2, 3, 63, 63) * 255)
    assert torch.equal(net.bn1.running_mean, before)


@pytest.mark.parametrize("kind", ["mobilenetv2_100", "tf_efficientnet_lite0"])
def test_folded_mobile_net_equals_timms_own(kind):
    """At odd sizes, TensorFlow's padding and ours are the same."""
    model = timm.create_model(kind, pretrained=False, features_only=True, out_indices=(2, 3)).eval()
    plain = timm.create_model(kind, pretrained=False).eval()
    for name, buffer in plain.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    model.load_state_dict(plain.state_dict(), strict=False)
    ours = MobileBackbone(kind, plain.state_dict()).eval()
    image = torch.rand(1, 3, 129, 129) * 255
    expected = model((image - ours.mean) / ours.std)
    for got, wanted in zip(ours(image), expected, strict=True):
        assert got.shape == wanted.shape
        assert torch.allclose(got, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_weights_of_another_net_are_refused():
    weights = timm.create_model("mobilenetv2_100", pretrained=False).state_dict()
    with pytest.raises(ValueError, match="weights do not fit tf_efficientnet_lite0"):
        MobileBackbone("tf_efficientnet_lite0", weights)


@pytest.mark.data
def test_pretrained_mobile_weights_load(data_root):
    from safetensors.torch import load_file

    for kind in ("mobilenetv2_100", "tf_efficientnet_lite0"):
        (file,) = (data_root / "weights").glob(f"{kind}_*.safetensors")
        at8, at16 = MobileBackbone(kind, load_file(file)).eval()(torch.rand(1, 3, 65, 65) * 255)
        assert torch.isfinite(at8).all()
        assert at16.std() > 0.1
