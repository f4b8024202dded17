"""Samples to batches: PyTorch's data loader over :class:`SampleSource`, deterministic and resumable."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from siam_tracker_ros.training.samples import SampleSource
from siam_tracker_ros.training.teacher import FeatureTeacher


class SampleDataset(Dataset[dict[str, Tensor]]):
    """Samples of a source by index; with a teacher, what it makes of their searches as ``teacher``."""

    def __init__(self, source: SampleSource, teacher: FeatureTeacher | None = None) -> None:
        self.source, self.teacher = source, teacher

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return sample ``index`` as tensors."""
        sample = self.source(index)
        tensors = {name: torch.from_numpy(values) for name, values in sample._asdict().items()}
        if self.teacher is not None:
            tensors["teacher"] = torch.from_numpy(self.teacher(sample.searches))
        return tensors


class SameEveryTime(Sampler[int]):
    """Indices ``0 ... size - 1`` in every epoch: validation compares like with like.

    The same on each of several devices, so that figures are those of one.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))


class EpochSampler(Sampler[int]):
    """Indices ``epoch * size ... (epoch + 1) * size - 1``: no sample is made twice in a run.

    Of D devices, device r gets every D-th, beginning with the r-th: together they see what one would
    see, and no sample is seen by two. Lightning's own sampler for several devices must not be put
    around this one: it would not tell it the epoch.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.epoch = 0
        self.skipped = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def skip(self, samples: int) -> None:
        """Leave out the first ``samples`` of this device once, where the next pass begins."""
        self.skipped = samples

    def __len__(self) -> int:
        return self.size // _place()[1]

    def __iter__(self) -> Iterator[int]:
        rank, devices = _place()
        first, last = self.epoch * self.size, self.epoch * self.size + len(self) * devices
        begin, self.skipped = first + rank + self.skipped * devices, 0
        return iter(range(begin, last, devices))


def _place() -> tuple[int, int]:
    """Return which device this process trains on, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class ResumableLoader(DataLoader[dict[str, Tensor]]):
    """A loader that goes on where a checkpoint was made, also in the middle of an epoch.

    Lightning keeps its state in the checkpoint; it is the same on every device.
    """

    served = 0
    """Batches handed out in this epoch."""

    resumed = 0
    """Batches that the next pass leaves out."""

    def state_dict(self) -> dict[str, int]:
        """Return how far the epoch is."""
        return {"served": self.served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass begin where ``state`` was taken; a whole epoch leaves out nothing."""
        self.resumed = self.served = state["served"] % len(self)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        """Yield batches; begins with the first of them, when Lightning has set the epoch."""
        self.served, self.resumed = self.resumed, 0
        if self.served and isinstance(self.sampler, EpochSampler):
            self.sampler.skip(self.served * (self.batch_size or 1))
        for batch in super().__iter__():
            self.served += 1
            yield batch


def make_loader(
    source: SampleSource,
    sampler: Sampler[int],
    batch: int,
    workers: int,
    teacher: FeatureTeacher | None = None,
) -> ResumableLoader:
    """Batches of ``batch`` samples of the indices that ``sampler`` names."""
    return ResumableLoader(
        SampleDataset(source, teacher),
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
    )


def _quiet_worker(index: int) -> None:
    # A worker is one of many processes: threads of its own only get in the way.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
