"""What other threads leave for the worker: calls in order, and one newest frame."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from siam_tracker_ros.nodes.frames import Frame


@dataclass(frozen=True)
class Call:
    """A function that the worker shall call; ``done`` gets what it returns or raises."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    done: Future[Any] = field(default_factory=Future)

    def run(self) -> None:
        """Call the function; what it raises goes to ``done`` alone."""
        if not self.done.set_running_or_notify_cancel():
            return
        try:
            result = self.function(*self.arguments)
        except BaseException as error:
            self.done.set_exception(error)
        else:
            self.done.set_result(result)


class Mailbox:
    """Calls are kept in order; of frames only the newest is kept. Calls are taken first.

    Every method may be called from every thread.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls: deque[Call] = deque()
        self._frame: Frame | None = None
        self._closed = False

    def call(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Leave a call; the future says how it went. After :meth:`close` it is cancelled."""
        call = Call(function, arguments)
        with self._condition:
            if self._closed:
                call.done.cancel()
            else:
                self._calls.append(call)
                self._condition.notify()
        return call.done

    def put_frame(self, frame: Frame) -> bool:
        """Leave a frame; tell whether it replaced one that nobody took."""
        with self._condition:
            replaced = self._frame is not None
            self._frame = None if self._closed else frame
            self._condition.notify()
        return replaced

    def take(self, timeout: float | None = None) -> Call | Frame | None:
        """Return the next call, else the newest frame.

        None after ``timeout`` seconds, or once closed and empty.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while True:
                if self._calls:
                    return self._calls.popleft()
                if self._frame is not None:
                    frame, self._frame = self._frame, None
                    return frame
                left = None if end is None else end - time.monotonic()
                if self._closed or (left is not None and left <= 0):
                    return None
                self._condition.wait(left)

    def take_call(self) -> Call | None:
        """Return the next call if there is one, at once."""
        with self._condition:
            return self._calls.popleft() if self._calls else None

    def drop_frame(self, up_to: int | None = None) -> None:
        """Forget the frame that nobody took, if its number is at most ``up_to``."""
        with self._condition:
            if self._frame is not None and (up_to is None or self._frame.number <= up_to):
                self._frame = None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called and nothing is left."""
        with self._condition:
            return self._closed and not self._calls

    def close(self) -> None:
        """Take nothing more; what was left before can still be taken, except a frame."""
        with self._condition:
            self._closed = True
            self._frame = None
            self._condition.notify_all()
