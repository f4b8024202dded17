"""Reading a selection, and which image it means."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.nodes.frames import Frame, stamp_text
from siam_tracker_ros.nodes.selection import (
    NoFrameError,
    SelectionRules,
    choose_frame,
    read_selection,
    upright,
)

MS = 1_000_000
RULES = SelectionRules(tolerance=0.05)
PICTURE = ArrayPicture(np.zeros((4, 4, 3), np.uint8))


def frames(*stamps: int) -> list[Frame]:
    return [Frame(i, stamp, "camera", None, PICTURE, 0.0) for i, stamp in enumerate(stamps)]


def detection(**changes: Any) -> Any:
    hypothesis = SimpleNamespace(class_id="duck", score=0.5)
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=5), frame_id="camera"),
        bbox=SimpleNamespace(
            center=SimpleNamespace(position=SimpleNamespace(x=10.0, y=20.0), theta=0.0),
            size_x=6.0,
            size_y=8.0,
        ),
        results=[SimpleNamespace(hypothesis=hypothesis)],
        id="mine",
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_a_message_is_read() -> None:
    selection = read_selection(detection())
    assert selection.box == Box(10.0, 20.0, 6.0, 8.0)
    assert (selection.stamp, selection.frame_id) == (3_000_000_005, "camera")
    assert (selection.id, selection.label, selection.rotated) == ("mine", "duck", False)
    assert read_selection(detection(results=[], id="")).label == "target"


def test_a_turned_box_becomes_the_upright_one_around_it() -> None:
    message = detection()
    message.bbox.center.theta = math.pi / 2
    selection = read_selection(message)
    assert selection.rotated
    assert list(selection.box) == pytest.approx([10.0, 20.0, 8.0, 6.0])
    diagonal = upright(Box(0.0, 0.0, 2.0, 2.0), math.pi / 4)
    assert diagonal.w == diagonal.h == pytest.approx(2 * math.sqrt(2))
    assert upright(Box(1, 2, 3, 4), -0.3) == upright(Box(1, 2, 3, 4), 0.3)
    assert not upright(Box(1, 2, 3, 4), math.inf).is_finite()


@pytest.mark.parametrize(
    ("stamp", "stamps", "chosen"),
    [
        (0, (100, 133), 133),  # zero: the newest
        (133, (100, 133), 133),  # exact
        (100, (100, 133), 100),  # exact, though not the newest
        (110, (100, 133), 100),  # nearest
        (120, (100, 133), 133),
        (60, (100,), 100),  # at the tolerance's end, from before
        (50, (100,), 100),
    ],
)
def test_the_image_that_is_meant(stamp: int, stamps: tuple[int, ...], chosen: int) -> None:
    found = choose_frame(stamp * MS, frames(*(s * MS for s in stamps)), RULES, may_wait=True)
    assert found is not None and found.stamp == chosen * MS


def test_a_later_image_is_waited_for_even_if_one_is_near() -> None:
    """The image of exactly that stamp may be the next one."""
    in_hand = frames(100 * MS)
    assert choose_frame(133 * MS, in_hand, RULES, may_wait=True) is None
    late = choose_frame(133 * MS, in_hand, RULES, may_wait=False)
    assert late is not None and late.stamp == 100 * MS
    assert choose_frame(0, [], RULES, may_wait=True) is None


@pytest.mark.parametrize(
    ("stamp", "stamps", "words"),
    [
        (49, (100,), "0.051 s older than the oldest image kept (0.100000000); history_seconds"),
        (151, (100,), "0.051 s newer than the newest image's (0.100000000), and no such image"),
        (160, (100, 300), "no image is near its stamp 0.160000000: the nearest is 0.060 s away"),
        (70, (0, 0), "the images carry none (zero)"),
        (0, (), "no image has been received"),
        (5, (), "no image has been received"),
    ],
)
def test_no_image_is_near_enough(stamp: int, stamps: tuple[int, ...], words: str) -> None:
    with pytest.raises(NoFrameError) as error:
        choose_frame(stamp * MS, frames(*(s * MS for s in stamps)), RULES, may_wait=False)
    assert words in str(error.value)


def test_a_stale_selection_may_take_the_oldest_image() -> None:
    rules = SelectionRules(stale="oldest")
    found = choose_frame(5 * MS, frames(100 * MS, 133 * MS), rules, may_wait=True)
    assert found is not None and found.stamp == 100 * MS
    with pytest.raises(NoFrameError, match="no image is near"):  # but none for a gap
        choose_frame(200 * MS, frames(100 * MS, 300 * MS), rules, may_wait=True)


def test_stamps_are_printed_as_ros_tools_print_them() -> None:
    assert stamp_text(3_000_000_005) == "3.000000005"
