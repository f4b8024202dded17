"""Which pictures a sample is drawn from."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.training.config import DataConfig, SamplingConfig
from siam_tracker_ros.training.samples import split_sets
from siam_tracker_ros.training.synthetic_clips import (
    ClipMaker,
    Cutout,
    elliptic,
    outlined,
    tilted,
    turned,
)
from siam_tracker_ros.training.tar_sets import read_tar_set
from siam_tracker_ros.training.views import ViewSource, mirrored

RNG = np.random.default_rng


def frame_of(view):
    """The frame's number: pictures are 10 gray levels apart."""
    return round((int(view.picture.array[-1, -1, 1]) - 5) / 10)


@pytest.fixture
def films(tmp_path, make_pictures):
    write, thing = make_pictures
    rows = [([thing([50 + i, 60, 60, 44], None)], "long") for i in range(20)]
    rows += [([thing([50 + i, 60, 60, 44], None)], "short") for i in range(2)]
    return read_tar_set(write(tmp_path / "films.tar", rows, lambda i: (5 + 10 * i,) * 3))


def drawn(films, count, **sampling):
    views = ViewSource(
        [films], DataConfig(), SamplingConfig(**{"negative": 0.0, "synthetic": 0.0, **sampling}), []
    )
    return [views(RNG(i), count - 1, 1) for i in range(40)]


def test_frames_are_distinct_and_near_their_anchor(films):
    long = 0
    for _, templates, searches in drawn(films, 4, max_gap=5):
        frames = [frame_of(v) for v in (*templates, *searches)]
        if max(frames) < 20:
            long += 1
            assert len(set(frames)) == 4
            assert all(abs(f - frames[0]) <= 5 for f in frames)
        else:
            assert set(frames) == {20, 21}  # a short track: its frames come again
    assert 10 < long < 30


def test_frames_wider_apart_than_the_gap_still_serve(films):
    films.tracks = {("long", 1): films.tracks["long", 1][::10]}
    for _, templates, searches in drawn(films, 2, max_gap=5):
        assert {frame_of(templates[0]), frame_of(searches[0])} == {0, 10}


def test_a_negative_sample_is_of_another_video(films):
    for pair, templates, searches in drawn(films, 3, negative=1.0):
        assert pair == "none"
        assert len({frame_of(v) < 20 for v in templates}) == 1
        assert (frame_of(templates[0]) < 20) != (frame_of(searches[0]) < 20)


def test_one_scene_alone_has_cut_outs_for_negatives(films):
    films.tracks = {("long", 1): films.tracks["long", 1]}
    for pair, templates, searches in drawn(films, 2, negative=1.0):
        assert pair == "none"
        assert templates[0].filmed and not searches[0].filmed


def test_tracks_have_categories_too(tmp_path, make_pictures):
    write, thing = make_pictures
    pair = [thing([40, 50, 60, 44], "ball"), thing([170, 60, 50, 60], "ball")]
    rows = [(pair, video) for video in "abc" for _ in range(3)]
    films = read_tar_set(write(tmp_path / "films.tar", rows, lambda i: (5 + 10 * i,) * 3))
    for pair, templates, searches in drawn(films, 2, same_category=1.0):
        assert pair == "category"
        assert frame_of(templates[0]) // 3 != frame_of(searches[0]) // 3
        (other,) = searches[0].related
        assert {searches[0].box.w, other.w} == {60, 50}


def test_absent_frames_are_searched_and_hidden_objects_are_no_templates(films):
    track = films.tracks["long", 1]
    films.tracks = {
        ("long", 1): [replace(t, state="occluded") if t.frame >= 10 else t for t in track],
        ("short", 1): films.tracks["short", 1],
    }
    films.absent = {("long", 1): [replace(films.tracks["short", 1][0], state="absent", frame=15)]}
    gone = 0
    for _, templates, searches in drawn(films, 4, vanished=0.5):
        frames = [frame_of(v) for v in (*templates, *searches) if v.visible]
        if max(frames) < 20:
            assert [f >= 10 for f in frames] == sorted(f >= 10 for f in frames)  # hidden ones last
            gone += not searches[0].visible
            assert searches[0].visible == (frame_of(searches[0]) != 20)
        assert all(v.visible for v in templates)
    assert 4 < gone < 20  # half of those of the long video


def test_sets_are_drawn_by_their_weights(tmp_path, make_set):
    rows = [([40 + 3 * i, 50, 60, 50], None) for i in range(3)]
    sets = [read_tar_set(make_set(tmp_path / f"{name}.tar", rows)) for name in ("a", "b")]
    views = ViewSource(sets, DataConfig(sets={"a": 3.0, "b": 1.0}), SamplingConfig(), [])
    rng = RNG(1)
    names = [views._thing(rng, "still").scene[0] for _ in range(400)]
    assert abs(names.count("a") - 300) < 26  # three standard deviations


def test_mirrored_views_have_mirrored_boxes(films):
    _, templates, _ = drawn(films, 2)[0]
    (view,) = mirrored(templates)
    x, y, w, h = (round(v) for v in view.box.xywh)
    found = (view.picture.array[:, :, 0] > 200) & (view.picture.array[:, :, 1] < 60)
    rows, columns = np.nonzero(found.any(1))[0], np.nonzero(found.any(0))[0]
    assert (columns[0], rows[0], columns[-1], rows[-1]) == (x, y, x + w - 1, y + h - 1)
    twice = mirrored([templates[0], templates[0]])
    assert twice[0] is twice[1]


def test_what_is_too_small_to_follow_stays_annotated(tmp_path, make_pictures):
    write, thing = make_pictures
    rows = [([thing([40, 50, 60, 44]), thing([200, 50, 8, 8])], None) for _ in range(6)]
    images = read_tar_set(write(tmp_path / "few.tar", rows))
    (half,) = split_sets([images], DataConfig(holdout_every=2), False)
    for target in (*images.stills, *half.stills):
        assert [round(t.box.w) for t in images.annotated[target.image]] == [60, 8]
    assert half.annotated == images.annotated and len(half.stills) < len(images.stills)


def test_clips_follow_their_object_and_tell_objects_apart(tmp_path):
    colours = [(0, 0, 255), (0, 255, 0), (255, 0, 0)]
    for i, colour in enumerate(colours):
        image = np.zeros((240, 160, 4), np.uint8)
        image[:, :, :3], image[5:235, 5:155, 3] = colour, 255
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    gray = np.full((240, 320, 3), 128, np.uint8)
    files = sorted(tmp_path.glob("*.png"))
    clips = ClipMaker(files, lambda rng: gray, lambda rng: elliptic(gray), 0.0)
    rng = RNG(4)
    for _ in range(30):
        cutout = clips.cutout(rng)
        assert clips.cutout(rng, cutout) is not cutout
        clip = clips.clip(rng, cutout, 4)
        assert len(clip) == 4
        for image, box in clip:
            x1, y1, x2, y2 = (round(v) for v in (*box.xywh[:2], box.edges[2], box.edges[3]))
            middle = image[(y1 + y2) // 2, (x1 + x2) // 2].astype(int)
            assert np.abs(middle - cutout.rgb[100, 70]).max() <= 2
            own = np.abs(image.astype(int) - cutout.rgb[100, 70]).max(2) < 60
            rows, columns = np.nonzero(own.any(1))[0], np.nonzero(own.any(0))[0]
            got = (columns[0], rows[0], columns[-1], rows[-1])
            assert np.abs(np.subtract(got, (x1, y1, x2, y2))).max() <= 2


def test_photographed_objects_are_told_apart_too():
    dark, light = (elliptic(np.full((40, 40, 3), colour, np.uint8)) for colour in (60, 200))
    gray = np.full((240, 320, 3), 128, np.uint8)
    clips = ClipMaker([], lambda rng: gray, lambda rng: (dark, light)[int(rng.integers(2))], 1.0)
    rng = RNG(0)
    found = [clips.cutout(rng, dark) for _ in range(20)]
    assert all(cutout is light for cutout in found)
    alone = ClipMaker([], lambda rng: gray, lambda rng: dark, 1.0)
    assert alone.cutout(rng, dark) is dark


def photograph(rng: np.random.Generator) -> np.ndarray:
    """A noisy green field with a noisy red disc, centre (150, 110) and radius 40."""
    image = np.empty((220, 300, 3), np.uint8)
    image[:] = (60, 140, 60)
    cv2.circle(image, (150, 110), 40, (190, 60, 50), -1)
    noisy = image.astype(int) + rng.integers(-20, 21, image.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def test_an_object_is_cut_out_along_its_outline():
    image = photograph(RNG(1))
    cutout = outlined(image, Box(150, 110, 81, 81))
    assert cutout is not None
    assert np.abs(np.subtract(cutout.alpha.shape, 81)).max() <= 3
    wanted = elliptic(cutout.rgb).alpha > 127
    found = cutout.alpha > 127
    assert (found & wanted).sum() / (found | wanted).sum() > 0.95
    assert cutout.rgb[found][:, 0].mean() > 180 > 100 > cutout.rgb[found][:, 1].mean()
    again = outlined(image, Box(150, 110, 81, 81))
    assert again is not None and np.array_equal(again.alpha, cutout.alpha)


@pytest.mark.parametrize(
    "box",
    [
        Box(150, 110, 8, 8),  # small
        Box(149.5, 109.5, 300, 220),  # nothing around it
        Box(110, 110, 160, 80),  # the object is not what the box says
        Box(50, 40, 60, 50),  # nothing in it
        Box(-200, -200, 50, 50),  # beside the picture
    ],
)
def test_an_outline_that_cannot_be_told_is_none(box):
    assert outlined(photograph(RNG(1)), box) is None


def test_what_is_tilted_and_turned_stays_in_its_outline():
    rng = RNG(3)
    rgb = np.zeros((60, 90, 3), np.uint8)
    rgb[:] = (200, 30, 30)
    whole = Cutout(rgb, np.full((60, 90), 255, np.uint8))
    shapes = set()
    for angle in (0.0, 20.0, -75.0):
        seen = turned(tilted(rng, whole), angle)
        inside = seen.alpha > 127
        assert inside.any(0).all() and inside.any(1).all()  # cropped to it
        assert 0.6 < inside.sum() / (60 * 90) < 1.5
        assert np.abs(seen.rgb[seen.alpha == 255].astype(int) - (200, 30, 30)).max() <= 4
        shapes.add(seen.alpha.shape)
    assert len(shapes) == 3


def test_objects_of_clips_come_out_of_stills_along_their_outlines(tmp_path, make_set):
    box = [110, 70, 81, 81]
    images = read_tar_set(make_set(tmp_path / "field.tar", [(box, None)] * 3))
    sampling = SamplingConfig(video=0, still=0, synthetic=1)
    source = ViewSource([images], DataConfig(), sampling, [])
    full = source.clips.cutout(RNG(0))  # a box that is full gives no outline: an ellipse serves
    assert np.array_equal(full.alpha, elliptic(full.rgb).alpha)
    source = ViewSource([images], DataConfig(), sampling, [])
    source.load = lambda ref: photograph(RNG(1))
    cutout = source.clips.cutout(RNG(0))
    assert 0.7 < (cutout.alpha > 127).mean() < 0.85  # a disc: pi / 4
    assert not np.array_equal(cutout.alpha, elliptic(cutout.rgb).alpha)
    assert cutout.rgb[cutout.alpha > 127][:, 0].mean() > 170
    assert source.clips.cutout(RNG(0)) is cutout  # kept
