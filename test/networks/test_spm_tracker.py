"""The whole network: shapes of the specification, its two graphs, and the rules of one step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import yaml  # noqa: E402

from siam_tracker_ros.geometry import CropSpec  # noqa: E402
from siam_tracker_ros.networks.anchors import (  # noqa: E402
    overlap,
    place_window,
    propose,
)
from siam_tracker_ros.networks.config import (  # noqa: E402
    BackboneConfig,
    ConfigError,
    NeckConfig,
    NetworkConfig,
    UpChannelConfig,
)
from siam_tracker_ros.networks.layers import center_crop, unit_length  # noqa: E402
from siam_tracker_ros.networks.spm_tracker import SPMTracker  # noqa: E402
from siam_tracker_ros.networks.tracker_network import (  # noqa: E402
    SearchGraph,
    TemplateGraph,
    to_planes,
)

CONFIGS = Path(__file__).parents[2] / "config" / "training"


def shipped(name: str) -> NetworkConfig:
    text = (CONFIGS / f"spm_tracker_{name}.yaml").read_text(encoding="utf-8")
    return NetworkConfig.from_dict(yaml.safe_load(text)["network"])


def lively(config: NetworkConfig) -> SPMTracker:
    """A network with random weights whose scores and boxes differ from anchor to anchor."""
    torch.manual_seed(2)
    network = SPMTracker(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)
        network.matching.class_bias.zero_()
        state, features = _parts(network)
        coarse = network.coarse(state, features)
        logits = coarse.logits[0, :, 1] - coarse.logits[0, :, 0]
        gain = 1.5 / logits.std()
        matching = network.matching
        matching.template_class.weight.mul_(gain)
        matching.template_class.bias.mul_(gain)
        matching.class_bias[: matching.anchors] = gain * logits.mean()
        matching.adjust.weight.mul_(0.1 / coarse.deltas.std())
        network.relation.classes.weight.normal_(0, 0.5, generator=generator)
        network.relation.deltas.weight.normal_(0, 0.1, generator=generator)
    return network


def _parts(network, seed=0, size=(60.0, 50.0)):
    crop = network.config.crop
    state = network.start(to_planes(picture(seed, crop.template)), torch.tensor(size))
    return state, network.extract(to_planes(picture(seed + 1, crop.search)))


def picture(seed: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 12, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (fine[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def light():
    with torch.no_grad():
        return lively(shipped("mobilenetv2"))


@pytest.fixture(scope="module")
def paper():
    with torch.no_grad():
        return lively(shipped("alexnet"))


class Steps:
    """A search graph of a network, and what it is given beside the crop."""

    def __init__(self, network, seed=0, window=0.4, keep_below=0.2, size=(60.0, 50.0)):
        self.graph, self.size = SearchGraph(network).eval(), torch.tensor(size)
        crop = network.config.crop
        self.state = TemplateGraph(network).eval()(picture(seed, crop.template), self.size)
        self.tuning = (torch.tensor([window]), torch.tensor([keep_below]))
        self.side = crop.search

    def inputs(self, seed):
        return (picture(seed, self.side), self.size, *self.tuning, *self.state)

    def __call__(self, seed):
        return self.graph(*self.inputs(seed))


def test_shapes_of_the_paper(paper):
    z = paper.extract(torch.rand(1, 3, 127, 127) * 255)
    x = paper.extract(torch.rand(1, 3, 271, 271) * 255)
    assert z.matched.shape == (1, 256, 16, 16) and x.matched.shape == (1, 256, 34, 34)
    assert z.regions.shape == (1, 640, 16, 16) and x.regions.shape == (1, 640, 34, 34)
    state = paper.start(torch.rand(1, 3, 127, 127) * 255, torch.tensor([60.0, 40.0]))
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        "class_kernel": (1, 10, 256, 4, 4),
        "box_kernel": (1, 20, 256, 4, 4),
        "template_half": (1, 256, 6, 6),
    }
    coarse = paper.coarse(state, x)
    assert coarse.boxes.shape == (1, 1805, 4)
    assert paper.grid.centers()[[0, 9, 18]].tolist() == [63, 135, 207]
    assert sum(p.numel() for p in paper.parameters()) == pytest.approx(26.59e6, rel=1e-3)


def test_shapes_of_the_light_network(light):
    state, features = _parts(light)
    assert state["class_kernel"].shape == (1, 10, 64, 5, 5)
    assert features.matched.shape == (1, 64, 33, 33) and features.regions.shape == (1, 96, 33, 33)
    assert light.coarse(state, features).boxes.shape == (1, 1805, 4)
    assert light.grid.centers()[9] == 128


def test_costs_are_the_specifications(paper, light):
    costs = pytest.importorskip("siam_tracker_ros.deployment.costs")
    measured = costs.measure_costs(paper)
    backbone = next(part for part in measured.parts if part.name == "backbone")
    assert backbone.macs == pytest.approx(4.366e9, rel=1e-3)
    assert backbone.template_macs == pytest.approx(0.967e9, rel=1e-3)
    assert sum(part.macs for part in measured.parts) == pytest.approx(5.53e9, rel=2e-3)
    assert sum(part.macs for part in costs.measure_costs(light).parts) < 0.4e9


def test_torchvisions_layout_is_a_fallback():
    config = dataclasses.replace(
        shipped("alexnet"), backbone=BackboneConfig("alexnet", layout="torchvision")
    )
    network = SPMTracker(config).eval()
    assert network.extract(torch.rand(1, 3, 127, 127)).regions.shape == (1, 448, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"matching": UpChannelConfig(template_cells=6, search_cells=25)},
            r"template_cells = 6 of 17 and matching.search_cells = 25 of 33 .* are 4 and 0 px",
        ),
        (
            {"matching": UpChannelConfig(template_cells=7, search_cells=9)},
            r"search_cells = 9 and matching.template_cells = 7 give a response of 3",
        ),
        (
            {"matching": UpChannelConfig(template_cells=19, search_cells=25)},
            r"matching.template_cells = 19, but crop.template = 129 px gives only 17",
        ),
        ({"crop": CropSpec(127, 257)}, r"crop.template = 127: .*129 fits"),
        (
            {"backbone": BackboneConfig("atrous_resnet50"), "crop": CropSpec(127, 255)},
            r"neck.kind pyramid needs maps at strides \(8, 16\)",
        ),
        ({"neck": NeckConfig("none")}, r"neck.kind none needs two maps or more of stride 8"),
    ],
)
def test_parts_that_do_not_fit_are_named(change, message):
    config = dataclasses.replace(shipped("mobilenetv2"), **change)
    with pytest.raises(ConfigError, match=message):
        SPMTracker(config)


def test_the_papers_parts_lie_three_pixels_beside_the_middle_of_both_crops():
    matching = UpChannelConfig(template_cells=7, search_cells=24)
    config = dataclasses.replace(shipped("alexnet"), matching=matching)
    with pytest.raises(ConfigError, match=r"7 of 16 .* 24 of 34 .* are 7 and 3 px"):
        SPMTracker(config)


@pytest.mark.parametrize("name", ["light", "paper"])
def test_centre_of_the_response_is_the_centre_of_the_crop(name, request):
    """The template pasted into the middle of a search crop matches there best, by its features alone."""
    network = request.getfixturevalue(name)
    crop = network.config.crop
    template = picture(7, crop.template)
    search = torch.full((crop.search, crop.search, 3), 120, dtype=torch.uint8)
    start = (crop.search - crop.template) // 2
    search[start : start + crop.template, start : start + crop.template] = template
    config = network.matching.config
    z = unit_length(
        center_crop(network.extract(to_planes(template)).matched, config.template_cells)
    )
    x = unit_length(center_crop(network.extract(to_planes(search)).matched, config.search_cells))
    heat = torch.nn.functional.conv2d(x, z)[0, 0]
    assert divmod(int(heat.argmax()), heat.shape[1]) == (9, 9)


def test_step_is_a_function(light):
    steps = Steps(light)
    for a, b in zip(steps(3), steps(3), strict=True):
        assert torch.equal(a, b)
    assert [tuple(o.shape) for o in steps(3)] == [(4,), (1,), (1,), (2,)]


def test_two_tracks_do_not_influence_each_other(light):
    one, other = Steps(light, seed=0), Steps(light, seed=20)
    expected = [[one(s) for s in (5, 6)], [other(s) for s in (7, 8)]]
    one, other = Steps(light, seed=0), Steps(light, seed=20)
    mixed = [one(5), other(7), one(6), other(8)]
    for a, b in zip([*expected[0], *expected[1]], [mixed[i] for i in (0, 2, 1, 3)], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def by_hand(network, steps, seed):
    """The proposals of a step, with their fused scores and boxes."""
    state = dict(zip(network.constant_states, steps.state, strict=True))
    features = network.extract(to_planes(picture(seed, steps.side)))
    coarse = network.coarse(state, features)
    middle = (steps.side - 1) / 2
    previous = torch.tensor([[middle, middle, *steps.size.tolist()]])
    proposals = propose(coarse.boxes, coarse.score, 9, previous)
    return proposals, network.fused(state, features, proposals), previous[0]


@pytest.mark.parametrize("seed", range(3, 9))
@pytest.mark.parametrize("window", [0.0, 0.4, 1.0])
def test_result_is_what_the_rules_say(light, seed, window):
    steps = Steps(light, window=window, keep_below=0.0)
    box, score, runner_up, peak = steps(seed)
    proposals, fused, _ = by_hand(light, steps, seed)
    valid = proposals.score[0] > 0
    assert 3 <= int(valid.sum()) <= 9
    final = (1 - window) * fused.score[0] + window * place_window(proposals.boxes[0], steps.side)
    best = int(torch.where(valid, final, -1.0).argmax())
    assert torch.allclose(box, fused.boxes[0, best], atol=1e-3)
    assert torch.allclose(score, fused.score[0, best], atol=1e-6)
    assert torch.allclose(peak, proposals.boxes[0, best, :2], atol=1e-3)
    others = [
        float(fused.score[0, i])
        for i in range(9)
        if valid[i] and overlap(fused.boxes[0, i], fused.boxes[0, best]) < 0.3
    ]
    assert float(runner_up) == pytest.approx(max(others, default=0.0), abs=1e-6)


def test_the_near_box_is_always_among_the_proposals(light):
    for seed in range(3, 8):
        proposals, fused, previous = by_hand(light, Steps(light), seed)
        state = dict(zip(light.constant_states, Steps(light).state, strict=True))
        features = light.extract(to_planes(picture(seed, 257)))
        boxes = light.coarse(state, features).boxes[0]
        shared = overlap(boxes, previous)
        assert proposals.score[0, -1] > 0 and fused.score[0, -1] >= 0
        if int((shared > 0.8).sum()) <= 1:
            assert int(proposals.anchor[0, -1]) == int(shared.argmax())
        else:
            assert shared[proposals.anchor[0, -1]] > 0.8


def test_a_poor_score_keeps_the_previous_box_bit_for_bit(light):
    size = (61.3, 47.9)
    seen = Steps(light, keep_below=0.0, size=size)(4)
    kept = Steps(light, keep_below=1.0, size=size)(4)
    assert torch.equal(kept[0], torch.tensor([128.0, 128.0, *size]))
    assert not torch.equal(seen[0], kept[0])
    for a, b in zip(seen[1:], kept[1:], strict=True):  # the score stays what it was
        assert torch.equal(a, b)
    threshold = float(seen[1])
    assert torch.equal(Steps(light, keep_below=threshold, size=size)(4)[0], seen[0])


def test_the_template_is_read_at_the_targets_size(light):
    one = light.start(to_planes(picture(0, 129)), torch.tensor([60.0, 50.0]))
    other = light.start(to_planes(picture(0, 129)), torch.tensor([50.0, 60.0]))
    assert torch.equal(one["class_kernel"], other["class_kernel"])
    assert not torch.allclose(one["template_half"], other["template_half"], atol=1e-3)


@pytest.fixture(scope="module")
def runtime():
    return pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("name", "frames"), [("light", 24), ("paper", 20)])
def test_graphs_equal_torch(name, frames, request, runtime):
    graphs_of = pytest.importorskip("siam_tracker_ros.deployment.graphs")
    network = request.getfixturevalue(name)
    graphs = graphs_of.export_graphs(network)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        key: runtime.InferenceSession(g.data, options, providers=["CPUExecutionProvider"])
        for key, g in graphs.items()
    }
    template, search = sessions["template"], sessions["search"]
    assert [i.name for i in template.get_inputs()] == ["template", "previous_size"]
    assert [i.name for i in search.get_inputs()] == [
        "search",
        "previous_size",
        "tuning.window",
        "tuning.keep_below",
        "state.class_kernel",
        "state.box_kernel",
        "state.template_half",
    ]
    crop = network.config.crop
    size = torch.tensor([60.0, 50.0])
    state = template.run(
        None, {"template": picture(0, crop.template).numpy(), "previous_size": size.numpy()}
    )
    expected = TemplateGraph(network).eval()(picture(0, crop.template), size)
    for ours, theirs in zip(state, expected, strict=True):
        assert np.abs(ours - theirs.numpy()).max() < 1e-3
    generator = torch.Generator().manual_seed(9)
    graph = SearchGraph(network).eval()
    kept = 0
    for frame in range(frames):
        size = 30 + 70 * torch.rand(2, generator=generator)
        tuning = (torch.tensor([0.4]), torch.tensor([0.45 if frame % 2 else 0.0]))
        given = (picture(100 + frame, crop.search), size, *tuning)
        theirs = graph(*given, *expected)
        names = [i.name for i in search.get_inputs()]
        values = (*(v.numpy() for v in given), *state)
        ours = search.run(None, dict(zip(names, values, strict=True)))
        for mine, other in zip(ours, theirs, strict=True):
            assert np.abs(mine - other.numpy()).max() < 1e-3, frame
        kept += bool((theirs[0][2:] == size).all())
    assert kept < frames


def test_batch_of_two_pairs_is_two_single_ones(light):
    sizes = torch.tensor([[64.0, 64, 60, 50], [66.0, 60, 40, 80]])
    templates = torch.cat([to_planes(picture(s, 129)) for s in (1, 2)])
    searches = torch.cat([to_planes(picture(s, 257)) for s in (3, 4)])
    state, features = light.template(templates, sizes), light.extract(searches)
    together = light.coarse(state, features)
    for i in (0, 1):
        alone_state = light.template(templates[i : i + 1], sizes[i : i + 1])
        alone = light.coarse(alone_state, light.extract(searches[i : i + 1]))
        assert torch.allclose(together.logits[i : i + 1], alone.logits, atol=1e-3)
        assert torch.allclose(together.boxes[i : i + 1], alone.boxes, atol=1e-2)
