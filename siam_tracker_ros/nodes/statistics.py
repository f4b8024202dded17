"""Counts, rates and times of the node, written by several threads and read by one timer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from siam_tracker_ros.tracking import Timing

WINDOW = 300
"""Percentiles are of the last so many images."""

RATE_SECONDS = 5.0
"""Rates are of the last so many seconds."""

FOREIGN_CLOCK_SECONDS = 3600.0
"""A latency beyond this (or below zero) means that the stamps are of another clock."""


@dataclass(frozen=True)
class Figures:
    """What was counted and measured; times in milliseconds, None where there is nothing to tell.

    Attributes:
        received: images that reached the callback.
        refused: of these, could not be read.
        processed: of these, answered by a detection.
        replayed: of these, followed in without a detection on the way from a late selection to the
            present.
        dropped_transport: never arrived, as the middleware says.
        dropped_node: arrived, but the next one overwrote them before this node took them.
        dropped_busy: taken, but a newer one replaced them while the network was busy.
        recently_received, recently_lost, recently_overwritten: images of the last seconds, as
            received, dropped_transport and dropped_node count them.
        silent_for: seconds since the last image; None before the first.
        image_bytes: data of the last image.
        image_rate, detection_rate: a second.
        latency_p50, latency_p95: from an image's stamp to its published detection.
    """

    received: int
    refused: int
    processed: int
    replayed: int
    dropped_transport: int
    dropped_node: int
    dropped_busy: int
    recently_received: int
    recently_lost: int
    recently_overwritten: int
    silent_for: float | None
    image_bytes: int
    image_rate: float
    detection_rate: float
    latency_p50: float | None
    latency_p95: float | None
    overhead_p50: float | None
    overhead_p95: float | None
    crop_p50: float | None
    step_p50: float | None
    step_p95: float | None


class Statistics:
    """Thread-safe; ``clock`` in seconds serves the rates."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Start from nothing."""
        with self._lock:
            self._received = self._refused = self._processed = 0
            self._replaced = self._lost = self._gaps = self._replayed = self._bytes = 0
            self._sequence: int | None = None
            self._images: deque[float] = deque()
            self._losses: deque[tuple[float, int]] = deque(maxlen=WINDOW)
            self._gap_times: deque[tuple[float, int]] = deque(maxlen=WINDOW)
            self._detections: deque[float] = deque()
            self._latency: deque[float] = deque(maxlen=WINDOW)
            self._overhead: deque[float] = deque(maxlen=WINDOW)
            self._crop: deque[float] = deque(maxlen=WINDOW)
            self._step: deque[float] = deque(maxlen=WINDOW)

    def image_received(self, sequence: int | None = None, nbytes: int = 0) -> None:
        """Count an image that reached the callback.

        Args:
            nbytes: of its data.
            sequence: the publisher's number of it, where the middleware tells and there is one
                publisher. Numbers that are missing were lost in transport or overwritten here
                before they were taken.
        """
        with self._lock:
            self._received += 1
            self._bytes = nbytes
            _note(self._images, self._clock())
            if sequence is not None and self._sequence is not None and sequence > self._sequence:
                self._gaps += sequence - self._sequence - 1
                self._gap_times.append((self._clock(), sequence - self._sequence - 1))
            self._sequence = sequence

    def new_publisher(self) -> None:
        """Numbers seen so far say nothing of the next ones."""
        with self._lock:
            self._sequence = None

    def lost_in_transport(self, count: int) -> None:
        """Count images that the middleware says never arrived."""
        with self._lock:
            self._lost += count
            self._losses.append((self._clock(), count))

    def image_refused(self) -> None:
        """Count an image that could not be read."""
        with self._lock:
            self._refused += 1

    def frame_replaced(self) -> None:
        """Count a frame that a newer one replaced while the worker was busy."""
        with self._lock:
            self._replaced += 1

    def caught_up(self, followed: int) -> None:
        """Count images that were followed in on the way from a late selection to the present."""
        with self._lock:
            self._replayed += followed

    def selection_published(self) -> None:
        """Count the detection of a selection's image, whose age is the operator's."""
        with self._lock:
            self._processed += 1
            _note(self._detections, self._clock())

    def detection_published(self, latency_ns: int, overhead_ms: float, timing: Timing) -> None:
        """Count a published detection of an image that just came in.

        Args:
            latency_ns: from the image's stamp to the return of ``publish``.
            overhead_ms: from entry of the image's callback to the return of ``publish``, less the
                network's time.
            timing: of the tracker's call.
        """
        with self._lock:
            self._processed += 1
            _note(self._detections, self._clock())
            if 0 <= latency_ns < FOREIGN_CLOCK_SECONDS * 1e9:
                self._latency.append(latency_ns / 1e6)
            self._overhead.append(overhead_ms)
            self._crop.append(timing.crop_ms)
            self._step.append(timing.step_ms)

    def figures(self) -> Figures:
        """Return how it stands."""
        with self._lock:
            now = self._clock()
            lost, gaps = (
                sum(n for t, n in times if t >= now - RATE_SECONDS)
                for times in (self._losses, self._gap_times)
            )
            latency, overhead = list(self._latency), list(self._overhead)
            crop, step = list(self._crop), list(self._step)
            numbers = {
                "received": self._received,
                "refused": self._refused,
                "processed": self._processed,
                "replayed": self._replayed,
                "dropped_transport": self._lost,
                # A missing number that was not lost was overwritten before this node took it.
                "dropped_node": max(0, self._gaps - self._lost),
                "dropped_busy": self._replaced,
                "recently_received": sum(t >= now - RATE_SECONDS for t in self._images),
                "recently_lost": lost,
                "recently_overwritten": max(0, gaps - lost),
                "image_bytes": self._bytes,
            }
            silent_for = now - self._images[-1] if self._images else None
            image_rate, detection_rate = (_rate(t, now) for t in (self._images, self._detections))
        return Figures(
            **numbers,
            silent_for=silent_for,
            image_rate=image_rate,
            detection_rate=detection_rate,
            latency_p50=_percentile(latency, 50),
            latency_p95=_percentile(latency, 95),
            overhead_p50=_percentile(overhead, 50),
            overhead_p95=_percentile(overhead, 95),
            crop_p50=_percentile(crop, 50),
            step_p50=_percentile(step, 50),
            step_p95=_percentile(step, 95),
        )


def _note(times: deque[float], now: float) -> None:
    times.append(now)
    while times[0] < now - RATE_SECONDS:
        times.popleft()


def _rate(times: deque[float], now: float) -> float:
    recent = [t for t in times if t >= now - RATE_SECONDS]
    if len(recent) < 2:
        return 0.0
    gap = (recent[-1] - recent[0]) / (len(recent) - 1)
    if now - recent[-1] > 2 * gap:  # the stream has stopped: its rate falls
        return len(recent) / (now - recent[0])
    return 1 / gap if gap > 0 else 0.0


def _percentile(values: list[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None
