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
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from siam_tracker_ros.evaluation.frames import ClipError, Frame
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.metrics import (
    FIGURES,
    OTB,
    Curves,
    Rules,
    Scores,
    curves,
    mean_curves,
    mean_scores,
    score,
)
from siam_tracker_ros.evaluation.runs import Run, read_run, write_run
from siam_tracker_ros.evaluation.sequences import Sequence, SequenceError
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

SKIPPED = "SKIPPED"
"""The state of a frame that arrived while the tracker was busy, in a real-time run."""


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


@dataclass(frozen=True)
class RealTime:
    """Frames arrive at a rate, and those that arrive while the tracker is busy are skipped.

    Attributes:
        fps: at which frames arrive.
        step_seconds: what each processed frame is taken to cost, in order (the last one holds on);
            what was measured without.
    """

    fps: float
    step_seconds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"frames a second above 0 are wanted, got {self.fps}")

    @property
    def label(self) -> str:
        """What results and their folders are called."""
        return f"realtime{self.fps:g}"

    def cost(self, step: int, measured: float) -> float:
        """Return the seconds that the processed frame number ``step`` (from 0) costs."""
        if self.step_seconds is None:
            return measured
        return self.step_seconds[min(step, len(self.step_seconds) - 1)]


def run_sequence(
    tracker: FrameTracker, sequence: Sequence, realtime: RealTime | None = None
) -> Run:
    """Run ``tracker`` once over ``sequence``.

    In a real-time run the answer to a skipped frame is the last one that the tracker gave.

    Raises:
        EvaluationError: naming tracker and sequence, if the tracker raises or answers no finite
            box.
        SequenceError, ClipError: if the clip cannot be read.
    """
    answers: list[Answer] = []
    seconds: list[float] = []
    free, steps = 0.0, 0  # when the tracker has time again, in frames since the first one
    for index, frame in enumerate(sequence):
        if realtime is not None and index and free > index + 1e-9:
            answers.append(answers[-1]._replace(state=SKIPPED))
            seconds.append(math.nan)
            continue
        begin = time.perf_counter()
        try:
            answer = tracker.track(frame) if index else tracker.start(frame, sequence.first_box)
        except Exception as error:
            raise EvaluationError(
                f"{sequence.name}, frame {index}: {type(error).__name__}: {error}"
            ) from error
        took = time.perf_counter() - begin
        if realtime is not None:
            took = realtime.cost(steps, took)
            free = index + took * realtime.fps
        steps += 1
        seconds.append(took)
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
    curves: Curves
    fps: float
    lost_frames: int
    cached: bool
    run: Run

    def to_json(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        skipped = {"skipped_frames": self.run.skipped} if self.run.skipped else {}
        return {**asdict(self.scores), "fps": self.fps, "lost_frames": self.lost_frames, **skipped}


@dataclass(frozen=True)
class Summary:
    """One tracker on several sequences.

    Attributes:
        tracker: its name; that of a real-time run says so.
        fingerprint: what its answers depend on.
        details: of the tracker, for the report.
        results: one for each sequence that could be run.
        rules: that the figures follow.
        realtime: how frames arrived; None where each was waited for.
        skipped: sequence -> what was wrong with it, where the run went on without it.
    """

    tracker: str
    fingerprint: str
    details: dict[str, Any]
    results: tuple[SequenceResult, ...]
    rules: Rules = OTB
    realtime: RealTime | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def mean(self) -> Scores:
        """The mean over the sequences, or their frames where the rules say so."""
        return mean_scores([r.scores for r in self.results], self.rules)

    @property
    def curves(self) -> Curves:
        """The mean curves."""
        return mean_curves([r.curves for r in self.results], self.rules)

    @property
    def auc(self) -> float:
        """Mean success AUC."""
        return self.mean.auc

    @property
    def fps(self) -> float:
        """Mean frames a second over the sequences."""
        return float(np.mean([r.fps for r in self.results]))

    @property
    def missed(self) -> float:
        """Share of the frames that a real-time run skipped."""
        frames = sum(len(r.run.boxes) for r in self.results)
        return sum(r.run.skipped for r in self.results) / frames

    def standard_error(self, figure: str = "auc") -> float:
        """Return the standard error of the mean of ``figure``; NaN for one sequence."""
        values = np.array([getattr(r.scores, figure) for r in self.results])
        return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return everything but the boxes, with protocol and machine, ready for JSON."""
        mean = asdict(self.mean)
        content: dict[str, Any] = {
            "benchmark": self.rules.name,
            "protocol": describe_protocol(self.rules, self.realtime),
            "tracker": {"name": self.tracker, "fingerprint": self.fingerprint, **self.details},
            "machine": describe_machine(),
            "mean": {**mean, "fps": self.fps},
            "standard_error": {
                f: None if math.isnan(self.standard_error(f)) else self.standard_error(f)
                for f in FIGURES
            },
            "sequences": {r.name: r.to_json() for r in self.results},
        }
        if self.skipped:
            content["left_out"] = self.skipped
        return content

    def write(self, file: Path) -> None:
        """Write :meth:`to_json` to ``file``."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")


def describe_protocol(rules: Rules, realtime: RealTime | None = None) -> dict[str, str]:
    """Return in words what the figures mean."""
    text = dict(PROTOCOL)
    if rules is not OTB:
        text["rules"] = f"{rules.title}: {rules.notes}"
    if realtime is not None:
        text["realtime"] = (
            f"frames arrive at {realtime.fps:g} a second; those that arrive while the tracker is "
            "busy are skipped and get its last box"
        )
    return text


@dataclass(frozen=True)
class Runs:
    """What a tracker answered on several sequences, unscored.

    Attributes:
        tracker: its name; that of a real-time run says so.
        runs: sequence -> its run.
        cached: names of those that were not run again.
        skipped: sequence -> what was wrong with it.
    """

    tracker: str
    runs: dict[str, Run]
    cached: frozenset[str]
    skipped: dict[str, str]


def run_tracker(
    make_tracker: TrackerMaker,
    sequences: Iterable[Sequence],
    *,
    name: str = "",
    fingerprint: str = "",
    workers: int = 1,
    cache: Path | None = None,
    realtime: RealTime | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    on_run: Callable[[Sequence, Run, bool], None] | None = None,
) -> Runs:
    """Run a tracker once over each sequence; arguments and errors as for :func:`evaluate_tracker`.

    ``on_run`` is called after each with the sequence, its run, and whether it came from the cache.
    """
    todo = list(sequences)
    if not todo:
        raise ValueError("no sequences to evaluate on")
    name = name or getattr(make_tracker, "name", "tracker")
    fingerprint = fingerprint or getattr(make_tracker, "fingerprint", "")
    if cache is not None and not fingerprint:
        raise ValueError("cached results need the tracker's fingerprint")
    label = name if realtime is None else f"{name}-{realtime.label}"
    folder = None if cache is None else cache / f"{label}-{fingerprint[:12]}"

    done: dict[str, Run] = {}
    cached: set[str] = set()
    skipped: dict[str, str] = {}

    def finish(sequence: Sequence, run: Run) -> None:
        if folder is not None:
            write_run(folder, sequence.name, _key(fingerprint, sequence, realtime), run)
        keep(sequence, run)

    def keep(sequence: Sequence, run: Run) -> None:
        done[sequence.name] = run
        if on_run is not None:
            on_run(sequence, run, sequence.name in cached)

    def bad(sequence: Sequence, error: SequenceError | ClipError) -> None:
        if on_bad == "stop":
            raise error
        skipped[sequence.name] = str(error)

    missing = []
    for sequence in todo:
        run = None
        if folder is not None:
            key = _key(fingerprint, sequence, realtime)
            run = read_run(folder, sequence.name, key, len(sequence))
        if run is None:
            missing.append(sequence)
            continue
        cached.add(sequence.name)
        try:
            keep(sequence, run)
        except SequenceError as error:
            bad(sequence, error)

    if workers <= 1 or len(missing) < 2:
        tracker = as_frame_tracker(make_tracker()) if missing else None
        for sequence in missing:
            assert tracker is not None
            try:
                finish(sequence, _named(name, tracker, sequence, realtime))
            except (SequenceError, ClipError) as error:
                bad(sequence, error)
    else:
        # spawn: a forked process would share ONNX Runtime's and OpenCV's threads, which do not
        # survive it
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(workers, len(missing)), mp_context=context)
        try:
            jobs = {pool.submit(_in_worker, make_tracker, name, s, realtime): s for s in missing}
            for job in as_completed(jobs):
                try:
                    finish(jobs[job], job.result())
                except (SequenceError, ClipError) as error:
                    bad(jobs[job], error)
        finally:
            # After an error or an interrupt what has not begun is not begun any more.
            pool.shutdown(wait=True, cancel_futures=True)

    runs = {s.name: done[s.name] for s in todo if s.name in done}
    return Runs(label, runs, frozenset(cached), skipped)


def evaluate_tracker(
    make_tracker: TrackerMaker,
    sequences: Iterable[Sequence],
    *,
    name: str = "",
    fingerprint: str = "",
    workers: int = 1,
    cache: Path | None = None,
    rules: Rules = OTB,
    realtime: RealTime | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
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
            sequence: a run that was ended goes on from there.
        rules: that score it.
        realtime: how frames arrive; each is waited for without.
        on_bad: whether a sequence that cannot be read ends it all, or is left out and counted.
        on_result: called after each sequence, in the order of completion.

    Raises:
        ValueError: if there are no sequences, or a cache is wanted without a fingerprint.
        EvaluationError: if the tracker fails on a sequence, or no sequence can be read.
        SequenceError, ClipError: if a sequence cannot be read.
    """
    done: dict[str, SequenceResult] = {}

    def scored(sequence: Sequence, run: Run, cached: bool) -> None:
        done[sequence.name] = _result(sequence, run, cached, rules)
        if on_result is not None:
            on_result(done[sequence.name])

    todo = list(sequences)
    runs = run_tracker(
        make_tracker,
        todo,
        name=name,
        fingerprint=fingerprint,
        workers=workers,
        cache=cache,
        realtime=realtime,
        on_bad=on_bad,
        on_run=scored,
    )
    if not done:
        raise EvaluationError(f"no sequence can be read: {next(iter(runs.skipped.values()))}")
    fingerprint = fingerprint or getattr(make_tracker, "fingerprint", "")
    details = dict(getattr(make_tracker, "details", {}))
    results = tuple(done[s.name] for s in todo if s.name in done)
    return Summary(runs.tracker, fingerprint, details, results, rules, realtime, runs.skipped)


def _key(fingerprint: str, sequence: Sequence, realtime: RealTime | None) -> str:
    arrival = "" if realtime is None else f" {realtime.label}"
    return f"tracker={fingerprint} sequence={sequence.fingerprint()}{arrival}"


def _result(sequence: Sequence, run: Run, cached: bool, rules: Rules) -> SequenceResult:
    try:
        arguments = (run.boxes, sequence.boxes, rules, sequence.hidden, sequence.size)
        scores, shares = score(*arguments), curves(*arguments)
    except ValueError as error:
        raise SequenceError(f"{sequence.source}: {error}") from error
    lost = sum(state == "LOST" for state in run.states)
    return SequenceResult(sequence.name, scores, shares, run.fps, lost, cached, run)


def _named(name: str, tracker: FrameTracker, sequence: Sequence, realtime: RealTime | None) -> Run:
    try:
        return run_sequence(tracker, sequence, realtime)
    except EvaluationError as error:
        raise EvaluationError(f"{name} on {error}") from error.__cause__


@lru_cache(maxsize=1)
def _worker_tracker(make_tracker: TrackerMaker) -> FrameTracker:
    return as_frame_tracker(make_tracker())


def _in_worker(
    make_tracker: TrackerMaker, name: str, sequence: Sequence, realtime: RealTime | None
) -> Run:
    # The maker arrives as an equal copy with every job: a session is opened once in each process.
    return _named(name, _worker_tracker(make_tracker), sequence, realtime)
