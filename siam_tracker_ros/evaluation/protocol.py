"""One-pass evaluation: start from the first true box, never look at the truth again.

Works for every tracker that can ``start`` and ``track``; the project's own
:class:`~siam_tracker_ros.tracking.Tracker` is taken as it is. Importing this costs NumPy and
OpenCV, no torch, no ROS, no matplotlib.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.metrics import FIGURES, Scores, mean_scores, score
from siam_tracker_ros.evaluation.runs import Run, read_run, write_run
from siam_tracker_ros.evaluation.sequences import Sequence
from siam_tracker_ros.geometry import ArrayPicture, Box

PROTOCOL: dict[str, str] = {
    "name": "one-pass evaluation (OPE)",
    "start": "the first frame's true box; the truth is not read again",
    "lost": "while a tracker says LOST, its last known box is scored",
    "auc": "mean over 21 thresholds 0, 0.05 ... 1 of the share of frames with IoU above it",
    "ao, sr50, sr75": "without the first frame",
    "precision": "share of frames with centre error <= 20 px",
    "normalised_precision": "51 thresholds 0 ... 0.5 of the centre error over the true sides",
    "mean": "unweighted over sequences",
    "fps": "tracker's time alone, decoding excluded, selection included; mean over sequences",
}

Xywh = tuple[float, float, float, float]


class Answer(NamedTuple):
    """What a tracker says about a frame: box x,y,w,h (0-based), score and state if it has any."""

    box: Xywh
    score: float = math.nan
    state: str = ""


class FrameTracker(Protocol):
    """What is evaluated. Frames are uint8 [H,W,3] BGR, boxes x,y,w,h 0-based."""

    def start(self, frame: Frame, box: Xywh) -> Answer:
        """Select ``box``; a track in progress is forgotten."""
        ...

    def track(self, frame: Frame) -> Answer:
        """Answer for the next frame."""
        ...


TrackerMaker = Callable[[], Any]
"""Makes a FrameTracker or a ``tracking.Tracker``; picklable and hashable for several workers."""


class EvaluationError(RuntimeError):
    """A tracker failed on a sequence; the message names both."""


class TrackerAdapter:
    """Lets a :class:`siam_tracker_ros.tracking.Tracker` be evaluated as a :class:`FrameTracker`."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker
        self._last: Xywh = (0.0, 0.0, 0.0, 0.0)

    def start(self, frame: Frame, box: Xywh) -> Answer:
        """Initialise on ``box``."""
        self._last = box
        return self._answer(
            self.tracker.initialize(ArrayPicture(frame, "bgr"), Box.from_xywh(*box))
        )

    def track(self, frame: Frame) -> Answer:
        """Update; a lost target keeps its last known box (see ``PROTOCOL``)."""
        return self._answer(self.tracker.update(ArrayPicture(frame, "bgr")))

    def _answer(self, result: Any) -> Answer:
        if result.box is not None:
            self._last = result.box.xywh
        return Answer(self._last, float(result.score), result.state.name)


def as_frame_tracker(tracker: Any) -> FrameTracker:
    """Return ``tracker`` itself if it can start and track, else an adapter around a ``Tracker``."""
    if hasattr(tracker, "start") and hasattr(tracker, "track"):
        found: FrameTracker = tracker
        return found
    return TrackerAdapter(tracker)


def run_sequence(tracker: FrameTracker, sequence: Sequence) -> Run:
    """Run ``tracker`` once over ``sequence``.

    Raises:
        EvaluationError: naming tracker and sequence, if the tracker raises or answers no finite
            box.
        SequenceError, ClipError: if the clip cannot be read.
    """
    answers: list[Answer] = []
    seconds: list[float] = []
    for index, frame in enumerate(sequence):
        begin = time.perf_counter()
        try:
            answer = tracker.track(frame) if index else tracker.start(frame, sequence.first_box)
        except Exception as error:
            raise EvaluationError(
                f"{sequence.name}, frame {index}: {type(error).__name__}: {error}"
            ) from error
        seconds.append(time.perf_counter() - begin)
        if not all(math.isfinite(v) for v in answer.box):
            raise EvaluationError(
                f"{sequence.name}, frame {index}: the box {answer.box} is not finite"
            )
        answers.append(answer)
    boxes = np.array([a.box for a in answers], dtype=np.float64)
    boxes[0] = sequence.boxes[0]
    return Run(
        boxes,
        np.array(seconds),
        np.array([a.score for a in answers], dtype=np.float64),
        tuple(a.state for a in answers),
    )


@dataclass(frozen=True)
class SequenceResult:
    """One tracker on one sequence: figures, speed, and the run itself."""

    name: str
    scores: Scores
    fps: float
    lost_frames: int
    cached: bool
    run: Run

    def to_json(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        return {**asdict(self.scores), "fps": self.fps, "lost_frames": self.lost_frames}


@dataclass(frozen=True)
class Summary:
    """One tracker on several sequences."""

    tracker: str
    fingerprint: str
    details: dict[str, Any]
    results: tuple[SequenceResult, ...]

    @property
    def mean(self) -> Scores:
        """The unweighted mean over the sequences."""
        return mean_scores([r.scores for r in self.results])

    @property
    def auc(self) -> float:
        """Mean success AUC."""
        return self.mean.auc

    @property
    def fps(self) -> float:
        """Mean frames a second over the sequences."""
        return float(np.mean([r.fps for r in self.results]))

    def standard_error(self, figure: str = "auc") -> float:
        """Return the standard error of the mean of ``figure``; NaN for one sequence."""
        values = np.array([getattr(r.scores, figure) for r in self.results])
        return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return everything but the boxes, with protocol and machine, ready for JSON."""
        mean = asdict(self.mean)
        return {
            "protocol": PROTOCOL,
            "tracker": {"name": self.tracker, "fingerprint": self.fingerprint, **self.details},
            "machine": describe_machine(),
            "mean": {**mean, "fps": self.fps},
            "standard_error": {
                f: None if math.isnan(self.standard_error(f)) else self.standard_error(f)
                for f in FIGURES
            },
            "sequences": {r.name: r.to_json() for r in self.results},
        }

    def write(self, file: Path) -> None:
        """Write :meth:`to_json` to ``file``."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")


def evaluate_tracker(
    make_tracker: TrackerMaker,
    sequences: Iterable[Sequence],
    *,
    name: str = "",
    fingerprint: str = "",
    workers: int = 1,
    cache: Path | None = None,
    on_result: Callable[[SequenceResult], None] | None = None,
) -> Summary:
    """Evaluate a tracker on sequences, one pass from the first box.

    Args:
        make_tracker: makes a FrameTracker or a ``tracking.Tracker``; called once in each process.
            Its attributes ``name``, ``fingerprint`` and ``details`` are used where it has them.
        sequences: what to run on.
        name: what tables call the tracker.
        fingerprint: what its answers depend on: weights, settings, code.
        workers: processes; 1 runs here. Speed figures of several workers disturb each other.
        cache: folder for the results as text files, used again for the same fingerprint and
            sequence.
        on_result: called after each sequence, in the order of completion.

    Raises:
        ValueError: if there are no sequences, or a cache is wanted without a fingerprint.
        EvaluationError: if the tracker fails on a sequence.
    """
    todo = list(sequences)
    if not todo:
        raise ValueError("no sequences to evaluate on")
    name = name or getattr(make_tracker, "name", "tracker")
    fingerprint = fingerprint or getattr(make_tracker, "fingerprint", "")
    if cache is not None and not fingerprint:
        raise ValueError("cached results need the tracker's fingerprint")
    folder = None if cache is None else cache / f"{name}-{fingerprint[:12]}"

    done: dict[str, SequenceResult] = {}

    def finish(sequence: Sequence, run: Run, cached: bool) -> None:
        if folder is not None and not cached:
            write_run(folder, sequence.name, _key(fingerprint, sequence), run)
        result = _result(sequence, run, cached)
        done[sequence.name] = result
        if on_result is not None:
            on_result(result)

    missing = []
    for sequence in todo:
        run = None
        if folder is not None:
            run = read_run(folder, sequence.name, _key(fingerprint, sequence), len(sequence))
        if run is None:
            missing.append(sequence)
        else:
            finish(sequence, run, True)

    if workers <= 1 or len(missing) < 2:
        tracker = as_frame_tracker(make_tracker()) if missing else None
        for sequence in missing:
            assert tracker is not None
            finish(sequence, _named(name, tracker, sequence), False)
    else:
        # spawn: a forked process would share ONNX Runtime's and OpenCV's threads, which do not
        # survive it
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
            jobs = {pool.submit(_in_worker, make_tracker, name, s): s for s in missing}
            for job in as_completed(jobs):
                finish(jobs[job], job.result(), False)

    details = dict(getattr(make_tracker, "details", {}))
    return Summary(name, fingerprint, details, tuple(done[s.name] for s in todo))


def _key(fingerprint: str, sequence: Sequence) -> str:
    return f"tracker={fingerprint} sequence={sequence.fingerprint()}"


def _result(sequence: Sequence, run: Run, cached: bool) -> SequenceResult:
    return SequenceResult(
        sequence.name,
        score(run.boxes, sequence.boxes),
        run.fps,
        sum(state == "LOST" for state in run.states),
        cached,
        run,
    )


def _named(name: str, tracker: FrameTracker, sequence: Sequence) -> Run:
    try:
        return run_sequence(tracker, sequence)
    except EvaluationError as error:
        raise EvaluationError(f"{name} on {error}") from error.__cause__


@lru_cache(maxsize=1)
def _worker_tracker(make_tracker: TrackerMaker) -> FrameTracker:
    return as_frame_tracker(make_tracker())


def _in_worker(make_tracker: TrackerMaker, name: str, sequence: Sequence) -> Run:
    # The maker arrives as an equal copy with every job: a session is opened once in each process.
    return _named(name, _worker_tracker(make_tracker), sequence)
