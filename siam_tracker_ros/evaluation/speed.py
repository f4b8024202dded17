"""How fast a model runs here: crop, session step and whole update, one frame after another.

Decoding is not measured. The target is tracked as on a robot, so the crops change from frame to
frame.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.sequences import Sequence
from siam_tracker_ros.evaluation.track_log import percentiles
from siam_tracker_ros.geometry import ArrayPicture, Box, extract_crop, search_crop, template_crop
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.tracking import StatefulSession, Tracker

WARM_UP_FRAMES = 5
"""Frames at the start that are tracked but not counted."""


@dataclass(frozen=True)
class SpeedReport:
    """Times in milliseconds (p50, p95, max, count) and frames a second of one model on one clip."""

    model: str
    fingerprint: str
    session: str
    threads: int
    clip: str
    picture: tuple[int, int]
    crop_ms: dict[str, float]
    step_ms: dict[str, float]
    update_ms: dict[str, float]
    steps_per_second: float
    updates_per_second: float
    states: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the report with the machine's description, ready for JSON."""
        return {**self.__dict__, "picture": list(self.picture), "machine": describe_machine()}


def measure_speed(
    bundle: Bundle,
    sequence: Sequence,
    *,
    backend: str = "auto",
    threads: int = 2,
    frames: int = 300,
    steps: int = 200,
) -> SpeedReport:
    """Track ``sequence`` with ``bundle`` and report the times.

    Args:
        bundle: the model.
        sequence: a clip; the target is its first box.
        backend: of ``inference.open_session``.
        threads: of the session and of OpenCV (for the whole process); 0 = their choice.
        frames: at most so many frames of the clip.
        steps: calls of ``session.step`` on one crop, one right after the other, for
            ``steps_per_second``.

    Raises:
        ValueError: if the clip has too few frames.
    """
    if threads > 0:
        cv2.setNumThreads(threads)
    session = open_session(bundle, backend, intra_op_threads=threads)
    try:
        session.warm_up()
        tracker = Tracker(bundle, session)
        results = []
        first = None
        for index, frame in enumerate(islice(sequence, frames)):
            picture = ArrayPicture(frame, "bgr")
            if index == 0:
                first = picture
                tracker.initialize(picture, Box.from_xywh(*sequence.first_box))
            else:
                results.append(tracker.update(picture))
        counted = results[WARM_UP_FRAMES:]
        if first is None or len(counted) < 2:
            raise ValueError(
                f"{sequence.name}: at least {WARM_UP_FRAMES + 3} frames are needed, "
                f"got {len(results) + 1}"
            )
        per_second = _steps_per_second(bundle, session, first, sequence.first_box, steps)
    finally:
        session.close()
    totals = [r.timing.total_ms for r in counted]
    names = [r.state.name for r in counted]
    return SpeedReport(
        model=bundle.name,
        fingerprint=bundle.fingerprint,
        session=session.description,
        threads=threads,
        clip=sequence.name,
        picture=(first.width, first.height),
        crop_ms=percentiles(r.timing.crop_ms for r in counted) or {},
        step_ms=percentiles(r.timing.step_ms for r in counted) or {},
        update_ms=percentiles(totals) or {},
        steps_per_second=per_second,
        updates_per_second=1000.0 / float(np.mean(totals)),
        states={name: names.count(name) for name in sorted(set(names))},
    )


def _steps_per_second(
    bundle: Bundle,
    session: StatefulSession,
    picture: ArrayPicture,
    xywh: tuple[float, float, float, float],
    steps: int,
) -> float:
    box = Box.from_xywh(*xywh)
    fill = picture.mean_rgb()
    region = search_crop(box, bundle.crop)
    template = extract_crop(picture, template_crop(box, bundle.crop), fill)
    search = extract_crop(picture, region, fill)
    in_crop = region.box_to_crop(box)
    size = (in_crop.w, in_crop.h)
    memory = search if bundle.reads_memory else None
    session.start(template, search, size)
    for _ in range(WARM_UP_FRAMES):
        session.step(search, size, memory)
    begin = time.perf_counter()
    for _ in range(steps):
        session.step(search, size, memory)
        session.commit()
    return steps / (time.perf_counter() - begin)
