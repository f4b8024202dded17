"""Labels of both stages, sampling, losses, and that the network learns a pair."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import yaml  # noqa: E402

from siam_tracker_ros.geometry import CropSpec  # noqa: E402
from siam_tracker_ros.networks.anchors import (  # noqa: E402
    encode,
    make_anchors,
    overlap,
)
from siam_tracker_ros.networks.config import (  # noqa: E402
    AnchorDecoderConfig,
    NeckConfig,
    NetworkConfig,
    NoTemporalConfig,
    RegionHeadConfig,
    UpChannelConfig,
)
from siam_tracker_ros.networks.grid import Grid  # noqa: E402
from siam_tracker_ros.networks.spm_tracker import Coarse, SPMTracker  # noqa: E402
from siam_tracker_ros.training.anchor_labels import (  # noqa: E402
    anchor_labels,
    jittered,
    proposal_labels,
    sample,
)
from siam_tracker_ros.training.config import SPMTrackerLossConfig, load_config  # noqa: E402
from siam_tracker_ros.training.losses import iou  # noqa: E402
from siam_tracker_ros.training.objectives import make_objective  # noqa: E402
from siam_tracker_ros.training.objectives.spm_tracker import (  # noqa: E402
    SPMTrackerObjective,
    focal,
    smooth_l1,
    training_proposals,
)

RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)
ANCHORS = make_anchors(Grid(19, 271), RATIOS)
CONFIGS = Path(__file__).parents[2] / "config" / "training"

SMALL = NetworkConfig(
    tracker="spm_tracker",
    crop=CropSpec(129, 193),
    neck=NeckConfig(channels=16),
    matching=UpChannelConfig(template_cells=7, search_cells=19, width=16, unit=True, start="match"),
    head=RegionHeadConfig(width=16, hidden=32, start="match"),
    temporal=NoTemporalConfig(),
    decoder=AnchorDecoderConfig(),
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def padded(*boxes):
    objects = torch.zeros(1, 8, 4)
    mask = torch.zeros(1, 8)
    for i, box in enumerate(boxes):
        objects[0, i], mask[0, i] = torch.tensor(box), 1.0
    return objects, mask


def test_anchors_are_labelled_by_overlap():
    box = (137.0, 133.0, 66.0, 60.0)
    labels = anchor_labels(ANCHORS, *padded(box))
    shared = overlap(ANCHORS, torch.tensor(box))
    assert torch.equal(labels.label[0] == 1, shared > 0.6)
    assert torch.equal(labels.label[0] == 0, shared < 0.3)
    assert 0 < int((labels.label == 1).sum()) < int((labels.label == -1).sum())
    assert (labels.boxes[0][labels.label[0] == 1] == torch.tensor(box)).all()


def test_all_objects_of_the_category_are_positive_and_boxes_are_of_the_nearest():
    left, right = (95.0, 135.0, 60.0, 64.0), (175.0, 135.0, 64.0, 64.0)
    both = anchor_labels(ANCHORS, *padded(left, right))
    alone = [anchor_labels(ANCHORS, *padded(box)) for box in (left, right)]
    positive = [a.label[0] == 1 for a in alone]
    assert torch.equal(both.label[0] == 1, positive[0] | positive[1])
    for box, mine in zip((left, right), positive, strict=True):
        assert mine.any() and (both.boxes[0][mine] == torch.tensor(box)).all()


def test_nothing_related_is_all_background():
    labels = anchor_labels(ANCHORS, *padded(), best=True)
    assert (labels.label == 0).all()


def test_an_odd_object_has_its_best_anchor_where_asked():
    odd = (135.0, 135.0, 20.0, 20.0)
    shared = overlap(ANCHORS, torch.tensor(odd))
    assert shared.max() < 0.3
    assert (anchor_labels(ANCHORS, *padded(odd)).label == 0).all()
    labels = anchor_labels(ANCHORS, *padded(odd), best=True).label[0]
    assert torch.equal(labels == 1, shared == shared.max())


def test_pairs_of_the_same_category_are_for_the_coarse_stage_alone():
    """Generalised training: another instance is positive for the first stage, never for the second."""
    box = torch.tensor([[135.0, 135.0, 64.0, 64.0]])
    coarse = anchor_labels(ANCHORS, *padded(tuple(box[0].tolist())))
    assert (coarse.label == 1).any()
    proposals = torch.cat([box, jittered(box, 8)[0]])[None]
    assert proposal_labels(proposals, box, torch.zeros(1)).sum() == 0  # visible = 0
    assert proposal_labels(proposals, box, torch.ones(1)).sum() >= 5
    different = anchor_labels(ANCHORS, *padded())
    assert not (different.label == 1).any()


def test_sampling_keeps_to_its_numbers():
    label = torch.full((3, 400), -1)
    label[0, :40], label[0, 40:300] = 1, 0
    label[1, :5], label[1, 5:30] = 1, 0
    label[2, :300] = 0
    mask = sample(label, 16, 64).bool()
    counts = [Counter(label[i][mask[i]].tolist()) for i in range(3)]
    assert counts == [{1: 16, 0: 48}, {1: 5, 0: 25}, {0: 64}]
    even = sample(label, 24, 48, background=24).bool()
    counts = [Counter(label[i][even[i]].tolist()) for i in range(3)]
    assert counts == [{1: 24, 0: 24}, {1: 5, 0: 24}, {0: 24}]
    torch.manual_seed(0)
    first = sample(label, 16, 64)
    assert not torch.equal(first, sample(label, 16, 64))
    torch.manual_seed(0)
    assert torch.equal(first, sample(label, 16, 64))


def test_jitter_stays_within_its_bounds():
    box = torch.tensor([[100.0, 80.0, 60.0, 40.0]])
    around = jittered(box, 500)[0]
    shift = (around[:, :2] - box[:, :2]) / box[:, 2:]
    stretch = around[:, 2:] / box[:, 2:]
    assert 0.09 < shift.abs().max() <= 0.1
    assert 0.8 <= stretch.min() < 0.82 and 1.23 < stretch.max() <= 1.2501


def test_focal_loss_of_one_positive():
    logits = torch.tensor([0.0, 2.0, -1.0])
    positive, known = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    p = torch.sigmoid(logits[1])
    expected = 0.25 * 0.25 * torch.log(torch.tensor(2.0)) - 0.75 * p**2 * torch.log(1 - p)
    assert float(focal(logits, positive, known)) == pytest.approx(float(expected), rel=1e-5)


def test_smooth_l1_is_a_sum_over_the_four():
    assert smooth_l1(torch.tensor([0.5, 2.0, 0.0, -1.0]), torch.zeros(4)).item() == pytest.approx(
        0.125 + 1.5 + 0.5
    )


def test_training_proposals_are_torchvisions_and_hold_the_box():
    nms = pytest.importorskip("torchvision.ops").nms
    boxes = ANCHORS + torch.randn(1805, 4) * 3
    score = torch.randperm(1805).float() / 1805
    target = torch.tensor([[120.0, 140.0, 60.0, 70.0]])
    coarse = Coarse(torch.zeros(1, 1805, 2), torch.zeros(1, 1805, 4), score[None], boxes[None])
    found = training_proposals(coarse, target)[0]
    best = score.topk(256).indices
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)
    kept = best[nms(corners[best], score[best], 0.75)][:64]
    assert torch.equal(found[: len(kept)], boxes[kept])
    assert torch.equal(found[64], target[0]) and found.shape == (73, 4)
    assert (overlap(found[65:], target) > 0.5).all()


# --- the whole objective ----------------------------------------------------------------------------------------------


def scene(seed, side, box, gray=110):
    """A patterned object in front of a patterned ground: ``uint8 [side,side,3]``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 10, 10, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0] * 100 + 60
    thing = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(99))
    w, h = round(box[2]), round(box[3])
    left, top = round(box[0] - w / 2), round(box[1] - h / 2)
    patch = torch.nn.functional.interpolate(thing, (h, w), mode="bilinear")[0] * 255
    image[:, top : top + h, left : left + w] = patch
    return image.clamp(0, 255).permute(1, 2, 0).to(torch.uint8)


def batch_of(places, template_box=(64.0, 64.0, 60.0, 50.0), n=129, m=193):
    """One template and two searches with the object at ``places``."""
    template = scene(1, n, template_box)
    searches = torch.stack([scene(2 + i, m, box) for i, box in enumerate(places)])
    related = torch.zeros(1, 2, 8, 4)
    related[0, :, 0] = torch.tensor(places)
    mask = torch.zeros(1, 2, 8)
    mask[..., 0] = 1
    return {
        "template": template[None, None],
        "template_boxes": torch.tensor([[template_box]]),
        "searches": searches[None],
        "boxes": torch.tensor([places]),
        "visible": torch.ones(1, 2),
        "related": related,
        "related_mask": mask,
    }


PLACES = [(110.0, 90.0, 64.0, 52.0), (80.0, 108.0, 56.0, 48.0)]


@pytest.fixture
def network():
    torch.manual_seed(4)
    return SPMTracker(SMALL)


KINDS = {
    "paper": SPMTrackerLossConfig(),
    "light": SPMTrackerLossConfig(
        classes="focal", regression="giou", positive=0.5, best=True, proposals=24
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients(network, kind):
    objective = make_objective(KINDS[kind])
    assert isinstance(objective, SPMTrackerObjective) and objective.samples == (1, 2)
    network.train()
    result = objective(network, batch_of(PLACES))
    assert set(result.parts) == {"coarse", "coarse_box", "fine", "fine_box"}
    assert result.boxes.shape == (1, 2, 4) and result.scores.shape == (1, 2)
    assert not result.boxes.requires_grad and not result.scores.requires_grad
    assert ((result.scores > 0) & (result.scores < 1)).all()
    parts = result.parts
    expected = parts["coarse"] + KINDS[kind].box * parts["coarse_box"]
    assert torch.allclose(result.total, expected + parts["fine"] + parts["fine_box"])
    result.total.backward()
    # Of an untrained backbone, some units are dead.
    own = {n: p for n, p in network.named_parameters() if not n.startswith("backbone.")}
    assert [n for n, p in own.items() if p.grad is None or not p.grad.any()] == []
    assert network.backbone.stem[0].weight.grad.any()


def test_fine_stage_reaches_the_backbone_but_not_the_proposals(network):
    network.train()
    parts = SPMTrackerObjective(SPMTrackerLossConfig())(network, batch_of(PLACES)).parts
    (parts["fine"] + parts["fine_box"]).backward()
    assert network.backbone.stem[0].weight.grad.any()
    assert network.matching.search_class.weight.grad is None


def test_pairs_without_the_target_have_no_fine_boxes(network):
    batch = batch_of(PLACES)
    batch["visible"] = torch.zeros(1, 2)
    network.train()
    same = SPMTrackerObjective(SPMTrackerLossConfig())(network, batch).parts
    assert same["fine_box"] == 0 and same["coarse_box"] > 0
    batch["related_mask"] = torch.zeros(1, 2, 8)
    other = SPMTrackerObjective(SPMTrackerLossConfig())(network, batch).parts
    assert other["fine_box"] == 0 and other["coarse_box"] == 0
    assert all(torch.isfinite(v) for v in other.values())
    assert other["coarse"] > 0 and other["fine"] > 0


def test_two_searches_are_compared_with_their_own_template(network):
    """The order of pairs in a batch does not matter to their answers."""
    network.eval()
    one, two = batch_of(PLACES), batch_of(PLACES[::-1], (60.0, 66.0, 52.0, 44.0))
    objective = SPMTrackerObjective(SPMTrackerLossConfig())
    with torch.no_grad():
        joined = objective(network, {k: torch.cat([one[k], two[k]]) for k in one})
        for i, batch in enumerate((one, two)):
            alone = objective(network, batch)
            assert torch.allclose(joined.boxes[i : i + 1], alone.boxes, atol=1e-2)
            assert torch.allclose(joined.scores[i : i + 1], alone.scores, atol=1e-4)


def test_answers_do_not_see_the_annotation(network):
    network.eval()
    objective, batch = SPMTrackerObjective(SPMTrackerLossConfig()), batch_of(PLACES)
    with torch.no_grad():
        before = objective(network, batch)
        moved = {**batch, "boxes": batch["boxes"] + 20, "related": batch["related"] - 15}
        after = objective(network, moved)
    assert torch.equal(before.boxes, after.boxes) and torch.equal(before.scores, after.scores)


def test_works_in_bfloat16_and_channels_last(network):
    network.to(memory_format=torch.channels_last).train()
    with torch.autocast("cpu", torch.bfloat16):
        result = SPMTrackerObjective(KINDS["light"])(network, batch_of(PLACES))
    assert result.total.dtype == torch.float32
    assert all(v.dtype == torch.float32 and torch.isfinite(v) for v in result.parts.values())
    result.total.backward()


def test_learns_a_pair(network):
    """Both searches are found, the box overlaps more than .9, a search without the target scores lower."""
    objective, batch = SPMTrackerObjective(KINDS["light"]), batch_of(PLACES)
    empty = {**batch, "visible": torch.zeros(1, 2), "related_mask": torch.zeros(1, 2, 8)}
    empty["searches"] = torch.stack([scene(50 + i, 193, (2.0, 2.0, 2.0, 2.0)) for i in (0, 1)])[
        None
    ]
    both = {k: torch.cat([batch[k], empty[k]]) for k in batch}
    network.backbone.requires_grad_(False)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3)
    network.train()
    for _ in range(60):
        optimiser.zero_grad()
        objective(network, both).total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
    network.eval()
    with torch.no_grad():
        result = objective(network, both)
    assert (iou(result.boxes[0], batch["boxes"][0]) > 0.9).all()
    assert result.scores[0].min() > result.scores[1].max() + 0.3


@pytest.mark.parametrize("name", ["alexnet", "mobilenetv2"])
def test_shipped_configurations_are_read(name):
    config = load_config(CONFIGS / f"spm_tracker_{name}.yaml")
    assert config.network.tracker == config.loss.kind == "spm_tracker"
    assert isinstance(make_objective(config.loss), SPMTrackerObjective)
    if name == "alexnet":
        assert (config.loss.box, config.loss.positives, config.loss.anchors) == (2.0, 16, 64)
        assert (config.loss.positive, config.loss.proposals) == (0.6, 48)
        text = yaml.safe_load((CONFIGS / "spm_tracker_alexnet.yaml").read_text())
        assert text["optimiser"]["schedule"] == "spm_tracker"


def test_encoded_targets_are_finite_for_every_anchor():
    box = torch.tensor([135.0, 135.0, 12.0, 200.0])
    assert torch.isfinite(encode(box, ANCHORS)).all()
