"""Do two back ends do the same? On the same crops output by output, and each alone by its boxes.

A tracker feeds its boxes back: the smallest difference grows where it is near a tie. So there are
two comparisons, and a measure of how much growth is the network's own: its trajectory against
itself with the first box moved by a ten-thousandth of a pixel (``noise``).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.bundle import Bundle, Memory, StepResult
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.tracking import Tracker, TrackerSettings

SAME = 0.99
"""Boxes with at least this IoU count as the same; the first frame below is the first divergence."""

OUTPUT_LIMIT = 1e-3
TRAJECTORY_LIMIT = 0.99
"""What may differ: an output in the median frame, and the median IoU of a trajectory."""

NOISE_SHIFT = 1e-4
"""Image px that the first box is moved by to see how a network's trajectory answers to noise."""

NOISE_MARGIN = 0.02
"""A trajectory may be this much further from the reference than noise takes the reference itself."""

HOW = (
    "presence ignored, every frame committed; outputs: crops forced to the reference's, own state "
    f"each; trajectories: free-running, divergence = first frame with IoU < {SAME}"
)

KEPT_BYTES = 1 << 16
"""Outputs larger than this are left out of a recording's file: feature banks are megabytes."""

_FOLLOW_ALWAYS = TrackerSettings(found=0.0, lost=0.0)

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[float, float]
Arrays = Mapping[str, npt.NDArray[Any]]


class RecordingError(ValueError):
    """A recording's file that cannot be read; the message names it."""


def in_precision(bundle: Bundle, precision: str) -> Bundle:
    """Return ``bundle`` with the graphs of another precision in place of its own.

    Raises:
        KeyError: if it has no such precision.
    """
    files = bundle.precisions[precision]
    graphs = {key: replace(graph, file=files[key]) for key, graph in bundle.graphs.items()}
    return replace(bundle, graphs=graphs)


def follow(
    bundle: Bundle,
    session: Any,
    clip: Iterable[UInt8Array],
    first: tuple[float, float, float, float],
    shift: float = 0.0,
) -> list[Box]:
    """Return the box of every frame, free-running; presence is ignored, every frame counts as seen.

    Args:
        bundle: whose settings and crops.
        session: a ``StatefulSession`` on it; it stays open.
        clip: BGR frames.
        first: x,y,w,h of the target in the first.
        shift: image px that the first box is moved to the right by.
    """
    tracker = Tracker(bundle, session, _FOLLOW_ALWAYS)
    boxes: list[Box] = []
    x, y, w, h = first
    for frame in clip:
        picture = ArrayPicture(frame, "bgr")
        result = (
            tracker.update(picture)
            if boxes
            else tracker.initialize(picture, Box.from_xywh(x + shift, y, w, h))
        )
        assert result.box is not None  # every frame counts as seen
        boxes.append(result.box)
    return boxes


def compare_trajectories(reference: Sequence[Box], other: Sequence[Box]) -> dict[str, Any]:
    """Return what two trajectories have in common.

    Returns:
        ``frames``, ``median_iou``, ``min_iou``, ``first_divergence`` (None if there is none), and
        ``lost``: frames in which the two boxes do not touch.
    """
    overlaps = np.array([a.iou(b) for a, b in zip(reference, other, strict=True)])
    apart = np.flatnonzero(~(overlaps >= SAME))
    return {
        "frames": len(overlaps),
        "median_iou": round(float(np.median(overlaps)), 6),
        "min_iou": round(float(overlaps.min()), 6),
        "first_divergence": int(apart[0]) if len(apart) else None,
        "lost": int((~(overlaps > 0)).sum()),
    }


def trajectory_failure(entry: Mapping[str, Any], noise: Mapping[str, Any]) -> str | None:
    """Say what is worse in a trajectory than rounding explains; None if nothing is.

    Args:
        entry: of :func:`compare_trajectories`, with the clip's name as ``clip``.
        noise: the same of the reference against itself, its first box moved.
    """
    if not entry["median_iou"] >= min(TRAJECTORY_LIMIT, noise["median_iou"] - NOISE_MARGIN):
        return (
            f"{entry['clip']}: median IoU of the trajectories is {entry['median_iou']:.4f} "
            f"(the network's own noise: {noise['median_iou']:.4f})"
        )
    if entry.get("lost", 0) and not noise.get("lost", 0):
        return f"{entry['clip']}: the trajectories do not touch in {entry['lost']} frames"
    return None


class Differences:
    """Collects how far the outputs of two back ends are apart, frame by frame."""

    def __init__(self) -> None:
        self._worst: dict[str, list[float]] = {}
        self._other_peak = 0
        self._frames = 0

    def add(self, reference: Arrays, other: Arrays) -> None:
        """Compare one frame's outputs: those that both have."""
        self._frames += 1
        for name in reference.keys() & other.keys():
            mine = np.asarray(reference[name], dtype=np.float64)
            worst = float(np.max(np.abs(np.asarray(other[name], dtype=np.float64) - mine)))
            self._worst.setdefault(name, []).append(worst)
        self._other_peak += int(not np.array_equal(reference["result.peak"], other["result.peak"]))

    def report(self) -> dict[str, Any]:
        """Return frames, frames with another peak, and each output's greatest and median difference."""
        names = sorted(self._worst)
        return {
            "frames": self._frames,
            "frames_with_another_peak": self._other_peak,
            "max_difference": {k: float(np.max(self._worst[k])) for k in names},
            "median_difference": {k: float(np.median(self._worst[k])) for k in names},
        }


def outputs_of(session: Any, result: StepResult) -> Arrays:
    """Return every output of a session's last search; of one that does not show them, the results."""
    found = getattr(session, "outputs", None)
    if found:
        return found
    box = result.box
    values = {
        "box": (box.cx, box.cy, box.w, box.h),
        "score": (result.score,),
        "runner_up": (result.runner_up,),
        "peak": result.peak,
    }
    return {f"result.{k}": np.array(v, np.float32) for k, v in values.items()}


class ComparedSession:
    """A session whose every call others shadow, each with its own state; its own answers count.

    Args:
        reference: the session; it shows its outputs.
        others: what it is compared with, by name.
    """

    def __init__(self, reference: Any, others: Mapping[str, Any]) -> None:
        self._reference, self._others = reference, others
        self.differences = {name: Differences() for name in others}

    @property
    def description(self) -> str:
        """What runs where, for people."""
        return str(self._reference.description)

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Start all."""
        return self._all("start", template, search, size)

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Step all."""
        return self._all("step", search, previous_size, memory)

    def commit(self) -> None:
        """Commit all."""
        for session in (self._reference, *self._others.values()):
            session.commit()

    def set_tuning(self, name: str, value: float) -> None:
        """Set a tuning input of all."""
        for session in (self._reference, *self._others.values()):
            session.set_tuning(name, value)

    def warm_up(self) -> None:
        """Warm all up."""
        for session in (self._reference, *self._others.values()):
            session.warm_up()

    def close(self) -> None:
        """Leave them open: they are others'."""

    def _all(self, call: str, *arguments: Any) -> StepResult:
        result: StepResult = getattr(self._reference, call)(*arguments)
        mine = outputs_of(self._reference, result)
        for name, session in self._others.items():
            theirs = outputs_of(session, getattr(session, call)(*arguments))
            self.differences[name].add(mine, theirs)
        return result


# --- recordings: a reference's crops and outputs, to be compared with on another machine ----------


@dataclass
class StepRecord:
    """What a session was given and what it gave, from the start of a track on.

    Attributes:
        clip: name.
        template: ``uint8 [n,n,3]``.
        searches: the crop of every frame; the first is the start's.
        sizes: (w, h) given with it.
        memories: the memory given with it (None where the graph reads none, and at the start).
        outputs: every output of every frame.
        committed: whether the step was committed.
    """

    clip: str
    template: UInt8Array | None = None
    searches: list[UInt8Array] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    memories: list[Memory | None] = field(default_factory=list)
    outputs: list[Arrays] = field(default_factory=list)
    committed: list[bool] = field(default_factory=list)


class StepRecorder(ComparedSession):
    """A session that keeps the first ``frames`` frames of what it is given and gives."""

    def __init__(self, reference: Any, clip: str, frames: int) -> None:
        super().__init__(reference, {})
        self.recording = StepRecord(clip)
        self._frames = frames

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Start, and keep it."""
        result = super().start(template, search, size)
        self.recording.template = template.copy()
        self._keep(search, size, None, result)
        self.recording.committed[-1] = True
        return result

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Step, and keep it."""
        result = super().step(search, previous_size, memory)
        if len(self.recording.searches) < self._frames:
            self._keep(search, previous_size, memory, result)
        return result

    def commit(self) -> None:
        """Commit, and keep that."""
        super().commit()
        self.recording.committed[-1] = True

    def _keep(
        self, search: UInt8Array, size: Size, memory: Memory | None, result: StepResult
    ) -> None:
        kept = self.recording
        kept.searches.append(search.copy())
        kept.sizes.append(size)
        kept.memories.append(None if memory is None else Memory(memory.crop.copy(), memory.size))
        outputs = outputs_of(self._reference, result)
        kept.outputs.append({k: np.array(v) for k, v in outputs.items() if v.nbytes <= KEPT_BYTES})
        kept.committed.append(False)


def replay(recording: StepRecord, session: Any) -> dict[str, Any]:
    """Give a session what a recording was given; return how far its outputs are from those kept.

    Returns:
        See :meth:`Differences.report`.
    """
    differences = Differences()
    for index, search in enumerate(recording.searches):
        size, memory = recording.sizes[index], recording.memories[index]
        if index == 0:
            assert recording.template is not None
            result = session.start(recording.template, search, size)
        else:
            result = session.step(search, size, memory)
        differences.add(recording.outputs[index], outputs_of(session, result))
        if index and recording.committed[index]:
            session.commit()
    return differences.report()


def save_steps(recording: StepRecord, file: Path) -> None:
    """Write a recording as .npz: arrays alone, so that any NumPy reads it."""
    assert recording.template is not None
    arrays: dict[str, Any] = {
        "clip": np.frombuffer(json.dumps(recording.clip).encode(), np.uint8),
        "template": recording.template,
        "searches": np.stack(recording.searches),
        "sizes": np.array(recording.sizes, np.float64),
        "committed": np.array(recording.committed),
    }
    given = [m for m in recording.memories if m is not None]
    if given:
        arrays["memories"] = np.stack([m.crop for m in given])
        arrays["memory_sizes"] = np.array([m.size for m in given], np.float64)
    for name in recording.outputs[0]:
        arrays[f"output.{name}"] = np.stack([o[name] for o in recording.outputs])
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)


def load_steps(file: Path) -> StepRecord:
    """Read a recording.

    Raises:
        RecordingError: naming the file.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        count = len(arrays["searches"])
        memories: list[Memory | None] = [None] * count
        if "memories" in arrays:
            memories[1:] = [
                Memory(crop, (float(w), float(h)))
                for crop, (w, h) in zip(arrays["memories"], arrays["memory_sizes"], strict=True)
            ]
        outputs = {k.removeprefix("output."): v for k, v in arrays.items() if "output." in k}
        return StepRecord(
            clip=str(json.loads(arrays["clip"].tobytes())),
            template=arrays["template"],
            searches=list(arrays["searches"]),
            sizes=[(float(w), float(h)) for w, h in arrays["sizes"]],
            memories=memories,
            outputs=[{k: v[i] for k, v in outputs.items()} for i in range(count)],
            committed=[bool(v) for v in arrays["committed"]],
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordingError(f"{file}: not a recording: {error}") from error


def record(
    bundle: Bundle,
    session: Any,
    clip: str,
    frames: Iterable[UInt8Array],
    first: tuple[float, float, float, float],
    count: int,
) -> tuple[StepRecord, list[Box]]:
    """Follow BGR frames with ``session``.

    Returns:
        Its first ``count`` steps, and the box of every frame.
    """
    recorder = StepRecorder(session, clip, count)
    boxes = follow(bundle, recorder, frames, first)
    return recorder.recording, boxes
