"""Training samples: reproducible, with boxes that are where the object is."""

from __future__ import annotations

import io
import math
import pickle
import tarfile
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from siam_tracker_ros.geometry import Box, Crop, CropSpec
from siam_tracker_ros.training import augment
from siam_tracker_ros.training.config import (
    AugmentationConfig,
    DataConfig,
    SamplingConfig,
)
from siam_tracker_ros.training.samples import TRIPLET, SampleShape, SampleSource, Search, split_sets
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


EXACT = AugmentationConfig(
    shift=0.0,
    shift_near=0.0,
    scale=0.0,
    aspect=0.0,
    rotation=0.0,
    stretch=0.0,
    template_shift=0.0,
    photometric=0.0,
    low_resolution=0.0,
    gray=0.0,
    surround=0.0,
)
ONLY = {"video": 0.0, "still": 0.0, "synthetic": 0.0}
MEMORY = CropSpec(289, 289, 1.5, "area")


def source(
    image_set, sampling, augmentation=STILL, seed=1, shape=TRIPLET, crop=None, response=100.0
):
    return SampleSource(
        [image_set],
        crop or CropSpec(129, 257),
        response,
        DataConfig(),
        SamplingConfig(**{**PLAIN, **sampling}),
        augmentation,
        seed,
        shape,
    )


def red(image):
    return (image[:, :, 0] > 150) & (image[:, :, 1] < 90) & (image[:, :, 2] < 90)


def blue(image):
    return (image[:, :, 2] > 150) & (image[:, :, 0] < 90) & (image[:, :, 1] < 90)


def pixels(box, image, part=1.0):
    """The pixels of the middle ``part`` of ``box`` (cx, cy, w, h) in ``image``."""
    cx, cy, w, h = (float(v) for v in box)
    n = image.shape[0] - 1
    x1, x2 = (int(np.clip(round(cx + d * part * w / 2), 0, n)) for d in (-1, 1))
    y1, y2 = (int(np.clip(round(cy + d * part * h / 2), 0, n)) for d in (-1, 1))
    return np.s_[y1 : y2 + 1, x1 : x2 + 1]


@pytest.fixture
def herd(tmp_path, make_pictures):
    """Nine pictures of two red squares, a small red one and a blue one; nine of a blue one alone."""
    write, thing = make_pictures
    pictures = []
    for i in range(9):
        pictures.append(
            (
                [
                    thing([30 + i, 40, 50, 40], "ball"),
                    thing([130, 60 + i, 44, 52], "ball"),
                    thing([100, 20, 9, 9], "ball"),
                    thing([220, 110, 40, 40], "cube", (0, 0, 255)),
                ],
                None,
            )
        )
    for i in range(9):
        pictures.append(([thing([60 + i, 70, 60, 44], "cube", (0, 0, 255))], None))
    return read_tar_set(write(tmp_path / "herd.tar", pictures, lambda i: (90, 92 + 6 * i, 90)))


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


def test_a_video_s_absent_frames_are_absent_target_samples(image_set):
    first, *rest = image_set.tracks["clip", 1]
    image_set.tracks = {("clip", 1): rest}
    image_set.absent = {("clip", 1): [replace(first, state="absent")]}
    image_set.annotated = {i: t for i, t in image_set.annotated.items() if i != first.image}
    make = source(image_set, {**ONLY, "video": 1.0, "vanished": 1.0})
    for index in range(6):
        sample = make(index)
        assert sorted(sample.visible.tolist()) == [0, 1]
        assert sample.related_mask.sum(1).tolist() == sample.visible.tolist()


def test_targets_stay_inside_the_response_grid(image_set):
    wide = AugmentationConfig(shift=500.0)
    make = source(image_set, {}, wide)
    boxes = np.concatenate([make(i).boxes for i in range(30)])
    assert np.abs(boxes[:, :2] - 128).max() <= 96.001


def test_a_redrawn_box_is_the_same_part_of_the_object_in_every_crop(image_set):
    exact = replace(EXACT, redrawn=1.0)
    make = source(image_set, {**ONLY, "still": 1.0}, exact)
    plain = source(image_set, {**ONLY, "still": 1.0}, EXACT)
    sizes = set()
    for index in range(8):
        sample = make(index)
        # The red part of a crop, relative to its box: in the template and in both searches alike.
        parts = []
        for image, box in zip(
            [*sample.template, *sample.searches],
            [*sample.template_boxes, *sample.boxes],
            strict=True,
        ):
            rows, columns = (np.nonzero(red(image).any(axis))[0] for axis in (1, 0))
            edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - 0.5
            parts.append((edges - np.tile(box[:2], 2)) / np.tile(box[2:], 2))
        assert np.abs(parts - parts[0]).max() < 0.04
        half = np.abs(parts[0])
        assert half.max() < 0.5 * math.exp(augment.REDRAWN_SCALE) + 0.2
        sizes.add(tuple(np.round(parts[0], 2)))
    assert len(sizes) == 8
    assert not np.array_equal(make(0).boxes, plain(0).boxes)


def test_nothing_held_out_is_trained_on(image_set):
    data = DataConfig(holdout_videos=("clip",), holdout_every=2)
    kept, held = (split_sets([image_set], data, holdout) for holdout in (False, True))
    assert not kept[0].tracks
    assert list(held[0].tracks) == [("clip", 1)]
    assert not {r.name for r in kept[0].images} & {r.name for r in held[0].images}
    assert not {t.image.name for t in kept[0].stills} & {t.image.name for t in held[0].stills}


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


def test_a_sample_has_the_shape_that_was_asked_for(image_set):
    for m, n in ((1, 2), (3, 1), (2, 3)):
        sample = source(image_set, {}, AugmentationConfig(), shape=SampleShape(m, n))(4)
        assert {name: (v.shape, v.dtype.name) for name, v in sample._asdict().items()} == {
            "template": ((m, 129, 129, 3), "uint8"),
            "template_boxes": ((m, 4), "float32"),
            "searches": ((n, 257, 257, 3), "uint8"),
            "boxes": ((n, 4), "float32"),
            "visible": ((n,), "float32"),
            "related": ((n, 8, 4), "float32"),
            "related_mask": ((n, 8), "float32"),
        }


@pytest.mark.parametrize("kind", ["video", "still"])
@pytest.mark.parametrize("crop", [CropSpec(129, 257), MEMORY])
def test_template_boxes_are_where_the_object_is(image_set, kind, crop):
    jitter = AugmentationConfig(
        template_shift=20.0, template_scale=0.2, photometric=0.0, low_resolution=0.0, gray=0.0, surround=0.0
    )  # fmt: skip
    make = source(image_set, {**ONLY, kind: 1.0}, jitter, shape=SampleShape(2, 1), crop=crop)
    for index in range(10):
        sample = make(index)
        for image, (cx, cy, w, h) in zip(sample.template, sample.template_boxes, strict=True):
            seen = red(image)
            rows, columns = np.nonzero(seen.any(1))[0], np.nonzero(seen.any(0))[0]
            got = np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=float)
            want = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, crop.template - 1)
            turned = crop == MEMORY
            assert np.abs(got - want).max() < 2 + (0.2 if turned else 0.0) * max(w, h)


def test_a_template_without_jitter_is_the_tracker_s_own(image_set):
    own = source(image_set, {}, EXACT)(0)
    cx, cy, w, h = own.template_boxes[0]
    assert (cx, cy) == (64, 64)
    p = (w + h) / 2
    assert (w + p) * (h + p) == pytest.approx(129**2, rel=1e-5)  # the context rule's square


def test_memory_crops_follow_the_area_rule(image_set):
    sample = source(image_set, {}, EXACT, shape=SampleShape(3, 1), crop=MEMORY)(1)
    for box in (*sample.template_boxes, *sample.boxes):
        assert box[:2] == pytest.approx((144, 144), abs=1e-4)
        assert box[2] * box[3] == pytest.approx(72.25**2, rel=1e-5)  # side = 4 sqrt(w h)


def test_template_jitter_has_its_bounds(image_set):
    jitter = AugmentationConfig(template_shift=6.0, template_scale=0.3)
    make = source(image_set, {**ONLY, "video": 1.0}, jitter)
    boxes = np.concatenate([make(i).template_boxes for i in range(60)])
    assert 4.5 < np.abs(boxes[:, :2] - 64).max() <= 6.001
    # 60 x 50 boxes: the side of the template's crop is 114.89 image px before jitter.
    grown = np.log(boxes[:, 2] / (60 * 129 / np.sqrt((60 + 55) * (50 + 55))))
    assert 0.22 < np.abs(grown).max() <= 0.3001
    assert grown.min() < -0.15 and grown.max() > 0.15


def test_every_crop_of_a_still_has_its_own_augmentation(image_set):
    sample = source(
        image_set,
        {**ONLY, "still": 1.0},
        AugmentationConfig(),
        shape=SampleShape(3, 2),
        crop=MEMORY,
    )(2)
    crops = [*sample.template, *sample.searches]
    for i, a in enumerate(crops):
        assert not any(np.array_equal(a, b) for b in crops[:i])


def test_without_category_only_the_visible_target_is_related(tmp_path, make_pictures):
    write, thing = make_pictures
    pair = [thing([40, 50, 50, 40], None), thing([130, 60, 50, 40], None)]
    plain = read_tar_set(write(tmp_path / "plain.tar", [(pair, None)] * 4))
    for kind in ("still", "synthetic"):
        make = source(plain, {**ONLY, kind: 1.0, "absent": 0.5})
        samples = [make(i) for i in range(12)]
        for sample in samples:
            assert sample.related_mask.sum(1).tolist() == sample.visible.tolist()
            seen = sample.visible > 0
            assert np.array_equal(sample.related[seen, 0], sample.boxes[seen])
            assert not sample.related[~seen].any()
        assert {0.0, 1.0} == {v for sample in samples for v in sample.visible.tolist()}


def test_related_boxes_are_where_the_objects_of_the_category_are(herd):
    turned = AugmentationConfig(
        shift=40.0, rotation=12.0, stretch=0.1, photometric=0.0, low_resolution=0.0, gray=0.0, surround=0.0
    )  # fmt: skip
    make = source(herd, {**ONLY, "still": 1.0}, turned)
    counts = []
    for index in range(40):
        sample = make(index)
        middle = sample.template[0, 64, 64]
        mine, other = (red, blue) if middle[0] > 150 else (blue, red)
        for image, boxes, mask in zip(
            sample.searches, sample.related, sample.related_mask, strict=True
        ):
            found = boxes[mask > 0]
            counts.append((mine is red, len(found)))
            left = mine(image)
            for box in found:
                # The middle of a related box is an object of the category, whole.
                assert mine(image)[pixels(box, image, 0.5)].all()
                assert not other(image)[pixels(box, image, 0.5)].any()
                left[pixels(box, image, 1.4)] = False
            # What is of the category and not in a box has its centre outside the response.
            regions = cv2.connectedComponentsWithStats(left.astype(np.uint8))
            for (x, y, w, h, area), centre in list(zip(regions[2], regions[3], strict=True))[1:]:
                whole = min(x, y) > 0 and max(x + w, y + h) < 257 and area > 20
                assert not whole or np.abs(centre - 128).max() > 96
            assert np.allclose(found[0], sample.boxes[len(counts) % 2 - 1], atol=1e-3)
    assert max(n for is_red, n in counts if is_red) == 3  # the small one is one of them
    assert {n for is_red, n in counts if not is_red} == {1}


def test_a_deformed_box_is_the_extent_of_the_inscribed_ellipse():
    crop, box = Crop(100, 80, 50, 101), Box(110, 85, 20, 8)
    straight = augment.deformed_box(box, crop, np.eye(2))
    assert tuple(straight) == pytest.approx(tuple(crop.box_to_crop(box)))
    quarter = augment.deformed_box(box, crop, np.array([[0.0, -1.0], [1.0, 0.0]]))
    k = 101 / 50
    assert tuple(quarter) == pytest.approx((50 - 5 * k, 50 + 10 * k, 8 * k, 20 * k))


def test_what_is_related_must_be_seen():
    image = np.zeros((257, 257, 3), np.uint8)
    target = Box(128, 128, 40, 40)
    # A quarter of 100 px inside is the limit: edges at -0.5 and 256.5.
    inside, outside = Box(-24.5, 128, 100, 40), Box(-26.5, 128, 100, 40)
    search = Search(image, target, True, [inside, outside])
    assert search.related_boxes(200.0) == [target, inside]
    assert search.related_boxes(100.0) == [target]  # centres outside the response
    beside = Box(180, 128, 40, 40)
    search = Search(image, target, True, [beside])
    search.lay(Box(170, 128, 40, 60), related=False)  # hides x 160 ... 190: 30 of 40
    assert search.related_boxes(100.0) == [target]
    search = Search(image, target, True, [beside])
    search.lay(Box(150, 128, 50, 60), related=True)  # hides x 160 ... 175: 15 of 40
    assert search.related_boxes(100.0) == [target, Box(150, 128, 50, 60), beside]
    search.visible = False
    assert search.related_boxes(100.0) == [Box(150, 128, 50, 60), beside]
    many = [Box(128 + 5 * i, 128, 30, 30) for i in range(12, 0, -1)]
    found = Search(image, target, True, many).related_boxes(100.0)
    assert [b.cx for b in found] == [128, 133, 138, 143, 148, 153, 158, 163]


def test_a_covered_target_is_not_related_and_what_is_pasted_may_be(herd):
    make = source(herd, {**ONLY, "still": 1.0, "absent": 1.0}, EXACT, shape=SampleShape(1, 1))
    pasted = 0
    for index in range(40):
        sample = make(index)
        assert sample.visible.tolist() == [0]
        found = sample.related[0][sample.related_mask[0] > 0]
        mine = red if sample.template[0, 64, 64, 0] > 150 else blue
        for box in found:
            assert mine(sample.searches[0])[pixels(box, sample.searches[0], 0.4)].mean() > 0.5
            over = np.allclose(box[:2], 128, atol=1e-3)
            pasted += over
            assert not over or box[2] > 1.09 * sample.boxes[0, 2]
    assert 5 < pasted < 35


def test_same_category_samples_show_another_instance(herd):
    make = source(herd, {**ONLY, "still": 1.0, "same_category": 1.0}, EXACT)
    for index in range(30):
        sample = make(index)
        assert sample.visible.tolist() == [0, 0]
        assert np.array_equal(sample.related[:, 0], sample.boxes)
        mine = red if sample.template[0, 64, 64, 0] > 150 else blue
        ground = [int(np.median(i[:, :, 1][i[:, :, 1] > 60])) for i in sample.searches]
        here = sample.template[0, :, :, 1]
        assert abs(int(np.median(here[here > 60])) - ground[0]) >= 4  # another picture
        for image, boxes, mask in zip(
            sample.searches, sample.related, sample.related_mask, strict=True
        ):
            for box in boxes[mask > 0]:
                assert mine(image)[pixels(box, image, 0.6)].all()


def test_without_categories_same_category_samples_are_negative(tmp_path, make_pictures):
    write, thing = make_pictures
    rows = [([thing([40 + i, 50, 50, 40], None)], None) for i in range(5)]
    ground = read_tar_set(write(tmp_path / "bare.tar", rows, lambda i: (90, 100 + 20 * i, 90)))
    make = source(ground, {**ONLY, "still": 1.0, "same_category": 1.0}, EXACT)
    for index in range(12):
        sample = make(index)
        assert not sample.visible.any() and not sample.related_mask.any()
        levels = [int(i[2, 2, 1]) for i in (sample.template[0], *sample.searches)]
        assert abs(levels[0] - levels[1]) > 10 and levels[1] == levels[2]


def test_negative_samples_are_of_another_category(herd):
    chances = {**ONLY, "still": 1.0, "negative": 1.0, "distractor": 1.0, "occluder": 0.5}
    make = source(herd, chances, EXACT)
    reds = 0
    for index in range(30):
        sample = make(index)
        assert not sample.visible.any() and not sample.related_mask.any()
        if sample.template[0, 64, 64, 0] > 150:
            reds += 1
            assert (
                blue(sample.searches[0])[pixels(sample.boxes[0], sample.searches[0], 0.6)].mean()
                > 0.8
            )
            assert not red(sample.searches[0]).any()  # nor beside it, nor pasted
    assert 10 < reds < 30


def test_same_category_samples_have_the_share_that_was_asked_for(herd):
    mixed = {"video": 0.0, "still": 0.5, "synthetic": 0.5, "negative": 0.25, "same_category": 0.25}
    make = source(herd, mixed, EXACT, shape=SampleShape(1, 1))
    kinds = {"instance": 0, "category": 0, "none": 0}
    for index in range(200):
        sample = make(index)
        kinds[
            "instance" if sample.visible[0] else "category" if sample.related_mask.any() else "none"
        ] += 1
    # Three standard deviations of a share of one quarter of 200 are 18.
    assert abs(kinds["category"] - 50) <= 18 and abs(kinds["none"] - 50) <= 18


@pytest.mark.parametrize("shape", [SampleShape(3, 1), SampleShape(1, 2)])
def test_a_copy_in_another_process_makes_the_same_samples(herd, shape):
    chances = {"negative": 0.2, "same_category": 0.3, "absent": 0.3, "distractor": 0.5}
    make = source(herd, chances, AugmentationConfig(), shape=shape)
    make(0)
    again = pickle.loads(pickle.dumps(make))
    for index in (3, 11, 5):
        for left, right in zip(make(index), again(index), strict=True):
            assert np.array_equal(left, right)
