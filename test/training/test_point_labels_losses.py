"""Labels and losses on distances to a box's edges, against the numbers of IMSiam's specification."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.networks.decode import decode_points  # noqa: E402
from siam_tracker_ros.networks.grid import Grid  # noqa: E402
from siam_tracker_ros.training.point_labels import (  # noqa: E402
    centerness,
    point_distances,
    point_labels,
)
from siam_tracker_ros.training.point_losses import (  # noqa: E402
    balanced_cross_entropy,
    iou_log,
    quality_loss,
    weighted_mean,
)

GRID = Grid(29, 255)
BOX = torch.tensor([[127.0, 127.0, 64.0, 48.0]])
SEEN = torch.ones(1)


def count(labels):
    return [int((labels == kind).sum()) for kind in (1, -1, 0)]


def test_counts_of_the_specification():
    labels = point_labels(BOX, SEEN, GRID, 0.75)
    assert labels.dtype == torch.int64
    assert count(labels) == [25, 10, 806]


def test_distances_and_centerness_of_the_specification():
    distances = point_distances(BOX, GRID)
    assert distances[0, :, 14, 16].tolist() == [48, 24, 16, 24]
    quality = centerness(distances)[0]
    assert quality[14, 14] == 1
    assert float(quality[14, 16]) == pytest.approx(0.577350, abs=1e-6)
    assert float(quality[13, 15]) == pytest.approx(0.547723, abs=1e-6)
    assert quality[0, 0] == quality[14, 18] == 0  # outside, and on the right edge (px 159)


def test_without_shrinking_nothing_is_ignored_and_edges_are_outside():
    labels = point_labels(BOX, SEEN, GRID, 1.0)
    # Strictly inside: px 103..151 in x (7 columns), 111..143 in y (5 rows).
    assert count(labels) == [35, 0, 806]
    assert labels[0, 14, 17] == 1 and labels[0, 14, 18] == 0


def test_unseen_targets_leave_the_ring_ignored():
    labels = point_labels(BOX.repeat(2, 1), torch.tensor([0.0, 1.0]), GRID, 0.75)
    assert count(labels[0]) == [0, 10, 831]
    assert count(labels[1]) == [25, 10, 806]


def test_labels_are_those_of_the_formula():
    generator = torch.Generator().manual_seed(2)
    boxes = torch.rand(50, 4, generator=generator) * torch.tensor([200.0, 200, 120, 120]) + 20
    labels = point_labels(boxes, torch.ones(50), GRID, 0.75)
    for box, got in zip(boxes.double().tolist(), labels, strict=True):
        cx, cy, w, h = box
        for row in range(29):
            for column in range(29):
                dx, dy = abs(15 + 8 * column - cx), abs(15 + 8 * row - cy)
                if min(abs(dx / w - q) for q in (0.375, 0.5)) < 1e-5:
                    continue
                if min(abs(dy / h - q) for q in (0.375, 0.5)) < 1e-5:
                    continue
                expected = 1 if dx < 0.375 * w and dy < 0.375 * h else -1
                if dx >= w / 2 or dy >= h / 2:
                    expected = 0
                assert got[row, column] == expected


def test_true_distances_decode_to_the_box():
    boxes = torch.tensor([[120.0, 131.0, 33.0, 71.0]])
    decoded = decode_points(point_distances(boxes, GRID), GRID)
    assert torch.allclose(decoded, boxes[:, :, None, None].expand_as(decoded), atol=1e-4)


@pytest.mark.parametrize(("smooth", "overlap"), [(1.0, 0.798654), (0.0, 0.798595)])
def test_overlap_of_the_specification(smooth, overlap):
    grid = Grid(1, 255)
    predicted = torch.tensor([30.0, 20, 34, 28]).view(1, 4, 1, 1)
    decoded = decode_points(predicted, grid)
    target = decode_points(torch.tensor([32.0, 24, 32, 24]).view(1, 4, 1, 1), grid)[:, :, 0, 0]
    loss = float(iou_log(decoded, target, smooth))
    assert math.exp(-loss) == pytest.approx(overlap, abs=1e-6)
    if smooth:
        assert loss == pytest.approx(0.224828, abs=1e-6)


def test_the_exact_box_costs_nothing_and_disjoint_boxes_a_finite_sum():
    exact = BOX[:, :, None, None].expand(1, 4, 3, 3)
    assert iou_log(exact, BOX).abs().max() < 1e-6
    assert torch.isfinite(iou_log(exact - 100, BOX)).all()


def test_both_halves_of_the_classification_weigh_the_same():
    labels = point_labels(BOX, SEEN, GRID, 0.75)
    logits = torch.zeros(1, 2, 29, 29)
    assert float(balanced_cross_entropy(logits, labels)) == pytest.approx(math.log(2))
    logits[:, 1][labels == 1] = 100.0  # positives perfect: the background's half stays
    assert float(balanced_cross_entropy(logits, labels)) == pytest.approx(math.log(2) / 2)
    logits[:, 1][labels == -1] = -100.0  # what is ignored changes nothing
    assert float(balanced_cross_entropy(logits, labels)) == pytest.approx(math.log(2) / 2)
    nothing = torch.zeros_like(labels)
    assert float(balanced_cross_entropy(torch.zeros(1, 2, 29, 29), nothing)) == pytest.approx(
        math.log(2) / 2
    )


def test_quality_counts_at_positives_only():
    labels = point_labels(BOX, SEEN, GRID, 0.75)
    target = centerness(point_distances(BOX, GRID))
    logits = torch.logit(target.clamp(1e-4, 1 - 1e-4))
    best = quality_loss(logits, target, labels)
    assert torch.equal(best, quality_loss(torch.where(labels == 1, logits, 50.0), target, labels))
    assert best < quality_loss(logits + 0.5, target, labels)
    assert float(quality_loss(logits, target, torch.zeros_like(labels))) == 0


def test_mean_of_nothing_is_zero():
    assert float(weighted_mean(torch.ones(3), torch.zeros(3))) == 0
    assert float(weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]))) == 2
