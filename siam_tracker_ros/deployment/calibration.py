"""What INT8 ranges are measured on: a bundle's own graphs, followed through clips, with what they were fed kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.evaluation.reference_session import Arrays, ReferenceSession
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.tracking import Tracker, TrackerSettings

FEEDS = 128
"""Search crops in all, shared by the clips."""


class CalibrationError(ValueError):
    """Nothing to measure ranges on; the message says where."""


_LONGEST = 300  # frames of one clip that are looked at
_FOLLOW_ALWAYS = TrackerSettings(found=0.0, lost=0.0)


class CalibrationClip(Protocol):
    """A clip with the target's first box (x, y, w, h): a ``Sequence`` of the evaluation room is one."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def first_box(self) -> tuple[float, float, float, float]:
        """Where the target is in the first frame."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield BGR frames."""
        ...

    def __len__(self) -> int:
        """Return the number of frames."""
        ...


def record_feeds(
    bundle: Bundle, clips: Sequence[CalibrationClip], count: int = FEEDS
) -> dict[str, list[Arrays]]:
    """Follow the target through each clip and return what ``template`` and ``search`` were fed on the way.

    Args:
        bundle: its FP32 graphs run, presence is ignored.
        clips: at least one.
        count: feeds of the search graph, about: the same share for each clip, spread over it.

    Raises:
        CalibrationError: without clips.
    """
    if not clips:
        raise CalibrationError("no clips to calibrate on")
    recorder = _Recorder(bundle)
    feeds: dict[str, list[Arrays]] = {"template": [], "search": []}
    share = max(1, count // len(clips))
    for clip in clips:
        tracker = Tracker(bundle, recorder, _FOLLOW_ALWAYS)
        length = min(len(clip), _LONGEST)
        kept = set(np.linspace(length - 1, 0, share, endpoint=False).round().astype(int).tolist())
        for index, frame in enumerate(clip):
            if index == length:
                break
            picture = ArrayPicture(frame, "bgr")
            if index == 0:
                tracker.initialize(picture, Box.from_xywh(*clip.first_box))
                feeds["template"].append(recorder.fed["template"])
            else:
                tracker.update(picture)
            if index in kept:
                feeds["search"].append(recorder.fed["search"])
    return feeds


class _Recorder(ReferenceSession):
    """Keeps what each graph got the last time that it ran."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._inputs = {
            name: [t.name for t in graph.inputs] for name, graph in bundle.graphs.items()
        }
        self.fed: dict[str, Arrays] = {}

    def _run(self, graph: str, given: Mapping[str, Any]) -> Arrays:
        self.fed[graph] = {name: given[name] for name in self._inputs[graph]}
        return super()._run(graph, given)
