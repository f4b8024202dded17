"""What ``~/status`` and ``/diagnostics`` say, before it becomes a message."""

from __future__ import annotations

from dataclasses import dataclass

from siam_tracker_ros.nodes.frames import stamp_text
from siam_tracker_ros.nodes.statistics import Figures

OK, WARN, ERROR = 0, 1, 2
"""Levels of diagnostic_msgs/DiagnosticStatus."""


@dataclass(frozen=True)
class Status:
    """How the node stands.

    Attributes:
        state: idle, tracking, uncertain, lost or paused; the lifecycle's state while not active.
        id, score, stamp: of the target and the image processed last; stamp in nanoseconds.
        model, backend: what runs.
        calibration: ``calibrated`` if the score is a probability, ``uncalibrated`` if it is the
            network's own.
        engine_build: how far building TensorRT engines is, or what came of it, for people.
        backend_problem: why TensorRT does not run as asked, for people.
        selection_verdict, selection_stamp: what became of the last selection.
        problem: what is wrong, for people; ``failed`` if the node cannot work because of it.
        transport: why images do not arrive, or rarely, for people.
    """

    state: str = "unconfigured"
    id: str = ""
    score: float | None = None
    stamp: int | None = None
    model: str = ""
    backend: str = ""
    calibration: str = ""
    engine_build: str = ""
    backend_problem: str = ""
    selection_verdict: str = ""
    selection_stamp: int | None = None
    problem: str = ""
    failed: bool = False
    transport: str = ""

    @property
    def level(self) -> int:
        """The level of diagnostic_msgs/DiagnosticStatus."""
        if self.failed:
            return ERROR
        troubled = self.problem or self.transport or self.backend_problem
        return WARN if troubled or self.state in ("uncertain", "lost") else OK

    @property
    def message(self) -> str:
        """One line for people."""
        trouble = self.problem or self.transport
        if self.backend_problem and not trouble:
            return f"{self.state}, on {self.backend or 'nothing'}: {self.backend_problem}"
        if self.engine_build and not trouble:
            return f"{self.state}, TensorRT engines: {self.engine_build}"
        return trouble or self.state


def status_values(status: Status, figures: Figures) -> dict[str, str]:
    """Return the keys and values of ``~/status``, empty where there is nothing to tell."""
    return {
        "state": status.state,
        "id": status.id,
        "score": _number(status.score, 4),
        "calibration": status.calibration,
        "stamp": _stamp(status.stamp),
        "backend": status.backend,
        "model": status.model,
        "selection_verdict": status.selection_verdict,
        "selection_stamp": _stamp(status.selection_stamp),
        "latency_ms_p50": _number(figures.latency_p50),
        "latency_ms_p95": _number(figures.latency_p95),
        "dropped_transport": str(figures.dropped_transport),
        "dropped_busy": str(figures.dropped_busy),
        "engine_build": status.engine_build,
        "backend_problem": status.backend_problem,
    }


def diagnostic_values(
    status: Status,
    figures: Figures,
    memory_mb: float | None,
    history: tuple[int, int] = (0, 0),
) -> dict[str, str]:
    """Return the keys and values of the node's entry in ``/diagnostics``.

    Args:
        status: how the node stands.
        figures: what it counted and measured.
        memory_mb: resident memory.
        history: images and bytes that are kept for late selections.
    """
    return {
        "state": status.state,
        "model": status.model,
        "backend": status.backend,
        "engine_build": status.engine_build,
        "backend_problem": status.backend_problem,
        "images_received": str(figures.received),
        "images_processed": str(figures.processed),
        "images_refused": str(figures.refused),
        "images_replayed": str(figures.replayed),
        "dropped_transport": str(figures.dropped_transport),
        "dropped_node": str(figures.dropped_node),
        "dropped_busy": str(figures.dropped_busy),
        "image_rate_hz": f"{figures.image_rate:.2f}",
        "detection_rate_hz": f"{figures.detection_rate:.2f}",
        "latency_ms_p50": _number(figures.latency_p50),
        "latency_ms_p95": _number(figures.latency_p95),
        "step_ms_p50": _number(figures.step_p50),
        "step_ms_p95": _number(figures.step_p95),
        "crop_ms_p50": _number(figures.crop_p50),
        "overhead_ms_p50": _number(figures.overhead_p50),
        "overhead_ms_p95": _number(figures.overhead_p95),
        "history_images": str(history[0]),
        "history_mb": f"{history[1] / 1e6:.1f}",
        "memory_mb": _number(memory_mb, 1),
    }


def resident_memory_mb() -> float | None:
    """Return this process's resident memory, None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as stream:
            line = next(text for text in stream if text.startswith("VmRSS:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) / 1024


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _stamp(stamp: int | None) -> str:
    return "" if stamp is None else stamp_text(stamp)
