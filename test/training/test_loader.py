"""Batches, and which samples a run has seen after it was stopped."""

from __future__ import annotations

import lightning
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from siam_tracker_ros.geometry import CropSpec  # noqa: E402
from siam_tracker_ros.training.config import (  # noqa: E402
    AugmentationConfig,
    DataConfig,
    SamplingConfig,
)
from siam_tracker_ros.training.loader import EpochSampler, SameEveryTime, make_loader  # noqa: E402
from siam_tracker_ros.training.pictures import GREEN, RED, YELLOW, sample_sheet  # noqa: E402
from siam_tracker_ros.training.samples import Sample, SampleShape, SampleSource  # noqa: E402
from siam_tracker_ros.training.tar_sets import read_tar_set  # noqa: E402


class Numbered:
    """Samples that hold nothing but their index."""

    def __call__(self, index):
        return Sample(*(np.full(1, index) for _ in Sample._fields))


class Counter(lightning.LightningModule):
    """Notes the samples it is trained on; stops after ``limit`` batches."""

    def __init__(self, limit=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.limit, self.seen = limit, []

    def training_step(self, batch, batch_idx):
        if self.limit is not None and len(self.seen) == self.limit:
            raise RuntimeError("stopped")
        self.seen.append(batch["visible"].flatten().tolist())
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def run(folder, module, workers, every, resume=None):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            ModelCheckpoint(folder, every_n_train_steps=every, save_last=True, save_top_k=0)
        ],
    )
    loader = make_loader(Numbered(), EpochSampler(9), 2, workers)
    trainer.fit(module, loader, ckpt_path=resume)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("limit", "every"), [(3, 1), (5, 1), (6, 3), (9, 4), (4, 4)])
def test_a_resumed_run_goes_on_behind_the_last_checkpoint(tmp_path, workers, limit, every):
    whole = Counter()
    run(tmp_path / "whole", whole, workers, every)
    assert [b[0] for b in whole.seen] == [0, 2, 4, 6, 9, 11, 13, 15, 18, 20, 22, 24]
    cut = Counter(limit)
    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path / "cut", cut, workers, every)
    rest = Counter()
    run(tmp_path / "cut", rest, workers, every, resume=tmp_path / "cut" / "last.ckpt")
    kept = limit - limit % every
    assert cut.seen[:kept] + rest.seen == whole.seen


def test_every_epoch_has_fresh_indices():
    sampler = EpochSampler(4)
    first = list(sampler)
    sampler.set_epoch(1)
    assert first + list(sampler) == list(range(8))


@pytest.mark.parametrize("devices", [2, 3])
def test_devices_share_the_samples_of_one(monkeypatch, devices):
    one = EpochSampler(10)
    one.set_epoch(2)
    ranks = []
    for rank in range(devices):
        monkeypatch.setattr("siam_tracker_ros.training.loader._place", lambda r=rank: (r, devices))
        sampler = EpochSampler(10)
        sampler.set_epoch(2)
        ranks.append(list(sampler))
        assert len(sampler) == len(ranks[-1]) == 10 // devices
        sampler.skip(2)
        assert list(sampler) == ranks[-1][2:]  # after two of its own
        assert list(sampler) == ranks[-1]
    dealt = [index for step in zip(*ranks, strict=True) for index in step]
    monkeypatch.undo()
    assert dealt == list(one)[: len(dealt)] and len(dealt) == 10 // devices * devices


def test_validation_has_the_same_indices_every_time():
    sampler = SameEveryTime(4)
    assert list(sampler) == list(sampler) == [0, 1, 2, 3]
    assert not hasattr(sampler, "set_epoch")  # what the training loop would call


@pytest.fixture
def source(tmp_path, make_set):
    rows = [([40 + 3 * i, 50 + i, 60, 50], None) for i in range(6)]
    return SampleSource(
        [read_tar_set(make_set(tmp_path / "reds.tar", rows))],
        CropSpec(129, 257),
        100.0,
        DataConfig(),
        SamplingConfig(negative=0.3),
        AugmentationConfig(),
        1,
        SampleShape(2, 1),
    )


def test_workers_make_the_same_batches(source):
    here, there = (list(make_loader(source, SameEveryTime(8), 4, n)) for n in (0, 2))
    assert len(here) == len(there) == 2
    for a, b in zip(here, there, strict=True):
        assert list(a) == list(Sample._fields)
        assert a["template"].shape == (4, 2, 129, 129, 3)
        assert a["related"].shape == (4, 1, 8, 4)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_sheet_shows_crops_with_their_boxes(source):
    (batch,) = make_loader(source, SameEveryTime(2), 2, 0)
    batch["visible"] = torch.tensor([[1.0], [0.0]])
    batch["boxes"][:] = torch.tensor([128.0, 128.0, 41.0, 61.0])
    batch["related"][:, :, 1] = torch.tensor([60.0, 60.0, 21.0, 21.0])
    batch["related_mask"][:] = 0
    batch["related_mask"][:, :, 1] = 1
    batch["template_boxes"][:] = torch.tensor([64.0, 64.0, 31.0, 31.0])
    sheet = sample_sheet(batch)
    assert sheet.shape == (2 * 257, 2 * 129 + 257, 3)
    for row, colour in ((0, GREEN), (257, RED)):
        for template in (0, 129):
            assert tuple(sheet[row + 64, template + 64 - 15]) == GREEN
        assert tuple(sheet[row + 128, 258 + 128 - 20]) == colour
        assert tuple(sheet[row + 60, 258 + 60 + 10]) == YELLOW
