"""Made clips: the truth is where the target is, the two halves share no source, the same seed gives the same clip."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from siam_tracker_ros.training.config import DataConfig
from siam_tracker_ros.training.presence_clips import halves, presence_clips
from siam_tracker_ros.training.tar_sets import DataError, ImageSet, read_tar_set

DATA = DataConfig(sets={"reds": 1.0})


@pytest.fixture(scope="module")
def sets(tmp_path_factory, make_set):
    path = tmp_path_factory.mktemp("sets") / "reds.tar"
    rows = [([100 + i, 60, 60, 50], None) for i in range(24)]
    make_set(path, rows + [([40 + 3 * i, 50, 60, 50], "clip") for i in range(6)])
    return [read_tar_set(path)]


@pytest.fixture(scope="module")
def clips(sets):
    return presence_clips(sets, DATA, 24, seed=3)


def test_the_halves_share_no_picture_and_lose_none(sets):
    parts = halves(sets)
    names = [{t.image.name for s in half for t in s.stills} for half in parts]
    assert not names[0] & names[1]
    assert names[0] and names[1]
    assert names[0] | names[1] == {t.image.name for t in sets[0].stills}
    assert sorted(len(half[0].tracks) for half in parts) == [0, 1]


def test_a_target_that_is_sure_is_red_where_the_truth_says(clips):
    checked = 0
    for clip in clips[:8]:
        for frame, box, sure in zip(clip.sequence, clip.sequence.boxes, clip.sure, strict=True):
            if sure and np.isfinite(box).all() and min(box[2:]) > 12:
                x, y, w, h = box
                middle = frame[
                    round(y + 0.45 * h) : round(y + 0.55 * h) + 1,
                    round(x + 0.45 * w) : round(x + 0.55 * w) + 1,
                ].reshape(-1, 3)
                blue, _, red = middle.mean(axis=0)
                checked += 1
                if clip.kind != "covered":  # red things may pass in front, others may not hide it
                    assert red > 1.3 * blue
    assert checked > 200


def test_targets_leave_for_a_while_and_come_back(clips):
    kinds = {clip.kind for clip in clips}
    assert {"stays", "covered", "cut"} <= kinds
    for clip in clips:
        present = clip.sequence.present
        assert present[:10].all() and clip.sure[0]
        gone = np.flatnonzero(~present)
        if clip.kind in ("covered", "cut"):
            assert 6 <= len(gone) <= 25
            assert present[-1]
        elif clip.kind == "stays":
            assert len(gone) < 5


def test_the_same_seed_gives_the_same_frames(sets, clips):
    again = presence_clips(sets, DATA, 2, seed=3)[1]
    other = presence_clips(sets, DATA, 2, seed=4)[1]
    np.testing.assert_array_equal(again.sequence.boxes, clips[1].sequence.boxes)
    for a, b, _ in zip(again.sequence, clips[1].sequence, range(12), strict=False):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(other.sequence.boxes, again.sequence.boxes)


def test_nothing_held_out_is_said():
    with pytest.raises(DataError, match="no object to make a clip of"):
        presence_clips([ImageSet("none")], DATA, 2, seed=1)
    with pytest.raises(ValueError, match="40 frames"):
        presence_clips([ImageSet("none")], DATA, 2, seed=1, frames=20)
