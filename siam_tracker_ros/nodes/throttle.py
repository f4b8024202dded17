"""Saying the same thing again only after a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class Throttle:
    """Passes each kind of message at most once every ``period`` seconds.

    Args:
        say: gets the messages.
        period: seconds.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        period: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._period, self._clock = say, period, clock
        self._said: dict[str, float] = {}

    def __call__(self, kind: str, text: str) -> None:
        """Say ``text`` unless something of its ``kind`` was said just now."""
        now = self._clock()
        if now - self._said.get(kind, -self._period) >= self._period:
            self._said[kind] = now
            self._say(text)
