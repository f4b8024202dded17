"""The mailbox: calls in order, one newest frame, nothing after the end."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from siam_tracker_ros.nodes.mailbox import Call, Mailbox


def frame(number: int) -> Any:
    return SimpleNamespace(number=number)


def test_a_newer_frame_replaces_an_older_one() -> None:
    mailbox = Mailbox()
    assert [mailbox.put_frame(frame(n)) for n in range(3)] == [False, True, True]
    assert mailbox.take(0).number == 2
    assert mailbox.take(0) is None
    assert mailbox.put_frame(frame(3)) is False


def test_calls_come_first_and_in_order() -> None:
    mailbox = Mailbox()
    said: list[int] = []
    mailbox.put_frame(frame(0))
    futures = [mailbox.call(said.append, n) for n in range(3)]
    for _ in range(3):
        call = mailbox.take(0)
        assert isinstance(call, Call)
        call.run()
    assert said == [0, 1, 2] and all(f.done() for f in futures)
    assert mailbox.take(0).number == 0


def test_what_a_call_raises_goes_to_its_future() -> None:
    mailbox = Mailbox()
    future = mailbox.call(int, "x")
    mailbox.take(0).run()
    with pytest.raises(ValueError, match="invalid literal"):
        future.result(0)


def test_take_waits_for_what_another_thread_leaves() -> None:
    mailbox = Mailbox()
    timer = threading.Timer(0.05, mailbox.put_frame, (frame(1),))
    timer.start()
    assert mailbox.take(5.0).number == 1
    begin = time.monotonic()
    assert mailbox.take(0.05) is None
    assert 0.04 < time.monotonic() - begin < 2.0


def test_after_the_end_nothing_is_taken_but_what_was_asked_before_is_done() -> None:
    mailbox = Mailbox()
    before = mailbox.call(lambda: "done")
    mailbox.put_frame(frame(1))
    mailbox.close()
    after = mailbox.call(lambda: "never")
    mailbox.put_frame(frame(2))
    assert not mailbox.closed
    mailbox.take(0).run()
    assert before.result(0) == "done" and after.cancelled()
    assert mailbox.closed and mailbox.take() is None
