"""STMTrack's labels and losses with its specification's numbers, what gets gradients, and that it learns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from siam_tracker_ros.bundle import Memory
from siam_tracker_ros.deployment.torch_session import TorchSession
from siam_tracker_ros.geometry import (
    ArrayPicture,
    Box,
    CropSpec,
    extract_crop,
    search_crop,
    template_crop,
)
from siam_tracker_ros.networks.config import (
    DenseHeadConfig,
    FeatureBankConfig,
    NeckConfig,
    NetworkConfig,
    PointDecoderConfig,
    SpaceTimeConfig,
)
from siam_tracker_ros.networks.grid import Grid
from siam_tracker_ros.networks.stm_track import STMTrack
from siam_tracker_ros.tracking.size_rule import smoothed_size
from siam_tracker_ros.training.config import STMTrackLossConfig, load_config
from siam_tracker_ros.training.losses import iou
from siam_tracker_ros.training.module import TrackerModule
from siam_tracker_ros.training.objectives import make_objective
from siam_tracker_ros.training.objectives.stm_track import (
    STMTrackObjective,
    box_cost,
    centre_cost,
    focal,
    query_labels,
)
from siam_tracker_ros.training.point_labels import centerness, point_distances
from siam_tracker_ros.training.point_losses import iou_log

CONFIGS = Path(__file__).parents[2] / "config" / "training"
SMALL = NetworkConfig(
    tracker="stm_track",
    crop=CropSpec(97, 129, 0.931, "area"),
    neck=NeckConfig("pyramid", 32, margin=2),
    matching=SpaceTimeConfig(label_at="early"),
    head=DenseHeadConfig(width=32, depth=1),
    temporal=FeatureBankConfig(slots=8, frames=6),
    decoder=PointDecoderConfig(),
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Network:
    """The grid of the paper's network is all that labels read."""

    grid = Grid(25, 289)


# Labels and losses.

YES, NO = torch.ones(1), torch.zeros(1)


def from_corners(*corners: float) -> torch.Tensor:
    x1, y1, x2, y2 = corners
    return torch.tensor([[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]])


def test_labels_of_the_specification():
    boxes = from_corners(108, 96, 180, 192)
    labels = query_labels(boxes, YES, Network)
    rows, columns = (labels[0] == 1).nonzero(as_tuple=True)
    assert len(rows) == 99
    assert (int(rows.min()), int(rows.max())) == (7, 17)
    assert (int(columns.min()), int(columns.max())) == (8, 16)
    assert not (labels == -1).any()
    quality = centerness(point_distances(boxes, Network.grid))[0]
    assert float(quality[12, 12]) == pytest.approx(1.0, abs=1e-6)
    assert float(quality[12, 14]) == pytest.approx(0.620174, abs=1e-6)
    assert float(quality[16, 16]) == pytest.approx(0.108465, abs=1e-6)


def test_without_the_target_only_the_box_is_background():
    boxes = from_corners(108, 96, 180, 192)
    with_target, without = query_labels(boxes, YES, Network), query_labels(boxes, NO, Network)
    assert torch.equal(without == 0, with_target == 1)
    assert torch.equal(without == -1, with_target == 0)


@pytest.mark.parametrize(("x", "y", "expected"), [
    (0, 1, 0.129965), (0, 0, 0.043322), (2, 1, 0.001353), (2, 0, 0.412520),
])  # fmt: skip
def test_focal_of_the_specification(x, y, expected):
    value = focal(torch.full((1, 1, 1), float(x)), torch.full((1, 1, 1), y))
    assert float(value) == pytest.approx(expected, abs=1e-6)


def test_focal_is_divided_by_the_positives_and_leaves_out_what_is_ignored():
    logits = torch.randn(2, 5, 5)
    labels = torch.zeros(2, 5, 5, dtype=torch.long)
    labels[0, 1:3, 1:3] = 1
    one = focal(logits, labels)
    assert float(focal(torch.cat([logits, logits]), torch.cat([labels, labels]))) == pytest.approx(
        float(one)
    )
    labels[1] = -1
    without = focal(logits, labels)
    logits[1] = 50.0
    assert float(focal(logits, labels)) == pytest.approx(float(without))


def test_box_cost_of_the_specification():
    """The paper's code counts pixels (+1); our IoU of boxes one larger is the same number."""
    a, b = from_corners(100, 100, 150, 150), from_corners(110, 105, 160, 170)
    grown = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert float(iou(a + grown, b + grown)) == pytest.approx(0.462142, abs=1e-6)
    cost = iou_log((a + grown)[:, :, None, None], b + grown)
    assert float(cost) == pytest.approx(0.771884, abs=1e-6)
    plain = 45 * 40 / (50 * 50 + 50 * 65 - 45 * 40)
    maps = a[:, :, None, None]
    assert float(box_cost(maps, b, STMTrackLossConfig())) == pytest.approx(
        -math.log(plain), abs=1e-6
    )
    hull = 60 * 70
    union = 50 * 50 + 50 * 65 - 45 * 40
    giou = plain - (hull - union) / hull
    assert float(box_cost(maps, b, STMTrackLossConfig(box="giou"))) == pytest.approx(
        1 - giou, abs=1e-6
    )


def test_centre_cost_is_zero_where_it_agrees():
    quality = torch.tensor([[[0.0, 0.1, 0.5, 0.9, 1.0]]])
    exact = torch.logit(quality.clamp(1e-6, 1 - 1e-6))
    assert float(centre_cost(exact, quality).abs().max()) < 1e-4
    cost = centre_cost(torch.zeros(1, 1, 5), quality)[0, 0]
    assert float(cost[2]) == pytest.approx(0.0, abs=1e-6)
    assert float(cost[0]) == pytest.approx(math.log(2), abs=1e-6)
    entropy = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert float(cost[1]) == pytest.approx(math.log(2) - entropy, abs=1e-6)


# What a step of training touches.


def scene(seed: int = 0) -> tuple[np.ndarray, Box]:
    """A textured picture with a bright object in it."""
    random = np.random.default_rng(seed)
    ground = random.integers(40, 140, (12, 16, 3)).astype(np.uint8)
    image = np.kron(ground, np.ones((20, 20, 1), np.uint8))
    image[90:138, 140:200] = (220, 60, 40)
    image[98:130, 155:185] = (40, 60, 220)
    return image, Box(169.5, 113.5, 60.0, 48.0)


def crop_of(image: np.ndarray, box: Box, shift, scale: float, size: int, side: float):
    """A crop about a jittered middle, and the box in it."""
    crop = search_crop(box, CropSpec(size, size, (side - 1) / 2, "area"), scale)
    crop = type(crop)(crop.cx + shift[0], crop.cy + shift[1], crop.side, crop.size)
    return extract_crop(ArrayPicture(image, "rgb"), crop, (90, 90, 90)), tuple(
        crop.box_to_crop(box)
    )


def batch_of(
    network: STMTrack, seed: int, count: int, visible: float = 1.0
) -> dict[str, torch.Tensor]:
    """Samples of one picture, jittered as in training."""
    random = np.random.default_rng(seed)
    image, box = scene()
    spec = network.config.crop
    f = 1 + 2 * spec.context
    made: dict[str, list] = {"template": [], "template_boxes": [], "searches": [], "boxes": []}
    for _ in range(count):
        crops = [
            crop_of(
                image, box, random.uniform(-4, 4, 2), random.uniform(0.9, 1.1), spec.template, f
            )
            for _ in range(3)
        ]
        made["template"].append(np.stack([c for c, _ in crops]))
        made["template_boxes"].append([b for _, b in crops])
        side = f * spec.search / spec.template
        crop, target = crop_of(
            image, box, random.uniform(-25, 25, 2), random.uniform(0.85, 1.15), spec.search, side
        )
        made["searches"].append(crop[None])
        made["boxes"].append([target])
    batch = {name: torch.from_numpy(np.array(values)) for name, values in made.items()}
    return {
        **batch,
        "template_boxes": batch["template_boxes"].float(),
        "boxes": batch["boxes"].float(),
        "visible": torch.full((count, 1), visible),
    }


@pytest.fixture
def small() -> STMTrack:
    torch.manual_seed(0)
    return STMTrack(SMALL)


def test_what_an_objective_returns(small):
    objective = make_objective(STMTrackLossConfig())
    assert isinstance(objective, STMTrackObjective)
    assert tuple(objective.samples) == (3, 1)
    result = objective(small, batch_of(small, 0, 2))
    parts = result.parts
    assert set(parts) == {"foreground", "centre", "box"}
    total = parts["foreground"] + 1.0 * parts["centre"] + 3.0 * parts["box"]
    assert result.total.item() == pytest.approx(total.item(), rel=1e-6)
    assert result.boxes.shape == (2, 1, 4)
    assert result.scores.shape == (2, 1)
    assert not result.boxes.requires_grad and not result.scores.requires_grad


def test_under_bfloat16_the_losses_are_nearly_the_same(small):
    batch = batch_of(small, 0, 2)
    small = small.to(memory_format=torch.channels_last).train()
    objective = STMTrackObjective(STMTrackLossConfig())
    exact = objective(small, batch).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = objective(small, batch).total
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)
    rough.backward()
    assert all(torch.isfinite(p.grad).all() for p in small.parameters() if p.grad is not None)


def test_a_pair_without_the_target_teaches_nothing_outside_the_box(small):
    """Property 10: the gradient of the foreground map is zero there, and there is no box loss."""
    batch = batch_of(small, 1, 1, visible=0.0)
    kept = {}
    search = small.search

    def keep(*args, **kwargs):
        maps = search(*args, **kwargs)
        for name, value in maps.items():
            value.retain_grad()
            kept[name] = value
        return maps

    small.search = keep
    result = STMTrackObjective(STMTrackLossConfig())(small.eval(), batch)
    result.total.backward()
    inside = query_labels(batch["boxes"][0], torch.ones(1), small)[0] == 1
    gradient = kept["foreground"].grad[0, 0]
    assert inside.any() and not inside.all()
    assert (gradient[inside] > 0).all()
    assert not gradient[~inside].any()
    assert not kept["centre"].grad.any() and not kept["distances"].grad.any()
    assert result.parts["box"].item() == 0.0


def with_gradient(network: torch.nn.Module) -> set[str]:
    return {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}


def test_with_frozen_convolutions_norms_label_necks_and_head_train():
    """Property 11, in the paper's configuration as its first epochs have it (on small crops)."""
    torch.manual_seed(0)
    config = load_config(
        CONFIGS / "stm_track_inception_v3.yaml",
        [
            "network.crop.template=97", "network.crop.search=97", "network.neck.margin=1",
            "network.neck.channels=8", "network.head.width=8", "network.head.depth=2",
        ],
    )  # fmt: skip
    module = TrackerModule(config, None, 10)
    network = module.network.train()
    # N(0, 1e-4) leaves gradients that underflow: another start shows where they go.
    for part in network.head.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    module.objective(network, batch_of(network, 0, 2)).total.backward()
    got = with_gradient(network)
    backbones = {n for n in got if n.split(".")[0].endswith("backbone")}
    assert backbones == {
        n for n, _ in network.named_parameters() if "backbone" in n and ".bn." in n
    }
    assert {n.split(".")[0] for n in got - backbones} == {
        "neck", "memory_neck", "label", "head", "scale", "bias",
    }  # fmt: skip

    module.set_trainable(10)
    network.zero_grad()
    module.objective(network, batch_of(network, 0, 2)).total.backward()
    convolutions = {n for n in with_gradient(network) if "backbone" in n and ".conv." in n}
    assert any(n.startswith("memory_backbone.Mixed_5b") for n in convolutions)
    assert any(n.startswith("backbone.Mixed_6e") for n in convolutions)
    assert not any("Conv2d_" in n for n in convolutions)


def test_the_light_network_trains_nothing_below_its_label():
    config = load_config(CONFIGS / "stm_track_mobilenetv2.yaml")
    module = TrackerModule(config, None, 10)
    network = module.network.train()
    module.objective(network, batch_of(network, 0, 2)).total.backward()
    got = with_gradient(network)
    assert not any(".stem." in n or ".early." in n for n in got)
    assert any(n.startswith("memory_backbone.late.") for n in got)
    assert "label.weight" in got


@pytest.mark.parametrize("name", ["inception_v3", "mobilenetv2"])
def test_shipped_configurations_load(name):
    config = load_config(CONFIGS / f"stm_track_{name}.yaml")
    assert config.loss.kind == config.network.tracker == "stm_track"
    assert (
        NetworkConfig.from_dict(yaml.safe_load(yaml.safe_dump(_plain(config.network.to_dict()))))
        == config.network
    )


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


# It learns, and then stays where it is.


@pytest.fixture(scope="module")
def learned() -> tuple[STMTrack, float]:
    """A small network after some steps on one picture, and its mean overlap on crops it has not seen."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = STMTrack(SMALL).train()
    for stage in ("stem", "early"):
        network.stages()[stage].requires_grad_(False)
    objective = STMTrackObjective(STMTrackLossConfig(box="giou"))
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=5e-3)
    steps = 140
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * min(1.0, 2 * (steps - step) / steps, (step + 1) / 10)
        result = objective(network, batch_of(network, step, 8))
        optimiser.zero_grad()
        result.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
    network.eval()
    batch = batch_of(network, 1000, 16)
    with torch.no_grad():
        picked = objective(network, batch).boxes[:, 0]
    return network, float(iou(picked, batch["boxes"][:, 0]).mean())


def test_it_learns_one_picture(learned):
    assert learned[1] > 0.9


def test_a_still_scene_is_followed_without_drift(learned):
    """Property 12: 200 frames of a picture that does not change; the box stays and so does the state's size."""
    network, _ = learned
    image, box = scene()
    picture = ArrayPicture(image, "rgb")
    spec = network.config.crop
    session = TorchSession(network, network.tuning)

    def cut(at: Box):
        region = search_crop(at, spec)
        crop = extract_crop(picture, region, (90, 90, 90))
        seen = region.box_to_crop(at)
        return region, crop, (seen.w, seen.h)

    region, crop, size = cut(box)
    session.start(extract_crop(picture, template_crop(box, spec), (90, 90, 90)), crop, size)
    at, places, sizes = box, [], set()
    for _ in range(200):
        region, crop, size = cut(at)
        result = session.step(crop, size, Memory(crop, size))
        session.commit()
        sizes.add(sum(v.nbytes for n, v in session.outputs.items() if n.startswith("state.")))
        w, h = smoothed_size(
            (result.box.w, result.box.h), size, score=result.score, rate=0.95, penalty=0.04
        )
        at = region.box_to_image(Box(result.box.cx, result.box.cy, w, h))
        places.append((at.cx, at.cy, at.w, at.h))
    # Where the box comes to rest (the network's own error there is not drift), it stays.
    rest, end = (np.array(places[a:b]).mean(0) for a, b in ((10, 30), (180, 200)))
    assert np.abs(end - rest).max() < 0.5
    assert np.abs(rest - np.array(tuple(box))).max() < 4
    assert len(sizes) == 1
