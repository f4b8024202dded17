"""Samples to batches: PyTorch's data loader over :class:`SampleSource`, deterministic and resumable."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from siam_tracker_ros.training.samples import SampleSource


class SampleDataset(Dataset[dict[str, Tensor]]):
    """Samples of a source by index."""

    def __init__(self, source: SampleSource) -> None:
        self.source = source

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return sample ``index`` as tensors."""
        sample = self.source(index)
        return {name: torch.from_numpy(values) for name, values in sample._asdict().items()}


class SameEveryTime(Sampler[int]):
    """Indices ``0 ... size - 1`` in every epoch: validation compares like with like."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))


class EpochSampler(Sampler[int]):
    """Indices ``epoch * size ... (epoch + 1) * size - 1``: no sample is made twice in a run.

    On several devices Lightning deals these out among them.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.epoch * self.size, (self.epoch + 1) * self.size))


def make_loader(
    source: SampleSource, sampler: Sampler[int], batch: int, workers: int
) -> DataLoader[dict[str, Tensor]]:
    """Batches of ``batch`` samples of the indices that ``sampler`` names."""
    return DataLoader(
        SampleDataset(source),
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
