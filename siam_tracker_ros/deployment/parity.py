"""Does the exported bundle do what the network does? Torch against ONNX Runtime, per output and per trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from siam_tracker_ros.bundle import NEXT, Bundle, Memory, StepResult
from siam_tracker_ros.deployment.torch_session import TorchSession
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.sequences import Sequence as Clip
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.networks.tracker_network import TrackerNetwork
from siam_tracker_ros.tracking import Tracker, TrackerSettings

SAME = 0.99
"""Two boxes with at least this IoU count as the same; the first frame below is the frame of divergence."""

OUTPUT_LIMIT = 1e-3
TRAJECTORY_LIMIT = 0.99
"""What :func:`failures` lets pass: median difference of an output, and median IoU of a trajectory."""

NOISE_SHIFT = 1e-4
"""Image px that the first box is moved by to see how a network's trajectory answers to noise."""

NOISE_MARGIN = 0.02
"""A trajectory may be this much further from the network's own than noise takes it."""

_FOLLOW_ALWAYS = TrackerSettings(found=0.0, lost=0.0)
_FRAMES = 120

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[float, float]
Arrays = dict[str, npt.NDArray[Any]]


def measure_parity(
    network: TrackerNetwork, bundle: Bundle, clips: Sequence[Clip] = ()
) -> dict[str, Any]:
    """Measure a bundle against the network that it was exported from.

    Two comparisons on each clip, both without states of the track (presence is ignored, every frame is committed):

    * outputs: both get the crops of the torch trajectory, each carries its own state; differences of every output;
    * trajectories: a ``Tracker`` on each, free-running; IoU of their boxes frame by frame.

    A tracker feeds its boxes back, so that the smallest difference grows where it is near a tie. How much is measured
    too: ``noise`` is the torch trajectory against itself with the first box moved by a ten-thousandth of a pixel.

    The FP16 twins, where the bundle has them, are compared by their trajectories on ONNX Runtime, which computes some
    of their operators in FP32: a GPU may differ from it.

    Args:
        network: FP32 on the CPU.
        bundle: as loaded.
        clips: sequences; only their first box is used. A rendered clip of 120 frames without.

    Returns:
        Plain data for parity.json.
    """
    clips = list(clips) or [synthetic_sequence(640, 360, _FRAMES)]
    comparison = _ComparedSession(network, bundle)
    outputs = []
    trajectories = []
    halves = []
    half = in_precision(bundle, "fp16") if "fp16" in bundle.precisions else None
    for clip in clips:
        comparison.begin()
        reference = _boxes(Tracker(bundle, comparison, _FOLLOW_ALWAYS), clip)
        outputs.append({"clip": clip.name, **comparison.report()})
        plain = TorchSession(network, bundle.tuning)
        moved = _boxes(Tracker(bundle, plain, _FOLLOW_ALWAYS), clip, shift=NOISE_SHIFT)
        trajectories.append(
            {
                "clip": clip.name,
                **compare_trajectories(reference, _free_running(bundle, clip)),
                "noise": compare_trajectories(reference, moved),
            }
        )
        if half is not None:
            boxes = _free_running(half, clip)
            halves.append({"clip": clip.name, **compare_trajectories(reference, boxes)})
    return {
        "reference": f"torch {torch.__version__}, FP32, CPU",
        "machine": describe_machine(),
        "how": "presence ignored, every frame committed; outputs: crops forced to the reference's, own state each; "
        f"trajectories: free-running, divergence = first frame with IoU < {SAME}",
        "onnxruntime": {
            "version": f"ONNX Runtime {onnxruntime.__version__}, CPU",
            "outputs": outputs,
            "trajectories": trajectories,
            "fp16_trajectories": halves,
        },
        "tensorrt": None,
        "tensorrt_reason": "not measured: it takes a GPU",
    }


def failures(parity: Mapping[str, Any], trajectories: bool = True) -> list[str]:
    """Return what in a parity report is worse than rounding can explain; empty if all is well.

    Args:
        parity: of :func:`measure_parity`.
        trajectories: judge them too; those of an untrained network are chaotic, rounding alone parts them.
    """
    found = []
    measured = parity["onnxruntime"]
    for entry in measured["outputs"]:
        for name, value in entry["median_difference"].items():
            if not value <= OUTPUT_LIMIT:
                found.append(f"{entry['clip']}: {name} differs by {value:.3g} in the median frame")
    for entry in measured["trajectories"] if trajectories else ():
        noise = entry["noise"]["median_iou"]
        if not entry["median_iou"] >= min(TRAJECTORY_LIMIT, noise - NOISE_MARGIN):
            found.append(
                f"{entry['clip']}: median IoU of the trajectories is {entry['median_iou']:.4f} "
                f"(the network's own noise: {noise:.4f})"
            )
    return found


def in_precision(bundle: Bundle, precision: str) -> Bundle:
    """Return ``bundle`` with the graphs of another precision in place of its own.

    Raises:
        KeyError: if it has no such precision.
    """
    files = bundle.precisions[precision]
    graphs = {key: replace(graph, file=files[key]) for key, graph in bundle.graphs.items()}
    return replace(bundle, graphs=graphs)


def compare_trajectories(reference: Sequence[Box], other: Sequence[Box]) -> dict[str, Any]:
    """Return frames, median and least IoU, and the first frame that diverges (None if none does)."""
    overlaps = np.array([a.iou(b) for a, b in zip(reference, other, strict=True)])
    apart = np.flatnonzero(overlaps < SAME)
    return {
        "frames": len(overlaps),
        "median_iou": round(float(np.median(overlaps)), 6),
        "min_iou": round(float(overlaps.min()), 6),
        "first_divergence": int(apart[0]) if len(apart) else None,
    }


def _free_running(bundle: Bundle, clip: Clip) -> list[Box]:
    session = open_session(bundle, "onnxruntime", intra_op_threads=1)
    try:
        return _boxes(Tracker(bundle, session, _FOLLOW_ALWAYS), clip)
    finally:
        session.close()


def _boxes(tracker: Tracker, clip: Clip, shift: float = 0.0) -> list[Box]:
    boxes: list[Box] = []
    x, y, w, h = clip.first_box
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


class _ComparedSession(TorchSession):
    """The torch session, with the bundle's graphs shadowing every call; keeps the differences."""

    def __init__(self, network: TrackerNetwork, bundle: Bundle) -> None:
        super().__init__(network, bundle.tuning)
        self._graphs = _Graphs(bundle)
        self.begin()

    def begin(self) -> None:
        """Forget the differences so far."""
        self._differences: dict[str, list[float]] = {}
        self._other_peak = 0

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Start both."""
        result = super().start(template, search, size)
        self._graphs.start(template, size)
        self._compare(search, size, 1.0, Memory(search, size))
        self._graphs.commit()
        return result

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Step both; the torch result counts."""
        result = super().step(search, previous_size, memory)
        self._compare(search, previous_size, 0.0, memory)
        return result

    def commit(self) -> None:
        """Commit both."""
        super().commit()
        self._graphs.commit()

    def report(self) -> dict[str, Any]:
        """Return the differences since :meth:`begin`, per output."""
        return {
            "frames": len(next(iter(self._differences.values()))),
            "frames_with_another_peak": self._other_peak,
            "max_difference": {k: float(np.max(v)) for k, v in self._differences.items()},
            "median_difference": {k: float(np.median(v)) for k, v in self._differences.items()},
        }

    def _compare(self, search: UInt8Array, size: Size, first: float, memory: Memory | None) -> None:
        ours = self._graphs.step(search, size, first, memory, self._tuning)
        for name, value in self.outputs.items():
            worst = float(np.max(np.abs(ours[name].astype(np.float64) - value)))
            self._differences.setdefault(name, []).append(worst)
        self._other_peak += int(
            not np.array_equal(ours["result.peak"], self.outputs["result.peak"])
        )


class _Graphs:
    """A bundle's graphs on ONNX Runtime with every output in sight, unlike the session that robots use."""

    def __init__(self, bundle: Bundle) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            name: onnxruntime.InferenceSession(
                bundle.read(graph.file), options, providers=["CPUExecutionProvider"]
            )
            for name, graph in bundle.graphs.items()
        }
        self._reads = {name: {t.name for t in g.inputs} for name, g in bundle.graphs.items()}
        self._empty = {
            t.name: np.zeros(t.shape, t.dtype)
            for t in bundle.graphs["search"].inputs
            if t.name.startswith("state.")
        }
        self._state: Arrays = {}
        self._next: Arrays = {}

    def start(self, template: UInt8Array, size: Size) -> None:
        inputs: Arrays = {"template": template, "previous_size": np.array(size, np.float32)}
        self._state = {**self._empty, **self._run("template", inputs)}

    def step(
        self,
        search: UInt8Array,
        size: Size,
        first: float,
        memory: Memory | None,
        tuning: Mapping[str, float],
    ) -> Arrays:
        inputs: Arrays = {
            "search": search,
            "previous_size": np.array(size, np.float32),
            "first": np.array([first], np.float32),
            **{f"tuning.{k}": np.array([v], np.float32) for k, v in tuning.items()},
            **self._state,
        }
        if memory is not None:
            inputs["memory"], inputs["memory_size"] = memory.crop, np.array(memory.size, np.float32)
        outputs = self._run("search", inputs)
        self._next = {k.removesuffix(NEXT): v for k, v in outputs.items() if k.startswith("state.")}
        return outputs

    def commit(self) -> None:
        self._state = {**self._state, **self._next}

    def _run(self, graph: str, inputs: Arrays) -> Arrays:
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        feed = {k: v for k, v in inputs.items() if k in self._reads[graph]}
        return dict(zip(names, session.run(names, feed), strict=True))


__all__ = ["Clip", "compare_trajectories", "failures", "measure_parity"]
