"""Our own tracker, made from a model bundle, for evaluation and speed figures."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2

from siam_tracker_ros.bundle import Bundle, BundleError, load_bundle
from siam_tracker_ros.evaluation.agreement import in_precision
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.protocol import FrameTracker, TrackerAdapter
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.tracking import Tracker, TrackerSettings

DEFAULT_MODEL = "siam_stm_mobilenetv2"

CODE = ("geometry", "bundle", "tracking", "inference")
"""The rooms whose code a tracker's answers depend on."""


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Return a hash over the source of the rooms that track: new code, new results."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in CODE:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(f"{file.relative_to(package)}:".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class BundleTrackerMaker:
    """Makes a :class:`Tracker` from a bundle in whatever process it is called in.

    Args:
        model: a bundle's name or path.
        backend: of ``inference.open_session``.
        threads: of the session and of OpenCV (whose number is set for the whole process); 0 = their
            choice.
        settings: of the tracker; the bundle's defaults without.
        precision: fp32, or the bundle's graphs of that precision, on ONNX Runtime.

    Raises:
        BundleError: if the bundle cannot be found or is not valid, or lacks the precision.
    """

    model: str
    backend: str = "auto"
    threads: int = 2
    settings: TrackerSettings = field(default_factory=TrackerSettings)
    precision: str = "fp32"

    def bundle(self) -> Bundle:
        """Load the bundle, with the graphs of the precision in place of its own."""
        bundle = load_bundle(self.model)
        if self.precision == "fp32":
            return bundle
        if self.precision not in bundle.precisions:
            raise BundleError(
                f"{bundle.name} has no {self.precision} graphs: "
                f"siam-tracker add-precision --model {self.model} --precision {self.precision}"
            )
        return in_precision(bundle, self.precision)

    @property
    def name(self) -> str:
        """The bundle's own name, and the precision where it is not FP32."""
        name = self.bundle().name
        return name if self.precision == "fp32" else f"{name}-{self.precision}"

    @property
    def fingerprint(self) -> str:
        """Hash over bundle, tracking code, settings, back end, threads and library versions."""
        text = "\n".join(
            [
                self.bundle().fingerprint,
                code_fingerprint(),
                repr(asdict(self.settings)),
                f"{self.backend} {self.precision} {self.threads} {sorted(describe_machine()['versions'].items())}",
            ]
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def details(self) -> dict[str, Any]:
        """What the report says about the tracker."""
        bundle = self.bundle()
        changed = {k: v for k, v in asdict(self.settings).items() if v is not None}
        return {
            "bundle": bundle.name,
            "bundle_fingerprint": bundle.fingerprint,
            "backend": self.backend,
            "precision": self.precision,
            "threads": self.threads,
            "settings": changed,
        }

    def __call__(self) -> FrameTracker:
        """Open a session and put a tracker on it."""
        if self.threads > 0:
            cv2.setNumThreads(self.threads)
        bundle = self.bundle()
        session = open_session(bundle, self.backend, intra_op_threads=self.threads)
        session.warm_up()
        return TrackerAdapter(Tracker(bundle, session, self.settings))
