"""Does the exported bundle do what the network does? Torch against ONNX Runtime, per output and per trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime
import torch

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.deployment.torch_session import TorchSession
from siam_tracker_ros.evaluation.agreement import (
    HOW,
    NOISE_SHIFT,
    OUTPUT_LIMIT,
    ComparedSession,
    compare_trajectories,
    follow,
    in_precision,
    trajectory_failure,
)
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.reference_session import ReferenceSession
from siam_tracker_ros.evaluation.sequences import Sequence as Clip
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.networks.tracker_network import TrackerNetwork

_FRAMES = 120


def measure_parity(
    network: TrackerNetwork, bundle: Bundle, clips: Sequence[Clip] = ()
) -> dict[str, Any]:
    """Measure a bundle against the network that it was exported from.

    Two comparisons on each clip, both without states of the track (presence is ignored, every frame is committed):

    * outputs: both get the crops of the torch trajectory, each carries its own state; differences of every output;
    * trajectories: a ``Tracker`` on each, free-running; IoU of their boxes frame by frame, and how far noise takes
      the torch trajectory (see ``evaluation.agreement``).

    The FP16 twins, where the bundle has them, are compared by their trajectories on ONNX Runtime, which computes some
    of their operators in FP32: a GPU may differ from it.

    Args:
        network: FP32 on the CPU.
        bundle: as loaded.
        clips: sequences; only their first box is used. A rendered clip of 120 frames without.

    Returns:
        Plain data for parity.json.
    """
    clips = list(clips) or [default_clip()]
    graphs = ReferenceSession(bundle)
    outputs = []
    trajectories = []
    halves = []
    half = in_precision(bundle, "fp16") if "fp16" in bundle.precisions else None
    for clip in clips:
        compared = ComparedSession(TorchSession(network, bundle.tuning), {"graphs": graphs})
        reference = follow(bundle, compared, clip, clip.first_box)
        outputs.append({"clip": clip.name, **compared.differences["graphs"].report()})
        plain = TorchSession(network, bundle.tuning)
        moved = follow(bundle, plain, clip, clip.first_box, shift=NOISE_SHIFT)
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
        "how": HOW,
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
        worse = trajectory_failure(entry, entry["noise"])
        if worse:
            found.append(worse)
    return found


def default_clip() -> Clip:
    """Return the rendered clip that parity is measured on where nobody names one."""
    return synthetic_sequence(640, 360, _FRAMES)


def _free_running(bundle: Bundle, clip: Clip) -> list[Box]:
    session = open_session(bundle, "onnxruntime", intra_op_threads=1)
    try:
        return follow(bundle, session, clip, clip.first_box)
    finally:
        session.close()


__all__ = ["Clip", "default_clip", "failures", "measure_parity"]
