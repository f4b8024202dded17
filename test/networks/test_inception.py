"""Inception-v3 at stride 8: the specification's table, torchvision's weights, and what freezes apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.inception import Inception3

from siam_tracker_ros.networks.backbones.inception import InceptionV3S8


@pytest.fixture(scope="module")
def backbone() -> InceptionV3S8:
    torch.manual_seed(3)
    return InceptionV3S8().eval()


def test_table_of_the_specification(backbone):
    seen = {}
    hooks = [
        block.register_forward_hook(lambda m, i, o, n=name: seen.update({n: tuple(o.shape[1:])}))
        for name, block in backbone.named_children()
    ]
    out = backbone(torch.rand(1, 3, 289, 289) * 255)
    for hook in hooks:
        hook.remove()
    assert seen == {
        "Conv2d_1a_3x3": (32, 144, 144),
        "Conv2d_2a_3x3": (32, 142, 142),
        "Conv2d_2b_3x3": (64, 142, 142),
        "Conv2d_3b_1x1": (80, 70, 70),
        "Conv2d_4a_3x3": (192, 68, 68),
        "Mixed_5b": (256, 68, 68),
        "Mixed_5c": (288, 68, 68),
        "Mixed_5d": (288, 68, 68),
        **{f"Mixed_6{letter}": (768, 33, 33) for letter in "abcde"},
    }
    assert len(out) == 1
    assert (backbone.channels, backbone.strides) == ((768,), (8,))
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(8.966e6, rel=1e-3)


@pytest.mark.parametrize("crop", [49, 65, 97, 145])
def test_map_size_is_what_comes_out(backbone, crop):
    assert backbone(torch.zeros(1, 3, crop, crop))[0].shape[-1] == backbone.map_size(crop)
    assert backbone.centred_crop(crop) == crop
    assert backbone.map_size(crop) % 2 == 1


def test_crop_sizes():
    assert InceptionV3S8.map_size(289) == 33
    assert InceptionV3S8.centred_crop(289) == 289
    assert InceptionV3S8.centred_crop(287) == 289
    assert InceptionV3S8.centred_crop(255) == 257
    assert InceptionV3S8.centred_crop(15) == 49  # smaller ones have no feature left


def test_weights_of_torchvision_load_and_give_its_features():
    torch.manual_seed(4)
    whole = Inception3(aux_logits=True, init_weights=False).eval()
    ours = InceptionV3S8(whole.state_dict()).eval()
    image = torch.rand(1, 3, 97, 97) * 255
    x = (image / 255 - 0.5) / 0.5
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1"):
        x = getattr(whole, name)(x)
    for name in (
        "Conv2d_4a_3x3",
        *(f"Mixed_5{c}" for c in "bcd"),
        *(f"Mixed_6{c}" for c in "abcde"),
    ):
        x = getattr(whole, name)(x)
    assert torch.allclose(ours(image)[0], x, rtol=1e-3, atol=1e-5 * float(x.abs().max()))
    with pytest.raises(ValueError, match=r"inception_v3: .*missing, such as Mixed_6e"):
        InceptionV3S8({k: v for k, v in whole.state_dict().items() if "Mixed_6e" not in k})


def test_addition_joins_after_the_first_relu(backbone):
    image = torch.rand(1, 3, 65, 65) * 255
    addition = torch.randn(1, 32, 32, 32)
    seen = []
    hook = backbone.Conv2d_2a_3x3.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    plain, added = backbone(image)[0], backbone(image, addition)[0]
    hook.remove()
    stem = F.relu(backbone.Conv2d_1a_3x3.bn(backbone.Conv2d_1a_3x3.conv((image - 127.5) / 127.5)))
    assert torch.allclose(seen[0], stem, atol=1e-6)
    assert torch.allclose(seen[1], stem + addition, atol=1e-6)
    assert float(seen[1].min()) < 0  # no ReLU behind it
    assert not torch.allclose(plain, added)


def test_stages_part_every_parameter(backbone):
    stages = backbone.stages()
    assert list(stages) == ["stem", "mixed5", "mixed6", "norm"]
    parameters = [id(p) for stage in stages.values() for p in stage.parameters()]
    assert len(parameters) == len(set(parameters))
    assert set(parameters) == {id(p) for p in backbone.parameters()}
    assert all(isinstance(m, nn.BatchNorm2d) for m in stages["norm"])
    assert all(isinstance(m, nn.Conv2d) for m in (*stages["stem"], *stages["mixed6"]))
    names = {id(p): n for n, p in backbone.named_parameters()}
    assert {names[id(p)].split(".")[0][:7] for p in stages["mixed5"].parameters()} == {"Mixed_5"}
    assert len(list(stages["stem"])) == 5


def test_batch_norm_follows_its_weights(backbone):
    norm = backbone.stages()["norm"]
    backbone.train()
    assert all(m.training for m in norm)
    norm.requires_grad_(False)
    backbone.train()
    assert not any(m.training for m in norm)
    norm.requires_grad_(True)
    backbone.eval()
    assert not any(m.training for m in norm)
