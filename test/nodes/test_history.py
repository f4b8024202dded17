"""The images of the last seconds: bounded, in order, and without pixels that somebody decoded."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from siam_tracker_ros.geometry import ArrayPicture
from siam_tracker_ros.nodes.encodings import Lazy
from siam_tracker_ros.nodes.frames import SECOND, Frame
from siam_tracker_ros.nodes.history import History

PICTURE = ArrayPicture(np.zeros((4, 4, 3), np.uint8))


def frame(number: int, seconds: float, nbytes: int = 100) -> Frame:
    return Frame(number, round(seconds * SECOND), "camera", None, PICTURE, 0.0, nbytes)


def numbers(history: History, after: int = -1) -> list[int]:
    return [frame.number for frame in history.frames(after)]


def test_the_oldest_go_when_bytes_run_out() -> None:
    history = History(max_bytes=350, max_seconds=100.0)
    for i in range(6):
        history.add(frame(i, i))
    assert numbers(history) == [3, 4, 5] and history.nbytes == 300
    assert numbers(history, after=4) == [5]
    history.add(frame(6, 6, nbytes=250))
    assert numbers(history) == [5, 6] and history.nbytes == 350
    history.set_bounds(0, 100.0)
    assert numbers(history) == [6] and len(history) == 1  # the newest is always there
    history.add(frame(7, 7, nbytes=10**9))
    assert numbers(history) == [7]


def test_the_oldest_go_when_they_are_too_old() -> None:
    history = History(max_bytes=10**9, max_seconds=1.0)
    for i in range(30):
        history.add(frame(i, i / 10))
    assert numbers(history) == list(range(19, 30))
    history.set_bounds(10**9, 0.25)
    assert numbers(history) == [27, 28, 29]


def test_stamps_that_jump_back_are_a_new_time() -> None:
    history = History()
    for i, seconds in enumerate((10.0, 10.1, 10.1, 3.0, 3.1)):
        history.add(frame(i, seconds))
    assert numbers(history) == [3, 4] and history.nbytes == 200
    history.clear()
    assert numbers(history) == [] and history.nbytes == 0


def test_images_without_stamps_are_bounded_too() -> None:
    history = History(max_bytes=500)
    for i in range(100):
        history.add(frame(i, 0.0))
    assert numbers(history) == [95, 96, 97, 98, 99]


def test_it_never_holds_decoded_pixels() -> None:
    decoded: list[int] = []

    def make(number: int) -> Lazy:
        def read() -> ArrayPicture:
            decoded.append(number)
            return PICTURE

        return Lazy(4, 4, read)

    history = History()
    for i in range(3):
        received = Frame(i, i, "camera", None, make(i), 0.0, 10)
        received.picture.mean_rgb()  # the live image is followed in
        history.add(received)
    assert decoded == [0, 1, 2]
    for _ in range(2):
        found = history.frames()
        found[1].picture.mean_rgb()
        found[1].picture.rgb_region(0, 0, 2, 2)  # decoded once by each reader
    assert decoded == [0, 1, 2, 1, 1]
    assert all(kept.picture._picture is None for kept in history._frames)


def test_raw_images_are_the_very_same_objects() -> None:
    history = History()
    received = frame(0, 0.0)
    history.add(received)
    assert history.frames()[0] is received


def test_one_thread_may_add_while_another_reads() -> None:
    history = History(max_bytes=5000)
    wrong: list[list[int]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = numbers(history)
            if found != sorted(found) or len(found) > 50:
                wrong.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(5000):
        history.add(frame(i, i / 1000))
    done.set()
    reader.join(10)
    assert not wrong and len(history) == 50


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_no_time_at_all_keeps_images_of_one_stamp(seconds: float) -> None:
    history = History(max_seconds=seconds)
    for i in range(3):
        history.add(frame(i, 5.0))
    assert numbers(history) == [0, 1, 2]
    history.add(frame(3, 5.1))
    assert numbers(history) == [3]
