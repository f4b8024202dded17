"""SPM-Tracker's objective: both stages at once, the first trained on all objects of the category (equation 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from siam_tracker_ros.networks.anchors import (
    FINE_SCALE,
    decode_fine,
    encode,
    propose,
    suppress,
    take,
)
from siam_tracker_ros.networks.spm_tracker import Coarse, Features, SPMTracker
from siam_tracker_ros.training.anchor_labels import (
    POSITIVE,
    anchor_labels,
    jittered,
    proposal_labels,
    sample,
)
from siam_tracker_ros.training.config import SPMTrackerLossConfig
from siam_tracker_ros.training.losses import generalised_iou
from siam_tracker_ros.training.objectives.base import Batch, Losses, planes
from siam_tracker_ros.training.samples import SampleShape

NEGATIVE_BELOW = 0.3
"""Anchors that overlap every object less than this are background."""

CANDIDATES = 256
"""Best anchors that proposals are drawn from."""

KEPT = 64
"""Proposals after suppression."""

SUPPRESSED = 0.75
"""Overlap from which on a weaker proposal is dropped in training: hundreds of candidates are wanted."""

JITTERED = 8
"""Boxes like the target's that the fine stage sees from the first step on."""

LEAST_SIDE = 1.0
"""Sides of boxes that deltas are taken against, crop px."""


class SPMTrackerObjective:
    """L = L_cm_cls + box L_cm_box + L_fm_cls + L_fm_box (equation 1).

    Generalised training: the coarse stage's positives are all objects of the template's category,
    the fine stage's only the target itself. Gradients of both reach the backbone, none runs through
    the proposals.
    """

    samples = SampleShape(templates=1, searches=2)
    frames_first = False

    def __init__(self, config: SPMTrackerLossConfig) -> None:
        self.config = config

    def __call__(self, network: SPMTracker, batch: Batch) -> Losses:
        """Losses of both stages, and the fused answer."""
        shape = batch["visible"].shape
        state = network.template(planes(batch["template"]), batch["template_boxes"][:, 0].float())
        state = {k: v.repeat_interleave(shape[1], dim=0) for k, v in state.items()}
        features = network.extract(planes(batch["searches"]))
        coarse = network.coarse(state, features)
        parts = dict(
            zip(("coarse", "coarse_box"), self._coarse(network, coarse, batch), strict=True)
        )
        fine = self._fine(network, state, features, coarse, batch)
        parts.update(zip(("fine", "fine_box"), fine, strict=True))
        total = parts["coarse"] + self.config.box * parts["coarse_box"]
        total = total + parts["fine"] + parts["fine_box"]
        boxes, scores = _answer(network, state, features, coarse)
        return Losses(total, parts, boxes.unflatten(0, shape), scores.unflatten(0, shape))

    def _coarse(self, network: SPMTracker, coarse: Coarse, batch: Batch) -> tuple[Tensor, Tensor]:
        """Class and box loss of all anchors."""
        config = self.config
        labels = anchor_labels(
            network.anchors,
            batch["related"].flatten(0, 1).float(),
            batch["related_mask"].flatten(0, 1).float(),
            config.positive,
            NEGATIVE_BELOW,
            config.best,
        )
        positive = (labels.label == POSITIVE).float()
        if config.classes == "sampled":
            mask = sample(labels.label, config.positives, config.anchors)
            classes = _cross_entropy(coarse.logits, positive, mask)
            positive = positive * mask
        else:
            known = (labels.label >= 0).float()
            classes = focal(coarse.logits[..., 1] - coarse.logits[..., 0], positive, known)
        # Positive anchors alone, [P]: the others have no object to be taken against.
        chosen = positive > 0
        target, anchors = labels.boxes[chosen], network.anchors.expand_as(labels.boxes)[chosen]
        error = smooth_l1(coarse.deltas[chosen], encode(target, anchors))
        if config.regression == "giou":
            error = error + 1 - generalised_iou(coarse.boxes[chosen], target)
        return classes, error.sum() / positive.sum().clamp(min=1)

    def _fine(
        self,
        network: SPMTracker,
        state: dict[str, Tensor],
        features: Features,
        coarse: Coarse,
        batch: Batch,
    ) -> tuple[Tensor, Tensor]:
        """Class and box loss of the proposals that are drawn."""
        count = self.config.proposals
        boxes = batch["boxes"].flatten(0, 1).float()
        visible = batch["visible"].flatten().float()
        with torch.no_grad():
            proposals = training_proposals(coarse, boxes)
            label = proposal_labels(proposals, boxes, visible)
            mask = sample(label, count // 2, count, background=count - count // 2)
            index = mask.topk(min(count, mask.shape[1]), dim=1).indices
            proposals, mask = take(proposals, index), take(mask, index)
            positive = take(label, index) * mask
        logits, deltas = network.fine(state, features, proposals)
        classes = _cross_entropy(logits, positive, mask)
        scale = deltas.new_tensor(FINE_SCALE)
        target = encode(boxes[:, None], proposals) * scale
        error = smooth_l1(deltas, target)
        if self.config.regression == "giou":
            refined = decode_fine(deltas, proposals)
            pairs = refined.flatten(0, 1), boxes[:, None].expand_as(refined).flatten(0, 1)
            error = error + (1 - generalised_iou(*pairs)).view_as(positive)
        return classes, (error * positive).sum() / positive.sum().clamp(min=1)


def training_proposals(coarse: Coarse, boxes: Tensor) -> Tensor:
    """Proposals of the coarse stage, the annotated box and boxes like it: ``[N,P,4]``, without gradient.

    Args:
        coarse: the coarse stage's answer.
        boxes: ``[N,4]`` crop px.
    """
    score = coarse.score.detach()
    value, index = score.topk(min(CANDIDATES, score.shape[1]), dim=1)
    best = take(coarse.boxes.detach(), index)
    _, kept, left = suppress(best, value, min(KEPT, best.shape[1]), SUPPRESSED)
    # Slots that stay empty hold what was suppressed: the annotated box once more instead.
    kept = torch.where(left[..., None] > 0, kept, boxes[:, None])
    proposals = torch.cat([kept, boxes[:, None], jittered(boxes, JITTERED)], dim=1)
    return torch.cat([proposals[..., :2], proposals[..., 2:].clamp(min=LEAST_SIDE)], dim=2)


def focal(logits: Tensor, positive: Tensor, known: Tensor) -> Tensor:
    """Focal loss (alpha .25, gamma 2) of all anchors, divided by the number of positive ones.

    Args:
        logits: target against background, any shape.
        positive: 1 for the target.
        known: 0 where nothing is asked.
    """
    right = torch.where(positive > 0, logits, -logits)
    alpha = torch.where(positive > 0, 0.25, 0.75)
    cost = -alpha * torch.sigmoid(-right) ** 2 * F.logsigmoid(right)
    return (cost * known).sum() / positive.sum().clamp(min=1)


def smooth_l1(deltas: Tensor, target: Tensor) -> Tensor:
    """Sum of the four deltas' smooth L1 (beta 1): ``[...,4]`` -> ``[...]``."""
    return F.smooth_l1_loss(deltas, target, reduction="none").sum(dim=-1)


def _cross_entropy(logits: Tensor, positive: Tensor, mask: Tensor) -> Tensor:
    """Mean over what is in ``mask [N,K]`` of the softmax cross-entropy of ``logits [N,K,2]``."""
    cost = F.cross_entropy(logits.flatten(0, 1), positive.flatten().long(), reduction="none")
    return (cost.view_as(mask) * mask).sum() / mask.sum().clamp(min=1)


@torch.no_grad()
def _answer(
    network: SPMTracker, state: dict[str, Tensor], features: Features, coarse: Coarse
) -> tuple[Tensor, Tensor]:
    """Box ``[N,4]`` and score ``[N]`` of the best proposal, without window and previous box."""
    proposals = propose(coarse.boxes, coarse.score, network.relation.config.proposals)
    fused = network.fused(state, features, proposals)
    score, best = fused.score.max(dim=1)
    return take(fused.boxes, best[:, None])[:, 0], score
