"""STMTrack as a whole: shapes and numbers of its specification, and its graphs as functions of their state."""

from __future__ import annotations

import dataclasses
import math
import resource
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from torch import nn

from siam_tracker_ros.deployment.costs import measure_costs
from siam_tracker_ros.deployment.graphs import export_graphs
from siam_tracker_ros.geometry import CropSpec
from siam_tracker_ros.networks.config import (
    BackboneConfig,
    ConfigError,
    DenseHeadConfig,
    FeatureBankConfig,
    NeckConfig,
    NetworkConfig,
    PointDecoderConfig,
    SpaceTimeConfig,
)
from siam_tracker_ros.networks.decode import hann_window, size_penalty
from siam_tracker_ros.networks.stm_track import STMTrack, coverage_map, label_map
from siam_tracker_ros.networks.tracker_network import SearchGraph, TemplateGraph, to_planes

CONFIGS = Path(__file__).parents[2] / "config" / "training"
RESULTS = 4
SMALL = NetworkConfig(
    tracker="stm_track",
    crop=CropSpec(97, 129, 0.931, "area"),
    neck=NeckConfig("pyramid", 8, margin=2),
    matching=SpaceTimeConfig(label_at="early"),
    head=DenseHeadConfig(width=8, depth=1),
    temporal=FeatureBankConfig(slots=8, frames=6),
    decoder=PointDecoderConfig(),
)


def config_of(backbone: str) -> NetworkConfig:
    text = (CONFIGS / f"stm_track_{backbone}.yaml").read_text(encoding="utf-8")
    return NetworkConfig.from_dict(yaml.safe_load(text)["network"])


def made(config: NetworkConfig) -> STMTrack:
    """An untrained network whose scores and boxes differ from cell to cell."""
    torch.manual_seed(1)
    with torch.no_grad():
        network = STMTrack(config)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        network.memory_backbone.load_state_dict(network.backbone.state_dict())
        network.label.weight.normal_(0, 0.3)
        for part in network.head.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
        for output, spread in (("foreground", 2.0), ("centre", 1.0), ("distances", 0.05)):
            convolution = network.head.outputs[output][0]
            convolution.weight.normal_(0, spread / math.sqrt(convolution.in_channels))
        network.head.set_bias("distances", 1.0)
    return network.eval()


@pytest.fixture(scope="module")
def paper() -> STMTrack:
    return made(config_of("inception_v3"))


@pytest.fixture(scope="module")
def light() -> STMTrack:
    return made(config_of("mobilenetv2"))


@pytest.fixture(scope="module")
def small() -> STMTrack:
    return made(SMALL)


def picture(seed: int, side: int) -> torch.Tensor:
    """Blobs, so that different places of the crop look different."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (fine[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).contiguous()


class Steps:
    """A search graph with the bookkeeping that a session does."""

    def __init__(self, network: STMTrack, seed: int = 0, **tuning: float) -> None:
        self.graph = SearchGraph(network).eval()
        self.side = network.config.crop.search
        self.tuning = {**network.tuning, **tuning}
        self.size = torch.tensor([30.0, 24.0])
        middle = network.config.crop.template
        start = (self.side - middle) // 2
        self.first = picture(seed, self.side)
        template = self.first[start : start + middle, start : start + middle].contiguous()
        self.constant = TemplateGraph(network).eval()(template, self.size)
        self.names = list(network.carried_states())
        self.state = network.carried_states()

    def inputs(self, seed: int, memory: int | None, first: bool) -> list[torch.Tensor]:
        return [
            picture(seed, self.side),
            self.first if memory is None else picture(memory, self.side),
            self.size,
            self.size,
            torch.tensor([float(first)]),
            *(torch.tensor([v]) for v in self.tuning.values()),
            *self.constant,
            *self.state.values(),
        ]

    def __call__(self, seed: int, memory: int | None = None, first: bool = False, commit=True):
        outputs = self.graph(*self.inputs(seed, memory, first))
        if commit:
            self.state = dict(zip(self.names, outputs[RESULTS:], strict=True))
        return outputs


# Section 2: shapes, maps, branches.


def test_shapes_of_the_paper(paper):
    image = torch.rand(1, 3, 289, 289) * 255
    query = paper.encode(image)
    memory = paper.encode_memory(image, torch.tensor([[144.0, 144.0, 72.25, 72.25]]))
    assert query.shape == memory.shape == (1, 512, 25, 25)
    y = paper.matching(memory.expand(6, -1, -1, -1)[None], query)
    assert y.shape == (1, 1024, 25, 25)
    maps = paper.head(y)
    assert {name: m.shape[1] for name, m in maps.items()} == {
        "foreground": 1, "centre": 1, "distances": 4,
    }  # fmt: skip
    assert paper.boxes(maps).shape == (1, 4, 25, 25)
    centers = paper.grid.centers()
    assert (centers[0], centers[12], centers[24]) == (48, 144, 240)
    assert {k: tuple(v.shape) for k, v in paper.carried_states().items()} == {
        "bank": (31, 512, 25, 25), "ids": (31,), "count": (1,), "stride": (1,), "last_score": (1,),
    }  # fmt: skip
    convolutions = [m for m in paper.head.classification if isinstance(m, nn.Conv2d)]
    assert [c.in_channels for c in convolutions] == [1024] + [256] * 6
    assert not isinstance(paper.head.classification[-1], nn.ReLU)


def test_margin_is_cut_off_the_backbones_map(small):
    """The neck sees the middle of the backbone's map and nothing else changes."""
    image = torch.rand(1, 3, 129, 129) * 255
    whole = small.neck(small.backbone(image))
    assert whole.shape[-1] == 17
    assert torch.equal(small.encode(image), whole[:, :, 2:-2, 2:-2])


def test_costs_of_the_paper(paper):
    """Section 8: millions of parameters, and GMAC a frame, within one percent."""
    costs = measure_costs(paper)
    parts = {part.name: part for part in costs.parts}

    def check(names, parameters, macs):
        assert sum(parts[n].parameters for n in names) / 1e6 == pytest.approx(parameters, rel=0.01)
        assert sum(parts[n].macs for n in names) / 1e9 == pytest.approx(macs, rel=0.01)

    check(["memory_backbone", "label"], 8.966, 13.94 + 0.006)
    check(["backbone"], 8.966, 13.94)
    check(["neck", "memory_neck"], 7.079, 4.424)
    check(["matching"], 0.0, 2.400)
    check(["head"], 11.802, 7.374)
    assert costs.parameters / 1e6 == pytest.approx(36.81, rel=0.01)
    assert costs.macs / 1e9 == pytest.approx(42.08, rel=0.01)


def test_cost_of_the_light_network(light):
    assert measure_costs(light).macs < 0.45e9
    assert (light.grid.cells, light.memory_cells) == (21, 13)


def test_start_of_the_paper():
    """Section 2: scalars 1 and 0, class bias -ln 99, weights of the head N(0, 1e-4), of g N(0, .01)."""
    torch.manual_seed(0)
    network = STMTrack(config_of("inception_v3"))
    assert (float(network.scale), float(network.bias)) == (1.0, 0.0)
    assert float(network.head.outputs["foreground"][0].bias) == pytest.approx(-math.log(99))
    assert float(network.head.classification[0].weight.std()) == pytest.approx(1e-4, rel=0.05)
    reach = 1 / math.sqrt(1024 * 9)
    assert 0.9 * reach < float(network.head.regression[0].bias.abs().max()) <= reach
    assert float(network.label.weight.std()) == pytest.approx(0.01, rel=0.2)
    still = {"distances": torch.zeros(1, 4, 25, 25)}
    assert network.boxes(still)[0, :, 12, 12].tolist() == [144, 144, 16, 16]


def test_label_map():
    box = torch.tensor([[144.0, 144.0, 72.25, 72.25]])
    map_ = label_map(box, 289)
    assert map_.shape == (1, 1, 289, 289)
    assert map_.unique().tolist() == [0, 1]
    assert int(map_.sum()) == 5184  # columns and rows 108..179
    assert map_[0, 0, 144].nonzero().flatten()[[0, -1]].tolist() == [108, 179]
    wide = label_map(torch.tensor([[144.0, 144.0, 102.177, 51.088]]), 289)[0, 0]
    columns, rows = wide.sum(0).nonzero().flatten(), wide.sum(1).nonzero().flatten()
    assert columns.tolist() == list(
        range(math.floor(144 - 101.177 / 2), math.floor(144 + 101.177 / 2) + 1)
    )
    assert rows.tolist() == list(
        range(math.floor(144 - 50.088 / 2), math.floor(144 + 50.088 / 2) + 1)
    )
    assert (
        int(label_map(torch.tensor([[144.0, 144.0, 900.0, 20.0]]), 289)[0, 0].sum(1).max()) == 289
    )


def test_coverage_map_is_the_mean_of_the_box_over_each_cell():
    box = torch.tensor([[80.0, 74.25, 37.0, 51.5]])
    got = coverage_map(box, 21, 161)[0, 0]
    assert float(got.sum()) * 64 == pytest.approx(37 * 51.5, rel=1e-5)
    fine = torch.arange(-4, 164, 0.125) + 0.0625  # 64 points to a cell's side
    inside_x = ((fine - 80).abs() < 37 / 2).float().view(21, 64).mean(1)
    inside_y = ((fine - 74.25).abs() < 51.5 / 2).float().view(21, 64).mean(1)
    assert torch.allclose(got, torch.outer(inside_y, inside_x), atol=0.02)


@pytest.mark.parametrize("name", ["paper", "light"])
def test_branches_are_alike_without_the_label(name, request):
    """Property 9: they start with the same weights, and g alone makes the difference."""
    network = request.getfixturevalue(name)
    side = network.config.crop.template
    image = torch.rand(1, 3, side, side) * 255
    box = torch.tensor([[(side - 1) / 2, (side - 1) / 2, 60.0, 50.0]])
    plain = network.encode(image)
    other = network.encode_memory(image, box)
    assert not torch.allclose(other, plain, atol=1e-3)
    weight = network.label.weight.clone()
    network.label.weight.zero_()
    assert torch.allclose(network.encode_memory(image, box), plain, atol=1e-5)
    network.label.weight.copy_(weight)


def test_label_at_the_stem_of_a_mobile_backbone():
    config = dataclasses.replace(SMALL, matching=SpaceTimeConfig(label_at="stem"))
    network = made(config)
    image = torch.rand(1, 3, 97, 97) * 255
    here = network.encode_memory(image, torch.tensor([[48.0, 48.0, 30.0, 30.0]]))
    there = network.encode_memory(image, torch.tensor([[40.0, 48.0, 30.0, 30.0]]))
    assert here.shape == (1, 8, 9, 9)
    assert float((here - there).abs().max()) > 1e-3


def test_without_label_the_box_does_not_matter():
    config = dataclasses.replace(SMALL, matching=SpaceTimeConfig(label=False))
    network = STMTrack(config).eval()
    image = torch.rand(1, 3, 97, 97) * 255
    boxes = torch.tensor([[48.0, 48.0, 30.0, 30.0]])
    assert torch.equal(network.encode_memory(image, boxes), network.encode_memory(image, boxes / 2))


def test_without_label_no_graph_reads_the_targets_size():
    config = dataclasses.replace(SMALL, matching=SpaceTimeConfig(label=False))
    graphs = export_graphs(STMTrack(config).eval())
    assert [tensor.name for tensor in graphs["template"].spec.inputs] == ["template"]
    names = [tensor.name for tensor in graphs["search"].spec.inputs]
    assert "memory" in names and "memory_size" not in names


def test_stages_hold_both_backbones(light, paper):
    for network in (light, paper):
        both = {
            id(p) for part in (network.backbone, network.memory_backbone) for p in part.parameters()
        }
        assert {id(p) for stage in network.stages().values() for p in stage.parameters()} == both
    assert list(light.stages()) == ["stem", "early", "late"]
    assert list(paper.stages()) == ["stem", "mixed5", "mixed6", "norm"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": CropSpec(129, 97, 0.9, "area")}, r"crop\.template = 129 .* crop\.search = 97"),
        ({"crop": CropSpec(99, 129, 0.9, "area")}, r"crop\.template = 99.*97 fits"),
        ({"neck": NeckConfig("pyramid", 8, margin=5)}, r"neck\.margin = 5 leaves 3 of the 13 cells of crop\.template"),
        ({"neck": NeckConfig("conv", 8)}, r"neck\.kind conv .* stride 8, .*mobilenetv2_100 has 16"),
        ({"neck": NeckConfig("none", 8)}, r"neck\.kind none .*stm_track"),
        ({"backbone": BackboneConfig("atrous_resnet50")}, r"atrous_resnet50 does not go with tracker stm_track"),
        (
            {
                "backbone": BackboneConfig("inception_v3"),
                "neck": NeckConfig("conv", 8),
            },
            r"matching\.label_at early .* inception_v3 has stem, mixed5, mixed6, norm",
        ),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        STMTrack(dataclasses.replace(SMALL, **change))


# Sections 5 and 6: steps and their state.


def test_step_is_a_function(small):
    steps = Steps(small)
    first = steps(1, first=True)
    for a, b in zip(steps(2, commit=False), steps(2, commit=False), strict=True):
        assert torch.equal(a, b)
    for before, after in zip(first[RESULTS:], steps(2)[RESULTS:], strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)


def test_first_frame_reads_itself_and_leaves_the_empty_state(small):
    steps = Steps(small)
    box, *_ = outputs = steps(1, first=True)
    empty = small.carried_states()
    for name in ("ids", "count", "stride", "last_score"):
        assert torch.equal(steps.state[name], empty[name])
    maps = small.search(steps.constant[0][None], small.encode(to_planes(picture(1, 129))))
    score, boxes = small.score(maps)[0], small.boxes(maps)[0]
    fade = size_penalty(boxes[2], boxes[3], steps.size, 0.04)
    final = 0.79 * fade * score + 0.21 * hann_window(13)
    row, column = divmod(int(final.argmax()), 13)
    assert torch.allclose(box, boxes[:, row, column], atol=1e-4)
    assert float(outputs[1]) == pytest.approx(float(score[row, column]), abs=1e-6)


def test_frame_one_as_memory_is_the_first_feature_again(small):
    """The middle of the first search crop is the template's crop: n = 1 reads what the first frame read."""
    steps = Steps(small)
    at_first = steps(1, first=True)
    at_second = steps(1)
    assert int(steps.state["count"]) == 1
    assert not steps.state["ids"].any()  # frame 1 is the constant, not a slot's
    for a, b in zip(at_first[:RESULTS], at_second[:RESULTS], strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_steps_equal_a_memory_that_forgets_nothing(small):
    """While all frames fit (8 slots: n <= 8), a step is the read over the published set of all features."""
    steps = Steps(small, read_above=0.0)
    steps(50, first=True)
    features = []
    middle = (97 - 1) / 2
    boxes = torch.tensor([[middle, middle, *steps.size.tolist()]])
    sets = {1: [1], 3: [1, 2, 3], 5: [1, 2, 3, 4, 5], 6: [1, 2, 3, 4, 6], 8: [1, 2, 4, 6, 8]}
    for n in range(1, 9):
        crop = steps.first if n == 1 else picture(n, 129)
        features.append(small.encode_memory(to_planes(crop)[:, :, 16:-16, 16:-16], boxes))
        _, score, *_ = steps(50 + n, memory=None if n == 1 else n)
        if n in sets:
            memory = torch.cat([features[i - 1] for i in sets[n]])[None]
            maps = small.search(memory, small.encode(to_planes(picture(50 + n, 129))))
            expected = small.score(maps)[0]
            assert float((expected - float(score)).abs().min()) < 1e-5
            peak = steps.graph(*steps.inputs(50 + n, n, False))[3]
            assert peak.shape == (2,)


def test_last_score_is_the_final_score_of_the_chosen_cell(small):
    steps = Steps(small)
    steps(1, first=True)
    _, score, _, peak, *_ = steps(2)
    cell = (peak - small.grid.centers()[0]) / 8
    share = hann_window(13)[int(cell[1]), int(cell[0])]
    low = 0.21 * share
    assert float(low) - 1e-6 <= float(steps.state["last_score"]) <= float(low + 0.79 * score) + 1e-6
    steps.tuning.update(window=0.0, penalty=0.0)
    _, score, *_ = steps(3)
    assert float(steps.state["last_score"]) == pytest.approx(float(score), abs=1e-6)


@pytest.mark.parametrize(("above", "last", "reads"), [
    (0.6, 0.61, True), (0.6, 0.6, False), (0.6, 0.1, False), (0.0, 0.1, True), (0.0, 0.0, True),
])  # fmt: skip
def test_when_the_last_frame_is_read(small, above, last, reads):
    """Beyond five frames the last one counts only above the threshold, and always where that is 0."""
    steps = Steps(small, read_above=above)
    steps(1, first=True)
    for n in range(1, 8):
        steps(20 + n, memory=n)
    steps.state["last_score"] = torch.tensor([last])
    # Frame n = 9: the middles are 2, 4, 6 and 8, so only as last frame could it be read.
    steps(40, memory=8)
    steps.state["last_score"] = torch.tensor([last])
    one, other = (steps(41, memory=m, commit=False)[1] for m in (9, 99))
    assert bool(torch.equal(one, other)) is not reads


def test_two_tracks_do_not_influence_each_other(small):
    alone = []
    for s in (0, 1):
        steps = Steps(small, seed=s)
        alone.append(
            [steps(10 + s, first=True), *(steps(20 + i + s, 30 + i + s) for i in range(8))]
        )
    mixed = [Steps(small, seed=s) for s in (0, 1)]
    got = [[m(10 + s, first=True)] for s, m in enumerate(mixed)]
    for i in range(8):
        for s in (0, 1):
            got[s].append(mixed[s](20 + i + s, 30 + i + s))
    for one, other in zip(alone, got, strict=True):
        for a, b in zip(one, other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_nothing_of_an_old_track_is_read(small):
    """Reset is first = 1, whatever the carried state holds."""
    clean, dirty = Steps(small), Steps(small)
    dirty.state = {
        "bank": torch.full_like(clean.state["bank"], float("nan")),
        "ids": torch.arange(2, 9, dtype=torch.int32),
        "count": torch.tensor([900], dtype=torch.int32),
        "stride": torch.tensor([64], dtype=torch.int32),
        "last_score": torch.zeros(1),
    }
    for n in range(12):
        a, b = (s(40 + n, None if n < 2 else n, first=n == 0) for s in (clean, dirty))
        assert all(torch.equal(x, y) for x, y in zip(a[:RESULTS], b[:RESULTS], strict=True))
    assert torch.equal(clean.state["ids"], dirty.state["ids"])


# Graphs.


def session_of(graph) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=["small", "light"])
def exported(request):
    network = request.getfixturevalue(request.param)
    return network, export_graphs(network)


def test_graphs_equal_torch_over_a_track(exported):
    """Every output of 24 steps that carry their own states; numbers of frames to the last bit."""
    network, graphs = exported
    steps = Steps(network)
    template, search = session_of(graphs["template"]), session_of(graphs["search"])
    middle = network.config.crop.template
    start = (steps.side - middle) // 2
    cut = steps.first[start : start + middle, start : start + middle].numpy()
    constant = template.run(
        None, {"template": np.ascontiguousarray(cut), "previous_size": steps.size.numpy()}
    )
    for ours, theirs in zip(constant, steps.constant, strict=True):
        assert np.abs(ours - theirs.numpy()).max() < 1e-3
    names = [i.name for i in search.get_inputs()]
    state = [v.numpy() for v in steps.state.values()]
    for n in range(24):
        given = steps.inputs(200 + n, None if n < 2 else 300 + n, n == 0)
        values = [t.numpy() for t in given[: -len(state) - 1]] + constant + state
        got = search.run(None, dict(zip(names, values, strict=True)))
        expected = steps(200 + n, None if n < 2 else 300 + n, n == 0)
        for name, ours, theirs in zip(steps.graph.writes, got, expected, strict=True):
            assert ours.dtype == theirs.numpy().dtype, name
            assert np.abs(ours - theirs.numpy()).max() < 1e-3, (name, n)
        state = got[RESULTS:]
    assert int(state[2][0]) == 23 and (state[1] > 0).sum() >= 7


def test_contract_of_the_graphs(exported):
    network, graphs = exported
    template, search = graphs["template"].spec, graphs["search"].spec
    channels, cells = network.config.neck.channels, network.memory_cells
    slots = network.config.temporal.slots
    crop = network.config.crop
    assert [(t.name, t.shape) for t in template.inputs] == [
        ("template", (crop.template, crop.template, 3)),
        ("previous_size", (2,)),
    ]
    assert [(t.name, t.shape) for t in template.outputs] == [
        ("state.first", (1, channels, cells, cells))
    ]
    carried = [
        ("bank", "float32", (slots - 1, channels, cells, cells)),
        ("ids", "int32", (slots - 1,)),
        ("count", "int32", (1,)),
        ("stride", "int32", (1,)),
        ("last_score", "float32", (1,)),
    ]
    assert [(t.name, t.dtype, t.shape) for t in search.outputs[RESULTS:]] == [
        (f"state.{name}.next", dtype, shape) for name, dtype, shape in carried
    ]
    assert [(t.name, t.dtype, t.shape) for t in search.inputs[-len(carried) :]] == [
        (f"state.{name}", dtype, shape) for name, dtype, shape in carried
    ]
    assert [t.name for t in search.inputs[:5]] == [
        "search",
        "memory",
        "memory_size",
        "previous_size",
        "first",
    ]
    model = onnx.load_from_string(graphs["search"].data)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def track_in_onnxruntime(network: STMTrack, count: int) -> tuple[np.ndarray, list[int], list[int]]:
    """Run ``count`` steps on bound buffers, as a session does: seconds of each, resident bytes, bytes of the state."""
    session = session_of(export_graphs(network)["search"])
    steps = Steps(network)
    names = [i.name for i in session.get_inputs()]
    carried = [f"state.{n}" for n in steps.names]
    sets = [
        {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value.numpy().copy())
            for name, value in zip(carried, steps.state.values(), strict=True)
        }
        for _ in range(2)
    ]
    feed = dict(zip(names, (t.numpy() for t in steps.inputs(1, None, False)), strict=True))
    results = {o.name for o in session.get_outputs()} - {f"{n}.next" for n in carried}
    pictures = [picture(s, steps.side).numpy() for s in range(8)]
    seconds, resident, states = np.zeros(count), [], []
    for n in range(count):
        feed["first"] = np.array([float(n == 0)], np.float32)
        feed["search"], feed["memory"] = pictures[n % 8], pictures[(n + 7) % 8]
        binding = session.io_binding()
        for name in names:
            if name in sets[0]:
                binding.bind_ortvalue_input(name, sets[n % 2][name])
            else:
                binding.bind_cpu_input(name, feed[name])
        for name in carried:
            binding.bind_ortvalue_output(f"{name}.next", sets[1 - n % 2][name])
        for name in results:
            binding.bind_output(name)
        # The one thread's own time: other work on the machine must not pass for growth.
        begin = time.thread_time()
        session.run_with_iobinding(binding)
        seconds[n] = time.thread_time() - begin
        if n % max(1, count // 20) == 0 or n == count - 1:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * resource.getpagesize())
            states.append(sum(v.numpy().nbytes for v in sets[n % 2].values()))
    assert int(sets[count % 2]["state.count"].numpy()[0]) == count - 1
    return seconds, resident, states


@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param("small", 300, id="narrow, briefly"),
        pytest.param("small", 20_000, id="narrow, 20,000 steps", marks=pytest.mark.slow),
        pytest.param("paper", 300, id="paper, 300 steps", marks=pytest.mark.slow),
    ],
)
def test_memory_and_time_stay_flat(name, count, request, capsys):
    seconds, resident, states = track_in_onnxruntime(request.getfixturevalue(name), count)
    tenth = count // 10
    # The second tenth (the bank is full, everything is warm) against the last one.
    # Undisturbed steps: a neighbour on the same core slows even a thread's own time.
    early, late = (
        float(np.percentile(s, 10)) for s in (seconds[tenth : 2 * tenth], seconds[-tenth:])
    )
    growth = resident[-1] - resident[2]
    with capsys.disabled():
        print(
            f"\n{name}, {count} steps: {early * 1e3:.2f} ms early, {late * 1e3:.2f} ms late; "
            f"state {states[-1]} bytes; resident {resident[2] / 2**20:.1f} MiB, {growth / 2**20:+.2f} MiB since"
        )
    assert len(set(states)) == 1
    assert late < 1.5 * early
    assert growth < 4 * 2**20
