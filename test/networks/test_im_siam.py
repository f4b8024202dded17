"""IMSiam: the properties and numbers of section 9 of its specification, sizes and costs of section 8, its graphs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from siam_tracker_ros.geometry import CropSpec
from siam_tracker_ros.networks.backbones import AtrousResNet50, MobileBackbone
from siam_tracker_ros.networks.config import (
    AdaptiveConfig,
    BackboneConfig,
    ConfigError,
    NeckConfig,
    NetworkConfig,
)
from siam_tracker_ros.networks.decode import decode_points
from siam_tracker_ros.networks.grid import Grid
from siam_tracker_ros.networks.im_siam import IMSiam, PointMaps
from siam_tracker_ros.networks.matching.adaptive import MatchingAdaptive, integral_mean
from siam_tracker_ros.networks.necks import ConvNeck, LevelsNeck
from siam_tracker_ros.networks.tracker_network import SearchGraph, TemplateGraph
from siam_tracker_ros.tracking.size_rule import smoothed_size

CONFIGS = Path(__file__).parents[2] / "config" / "training"


def shipped(name: str) -> NetworkConfig:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    return NetworkConfig.from_dict(yaml.safe_load(text)["network"])


PAPER, LIGHT = shipped("im_siam_resnet50"), shipped("im_siam_mobilenetv2")


def stir(module: torch.nn.Module) -> None:
    """Give BatchNorms statistics of their own."""
    generator = torch.Generator().manual_seed(5)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)


def make(config: NetworkConfig) -> IMSiam:
    """A network with hills on its maps: every output map is spread to a standard deviation of one."""
    torch.manual_seed(1)
    with torch.no_grad():
        network = IMSiam(config).eval()
        stir(network)
        size = torch.tensor([[*(2 * [(config.crop.template - 1) / 2]), 60.0, 50.0]])
        state = network.template(planes(1, config.crop.template), size)
        joined = network.matching(state, network.extract(planes(2, config.crop.search)))
        for name, found in network.head(joined.flatten(0, 1)).items():
            conv, spread = network.head.outputs[name][0], 1.0 if name != "distances" else 0.3
            factor = spread / found.std((0, 2, 3))
            conv.weight.mul_(factor.view(-1, 1, 1, 1))
            middle = 3.4 if name == "distances" and config.decoder.unit == 1 else 0.0
            conv.bias.copy_(middle + (conv.bias - found.mean((0, 2, 3))) * factor)
        network.head.scale.copy_(torch.tensor([1.0, 0.95, 1.05]))
    return network


def picture(seed: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 12, generator=generator)
    fine = F.interpolate(coarse, size=(side, side), mode="bicubic")
    return (fine[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8)


def planes(seed: int, side: int) -> torch.Tensor:
    return picture(seed, side).float().permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def paper() -> IMSiam:
    return make(PAPER)


@pytest.fixture(scope="module")
def light() -> IMSiam:
    return make(LIGHT)


def matching(config: AdaptiveConfig, channels: int = 8, levels: int = 3) -> MatchingAdaptive:
    torch.manual_seed(3)
    net = MatchingAdaptive(channels, levels, config).eval()
    stir(net)
    return net


CENTRED = torch.tensor([[0.0, 0.0, 60.0, 50.0]])


# --- pooling --------------------------------------------------------------------------------------

RAMP = torch.arange(25, dtype=torch.float64).view(1, 1, 5, 5)


def pooled(features: torch.Tensor, *corners: float) -> float:
    return float(integral_mean(features, torch.tensor([corners], dtype=features.dtype)))


@pytest.mark.parametrize(
    ("corners", "value"),
    [
        ((1, 1, 3, 3), 12.0),
        ((0.5, 1.25, 2.75, 3.5), 13.5),
        ((-0.5, -0.5, 1, 1), 1.8333333),
        ((2, 2, 2.001, 2.001), 12.003),
    ],
)
def test_pooling_numbers_of_the_specification(corners, value):
    assert pooled(RAMP, *corners) == pytest.approx(value, abs=1e-6)


def test_pooling_keeps_constants_and_shrinks_to_a_sample():
    assert pooled(torch.full_like(RAMP, 7.0), 0.3, 0, 3.9, 2.2) == pytest.approx(7)
    assert pooled(RAMP, 3, 1, 3, 1) == pytest.approx(8, abs=0.01)
    noise = torch.rand(1, 1, 5, 5, dtype=torch.float64)
    assert pooled(noise, 3 - 5e-4, 1 - 5e-4, 3, 1) == pytest.approx(
        float(noise[0, 0, 1, 3]), abs=1e-3
    )


def test_pooling_is_the_weighted_mean_of_two_halves():
    noise = torch.rand(1, 1, 7, 7, dtype=torch.float64)
    left, right = pooled(noise, 0.7, 1.1, 2.3, 4.9), pooled(noise, 2.3, 1.1, 5.2, 4.9)
    whole = pooled(noise, 0.7, 1.1, 5.2, 4.9)
    assert whole == pytest.approx((1.6 * left + 2.9 * right) / 4.5, abs=1e-12)


def test_pooling_equals_a_midpoint_sum():
    noise = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    x1, y1, x2, y2 = 0.3, 1.2, 4.7, 5.6
    steps = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    x, y = x1 + steps * (x2 - x1), y1 + steps * (y2 - y1)
    index = torch.arange(6, dtype=torch.float64)
    columns = (1 - (x[:, None] - index).abs()).clamp(min=0).mean(0)
    rows = (1 - (y[:, None] - index).abs()).clamp(min=0).mean(0)
    assert pooled(noise, x1, y1, x2, y2) == pytest.approx(
        float(rows @ noise[0, 0] @ columns), abs=1e-6
    )


def test_pooling_has_gradients_in_the_corners():
    noise = torch.rand(1, 2, 5, 5, dtype=torch.float64)
    with torch.enable_grad():
        corners = torch.tensor([[0.4, 1.3, 3.6, 4.3]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda c: integral_mean(noise, c), (corners,))


def test_a_targets_corners_in_cells():
    """A 63.5 px square in the middle of a 127 px template: x1 = 2.03125, x2 = 9.96875 of 13 cells."""
    net = matching(AdaptiveConfig(), channels=4, levels=1)
    z = torch.randn(1, 4, 15, 15)
    vector = net.template((z,), torch.tensor([[0.0, 0.0, 63.5, 63.5]]))["vector"][:, 0]
    corners = torch.tensor([[2.03125, 2.03125, 9.96875, 9.96875]])
    assert torch.allclose(vector, integral_mean(net.difference[0](z), corners), atol=1e-6)


def test_a_shifted_target_has_the_same_vector():
    """Features and box one cell (8 px) further: the pooled vector stays."""
    net = matching(AdaptiveConfig(), channels=4, levels=1)
    z = torch.randn(1, 4, 15, 15)
    vector = net.template((z,), torch.tensor([[0.0, 0.0, 40.0, 48.0]]))["vector"]
    moved = net.template((z.roll(1, 3),), torch.tensor([[8.0, 0.0, 40.0, 48.0]]))["vector"]
    assert (vector - moved).abs().max() < 1e-5


# --- matching -------------------------------------------------------------------------------------


def test_correlation_is_the_padded_sum():
    net = matching(AdaptiveConfig())
    kernel, x = torch.randn(2, 3, 8, 5, 5), torch.randn(2, 3, 8, 9, 9)
    out = net.correlation(kernel, x)
    assert out.shape == x.shape
    padded = F.pad(x, (2, 2, 2, 2))
    expected = torch.zeros_like(x)
    for u in range(5):
        for v in range(5):
            expected += kernel[..., u, v, None, None] * padded[..., u : u + 9, v : v + 9]
    assert torch.allclose(out, expected, atol=1e-5)
    valid = F.conv2d(x[1, 2][None], kernel[1, 2][:, None], groups=8)
    assert torch.allclose(out[1, 2, :, 2:-2, 2:-2], valid[0], atol=1e-5)


def test_without_norm_the_correlation_is_a_mean():
    kernel, x = torch.randn(1, 3, 8, 5, 5), torch.randn(1, 3, 8, 9, 9)
    whole = matching(AdaptiveConfig()).correlation(kernel, x)
    mean = matching(AdaptiveConfig(norm=False)).correlation(kernel, x)
    assert torch.allclose(mean * 25, whole, atol=1e-5)


def test_difference_vanishes_at_the_vector_and_has_no_sign():
    net = matching(AdaptiveConfig())
    z, x = torch.randn(3, 1, 8, 15, 15), torch.randn(3, 1, 8, 31, 31)
    state = net.template(tuple(z), CENTRED)
    joined = net(state, tuple(x))
    assert joined.shape == (1, 3, 24, 29, 29)
    here = torch.stack([net.difference[i](x[i]) for i in range(3)], dim=1)
    assert torch.equal(joined[:, :, 8:16], here)
    assert joined[:, :, :8].min() >= 0
    state["vector"] = here[..., 4:5, 7:8].clone()
    again = net(state, tuple(x))
    assert again[..., :8, 4, 7].abs().max() == 0
    mirrored = {**state, "vector": 2 * here[..., 9:10, 9:10] - state["vector"]}
    assert torch.allclose(net(mirrored, tuple(x))[..., :8, 9, 9], again[..., :8, 9, 9], atol=1e-6)


@pytest.mark.parametrize(
    ("difference", "identity", "maps"), [(True, False, 2), (False, True, 2), (False, False, 1)]
)
def test_parts_can_be_left_out(difference, identity, maps):
    net = matching(AdaptiveConfig(difference=difference, identity=identity))
    features = tuple(torch.randn(3, 2, 8, 15, 15))
    state = net.template(features, CENTRED.repeat(2, 1))
    assert set(state) == set(net.states) == ({"kernel", "vector"} if difference else {"kernel"})
    assert net(state, features).shape == (2, 3, 8 * maps, 13, 13)
    assert net.outputs == 8 * maps


def test_two_samples_of_a_batch_do_not_mix():
    net = matching(AdaptiveConfig(separable=True, norm=False))
    z, x = torch.randn(3, 2, 8, 17, 17), torch.randn(3, 2, 8, 21, 21)
    boxes = torch.tensor([[0.0, 0.0, 60.0, 40.0], [3.0, -5.0, 20.0, 80.0]])
    both = net(net.template(tuple(z), boxes), tuple(x))
    for i in range(2):
        one = slice(i, i + 1)
        alone = net(net.template(tuple(z[:, one]), boxes[one]), tuple(x[:, one]))
        assert torch.allclose(both[one], alone, atol=1e-5)


# --- the network ----------------------------------------------------------------------------------


def test_shapes_of_the_paper(paper):
    template = paper.extract(planes(1, 127))
    assert [f.shape for f in template] == [(1, 256, 15, 15)] * 3
    assert [m.shape[1] for m in paper.backbone(planes(1, 127))] == [512, 1024, 2048]
    search = paper.extract(planes(2, 255))
    assert [f.shape for f in search] == [(1, 256, 31, 31)] * 3
    assert paper.matching.difference[0](template[0]).shape == (1, 256, 13, 13)
    state = paper.matching.template(template, CENTRED)
    assert state["vector"].shape == (1, 3, 256, 1, 1)
    assert state["kernel"].shape == (1, 3, 256, 5, 5)
    joined = paper.matching(state, search)
    assert joined.shape == (1, 3, 768, 29, 29)
    maps = paper.head.levels(joined)
    assert [m.shape[2] for m in maps] == [2, 1, 4, 1]
    assert all(m.shape[:2] == (1, 3) and m.shape[3:] == (29, 29) for m in maps)
    centers = paper.grid.centers()
    assert (centers[0], centers[14], centers[28]) == (15, 127, 239)


def test_shapes_of_the_light_network(light):
    assert light.backbone.strides == (8, 16, 16) and light.backbone.channels == (32, 64, 96)
    assert [f.shape for f in light.extract(planes(1, 129))] == [(1, 64, 17, 17)] * 3
    state = light.start(planes(1, 129), torch.tensor([60.0, 50.0]))
    assert state["kernel"].shape == (1, 3, 64, 5, 5)
    maps = light.search(state, planes(2, 257))
    assert maps.distances.shape == (1, 3, 4, 31, 31)
    assert light.grid.centers()[15] == 128


def test_an_untrained_light_head_starts_at_64_pixels():
    network = IMSiam(LIGHT).eval()
    maps = network.head.levels(torch.zeros(1, 3, network.matching.outputs, 31, 31))
    boxes = network.boxes(maps)
    assert (boxes[:, 2:] - 64).abs().max() < 0.5


@pytest.mark.parametrize("shortcut", ["1x1", "3x3"])
def test_costs_of_the_specification(paper, shortcut):
    from siam_tracker_ros.deployment.costs import measure_costs

    network = paper
    if shortcut == "3x3":
        backbone = dataclasses.replace(PAPER.backbone, shortcut="3x3")
        network = IMSiam(dataclasses.replace(PAPER, backbone=backbone))
    costs = measure_costs(network)
    parts = {part.name: part for part in costs.parts}
    wanted = {
        "1x1": (23.508, 23.417, 5.491, 33.70, 37.26),
        "3x3": (45.528, 44.579, 10.446, 55.72, 58.42),
    }
    parameters, macs, template, all_parameters, all_macs = wanted[shortcut]
    table = {
        "backbone": (parameters, macs),
        "neck": (0.919, 0.882),
        "matching": (5.313, 2.976 + 0.016),
        "head": (3.957, 9.967),
    }
    for name, (millions, billions) in table.items():
        assert parts[name].parameters / 1e6 == pytest.approx(millions, rel=0.01), name
        assert parts[name].macs / 1e9 == pytest.approx(billions, rel=0.01), name
    assert parts["backbone"].template_macs / 1e9 == pytest.approx(template, rel=0.01)
    assert costs.parameters / 1e6 == pytest.approx(all_parameters, rel=0.01)
    assert costs.macs / 1e9 == pytest.approx(all_macs, rel=0.01)


def test_the_light_network_is_light(light):
    from siam_tracker_ros.deployment.costs import measure_costs

    assert measure_costs(light).macs < 0.45e9


@pytest.mark.parametrize("name", ["paper", "light"])
def test_one_batch_of_levels_equals_one_evaluation_each(name, request):
    network = request.getfixturevalue(name)
    joined = torch.randn(2, 3, network.matching.outputs, 9, 9)
    maps = network.head.levels(joined)
    unit = network.config.decoder.unit
    for level in range(3):
        alone = network.head(joined[:, level])
        for key in ("foreground", "centre", "iou"):
            assert torch.allclose(getattr(maps, key)[:, level], alone[key], atol=1e-5)
        distances = unit * torch.exp(network.head.scale[level] * alone["distances"])
        assert torch.allclose(maps.distances[:, level], distances, rtol=1e-5, atol=1e-5)


def test_distances_do_not_overflow(paper, light):
    for network in (paper, light):
        network.head.outputs["distances"][0].bias.add_(1000.0)
        joined = torch.randn(1, 3, network.matching.outputs, 5, 5)
        distances = network.head.levels(joined).distances
        network.head.outputs["distances"][0].bias.sub_(1000.0)
        assert float(distances.max()) == pytest.approx(665.14, abs=0.01)


def random_maps(seed: int = 0) -> PointMaps:
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, 1, 4, 1)
    values = [3 * torch.randn(1, 3, c, 31, 31, generator=generator) for c in shapes]
    values[2] = values[2].exp()
    return PointMaps(*values)


def test_score_is_class_times_centre_times_overlap(light):
    maps = random_maps()
    score = light.score(maps)
    assert float(score.min()) >= 0 and float(score.max()) <= 1
    sure = maps._replace(centre=torch.full_like(maps.centre, 99), iou=torch.full_like(maps.iou, 99))
    foreground = torch.softmax(maps.foreground, 2)[:, :, 1].mean(1)
    assert torch.allclose(light.score(sure), foreground, atol=1e-6)
    worse = light.score(maps._replace(iou=maps.iou - torch.rand_like(maps.iou)))
    assert bool((worse <= score).all()) and bool((worse < score).any())


def test_overlap_can_be_left_out_of_the_score():
    config = dataclasses.replace(LIGHT, decoder=dataclasses.replace(LIGHT.decoder, iou=False))
    network, maps = IMSiam(config), random_maps()
    lower = maps._replace(iou=maps.iou - 5)
    assert torch.equal(network.score(maps), network.score(lower))


def test_equal_distances_in_the_middle_give_the_previous_box_back():
    grid = Grid(29, 255)
    distances = torch.ones(1, 4, 29, 29) * torch.tensor([21.5, 14.25, 21.5, 14.25]).view(1, 4, 1, 1)
    boxes = decode_points(distances, grid)
    assert boxes[0, :, 14, 14].tolist() == [127, 127, 43, 28.5]
    assert boxes[0, :, 14, 15].tolist() == [135, 127, 43, 28.5]
    assert IMSiam.host_tuning == {"size_rate": 0.25, "size_by_score": 0.0, "size_bias": 0.5}
    for rate, size in ((0.0, (40.0, 30.0)), (1.0, (60.0, 20.0)), (0.25, (45.0, 27.5))):
        args = {"score": 0.3, "rate": rate, "penalty": 0.0, "by_score": 0.0}
        assert smoothed_size((60.0, 20.0), (40.0, 30.0), **args) == pytest.approx(size)


def run_step(network: IMSiam, seed: int, window: float = 0.3):
    template = TemplateGraph(network).eval()
    state = template(picture(0, network.config.crop.template), torch.tensor([60.0, 50.0]))
    search = picture(seed, network.config.crop.search)
    return SearchGraph(network).eval()(search, torch.tensor([window]), *state)


def test_result_is_what_the_maps_say(light):
    state = light.start(planes(0, 129), torch.tensor([60.0, 50.0]))
    maps = light.search(state, planes(7, 257))
    score, boxes = light.score(maps)[0], light.boxes(maps)[0]
    best = int(score.argmax())
    box, found, _, peak = run_step(light, 7, window=0.0)
    assert torch.allclose(box, boxes.flatten(1)[:, best], atol=1e-4)
    assert float(found) == pytest.approx(float(score.max()))
    centers = light.grid.centers()
    assert peak.tolist() == [float(centers[best % 31]), float(centers[best // 31])]
    assert run_step(light, 7, window=1.0)[3].tolist() == [128, 128]


def test_step_is_a_function(light):
    for one, other in zip(run_step(light, 4), run_step(light, 4), strict=True):
        assert torch.equal(one, other)


def test_the_template_reads_the_size(light):
    small = light.start(planes(0, 129), torch.tensor([20.0, 20.0]))
    large = light.start(planes(0, 129), torch.tensor([80.0, 80.0]))
    assert torch.equal(small["kernel"], large["kernel"])
    assert (small["vector"] - large["vector"]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"crop": CropSpec(127, 257)},
            r"crop.template = 127: backbone.kind mobilenetv2_100 .* 129 fits",
        ),
        (
            {"crop": CropSpec(33, 257)},
            r"matching.cells = 7 cells, but crop.template = 33 px gives only 5",
        ),
        (
            {"crop": CropSpec(129, 129), "matching": AdaptiveConfig(cells=17)},
            "matching.cells = 17 makes a kernel of 15",
        ),
        ({"neck": NeckConfig("pyramid")}, "neck.kind pyramid does not go with tracker im_siam"),
        (
            {"backbone": BackboneConfig(levels=("early", "layer4"))},
            "has early, middle, late, not 'layer4'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    if "matching" in change:  # 17 cells of template and search: 15 of response
        IMSiam(dataclasses.replace(LIGHT, **change))
        change = {**change, "crop": CropSpec(129, 113)}
    with pytest.raises(ConfigError, match=message):
        IMSiam(dataclasses.replace(LIGHT, **change))


# --- backbones and necks for several levels -------------------------------------------------------


def test_resnet_levels_are_those_of_the_deeper_one():
    torch.manual_seed(0)
    deep = AtrousResNet50(levels=("layer2", "layer3", "layer4")).eval()
    plain = AtrousResNet50().eval()
    assert not hasattr(plain, "layer4") and list(plain.stages())[-1] == "layer3"
    plain.load_state_dict(
        {k: v for k, v in deep.state_dict().items() if not k.startswith("layer4")}
    )
    image = planes(3, 127)
    maps = deep(image)
    assert torch.equal(maps[1], plain(image)[0])
    assert deep.channels == (512, 1024, 2048) and deep.strides == (8, 8, 8)
    swapped = AtrousResNet50(levels=("layer4", "layer2")).eval()
    swapped.load_state_dict(deep.state_dict())
    assert [torch.equal(a, b) for a, b in zip(swapped(image), (maps[2], maps[0]), strict=True)] == [
        True,
        True,
    ]


def test_resnets_last_stage_is_dilated():
    deep = AtrousResNet50("3x3", levels=("layer4",))
    assert [block.conv2.dilation for block in deep.layer4] == [(2, 2), (4, 4), (4, 4)]
    shortcut = deep.layer4[0].downsample[0]
    assert (shortcut.kernel_size, shortcut.dilation, shortcut.padding) == ((3, 3), (2, 2), (2, 2))
    assert deep(planes(1, 127))[0].shape == (1, 2048, 15, 15)


@pytest.mark.parametrize("shortcut", ["1x1", "3x3"])
def test_torchvisions_names(shortcut):
    """With 1x1 shortcuts, names and shapes are torchvision's but for its classifier."""
    torchvision = pytest.importorskip("torchvision")
    deep = AtrousResNet50(shortcut, levels=("layer4",)).state_dict()
    theirs = torchvision.models.resnet50(weights=None).state_dict()
    theirs = {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}
    assert set(deep) == set(theirs)
    assert ({k: v.shape for k, v in deep.items()} == theirs) == (shortcut == "1x1")


def test_mobile_levels():
    torch.manual_seed(0)
    every = MobileBackbone("mobilenetv2_100", levels=("late", "early", "middle")).eval()
    usual = MobileBackbone("mobilenetv2_100").eval()
    usual.load_state_dict(every.state_dict())
    image = planes(1, 65)
    late, early, middle = every(image)
    assert [torch.equal(a, b) for a, b in zip(usual(image), (early, late), strict=True)] == [
        True,
        True,
    ]
    assert middle.shape == (1, 64, 5, 5)
    assert every.strides == (16, 8, 16) and every.channels == (96, 32, 64)
    short = MobileBackbone("mobilenetv2_100", levels=("early",))
    assert list(short.stages()) == ["stem", "early"]
    assert len(MobileBackbone("mobilenetv2_100", levels=("middle",)).late) == 1


def test_stride_16_lies_on_every_other_feature():
    neck = LevelsNeck((3, 5), (8, 16), 4, norm=False)
    at8, at16 = torch.randn(1, 3, 9, 9), torch.randn(1, 5, 5, 5)
    fine, coarse = neck((at8, at16))
    assert fine.shape == coarse.shape == (1, 4, 9, 9)
    assert torch.allclose(coarse[:, :, ::2, ::2], neck.levels[1](at16), atol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_conv_neck_cuts_margins_before_its_convolution(relu):
    neck = ConvNeck(3, 4, margin=4, relu=relu)
    maps = torch.randn(1, 3, 33, 33)
    out = neck((maps,))
    expected = F.conv2d(maps[:, :, 4:29, 4:29], neck.conv.weight, neck.conv.bias, padding=1)
    assert torch.allclose(out, F.relu(expected) if relu else expected, atol=1e-6)


# --- exported graphs ------------------------------------------------------------------------------

SMALL = {
    "light": LIGHT,
    "group norm, full convolutions": dataclasses.replace(
        LIGHT,
        crop=CropSpec(65, 129),
        neck=NeckConfig("adjust", 16),
        matching=AdaptiveConfig(cells=5),
        head=dataclasses.replace(PAPER.head, width=64, depth=1),
        decoder=PAPER.decoder,
    ),
    "correlation alone": dataclasses.replace(
        LIGHT, crop=CropSpec(65, 129), matching=AdaptiveConfig(difference=False, identity=False)
    ),
}


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL.keys())
def test_exported_graphs_equal_torch(config):
    onnxruntime = pytest.importorskip("onnxruntime")
    from siam_tracker_ros.deployment.graphs import export_graphs

    network = make(config)
    graphs = export_graphs(network)
    sessions = {
        name: onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
        for name, graph in graphs.items()
    }
    template, search = TemplateGraph(network).eval(), SearchGraph(network).eval()
    assert [i.name for i in sessions["search"].get_inputs()] == search.reads
    crop, generator = config.crop, np.random.default_rng(1)
    for step in range(20):
        if step % 10 == 0:
            inputs = (picture(step, crop.template), torch.tensor([50.0 + step, 40.0]))
            inputs = inputs[: len(network.template_reads)]
            expected = constant = template(*inputs)
            compare(sessions["template"], template, inputs, expected)
        noise = torch.tensor(generator.integers(-20, 21, (crop.search, crop.search, 3)))
        frame = (picture(100 + step, crop.search).int() + noise).clamp(0, 255).to(torch.uint8)
        inputs = (frame, torch.tensor([0.3]), *constant)
        compare(sessions["search"], search, inputs, search(*inputs))


def compare(session, graph, inputs, expected):
    feed = dict(zip(graph.reads, (t.numpy() for t in inputs), strict=True))
    for name, ours, theirs in zip(
        graph.writes, session.run(graph.writes, feed), expected, strict=True
    ):
        limit = 1e-3 * max(1.0, float(theirs.abs().max()))
        assert np.abs(ours - theirs.numpy()).max() < limit, name
