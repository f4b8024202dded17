from __future__ import annotations

import numpy as np
import pytest

from siam_tracker_ros.evaluation.synthetic import SyntheticFrames, synthetic_sequence


def test_the_target_is_where_the_truth_says():
    clip = synthetic_sequence(320, 240, 40, seed=2)
    ground = clip.frames._ground
    for frame, (x, y, w, h) in zip(clip, clip.boxes.astype(int), strict=True):
        changed = (frame != ground).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert x <= columns[0] <= x + 1 and x + w - 2 <= columns[-1] <= x + w - 1
        assert y <= rows[0] <= y + 1 and y + h - 2 <= rows[-1] <= y + h - 1


def test_boxes_stay_inside_and_move():
    boxes = synthetic_sequence(1280, 720, 240).boxes
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= 1280).all() and (boxes[:, 1] + boxes[:, 3] <= 720).all()
    assert np.ptp(boxes[:, 0]) > 300 and np.ptp(boxes[:, 2]) > 10


def test_the_same_seed_gives_the_same_clip():
    first, second = (list(SyntheticFrames(96, 64, 3, seed=5)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    other = next(iter(SyntheticFrames(96, 64, 3, seed=6)))
    assert (first[0] != other).any()


def test_refuses_a_clip_without_room():
    with pytest.raises(ValueError, match="64 x 64"):
        SyntheticFrames(32, 32, 3)
