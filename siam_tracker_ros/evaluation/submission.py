"""What the servers of GOT-10k and TrackingNet take: a zip of each sequence's boxes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from siam_tracker_ros.evaluation.protocol import EvaluationError, Runs
from siam_tracker_ros.evaluation.runs import Run


def write_submission(folder: Path, benchmark: str, runs: Runs) -> Path:
    """Write ``folder/TRACKER_BENCHMARK.zip`` and return its path; it is complete or not there.

    * got10k: ``SEQUENCE/SEQUENCE_001.txt`` with ``x,y,w,h`` a line, and
      ``SEQUENCE/SEQUENCE_time.txt`` with the seconds of each frame; one repetition, as the got10k
      toolkit writes for a tracker that always answers the same;
    * trackingnet: ``SEQUENCE.txt`` with ``x,y,w,h`` a line.

    Raises:
        EvaluationError: if the benchmark has no server, or there are no runs.
    """
    if benchmark not in ("got10k", "trackingnet"):
        raise EvaluationError(f"{benchmark} has no server to submit to")
    if not runs.runs:
        raise EvaluationError(f"{runs.tracker}: there is no run to submit")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{runs.tracker}_{benchmark}.zip"
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, run in runs.runs.items():
            if benchmark == "got10k":
                archive.writestr(f"{name}/{name}_001.txt", _boxes(run))
                archive.writestr(f"{name}/{name}_time.txt", _times(run))
            else:
                archive.writestr(f"{name}.txt", _boxes(run))
    os.replace(partial, file)
    return file


def _boxes(run: Run) -> str:
    return "".join(",".join(f"{v:.3f}" for v in box) + "\n" for box in run.boxes)


def _times(run: Run) -> str:
    return "".join(f"{seconds:.8f}\n" for seconds in run.seconds)
