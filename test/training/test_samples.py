"""Training samples: reproducible, with boxes that are where the object is."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

pytest.importorskip("torch")

from siam_tracker_ros.geometry import CropSpec
from siam_tracker_ros.training.config import (
    AugmentationConfig,
    DataConfig,
    SamplingConfig,
)
from siam_tracker_ros.training.loader import EpochSampler, SameEveryTime
from siam_tracker_ros.training.samples import SampleSource, split_sets
from siam_tracker_ros.training.tar_sets import DataError, read_tar_set

PLAIN = {
    "negative": 0.0,
    "absent": 0.0,
    "distractor": 0.0,
    "occluder": 0.0,
}
STILL = AugmentationConfig(photometric=0.0, low_resolution=0.0, gray=0.0, surround=0.0)


@pytest.fixture
def image_set(tmp_path, make_set):
    boxes = [[40 + 3 * i, 50 + i, 60, 50] for i in range(12)]
    return read_tar_set(
        make_set(
            tmp_path / "reds.tar", [(b, "clip" if i > 5 else None) for i, b in enumerate(boxes)]
        )
    )


def source(image_set, sampling, augmentation=STILL, seed=1):
    return SampleSource(
        [image_set],
        CropSpec(129, 257),
        100.0,
        DataConfig(),
        SamplingConfig(**{**PLAIN, **sampling}),
        augmentation,
        seed,
    )


@pytest.mark.parametrize("kind", ["video", "still", "synthetic"])
def test_the_box_is_where_the_object_is(image_set, kind):
    chances = {"video": 0.0, "still": 0.0, "synthetic": 0.0, kind: 1.0}
    make = source(image_set, chances)
    for index in range(12):
        sample = make(index)
        assert sample.visible.tolist() == [1, 1]
        if kind == "synthetic":  # what is pasted may be another red part on a red part
            continue
        for search, (cx, cy, w, h) in zip(sample.searches, sample.boxes, strict=True):
            red = (search[:, :, 0] > 170) & (search[:, :, 1] < 90)
            rows, columns = np.nonzero(red.any(1))[0], np.nonzero(red.any(0))[0]
            got = np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=float)
            want = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, 256)
            # A turned rectangle reaches further than the box of its inscribed ellipse.
            assert np.abs(got - want).max() < 2 + 0.2 * max(w, h)


def test_samples_are_the_same_for_the_same_seed_and_index(image_set):
    loud = AugmentationConfig()
    a, b = source(image_set, {}, loud), source(image_set, {}, loud)
    other = source(image_set, {}, loud, seed=2)
    b(3)  # order must not matter
    for left, right in zip(a(7), b(7), strict=True):
        assert np.array_equal(left, right)
    assert not np.array_equal(a(7).searches, other(7).searches)


def test_absent_and_negative_samples_are_marked(image_set):
    absent = source(image_set, {"absent": 1.0})
    assert all(sorted(absent(i).visible.tolist()) == [0, 1] for i in range(6))
    negative = source(image_set, {"negative": 1.0})
    assert all(negative(i).visible.tolist() == [0, 0] for i in range(6))


def test_targets_stay_inside_the_response_grid(image_set):
    wide = AugmentationConfig(shift=500.0)
    make = source(image_set, {}, wide)
    boxes = np.concatenate([make(i).boxes for i in range(30)])
    assert np.abs(boxes[:, :2] - 128).max() <= 96.001


def test_nothing_held_out_is_trained_on(image_set):
    data = DataConfig(holdout_videos=("clip",), holdout_every=2)
    kept, held = (split_sets([image_set], data, holdout) for holdout in (False, True))
    assert not kept[0].tracks
    assert list(held[0].tracks) == [("clip", 1)]
    assert not {r.name for r in kept[0].images} & {r.name for r in held[0].images}
    assert not {t.image.name for t in kept[0].stills} & {t.image.name for t in held[0].stills}


def test_every_epoch_has_fresh_indices():
    sampler = EpochSampler(4)
    first = list(sampler)
    sampler.set_epoch(1)
    assert first + list(sampler) == list(range(8))


def test_a_broken_set_names_file_and_line(tmp_path):
    with pytest.raises(DataError, match=r"gone.tar: no such training set"):
        read_tar_set(tmp_path / "gone.tar")
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as tar:
        data = b'{"image": "images/0.jpg"\n'
        info = tarfile.TarInfo("annotations.jsonl")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match=r"bad.tar: annotations.jsonl line 1"):
        read_tar_set(path)


def test_unusable_boxes_are_counted(tmp_path, make_set):
    path = make_set(
        tmp_path / "few.tar",
        [([10, 10, 8, 8], None), ([0, 0, 299, 199], None), ([5, 5, 90, 60], None)],
    )
    image_set = read_tar_set(path)
    assert len(image_set.stills) == 1
    assert image_set.skipped == {"smaller than 10 px or 400 px^2": 1, "covers the picture": 1}


def test_validation_has_the_same_indices_every_time():
    sampler = SameEveryTime(4)
    assert list(sampler) == list(sampler) == [0, 1, 2, 3]
    assert not hasattr(sampler, "set_epoch")  # what the training loop would call
