"""Counts that are true, percentiles, rates."""

from __future__ import annotations

import pytest

from siam_tracker_ros.nodes.statistics import Statistics
from siam_tracker_ros.nodes.status import (
    ERROR,
    OK,
    WARN,
    Status,
    diagnostic_values,
    resident_memory_mb,
    status_values,
)
from siam_tracker_ros.tracking import Timing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_yet() -> None:
    figures = Statistics().figures()
    assert (figures.received, figures.dropped_busy, figures.dropped_transport) == (0, 0, 0)
    assert figures.latency_p50 is None and figures.image_rate == 0.0


def test_losses_in_transport_in_the_node_and_by_a_busy_worker_are_counted_apart() -> None:
    statistics = Statistics()
    # 1 2 . 4 . . 7: 3 lost in transport (the middleware says so), 5 and 6 overwritten before taken.
    for sequence in (1, 2, 4, 7):
        statistics.image_received(sequence)
    statistics.lost_in_transport(1)
    statistics.frame_replaced()
    figures = statistics.figures()
    dropped = (figures.dropped_transport, figures.dropped_node, figures.dropped_busy)
    assert (figures.received, dropped) == (4, (1, 2, 1))


def test_a_new_publisher_numbers_anew() -> None:
    statistics = Statistics()
    statistics.image_received(5)
    statistics.image_received(1)  # restarted
    statistics.new_publisher()
    statistics.image_received(90)  # another one, joined late
    statistics.image_received(None)
    statistics.image_received(95)
    assert statistics.figures().dropped_node == 0


def test_without_numbers_only_the_middleware_knows() -> None:
    statistics = Statistics()
    for _ in range(10):
        statistics.image_received(None)
    statistics.lost_in_transport(4)
    figures = statistics.figures()
    assert (figures.dropped_transport, figures.dropped_node) == (4, 0)


def test_times() -> None:
    statistics = Statistics()
    for ms in range(1, 101):
        timing = Timing(crop_ms=1.0, step_ms=ms / 10, total_ms=2.0)
        statistics.detection_published(ms * 1_000_000, ms / 100, timing)
    figures = statistics.figures()
    assert figures.latency_p50 == pytest.approx(50.5)
    assert figures.latency_p95 == pytest.approx(95.05)
    assert figures.overhead_p50 == pytest.approx(0.505)
    assert figures.step_p50 == pytest.approx(5.05)
    assert (figures.crop_p50, figures.processed) == (1.0, 100)


def test_stamps_of_another_clock_give_no_latency() -> None:
    statistics = Statistics()
    statistics.detection_published(10**18, 0.5, Timing())
    statistics.detection_published(-5, 0.5, Timing())
    assert statistics.figures().latency_p50 is None
    assert statistics.figures().overhead_p50 == 0.5


def test_rates_follow_the_stream_and_fall_when_it_stops() -> None:
    clock = Clock()
    statistics = Statistics(clock)
    for _ in range(60):
        clock.now += 1 / 30
        statistics.image_received()
    assert statistics.figures().image_rate == pytest.approx(30.0)
    clock.now += 1.0
    assert statistics.figures().image_rate == pytest.approx(20.0, rel=0.05)
    clock.now += 10.0
    assert statistics.figures().image_rate == 0.0


def test_the_status_has_exactly_the_promised_keys() -> None:
    values = status_values(Status(), Statistics().figures())
    assert list(values) == [
        "state",
        "id",
        "score",
        "calibration",
        "stamp",
        "backend",
        "model",
        "selection_verdict",
        "selection_stamp",
        "latency_ms_p50",
        "latency_ms_p95",
        "dropped_transport",
        "dropped_busy",
        "engine_build",
        "backend_problem",
    ]
    assert values["score"] == values["stamp"] == values["latency_ms_p50"] == ""


def test_levels() -> None:
    assert Status(state="tracking").level == OK
    assert Status(state="lost").level == Status(state="uncertain").level == WARN
    assert Status(state="tracking", problem="an image is ignored").level == WARN
    assert Status(state="unconfigured", problem="no such model", failed=True).level == ERROR
    assert Status(state="idle", problem="what is wrong").message == "what is wrong"
    assert Status(state="idle").message == "idle"
    building = Status(state="configuring", engine_build="search fp16 42 %: Tactics, 31 s")
    assert building.message == "configuring, TensorRT engines: search fp16 42 %: Tactics, 31 s"
    assert building.level == OK
    slow = Status(state="tracking", backend="ONNX Runtime", backend_problem="out of GPU memory")
    assert slow.level == WARN
    assert slow.message == "tracking, on ONNX Runtime: out of GPU memory"


def test_values_are_printed_for_people() -> None:
    status = Status(state="tracking", id="3", score=0.91234, stamp=5_000_000_001)
    statistics = Statistics()
    statistics.detection_published(12_345_678, 1.0, Timing())
    values = status_values(status, statistics.figures())
    assert (values["score"], values["stamp"]) == ("0.9123", "5.000000001")
    assert values["latency_ms_p50"] == "12.35"
    memory = resident_memory_mb()
    assert memory is not None and 5 < memory < 50_000
    assert diagnostic_values(status, statistics.figures(), memory)["memory_mb"] == f"{memory:.1f}"
