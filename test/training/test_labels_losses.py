"""Labels and losses of SiamSTM against the numbers of the paper's equations."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.networks.decode import CenterMaps, decode_boxes  # noqa: E402
from siam_tracker_ros.networks.grid import Grid  # noqa: E402
from siam_tracker_ros.networks.response_arm import gaussian_sigma  # noqa: E402
from siam_tracker_ros.training.labels import center_labels  # noqa: E402
from siam_tracker_ros.training.losses import (  # noqa: E402
    aberrance,
    center_focal,
    center_offset_size,
    dense_box,
    generalised_iou,
)

PAPER = Grid(25, 255)


@pytest.mark.parametrize(
    ("px", "cell", "offset"),
    [((127.0, 127.0), (12, 12), (0.5, 0.5)), ((140.0, 110.0), (14, 10), (0.125, 0.375))],
)
def test_cell_and_offset_of_the_paper_geometry(px, cell, offset):
    labels = center_labels(torch.tensor([[*px, 64.0, 64.0]]), torch.ones(1), PAPER)
    row, column = labels.cell[0].tolist()
    assert (column, row) == cell
    assert labels.offset[0].tolist() == pytest.approx(offset)


@pytest.mark.parametrize(
    ("w", "h", "sigma"), [(64.0, 64.0, 0.8333), (128.0, 32.0, 0.5), (48.0, 96.0, 0.8333)]
)
def test_sigma_follows_centernets_radius(w, h, sigma):
    assert gaussian_sigma(torch.tensor([w]), torch.tensor([h])).item() == pytest.approx(
        sigma, abs=1e-4
    )


def test_encoding_then_decoding_gives_the_position_back():
    generator = torch.Generator().manual_seed(3)
    centers = torch.rand(200, 2, generator=generator) * 199.9 + 27
    sizes = torch.rand(200, 2, generator=generator) * 100 + 10
    labels = center_labels(torch.cat([centers, sizes], 1), torch.ones(200), PAPER)
    assert torch.equal(labels.heat.flatten(1).max(1).values, torch.ones(200))
    assert torch.equal((labels.heat == 1).flatten(1).sum(1), torch.ones(200, dtype=torch.long))
    for i in range(200):
        offset = labels.offset[i].view(1, 2, 1, 1).expand(1, 2, 25, 25)
        size = (sizes[i] / 8).view(1, 2, 1, 1).expand(1, 2, 25, 25)
        boxes = decode_boxes(CenterMaps(torch.zeros(1, 1, 25, 25), offset, size), PAPER, "linear")
        row, column = labels.cell[i].tolist()
        got = boxes[0, :, row, column]
        assert torch.allclose(got, torch.cat([centers[i], sizes[i]]), atol=1e-4)


def test_an_absent_target_has_no_heat():
    labels = center_labels(torch.tensor([[127.0, 127.0, 64.0, 64.0]]), torch.zeros(1), PAPER)
    assert labels.heat.abs().max() == 0


def test_focal_loss_value():
    loss = center_focal(torch.tensor([0.8, 0.3, 0.1]), torch.tensor([1.0, 0.5, 0.0]))
    assert loss.item() == pytest.approx(0.01198564, abs=1e-8)


def test_offset_and_size_count_only_at_the_visible_target():
    boxes = torch.tensor([[140.0, 110.0, 64.0, 32.0]] * 2)
    visible = torch.tensor([1.0, 0.0])
    labels = center_labels(boxes, visible, PAPER)
    offset, size = torch.full((2, 2, 25, 25), 9.0), torch.full((2, 2, 25, 25), 999.0)
    offset[0, :, 10, 14] = torch.tensor([0.125, 0.375]) + 0.25
    size[0, :, 10, 14] = torch.tensor([64.0, 32.0]) + 16
    off, extent = center_offset_size(offset, size, boxes, labels)
    assert off.item() == pytest.approx(0.25)
    assert extent.item() == pytest.approx(2.0)  # 16 px are two cells


def test_dense_box_loss_is_zero_for_the_true_box_and_not_for_another():
    boxes = torch.tensor([[128.0, 120.0, 60.0, 40.0]])
    labels = center_labels(boxes, torch.ones(1), Grid(25, 257))
    exact = boxes[:, :, None, None].expand(1, 4, 25, 25)
    assert [v.item() for v in dense_box(exact, boxes, labels)] == pytest.approx([0, 0, 0], abs=1e-6)
    wide = exact * torch.tensor([1.0, 1.0, 2.0, 1.0]).view(1, 4, 1, 1)
    centre, size, overlap = (v.item() for v in dense_box(wide, boxes, labels))
    assert centre == pytest.approx(0)
    assert size == pytest.approx(0.6931, abs=1e-4)
    assert overlap == pytest.approx(0.5)


def test_generalised_iou_of_separate_boxes_is_negative():
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[4.0, 0.0, 2.0, 2.0]])
    assert generalised_iou(a, b).item() == pytest.approx(-4 / 12)


class TestAberrance:
    def maps(self, seed):
        generator = torch.Generator().manual_seed(seed)
        a, b = torch.rand(2, 3, 25, 25, generator=generator) * 0.8 + 0.1
        boxes = torch.rand(2, 3, 4, generator=generator) * 40 + 60
        labels = [center_labels(box, torch.ones(3), PAPER).heat for box in boxes]
        return a, b, *labels, torch.ones(3)

    def test_symmetric_in_the_two_frames(self):
        a, b, ya, yb, mask = self.maps(1)
        assert aberrance(a, b, ya, yb, mask).item() == pytest.approx(
            aberrance(b, a, yb, ya, mask).item(), rel=1e-5
        )

    def test_invariant_when_everything_is_rolled(self):
        a, b, ya, yb, mask = self.maps(2)
        rolled = [torch.roll(m, (3, -5), (1, 2)) for m in (a, b, ya, yb)]
        assert aberrance(*rolled, mask).item() == pytest.approx(
            aberrance(a, b, ya, yb, mask).item(), rel=1e-5
        )

    def test_invariant_to_the_scale_of_a_heatmap(self):
        a, b, ya, yb, mask = self.maps(3)
        assert aberrance(0.5 * a, b, ya, yb, mask).item() == pytest.approx(
            aberrance(a, b, ya, yb, mask).item(), rel=1e-4
        )

    def test_least_for_heatmaps_that_equal_their_labels(self):
        _, _, ya, _, mask = self.maps(4)
        spread = torch.full_like(ya, 0.5)
        assert aberrance(ya, ya, ya, ya, mask) < 0.02
        assert aberrance(spread, spread, ya, ya, mask) > 1

    def test_masked_pairs_count_for_nothing(self):
        a, b, ya, yb, _ = self.maps(5)
        a = a.requires_grad_()
        absent = torch.zeros_like(ya)
        loss = aberrance(a, b, absent, yb, torch.zeros(3))
        loss.backward()
        assert loss.item() == 0
        assert torch.isfinite(a.grad).all()
