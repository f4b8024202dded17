"""Aligned features and the relation network."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.networks.config import RegionHeadConfig  # noqa: E402
from siam_tracker_ros.networks.matching.relation import (  # noqa: E402
    RelationNetwork,
    StoredNorm,
    aligned_regions,
)


def box(x1, y1, x2, y2):
    return torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def test_samples_of_a_ramp_are_their_places():
    ramp = torch.arange(34.0).expand(1, 1, 34, 34)
    regions = aligned_regions(ramp, box(40.0, 56.0, 120.0, 72.0).view(1, 1, 4), 6)
    assert regions.shape == (1, 1, 1, 6, 6)
    for row in regions[0, 0, 0]:
        assert row.tolist() == pytest.approx([5, 7, 9, 11, 13, 15], abs=1e-5)
    down = aligned_regions(ramp.transpose(2, 3), box(40.0, 56.0, 120.0, 72.0).view(1, 1, 4), 6)
    assert down[0, 0, 0, :, 3].tolist() == pytest.approx([7, 7.4, 7.8, 8.2, 8.6, 9], abs=1e-5)


def test_first_feature_may_lie_elsewhere():
    ramp = torch.arange(31.0).expand(1, 1, 31, 31)
    regions = aligned_regions(ramp, box(47.0, 47.0, 127.0, 127.0).view(1, 1, 4), 6, first=7.0)
    assert regions[0, 0, 0, 0].tolist() == pytest.approx([5, 7, 9, 11, 13, 15], abs=1e-5)


def test_regions_equal_grid_sample_inside_and_are_zero_outside():
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 5, 20, 17, generator=generator)
    low = torch.rand(2, 4, 2, generator=generator) * 100 - 30
    size = torch.rand(2, 4, 2, generator=generator) * 110 + 10
    boxes = torch.cat([low + size / 2, size], dim=2)
    got = aligned_regions(features, boxes, 6)
    steps = torch.linspace(0, 1, 6)
    outside = 0
    for b in range(2):
        for k in range(4):
            x, y = ((low[b, k, a] + steps * size[b, k, a]) / 8 for a in (0, 1))
            places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
            unit = 2 * places / torch.tensor([16.0, 19.0]) - 1
            expected = torch.nn.functional.grid_sample(
                features[b : b + 1], unit[None], align_corners=True
            )[0]
            inside = ((places >= 0) & (places <= torch.tensor([16.0, 19.0]))).all(-1)
            outside += int((~inside).sum())
            assert torch.allclose(got[b, k], expected * inside, atol=1e-4)
            assert (got[b, k][:, ~inside] == 0).all()
    assert outside > 20


@pytest.mark.parametrize("kernel", [1, 3])
def test_precomputed_half_is_the_full_convolution(kernel):
    torch.manual_seed(3)
    config = RegionHeadConfig(proposals=4, kernel=kernel, width=16, hidden=8)
    network = RelationNetwork((6, 4), config).eval()
    network.template_half.bias.normal_()
    z, x = torch.randn(2, 10, 17, 17), torch.randn(2, 10, 33, 33)
    target = torch.tensor([[64.0, 64, 60, 40], [60.0, 70, 30, 90]])
    boxes = torch.rand(2, 4, 4) * 80 + 60
    logits, deltas = network(network.template(z, target), x, boxes)
    full = torch.nn.Conv2d(20, 16, kernel, padding=kernel // 2)
    full.weight.copy_(torch.cat([network.template_half.weight, network.candidate_half.weight], 1))
    full.bias.copy_(network.template_half.bias)
    template = network.regions(z, target[:, None]).expand(-1, 4, -1, -1, -1)
    both = torch.cat([template, network.regions(x, boxes)], dim=2).flatten(0, 1)
    hidden = network.hidden(torch.relu(full(both)).flatten(1)).view(2, 4, 8)
    assert torch.allclose(logits, network.classes(hidden), atol=1e-5)
    assert torch.allclose(deltas, network.deltas(hidden), atol=1e-5)


def test_parameters_are_the_tables():
    network = RelationNetwork((384, 256), RegionHeadConfig())
    halves = [network.template_half, network.candidate_half]
    fusion = sum(p.numel() for conv in halves for p in conv.parameters())
    dense = [network.hidden, network.classes, network.deltas]
    assert fusion == pytest.approx(2.949e6, rel=1e-3)
    assert sum(p.numel() for m in dense for p in m.parameters()) == pytest.approx(2.427e6, rel=1e-3)


def test_a_matching_start_compares():
    """A candidate equal to the template leaves nothing for the fully connected layers."""
    network = RelationNetwork((6,), RegionHeadConfig(width=8, hidden=8, start="match")).eval()
    features, where = torch.randn(1, 6, 33, 33), torch.tensor([[100.0, 120, 50, 40]])
    seen = []
    network.hidden.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(network.template(features, where), features, torch.stack([where, where + 30], dim=1))
    same, other = seen[0][0]
    assert float(same.abs().max()) < 1e-5 < float(other.abs().max())


def test_stored_norm_is_batchnorm_in_evaluation():
    norm, reference = StoredNorm(5), torch.nn.BatchNorm2d(5)
    for tensor in (norm.running_mean, norm.bias):
        tensor.normal_()
    for tensor in (norm.running_var, norm.weight):
        tensor.uniform_(0.5, 2)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(3, 5, 8, 8)
    assert torch.allclose(norm.eval()(x), reference.eval()(x), atol=1e-5)


def test_stored_norm_collects_what_it_then_applies():
    norm = StoredNorm(2).train()
    x = 3 * torch.randn(64, 2, 9, 9, generator=torch.Generator().manual_seed(0)) + 5
    first = norm(x)  # the first batch's own statistics
    assert first.mean().abs() < 1e-3 and abs(float(first.std()) - 1) < 1e-2
    for _ in range(50):
        norm(x[:32])
        norm(x[32:] + 1)  # template and search maps share one set of statistics
    assert norm.running_mean.tolist() == pytest.approx([5.5, 5.5], abs=0.15)
    before = norm.running_mean.clone()
    norm.eval()(x)
    assert torch.equal(norm.running_mean, before)


def test_gradients_reach_both_crops():
    with torch.enable_grad():
        network = RelationNetwork((3,), RegionHeadConfig(width=4, hidden=4)).train()
        z = torch.randn(1, 3, 17, 17, requires_grad=True)
        x = torch.randn(1, 3, 33, 33, requires_grad=True)
        half = network.template(network.prepare((z,)), torch.tensor([[64.0, 64, 60, 60]]))
        boxes = torch.tensor([[[128.0, 128, 60, 60]]])
        logits, deltas = network(half, network.prepare((x,)), boxes)
        (logits.sum() + deltas.sum()).backward()
    assert z.grad.abs().sum() > 0 and x.grad.abs().sum() > 0
