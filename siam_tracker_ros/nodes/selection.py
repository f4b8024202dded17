"""A selection: which box of which image, and which image in hand is meant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.frames import SECOND, Frame, stamp_text, to_nanoseconds

DEFAULT_LABEL = "target"

STALE = ("refuse", "oldest")
"""What may become of a selection that is older than all images kept."""


@dataclass(frozen=True)
class SelectionRules:
    """How selections find their image and the way from there to the present.

    Attributes:
        tolerance: how far a selection's stamp may be from its image's, seconds.
        stale: what becomes of a selection older than all images kept, one of :data:`STALE`.
        catch_up_budget: time for following the target from the selection's image to the present,
            seconds.
    """

    tolerance: float = 0.05
    stale: str = "refuse"
    catch_up_budget: float = 0.5


@dataclass(frozen=True)
class Selection:
    """What a message on ``target`` asks for.

    Attributes:
        box: upright, image pixels.
        stamp: of the image it was drawn on, nanoseconds; 0 = the newest image.
        frame_id: of that image; empty = whatever it is.
        id: name of the track; empty = the node gives one.
        label: what the thing is.
        rotated: whether the box was drawn turned, and ``box`` is the upright one around it.
    """

    box: Box
    stamp: int = 0
    frame_id: str = ""
    id: str = ""
    label: str = DEFAULT_LABEL
    rotated: bool = False

    @property
    def key(self) -> tuple[int, str, Box]:
        """What tells one message on ``target`` or ``detection`` from another."""
        return (self.stamp, self.id, self.box)


def read_selection(message: Any) -> Selection:
    """Read a vision_msgs/Detection2D; whether the box can be tracked is not judged here."""
    centre = message.bbox.center
    box = Box(
        centre.position.x, centre.position.y, float(message.bbox.size_x), float(message.bbox.size_y)
    )
    label = message.results[0].hypothesis.class_id if message.results else ""
    return Selection(
        box=upright(box, centre.theta),
        stamp=to_nanoseconds(message.header.stamp),
        frame_id=message.header.frame_id,
        id=message.id,
        label=label or DEFAULT_LABEL,
        rotated=centre.theta != 0.0,
    )


def upright(box: Box, theta: float) -> Box:
    """Return the upright box around ``box`` turned by ``theta`` radians about its centre."""
    if theta == 0.0:
        return box
    if not math.isfinite(theta):
        return Box(math.nan, math.nan, box.w, box.h)
    c, s = abs(math.cos(theta)), abs(math.sin(theta))
    return Box(box.cx, box.cy, box.w * c + box.h * s, box.w * s + box.h * c)


class NoFrameError(ValueError):
    """No image in hand is the one that a selection means; the message says why."""


def choose_frame(
    stamp: int, frames: Sequence[Frame], rules: SelectionRules, *, may_wait: bool
) -> Frame | None:
    """Return the image that a selection's stamp means.

    Stamps are judged against images, never against the clock.

    Args:
        stamp: of the selection, nanoseconds; 0 = the newest image.
        frames: the images in hand, oldest first.
        rules: how far the nearest may be away, and what becomes of what is too old.
        may_wait: whether a later image may still come.

    Returns:
        The image with exactly that stamp, else the nearest; None if a later one should be awaited.

    Raises:
        NoFrameError: if none is near enough.
    """
    if not frames:
        if may_wait:
            return None
        raise NoFrameError("no image has been received")
    oldest, newest = frames[0], frames[-1]
    if stamp == 0:
        return newest
    exact = [frame for frame in frames if frame.stamp == stamp]
    if exact:
        return exact[-1]
    if newest.stamp < stamp and may_wait:
        return None
    nearest = min(frames, key=lambda frame: abs(frame.stamp - stamp))
    if abs(nearest.stamp - stamp) <= round(rules.tolerance * SECOND):
        return nearest
    if newest.stamp == 0:
        raise NoFrameError(
            f"its stamp is {stamp_text(stamp)}, but the images carry none (zero): give it none either"
        )
    if stamp > newest.stamp:
        raise NoFrameError(
            f"its stamp {stamp_text(stamp)} is {_seconds(stamp - newest.stamp)} newer than the "
            f"newest image's ({stamp_text(newest.stamp)}), and no such image came"
        )
    if stamp > oldest.stamp:
        raise NoFrameError(
            f"no image is near its stamp {stamp_text(stamp)}: the nearest is "
            f"{_seconds(abs(nearest.stamp - stamp))} away (selection_tolerance {rules.tolerance:g} s)"
        )
    if rules.stale == "oldest":
        return oldest
    raise NoFrameError(
        f"its stamp {stamp_text(stamp)} is {_seconds(oldest.stamp - stamp)} older than the oldest "
        f"image kept ({stamp_text(oldest.stamp)}); history_seconds and history_bytes say how much "
        "is kept"
    )


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / SECOND:.3f} s"
