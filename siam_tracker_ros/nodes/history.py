"""The images of the last seconds, as they came in: what a late selection is applied to."""

from __future__ import annotations

import threading
from collections import deque

from siam_tracker_ros.nodes.frames import SECOND, Frame

DEFAULT_BYTES = 256 << 20
DEFAULT_SECONDS = 10.0


class History:
    """The newest frames in the order in which they came, bounded by bytes and by age.

    It holds the messages' own bytes: nothing is copied, nothing decoded, and what a reader decodes of
    a compressed image goes with the reader. The newest frame is always kept. When the stamps jump
    back, what came before is of another time and is forgotten.

    Every method may be called from every thread.

    Args:
        max_bytes: of all frames together; 0 keeps the newest frame alone.
        max_seconds: between the stamps of the oldest and the newest.
    """

    def __init__(
        self, max_bytes: int = DEFAULT_BYTES, max_seconds: float = DEFAULT_SECONDS
    ) -> None:
        self._lock = threading.Lock()
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self.set_bounds(max_bytes, max_seconds)

    def set_bounds(self, max_bytes: int, max_seconds: float) -> None:
        """Take new bounds at once."""
        with self._lock:
            self._max_bytes = max_bytes
            self._max_age = round(max_seconds * SECOND)
            self._trim()

    def add(self, frame: Frame) -> None:
        """Keep a frame that just came in."""
        with self._lock:
            if self._frames and frame.stamp < self._frames[-1].stamp:
                self._forget()
            self._frames.append(frame.unread())
            self._bytes += frame.nbytes
            self._trim()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._forget()

    def frames(self, after: int = -1) -> list[Frame]:
        """Return what is kept of the frames with a number above ``after``, oldest first.

        Pixels that a reader decodes are held by these frames alone, not by the history.
        """
        with self._lock:
            kept = list(self._frames)
        return [frame.unread() for frame in kept if frame.number > after]

    @property
    def nbytes(self) -> int:
        """Bytes of all frames that are kept."""
        with self._lock:
            return self._bytes

    def __len__(self) -> int:
        with self._lock:
            return len(self._frames)

    def _forget(self) -> None:
        self._frames.clear()
        self._bytes = 0

    def _trim(self) -> None:
        while len(self._frames) > 1 and (
            self._bytes > self._max_bytes
            or self._frames[-1].stamp - self._frames[0].stamp > self._max_age
        ):
            self._bytes -= self._frames.popleft().nbytes
