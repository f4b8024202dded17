"""One received image, and stamps in nanoseconds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from siam_tracker_ros.geometry import Picture
from siam_tracker_ros.nodes.encodings import Lazy

SECOND = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Frame:
    """An image as it came in.

    Attributes:
        number: counts the images received, so that two with one stamp can be told apart.
        stamp: of the header, nanoseconds.
        frame_id: of the header.
        header: the message's own header; what is published for this image carries it unchanged.
        picture: the pixels.
        received: when the callback was entered, on the performance counter, seconds.
        nbytes: what its data hold in memory, as they came in.
    """

    number: int
    stamp: int
    frame_id: str
    header: Any
    picture: Picture
    received: float
    nbytes: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return (self.picture.width, self.picture.height)

    def unread(self) -> Frame:
        """Return this frame without the pixels that were decoded of it, if any were."""
        if not isinstance(self.picture, Lazy):
            return self
        return dataclasses.replace(self, picture=self.picture.unread())


def to_nanoseconds(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * SECOND + int(stamp.nanosec)


def stamp_text(stamp: int) -> str:
    """Return a stamp as seconds with nine decimals, as ROS tools print it."""
    return f"{stamp // SECOND}.{stamp % SECOND:09d}"
