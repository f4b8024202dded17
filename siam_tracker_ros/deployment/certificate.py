"""A bundle's parity certificate: every back end and precision that is here, against ONNX Runtime in FP32.

Torch is not imported: on a robot or a GPU machine a bundle is certified as it is. What was measured against the
network itself when the bundle was exported stays in parity.json beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from siam_tracker_ros.bundle import Bundle, BundleError
from siam_tracker_ros.evaluation.agreement import (
    HOW,
    NOISE_SHIFT,
    ComparedSession,
    compare_trajectories,
    follow,
    in_precision,
    trajectory_failure,
)
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.reference_session import ReferenceSession
from siam_tracker_ros.evaluation.sequences import Sequence as Clip
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.inference import BackendError, find_tensorrt, open_session

PARITY_FILE = "parity.json"

Say = Callable[[str], None]


def certify(
    bundle: Bundle,
    clips: Sequence[Clip],
    *,
    known: Mapping[str, Any] | None = None,
    cache_dir: Path | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Measure every back end and precision of a bundle that this machine has.

    On each clip the reference (ONNX Runtime, FP32, one thread of the CPU) and each candidate get the same crops, and
    their outputs are compared; then each follows the clip alone, and the boxes are compared.

    Args:
        bundle: as loaded.
        clips: sequences; only their first box is used.
        known: what parity.json holds; what is measured here replaces its part, everything else stays. A
            TensorRT entry of these very graphs stays where there is no TensorRT here.
        cache_dir: where TensorRT engines are kept; without: the user's cache folder. What is missing is built.
        say: called with a line for each step.

    Returns:
        Plain data for parity.json: ``certificate`` (reference, noise, bundle), ``onnxruntime.precisions`` and
        ``tensorrt`` (version, device, precisions), or ``tensorrt_reason``.

    Raises:
        BackendError: if the reference itself cannot run.
    """
    parity = dict(known or {})
    # Presence, tuning and provenance may be corrected without a new certificate: graphs count.
    graphs = {name: entry.sha256 for name, entry in bundle.files.items()}
    reference = ReferenceSession(bundle)
    walks: dict[str, list[Box]] = {}
    noise = []
    for clip in clips:
        say(f"{clip.name}: the reference, twice")
        walks[clip.name] = follow(bundle, reference, clip, clip.first_box)
        moved = follow(bundle, reference, clip, clip.first_box, shift=NOISE_SHIFT)
        noise.append({"clip": clip.name, **compare_trajectories(walks[clip.name], moved)})
    parity["certificate"] = {
        "reference": f"ONNX Runtime {onnxruntime.__version__}, FP32, CPU",
        "machine": describe_machine(),
        "how": HOW,
        "graphs": graphs,
        "noise": noise,
    }

    def measure(candidate: Bundle, session: Any) -> dict[str, Any]:
        outputs, trajectories = [], []
        for clip in clips:
            compared = ComparedSession(reference, {"it": session})
            follow(bundle, compared, clip, clip.first_box)
            outputs.append({"clip": clip.name, **compared.differences["it"].report()})
            boxes = follow(candidate, session, clip, clip.first_box)
            trajectories.append(
                {"clip": clip.name, **compare_trajectories(walks[clip.name], boxes)}
            )
        return {"outputs": outputs, "trajectories": trajectories}

    def run_twin(twin: Bundle) -> dict[str, Any]:
        return measure(twin, ReferenceSession(twin))

    precisions: dict[str, Any] = {}
    for precision in sorted(bundle.precisions):
        say(f"ONNX Runtime {precision}")
        twin = in_precision(bundle, precision)
        precisions[precision] = _guarded(partial(run_twin, twin))
    here = dict(parity.get("onnxruntime") or {})
    here.setdefault("version", f"ONNX Runtime {onnxruntime.__version__}, CPU")
    parity["onnxruntime"] = {**here, "precisions": precisions}
    _certify_tensorrt(parity, bundle, graphs, measure, cache_dir, say)
    return parity


def _certify_tensorrt(
    parity: dict[str, Any],
    bundle: Bundle,
    graphs: Mapping[str, str],
    measure: Callable[[Bundle, Any], dict[str, Any]],
    cache_dir: Path | None,
    say: Say,
) -> None:
    try:
        trt, gpu = find_tensorrt()
    except BackendError as error:
        say(f"TensorRT is not here: {error}")
        entry = parity.get("tensorrt")
        if not isinstance(entry, Mapping) or entry.get("graphs") != graphs:
            parity["tensorrt"] = None
            parity["tensorrt_reason"] = f"not measured: {error}"
        return
    found: dict[str, Any] = {}
    for precision in ("fp32", *sorted(bundle.precisions)):
        say(f"TensorRT {precision}")

        def run(precision: str = precision) -> dict[str, Any]:
            session = open_session(
                bundle,
                "tensorrt",
                precision=precision,
                cache_dir=cache_dir,
                allow_fallback=False,
                log=say,
            )
            with contextlib.closing(session):
                return measure(bundle, session)

        found[precision] = _guarded(run)
    parity.pop("tensorrt_reason", None)
    parity["tensorrt"] = {
        "version": f"TensorRT {trt.__version__}",
        "device": f"{gpu.identity.name}, compute capability {gpu.identity.compute_capability}",
        "driver": f"CUDA {gpu.driver_cuda}",
        "graphs": dict(graphs),
        "precisions": found,
    }


def _guarded(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what ``measure`` does, or why it failed: one back end's failure is a result too."""
    try:
        return measure()
    except BackendError as error:
        return {"failed": str(error)}


def objections(parity: Mapping[str, Any]) -> list[str]:
    """Return what speaks against a certificate; empty if every trajectory keeps to the reference's.

    A precision's outputs differ by what the precision costs: they are reported, trajectories are judged.
    """
    noise = {entry["clip"]: entry for entry in parity["certificate"]["noise"]}
    found = []
    for label, entry in entries(parity):
        if "failed" in entry:
            found.append(f"{label}: {entry['failed']}")
        for trajectory in entry.get("trajectories", ()):
            worse = trajectory_failure(trajectory, noise.get(trajectory["clip"], trajectory))
            if worse:
                found.append(f"{label}: {worse}")
    return found


def entries(parity: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what a certificate measured: back end and precision, and its entry."""
    made = []
    for key, name in (("onnxruntime", "ONNX Runtime"), ("tensorrt", "TensorRT")):
        measured = (parity.get(key) or {}).get("precisions", {})
        made += [(f"{name} {precision}", entry) for precision, entry in measured.items()]
    return made


def read_parity(bundle: Bundle) -> dict[str, Any]:
    """Return what a bundle's parity.json holds; empty if it has none.

    Raises:
        BundleError: if the file is not a JSON object.
    """
    file = bundle.path / PARITY_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file}: cannot be read: {error}; delete it to start anew") from error
    if not isinstance(content, dict):
        raise BundleError(f"{file}: is no JSON object; delete it to start anew")
    return content


def write_parity(bundle: Bundle, parity: Mapping[str, Any]) -> Path:
    """Put parity.json into a bundle's folder, as a whole or not at all; return its path.

    Raises:
        BundleError: if it cannot be written.
    """
    file = bundle.path / PARITY_FILE
    text = json.dumps(parity, indent=1) + "\n"
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{PARITY_FILE}.", dir=bundle.path)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise BundleError(f"{file}: cannot be written: {os.strerror(error.errno or 0)}") from error
    return file
