"""The whole network: shapes of the specification's table, and the search graph as a pure function of its state."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from siam_tracker_ros.networks.config import NetworkConfig
from siam_tracker_ros.networks.decode import CenterMaps, hann_window, size_penalty
from siam_tracker_ros.networks.response_arm import HEAT_FLOOR, gaussian_label
from siam_tracker_ros.networks.siam_stm import SiamSTM
from siam_tracker_ros.networks.tracker_network import (
    RESULTS,
    SearchGraph,
    TemplateGraph,
    to_planes,
)


def picture(seed: int, side: int) -> torch.Tensor:
    """Blobs, so that different places of the crop look different."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 12, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (fine[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8)


class Steps:
    """A search graph with the bookkeeping that a session does."""

    def __init__(
        self, network: SiamSTM, seed: int = 0, arm: float = 1.0, window: float = 0.2
    ) -> None:
        self.graph = SearchGraph(network).eval()
        crop = network.config.crop
        self.side = crop.search
        self.constant = TemplateGraph(network).eval()(picture(seed, crop.template))
        cells = network.grid.cells
        self.state = (torch.zeros(cells, cells), torch.zeros(cells, cells), torch.zeros(2))
        self.window, self.arm = torch.tensor([window]), torch.tensor([arm])
        self.penalty = torch.tensor([0.1])

    def __call__(self, seed: int, first: bool = False, commit: bool = True, size=(60.0, 50.0)):
        outputs = self.graph(
            picture(seed, self.side),
            torch.tensor(size),
            torch.tensor([float(first)]),
            self.window,
            self.penalty,
            self.arm,
            *self.constant,
            *self.state,
        )
        if commit:
            self.state = outputs[len(RESULTS) :]
        return outputs


@pytest.fixture(scope="module", params=["paper", "light"])
def network(request) -> SiamSTM:
    return request.getfixturevalue(request.param)


def test_shapes_of_the_paper(paper):
    z = paper.extract(torch.rand(1, 3, 127, 127) * 255)
    x = paper.extract(torch.rand(1, 3, 255, 255) * 255)
    assert z.shape == (1, 256, 15, 15)
    assert x.shape == (1, 256, 31, 31)
    state = paper.matching.template(z)
    assert torch.equal(state["kernel"], z[:, :, 4:11, 4:11])
    assert state["descriptor"].shape == (1, 256, 1, 1)
    maps = CenterMaps(**paper.head(paper.matching(state, x)))
    assert maps.heat.shape == (1, 1, 25, 25)
    assert maps.offset.shape == maps.size.shape == (1, 2, 25, 25)
    assert paper.boxes(maps).shape == (1, 4, 25, 25)
    assert (paper.grid.centers()[0], paper.grid.centers()[12]) == (31, 127)


def test_shapes_of_the_light_network(light):
    state = light.template(torch.rand(2, 3, 129, 129) * 255)
    assert state["kernel"].shape == (2, 96, 9, 9)
    assert light.search(state, torch.rand(2, 3, 257, 257) * 255).heat.shape == (2, 1, 25, 25)
    assert light.grid.centers()[12] == 128


def test_heat_starts_at_a_tenth_and_size_at_64_pixels(paper_config):
    for config in (paper_config, NetworkConfig()):
        network = SiamSTM(config).eval()
        maps = CenterMaps(**network.head(torch.zeros(1, config.neck.channels, 25, 25)))
        assert float(torch.sigmoid(maps.heat).mean()) == pytest.approx(0.1, abs=1e-3)
        assert network.boxes(maps)[0, 2:].unique().tolist() == [64.0]


def test_step_is_a_function(network):
    steps = Steps(network)
    first = steps(1, first=True)
    for a, b in zip(steps(2, commit=False), steps(2, commit=False), strict=True):
        assert torch.equal(a, b)
    for before, after in zip(first[len(RESULTS) :], steps(2)[len(RESULTS) :], strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)


def test_two_tracks_do_not_influence_each_other(light):
    alone = [Steps(light, seed=s) for s in (0, 1)]
    expected = [[s(10 + s_i, first=True), s(20 + s_i), s(30 + s_i)] for s_i, s in enumerate(alone)]
    mixed = [Steps(light, seed=s) for s in (0, 1)]
    got = [[], []]
    for frame in (10, 20, 30):
        for i in (0, 1):
            got[i].append(mixed[i](frame + i, first=frame == 10))
    for one, other in zip(expected, got, strict=True):
        for a, b in zip(one, other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_first_frame_makes_the_state_whatever_it_was(light):
    clean, dirty = Steps(light), Steps(light)
    dirty.state = (torch.rand(25, 25), torch.rand(25, 25), torch.tensor([3.0, 20.0]))
    outputs = clean(1, first=True, size=(64.0, 64.0))
    for a, b in zip(outputs, dirty(1, first=True, size=(64.0, 64.0)), strict=True):
        assert torch.equal(a, b)
    heatmap, label, peak = outputs[len(RESULTS) :]
    middle = torch.tensor([12.0])
    assert peak.tolist() == [12, 12]
    assert torch.equal(label, gaussian_label(middle, middle, torch.tensor([5 / 6]), 25)[0])
    maps = light.search(
        dict(zip(("kernel", "descriptor"), clean.constant, strict=True)),
        to_planes(picture(1, 257)),
    )
    heat = torch.sigmoid(maps.heat)[0, 0].clamp(HEAT_FLOOR, 1 - HEAT_FLOOR)
    assert torch.equal(heatmap, heat)


def test_zeros_are_a_good_enough_state_before_the_first_frame(light):
    outputs = Steps(light)(1, first=True)
    assert all(torch.isfinite(o).all() for o in outputs)


def test_result_is_what_the_maps_say(light):
    """Score, box and peak are those of the arg-max of the fused map; the window alone pulls it to the middle."""
    steps = Steps(light, arm=0.0, window=0.0)
    steps.penalty = torch.zeros(1)
    steps(1, first=True)
    box, score, runner_up, peak, *_ = steps(2)
    state = dict(zip(("kernel", "descriptor"), steps.constant, strict=True))
    maps = light.search(state, to_planes(picture(2, 257)))
    heat = torch.sigmoid(maps.heat)[0, 0]
    row, column = divmod(int(heat.argmax()), 25)
    assert float(score) == pytest.approx(float(heat.max()))
    assert box.tolist() == pytest.approx(light.boxes(maps)[0, :, row, column].tolist())
    assert peak.tolist() == [32 + 8 * column, 32 + 8 * row]
    index = torch.arange(25)
    far = ((index - row).abs().view(-1, 1) > 3) | ((index - column).abs().view(1, -1) > 3)
    assert float(runner_up) == pytest.approx(float(heat[far].max()))

    steps.window = torch.ones(1)
    assert steps(2, commit=False)[3].tolist() == [128, 128]
    assert hann_window(25).argmax() == 12 * 25 + 12


def test_arm_off_ranks_by_the_heat_alone_and_still_remembers(light):
    on, off = Steps(light), Steps(light, arm=0.0)
    for steps in (on, off):
        steps(1, first=True)
    for seed in (2, 3, 4):
        a, b = on(seed), off(seed)
        for x, y in zip(a[len(RESULTS) :], b[len(RESULTS) :], strict=True):
            assert torch.equal(x, y)


def test_ranking_is_the_published_fusion(light):
    """final = (1 - lambda) penalty score + lambda window, with every input counting."""
    steps = Steps(light, arm=0.0)
    steps(1, first=True)
    state = dict(zip(("kernel", "descriptor"), steps.constant, strict=True))
    maps = light.search(state, to_planes(picture(2, 257)))
    heat = torch.sigmoid(maps.heat)[0, 0]
    boxes = light.boxes(maps)[0]
    chosen = set()
    for weight in (0.0, 0.1, 0.6):
        for strength in (0.0, 0.2, 3.0):
            for previous in ((60.0, 50.0), (25.0, 25.0), (200.0, 180.0)):
                steps.window, steps.penalty = torch.tensor([weight]), torch.tensor([strength])
                fade = size_penalty(boxes[2], boxes[3], torch.tensor(previous), strength)
                final = (1 - weight) * fade * heat + weight * hann_window(25)
                row, column = divmod(int(final.argmax()), 25)
                box, score, _, peak, *_ = steps(2, commit=False, size=previous)
                assert peak.tolist() == [32 + 8 * column, 32 + 8 * row]
                assert box.tolist() == pytest.approx(boxes[:, row, column].tolist(), abs=1e-3)
                assert float(score) == pytest.approx(float(heat[row, column]), abs=1e-6)
                chosen.add((row, column))
    assert len(chosen) >= 3


def test_without_channel_term_the_graphs_have_one_constant_state():
    config = NetworkConfig()
    config = dataclasses.replace(
        config, matching=dataclasses.replace(config.matching, channel=False)
    )
    steps = Steps(SiamSTM(config).eval())
    assert [tuple(t.shape) for t in steps.constant] == [(1, 96, 9, 9)]
    assert len(steps(1, first=True)) == 7
