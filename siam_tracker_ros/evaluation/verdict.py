"""Whether a run over a ROS graph was good: the figures, and what is bad about them."""

from __future__ import annotations

import math
from typing import Any

from siam_tracker_ros.evaluation.recording import Recording

LEAST_OVERLAP = 0.5
"""Average overlap with the ground truth below which the target was not followed."""

MOST_LOST = 0.5
"""Share of the processed frames in which the target may be said to be lost."""

LEAST_PROCESSED = 0.5
"""Share of the published frames that must be processed; a busy tracker skips the others."""


def run_figures(recording: Recording, repeats: int | None = None) -> dict[str, Any]:
    """Return all figures of a run, ready for JSON.

    Args:
        recording: the run.
        repeats: how often the first frame was sent again; None where nobody said.
    """
    log = recording.log
    return {
        "clip": log.name,
        "frames": recording.counts.to_json(repeats or 0),
        "first_frame_repeats": repeats,
        "seconds": recording.seconds,
        **log.figures(),
        "node": recording.node,
        "memory_mb": recording.memory_growth(),
        "selection": recording.verdict,
        "finished": recording.finished,
    }


def shortcomings(recording: Recording, *, lockstep: bool) -> list[str]:
    """Return what is bad about a run, one sentence each; empty if it was good.

    Args:
        recording: the run.
        lockstep: whether every frame was waited for, so that none may be skipped.
    """
    counts, log = recording.counts, recording.log
    if counts.processed == 0:
        return [f"no frame was processed: {recording.why_nothing}"]
    found = []
    if not recording.finished:
        found.append(f"the clip was not played to its end: {recording.reason}")
    if counts.lost_in_transport:
        found.append(f"{counts.lost_in_transport} frames were lost in transport")
    if counts.refused:
        found.append(f"{counts.refused} frames could not be read by the tracker")
    if recording.finished and not recording.from_the_start:
        found.append("the recorder came up late and did not hear everything")
    elif counts.published:
        missing = counts.published - counts.processed
        share = counts.processed / counts.published
        if lockstep and missing > 0:
            found.append(f"{missing} frames were not answered, though each was waited for")
        elif share < LEAST_PROCESSED:
            found.append(
                f"only {counts.processed} of {counts.published} frames were processed, "
                f"{LEAST_PROCESSED:.0%} are wanted: this machine is too busy or too slow"
            )
    overlap = log.average_overlap()
    if overlap is not None and overlap < LEAST_OVERLAP:
        found.append(f"average overlap {overlap:.3f}, at least {LEAST_OVERLAP} is wanted")
    lost = log.lost_share()
    if not math.isnan(lost) and lost > MOST_LOST:
        found.append(
            f"the target was lost in {lost:.0%} of the frames, at most {MOST_LOST:.0%} may be"
        )
    if overlap is None and log.entries[-1].state == "LOST":
        found.append("the target is lost at the end, and there is no ground truth to excuse it")
    return found
