"""What an objective is: from a network and a batch of samples to losses and boxes."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from siam_tracker_ros.training.samples import SampleShape

Batch = dict[str, Tensor]
"""Samples as :class:`siam_tracker_ros.training.samples.Sample` has them, with a leading B."""


class Losses(NamedTuple):
    """Losses of one batch, and what the network would have answered.

    Attributes:
        total: what is minimised.
        parts: its parts by name, unweighted.
        boxes: ``[B,S,4]`` (cx, cy, w, h) the best box of every search crop by score alone, crop px;
            no gradient.
        scores: ``[B,S]`` their scores in [0, 1]; no gradient.
    """

    total: Tensor
    parts: dict[str, Tensor]
    boxes: Tensor
    scores: Tensor


class Objective(Protocol):
    """Trains one kind of tracker."""

    samples: ClassVar[SampleShape]
    """How many templates and searches of a sample it wants."""

    frames_first: ClassVar[bool]
    """The network sees all first searches of a batch, then all second ones; else sample after sample."""

    def __call__(self, network: Any, batch: Batch) -> Losses:
        """Run ``network`` on ``batch``."""
        ...


def planes(images: Tensor) -> Tensor:
    """``uint8 [...,n,n,3]`` -> ``float32 [N,3,n,n]``, channels last in memory, leading dimensions as one."""
    return images.flatten(0, -4).float().permute(0, 3, 1, 2)


def pick(boxes: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Return the box ``[N,4]`` and score ``[N]`` of the best cell of ``[N,4,R,R]`` and ``[N,R,R]``, detached."""
    best_score, best = score.detach().flatten(1).max(1)
    picked = boxes.detach().flatten(2).gather(2, best[:, None, None].expand(-1, 4, 1))
    return picked[:, :, 0], best_score
