"""Anchors, their coding, and the proposals: numbers of the specification, and torchvision's suppression."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.networks.anchors import (  # noqa: E402
    anchor_sizes,
    decode,
    decode_fine,
    encode,
    fuse,
    make_anchors,
    near_box,
    overlap,
    place_window,
    propose,
    suppress,
    take,
)
from siam_tracker_ros.networks.grid import Grid  # noqa: E402

RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)
PAPER = Grid(19, 271)


def corners(*boxes):
    """(x1, y1, x2, y2) -> (cx, cy, w, h)."""
    edges = torch.tensor(boxes, dtype=torch.float32)
    return torch.cat([(edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]], dim=1)


def edges(boxes):
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def test_sizes_of_the_specification():
    assert anchor_sizes(RATIOS) == [(112, 40), (88, 48), (64, 64), (48, 96), (40, 120)]


def test_anchors_of_the_paper():
    anchors = make_anchors(PAPER, RATIOS)
    assert anchors.shape == (1805, 4)
    assert anchors[(9 * 19 + 9) * 5 + 2].tolist() == [135, 135, 64, 64]
    # Row, column, anchor; centres 63 + 8 j, 63 + 8 i.
    assert anchors[(2 * 19 + 7) * 5 + 4].tolist() == [63 + 56, 63 + 16, 40, 120]
    assert make_anchors(Grid(19, 257), RATIOS)[(9 * 19 + 9) * 5, :2].tolist() == [128, 128]


def test_decode_takes_back_what_encode_did():
    anchors = make_anchors(PAPER, RATIOS)
    boxes = torch.rand(1805, 4) * 100 + 20
    assert torch.allclose(decode(encode(boxes, anchors), anchors), boxes, atol=1e-3)


def test_fine_deltas_are_larger_and_sizes_are_clipped():
    box = corners((10, 20, 50, 80))
    deltas = torch.tensor([[0.5, -1.0, 10 * math.log(1.5), 0.0]])
    assert decode_fine(deltas, box)[0].tolist() == pytest.approx([34, 38, 60, 60], abs=1e-4)
    large = decode(torch.tensor([[0.0, 0.0, 5.0, 5.0]]), box)[0]
    assert (large[2:] / box[0, 2:]).tolist() == pytest.approx([255 / 32] * 2)


NMS = corners((0, 0, 10, 10), (1, 1, 11, 11), (20, 20, 30, 30), (0, 0, 10, 9), (21, 20, 31, 30))


def test_suppression_example():
    index, _, value = suppress(NMS[None], torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5]]), 3, 0.5)
    assert index[0, :2].tolist() == [0, 2]
    assert value[0].tolist() == pytest.approx([0.9, 0.7, -1.0])


def random_boxes(seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = make_anchors(PAPER, RATIOS)
    deltas = 0.4 * torch.randn(1805, 4, generator=generator)
    # No ties: a permutation, not random numbers.
    score = (torch.randperm(1805, generator=generator) + 1) / 1806
    return decode(deltas, boxes), score**3, generator


def reference(boxes, score, previous, count=9):
    """What the specification says, with torchvision's suppression."""
    from torchvision.ops import nms

    shared = overlap(boxes, previous)
    same = shared > 0.8
    near = int(torch.where(same, score, -1.0).argmax() if same.sum() > 1 else shared.argmax())
    rest = torch.tensor([i for i in range(len(boxes)) if i != near])
    rest = rest[score[rest] >= 0.1 * score[rest].max()]
    kept = rest[nms(edges(boxes[rest]), score[rest], 0.5)][: count - 1]
    return [*kept.tolist(), near]


@pytest.mark.parametrize("seed", range(40))
def test_proposals_are_torchvisions(seed):
    pytest.importorskip("torchvision")
    boxes, score, generator = random_boxes(seed)
    around = torch.tensor([135.0, 135.0, 64.0, 64.0])
    previous = around + torch.tensor([20.0, 20.0, 30.0, 30.0]) * torch.randn(4, generator=generator)
    found = propose(boxes[None], score[None], 9, previous[None].abs())
    expected = reference(boxes, score, previous.abs())
    valid = found.score[0] > 0
    assert found.anchor[0][valid].tolist() == expected
    assert torch.equal(found.boxes[0], boxes[found.anchor[0]])


def test_batch_is_as_single_pictures():
    sets = [random_boxes(seed)[:2] for seed in (1, 2, 3)]
    boxes, score = (torch.stack(values) for values in zip(*sets, strict=True))
    previous = torch.tensor([[135.0, 135, 64, 64], [100.0, 140, 40, 120], [150.0, 90, 90, 50]])
    together = propose(boxes, score, 9, previous)
    for i in range(3):
        alone = propose(boxes[i : i + 1], score[i : i + 1], 9, previous[i : i + 1])
        for a, b in zip(together, alone, strict=True):
            assert torch.equal(a[i : i + 1], b)


def test_slots_stay_empty_when_candidates_run_out():
    score = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.05]])  # the last is below a tenth of the best
    found = propose(NMS[None], score, 5, corners((20, 20, 30, 30)))
    assert found.anchor[0, -1] == 2 and found.score[0, -1] == pytest.approx(0.7)
    assert (found.score[0] > 0).tolist() == [True, False, False, False, True]
    assert found.anchor[0, 0] == 0


def test_near_box_is_the_best_scored_of_several_alike():
    previous = corners((0, 0, 100, 100))
    shifted = [corners((d, 0, 100 + d, 100)) for d in (1, 3, 6, 40)]
    boxes = torch.cat(shifted)[None]
    assert (overlap(boxes, previous[:, None]) > 0.8).sum() == 3
    score = torch.tensor([[0.2, 0.3, 0.8, 0.95]])
    assert near_box(boxes, score, previous).tolist() == [2]


def test_near_box_overlaps_most_where_only_one_is_alike():
    previous = corners((0, 0, 100, 100))
    boxes = torch.cat([corners((d, 0, 100 + d, 100)) for d in (5, 30, 60)])[None]
    assert near_box(boxes, torch.tensor([[0.1, 0.9, 0.8]]), previous).tolist() == [0]
    apart = boxes + torch.tensor([12.0, 0, 0, 0])
    assert near_box(apart, torch.tensor([[0.1, 0.9, 0.8]]), previous).tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_near_box_is_last_and_nowhere_else(seed):
    boxes, score, _ = random_boxes(seed)
    best = int(score.argmax())
    found = propose(boxes[None], score[None], 9, boxes[best : best + 1])
    assert found.anchor[0, -1] in (overlap(boxes, boxes[best]) > 0.8).nonzero()
    assert int((found.anchor[0][found.score[0] > 0] == found.anchor[0, -1]).sum()) == 1


def test_fusion_example():
    u_c, u_f = torch.tensor([0.9]), torch.tensor([0.6])
    b_c, b_f = corners((10, 10, 50, 50)), corners((14, 10, 54, 58))
    score, box = fuse(u_c, u_f, b_c, b_f, 0.5, 3.0)
    assert score.tolist() == pytest.approx([0.75])
    assert edges(box)[0].tolist() == pytest.approx([12.6667, 10, 52.6667, 55.3333], abs=1e-4)
    assert torch.equal(fuse(u_c, torch.zeros(1), b_c, b_f, 0.5, 3.0)[1], b_c)
    assert torch.equal(fuse(u_c, u_f, b_c, b_f, 1.0, 3.0)[0], u_f)
    zeros = torch.zeros(1)
    assert torch.isfinite(fuse(zeros, zeros, b_c, b_f, 0.5, 3.0)[1]).all()


def test_window():
    def at(x, y):
        return float(place_window(torch.tensor([[x, y, 50.0, 50.0]]), 271))

    assert at(135.0, 135.0) == pytest.approx(1)
    assert at(67.5, 135.0) == pytest.approx(0.5)
    assert at(67.5, 67.5) == pytest.approx(0.25)
    for x in (0.0, 270.0, -30.0, 300.0):
        assert at(x, 135.0) == pytest.approx(0, abs=1e-6)


def test_take_is_indexing():
    values, index = torch.rand(3, 7, 2), torch.tensor([[0, 6], [2, 2], [5, 1]])
    expected = torch.stack([v[i] for v, i in zip(values, index, strict=True)])
    assert torch.equal(take(values, index), expected)
