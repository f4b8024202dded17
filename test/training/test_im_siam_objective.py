"""IMSiam's objective: perfect maps cost nothing, every part reaches its map alone, and a network learns a scene."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.geometry import CropSpec  # noqa: E402
from siam_tracker_ros.networks.config import (  # noqa: E402
    AdaptiveConfig,
    BackboneConfig,
    DenseHeadConfig,
    NeckConfig,
    NetworkConfig,
    NoTemporalConfig,
    PointDecoderConfig,
)
from siam_tracker_ros.networks.grid import Grid  # noqa: E402
from siam_tracker_ros.networks.im_siam import IMSiam, PointMaps  # noqa: E402
from siam_tracker_ros.training.config import IMSiamLossConfig  # noqa: E402
from siam_tracker_ros.training.losses import iou  # noqa: E402
from siam_tracker_ros.training.objectives.im_siam import IMSiamObjective  # noqa: E402
from siam_tracker_ros.training.point_labels import (  # noqa: E402
    centerness,
    point_distances,
    point_labels,
)

GRID = Grid(29, 255)
BOXES = torch.tensor([[[127.0, 127.0, 64.0, 48.0], [101.0, 140.0, 50.0, 70.0]]])

SMALL = NetworkConfig(
    tracker="im_siam",
    crop=CropSpec(65, 129),
    backbone=BackboneConfig(levels=("early", "middle", "late")),
    neck=NeckConfig("adjust", 32),
    matching=AdaptiveConfig(cells=5, separable=True, norm=False),
    head=DenseHeadConfig(width=32, depth=1, sampler=True),
    temporal=NoTemporalConfig(),
    decoder=PointDecoderConfig(unit=16.0, iou=True),
)


def batch(boxes=BOXES, visible=(1.0, 1.0)):
    count = boxes.shape[0]
    return {
        "template": torch.zeros(count, 1, 3, 3, 3, dtype=torch.uint8),
        "template_boxes": torch.tensor([[[1.0, 1.0, 2.0, 2.0]]]).expand(count, 1, 4),
        "searches": torch.zeros(count, 2, 5, 5, 3, dtype=torch.uint8),
        "boxes": boxes,
        "visible": torch.tensor([visible]).expand(count, 2),
    }


class Answers:
    """Stands in for a network: gives the maps that it was made with."""

    def __init__(self, maps: PointMaps) -> None:
        self.maps, self.grid = maps, GRID
        self.config = SimpleNamespace(decoder=PointDecoderConfig(1.0, iou=True))
        self.head = SimpleNamespace(scale=torch.ones(maps.centre.shape[1]))

    def template(self, image, boxes):
        assert image.shape[1:] == (3, 3, 3) and boxes.shape == (len(image), 4)
        return {"kernel": torch.zeros(len(image), 1)}

    def search(self, state, image):
        assert len(state["kernel"]) == len(image) == len(self.maps.centre)
        return self.maps

    score, boxes = IMSiam.score, IMSiam.boxes


def perfect() -> PointMaps:
    boxes = BOXES.flatten(0, 1)
    labels = point_labels(boxes, torch.ones(2), GRID, 0.75)
    logit = torch.where(labels == 1, 40.0, -40.0)[:, None, None].repeat(1, 3, 1, 1, 1)
    distances = point_distances(boxes, GRID)
    centre = torch.logit(centerness(distances).clamp(1e-7, 1 - 1e-7))[:, None, None]
    return PointMaps(
        torch.cat([torch.zeros_like(logit), logit], 2),
        centre.repeat(1, 3, 1, 1, 1),
        distances.clamp(min=1)[:, None].repeat(1, 3, 1, 1, 1),
        torch.full_like(logit, 40.0),
    )


def objective(**changes) -> IMSiamObjective:
    return IMSiamObjective(dataclasses.replace(IMSiamLossConfig(), **changes))


@pytest.mark.parametrize("box", ["iou", "giou"])
def test_perfect_maps(box):
    result = objective(box=box)(Answers(perfect()), batch())
    assert float(result.parts["classification"]) < 1e-6
    assert abs(float(result.parts["regression"])) < 1e-5
    assert float(result.parts["iou"]) < 1e-6
    # Only the entropy of the soft labels is left of the centre-ness.
    boxes = BOXES.flatten(0, 1)
    labels = point_labels(boxes, torch.ones(2), GRID, 0.75)
    p = centerness(point_distances(boxes, GRID))[labels == 1].clamp(1e-7, 1 - 1e-7)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    assert float(result.parts["centre"]) == pytest.approx(float(entropy), abs=1e-5)
    assert result.boxes.shape == (1, 2, 4) and result.scores.shape == (1, 2)
    assert torch.allclose(result.boxes, BOXES, atol=1e-3)
    best = centerness(point_distances(boxes, GRID)).flatten(1).max(1).values
    assert torch.allclose(result.scores[0], best, atol=1e-4)


def test_total_is_equation_15_and_the_mean_over_the_levels():
    generator = torch.Generator().manual_seed(4)
    maps = PointMaps(*(m + torch.rand(m.shape, generator=generator) for m in perfect()))
    whole = objective()(Answers(maps), batch())
    parts = whole.parts
    total = parts["classification"] + 1.2 * parts["regression"]
    total = total + 0.5 * parts["centre"] + 0.5 * parts["iou"]
    assert torch.allclose(whole.total, total)
    levels = [
        objective()(Answers(PointMaps(*(m[:, i : i + 1] for m in maps))), batch()) for i in range(3)
    ]
    mean = sum(float(level.total) for level in levels) / 3
    assert float(whole.total) == pytest.approx(mean, abs=1e-5)


def test_the_overlap_target_carries_no_gradient():
    maps = perfect()
    distances = (maps.distances * 1.3).requires_grad_()
    overlap = maps.iou.clone().zero_().requires_grad_()
    result = objective()(Answers(maps._replace(distances=distances, iou=overlap)), batch())
    grads = torch.autograd.grad(result.parts["iou"], [distances, overlap], allow_unused=True)
    assert grads[0] is None and float(grads[1].abs().sum()) > 0
    (moved,) = torch.autograd.grad(result.parts["regression"], [distances])
    labels = point_labels(BOXES.flatten(0, 1), torch.ones(2), GRID, 0.75)
    touched = moved.abs().sum((1, 2)) > 0
    assert bool((touched <= (labels == 1)).all()) and bool(touched.any())


def test_wrong_sizes_cost_the_logarithm_of_the_overlap():
    maps = perfect()
    doubled = maps._replace(distances=2 * maps.distances)
    result = objective(smooth=0.0)(Answers(doubled), batch())
    assert float(result.parts["regression"]) == pytest.approx(math.log(4), abs=1e-5)


def test_without_a_target_only_the_classification_counts():
    maps = perfect()
    result = objective()(Answers(maps), batch(visible=(0.0, 0.0)))
    assert float(result.parts["classification"]) > 0.1
    assert [float(result.parts[name]) for name in ("regression", "centre", "iou")] == [0, 0, 0]


def scene(center, side: int, scale: float = 1.0):
    """A red and white target of 32 x 24 px on a pattern, RGB ``[side,side,3]``."""
    generator = torch.Generator().manual_seed(7)
    image = torch.randint(60, 160, (1, 3, 17, 17), generator=generator).float()
    image = torch.nn.functional.interpolate(image, size=(side, side), mode="bilinear")[0]
    w, h = 32 * scale, 24 * scale
    x1, y1 = round(center[0] - w / 2 + 0.5), round(center[1] - h / 2 + 0.5)
    image[:, y1 : y1 + round(h), x1 : x1 + round(w)] = torch.tensor([220.0, 30, 30])[:, None, None]
    half = round(w / 2)
    image[:, y1 : y1 + round(h / 2), x1 : x1 + half] = 255
    return image.permute(1, 2, 0).to(torch.uint8)


def test_a_small_network_learns_one_scene():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    network = IMSiam(SMALL).train()
    for name, stage in network.stages().items():
        stage.requires_grad_(name == "late")
    places = [(64.5, 64.5), (44.5, 80.5), (90.5, 52.5), (60.5, 40.5)]
    searches = torch.stack([scene(place, 129) for place in places]).view(2, 2, 129, 129, 3)
    boxes = torch.tensor([[x, y, 32.0, 24.0] for x, y in places]).view(2, 2, 4) - torch.tensor(
        [0.5, 0.5, 0, 0]
    )
    data = {
        "template": scene((32.5, 32.5), 65).expand(2, 1, 65, 65, 3),
        "template_boxes": torch.tensor([32.0, 32.0, 32.0, 24.0]).expand(2, 1, 4),
        "searches": searches,
        "boxes": boxes,
        "visible": torch.ones(2, 2),
    }
    learn = IMSiamObjective(IMSiamLossConfig(box="giou"))
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 5e-3)
    with torch.enable_grad():
        for step in range(80):
            for group in optimiser.param_groups:
                group["lr"] = 5e-3 * (1 - step / 80)
            optimiser.zero_grad()
            loss = learn(network, data).total
            loss.backward()
            optimiser.step()
    network.eval()
    with torch.no_grad():
        result = learn(network, data)
    torch.set_num_threads(before)
    assert float(iou(result.boxes.flatten(0, 1), boxes.flatten(0, 1)).min()) > 0.9
    assert float(result.scores.min()) > 0.3
