"""A seen target: where its box goes, how its size follows."""

from __future__ import annotations

import math

import pytest

from siam_tracker_ros.bundle import StepResult
from siam_tracker_ros.geometry import Box, search_crop
from siam_tracker_ros.tracking import TrackState, fake_bundle

START = Box.from_xywh(100, 90, 60, 40)


def test_a_known_trajectory_is_followed(world, make, red):
    tracker, session = make(red)
    first = tracker.initialize(world((100, 90, 60, 40)), START)
    assert first.box == START
    assert (first.state, first.score) == (TrackState.TRACKING, 1.0)
    for frame in range(1, 80):
        # A loop of 60 px radius, up to 5 px a frame, growing to 1.4 times its size.
        angle = frame / 13
        x = round(100 + 60 * math.sin(angle))
        y = round(90 + 40 * (1 - math.cos(angle)))
        w, h = round(60 + 0.3 * frame), round(40 + 0.2 * frame)
        result = tracker.update(world((x, y, w, h), seed=frame))
        assert result.state is TrackState.TRACKING
        assert result.box.iou(Box.from_xywh(x, y, w, h)) > 0.93
    assert session.commits == session.steps == 79


def test_a_target_at_the_centre_stays_where_it_is(world, make, say):
    tracker, _ = make(say())
    tracker.initialize(world(), START)
    for _ in range(5):
        assert tuple(tracker.update(world()).box) == pytest.approx(tuple(START), abs=1e-9)


def test_eight_crop_pixels_are_eight_over_k_image_pixels(world, make, say):
    tracker, _ = make(say(dx=8.0, dy=-8.0))
    tracker.initialize(world(), START)
    k = search_crop(START, fake_bundle().crop).scale
    box = tracker.update(world()).box
    assert (box.cx, box.cy) == pytest.approx((START.cx + 8 / k, START.cy - 8 / k), abs=1e-9)


def test_the_size_follows_by_rate_times_penalty_times_score(world, make, say):
    # eta = rate * exp(-k (change - 1)) * score with change = 1.2 for a box 1.2 times as large.
    tracker, _ = make(say(score=0.9, scale=1.2), size_rate=0.5, penalty=0.3)
    tracker.initialize(world(), START)
    box = tracker.update(world()).box
    eta = 0.5 * math.exp(-0.3 * 0.2) * 0.9
    assert box.w == pytest.approx(60 * (1 + 0.2 * eta))
    assert box.h == pytest.approx(40 * (1 + 0.2 * eta))


def test_a_network_that_makes_the_target_too_large_is_corrected_from_the_first_picture_on(
    world, make, say
):
    # It says 1.21 times the true size; half of that, as a logarithm, is taken off: a factor of 1.1.
    bundle = fake_bundle(tuning={"size_rate": 1.0, "size_bias": 0.5})
    tracker, session = make(say(scale=1.21), bundle, lost=0.0)
    start = session.start
    session.start = lambda template, search, size: (
        start(template, search, size),
        say(scale=1.21)(search, size),
    )[1]
    tracker.initialize(world(), START)
    box = tracker.update(world()).box
    assert (box.w, box.h) == pytest.approx((60 * 1.1, 40 * 1.1))
    assert (box.cx, box.cy) == pytest.approx((START.cx, START.cy))
    tracker.initialize(world(), START)  # a new selection is measured anew
    assert tracker.update(world()).box.w == pytest.approx(60 * 1.1)


def test_a_size_rate_of_zero_keeps_the_size(world, make, say):
    tracker, _ = make(say(scale=1.5), size_rate=0.0)
    tracker.initialize(world(), START)
    assert tracker.update(world()).box.w == pytest.approx(60)


def test_the_box_stays_in_the_picture(world, make, say):
    tracker, _ = make(say(dx=60.0, scale=3.0))
    tracker.initialize(world(), START)
    for _ in range(20):
        box = tracker.update(world()).box
        assert 0 <= box.cx <= 319
        assert 0 <= box.cy <= 239
        assert 4 <= box.w <= 320
        assert 4 <= box.h <= 240
    assert box.cx == 319


def test_boxes_never_get_smaller_than_four_pixels(world, make, say):
    tracker, _ = make(say(scale=0.1))
    tracker.initialize(world(), START)
    for _ in range(30):
        box = tracker.update(world()).box
    assert (box.w, box.h) == (4, 4)


@pytest.mark.parametrize("size", [(-30.0, 20.0), (0.0, 0.0), (1e-9, 1e9)])
def test_sizes_that_no_target_has_do_no_harm(world, make, size):
    # A linear size head may answer anything.
    def odd(search, previous_size):
        return StepResult(Box(127, 127, *size), 0.9, 0.0, (127, 127))

    tracker, _ = make(odd)
    tracker.initialize(world(), START)
    for _ in range(5):
        box = tracker.update(world()).box
        assert box.is_finite()
        assert 4 <= box.w <= 320
        assert 4 <= box.h <= 240


def test_results_that_are_not_finite_are_refused(world, make, say):
    nan = float("nan")
    bad = StepResult(Box(127, nan, 50, 50), 0.9, 0.0, (127, 127))
    tracker, session = make([bad, say()])
    tracker.initialize(world(), START)
    with pytest.raises(ValueError, match="not finite"):
        tracker.update(world())
    assert session.commits == 0
    assert tuple(tracker.update(world()).box) == pytest.approx(tuple(START))


def test_the_outside_is_filled_with_the_first_frames_mean(world, make, say):
    tracker, session = make(say())
    session.keep_searches = True
    first = world()
    tracker.initialize(first, Box.from_xywh(0, 0, 60, 40))
    tracker.update(world((0, 0, 320, 240)))  # red all over; its mean must not matter
    assert tuple(session.searches[0][0, 0]) == first.mean_rgb()


def test_pictures_may_change_their_size(world, make, say):
    tracker, _ = make(say())
    tracker.initialize(world(), START)
    small = tracker.update(world(size=(80, 60))).box
    assert (small.cx, small.cy) == (79, 59)
    assert tracker.update(world(size=(640, 480))).state is TrackState.TRACKING


def test_the_memory_is_the_last_committed_frame_at_its_final_box(world, make, say):
    from dataclasses import replace

    from siam_tracker_ros.bundle import GraphSpec, TensorSpec
    from siam_tracker_ros.geometry import extract_crop

    graph = GraphSpec("search.onnx", (TensorSpec("memory", "uint8", (255, 255, 3)),), ())
    bundle = replace(fake_bundle(), graphs={"search": graph})
    tracker, session = make([say(dx=10), say(score=0.1), say(), say()], bundle)
    pictures = [world(seed=seed) for seed in range(4)]
    boxes = [tracker.initialize(pictures[0], START).box]
    boxes += [tracker.update(picture).box for picture in pictures[1:]]
    fill = pictures[0].mean_rgb()
    # The third frame was uncertain: the fourth still remembers the second.
    for memory, index in zip(session.memories, (0, 1, 1), strict=True):
        region = search_crop(boxes[index], bundle.crop)
        assert (memory.crop == extract_crop(pictures[index], region, fill)).all()
        box = region.box_to_crop(boxes[index])
        assert memory.size == pytest.approx((box.w, box.h))
        assert (box.cx, box.cy) == pytest.approx((127, 127))  # the target is in its middle


def test_no_memory_is_cut_where_the_bundle_does_not_list_it(world, make, say):
    tracker, session = make(say())
    tracker.initialize(world(), START)
    tracker.update(world())
    assert session.memories == [None]
