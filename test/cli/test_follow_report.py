"""The verdict on a run of follow-benchmark: each bound, broken, is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")

from siam_tracker_ros.cli.common import CommandError
from siam_tracker_ros.cli.follow_report import read_run, run_figures, shortcomings

RATE = 10
HIDDEN = (20.0, 22.0)
"""When a wall hides the target, seconds; the robot stops after 0.4 s and goes on 0.4 s after."""


def write(
    folder: Path,
    *,
    distance: float = 2.1,
    bearing: float = 0.02,
    speed: float = 0.3,
    stop_after: float = 0.4,
    again_after: float | None = 0.4,
    leaves_at: float = math.inf,
    stands: tuple[float, float] = (0.0, 0.0),
) -> Path:
    """Write a run of 60 s, with what is wrong in it."""
    rows: list[dict[str, Any]] = []
    for i in range(60 * RATE):
        t = i / RATE
        hidden, outside = HIDDEN[0] <= t < HIDDEN[1], t >= leaves_at
        stopped = HIDDEN[0] + stop_after <= t < HIDDEN[1] + (again_after or math.inf)
        stopped = stopped or stands[0] <= t < stands[1]
        rows.append(
            {
                "kind": "image",
                "t": t,
                "stamp": i,
                "robot": [0.0, 0.0, -bearing],
                "target": [distance, 0.0],
                "visible": 0.0 if hidden or outside else 1.0,
                "box": None if outside else [0, 0, 10, 20],
                "controller": "stopped: lost" if stopped else "following",
            }
        )
        rows.append({"kind": "command", "t": t, "speed": 0.0 if stopped else speed, "turn_rate": 0})
        rows.append({"kind": "detection", "t": t, "stamp": i, "box": None})
    file = folder / "run.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def verdict(file: Path) -> list[str]:
    return shortcomings(run_figures(read_run(file), 2.0, 0.8))


def test_a_good_run_keeps_its_bounds(tmp_path: Path) -> None:
    file = write(tmp_path)
    assert verdict(file) == []
    figures = run_figures(read_run(file), 2.0, 0.8)
    assert figures["distance_error_median"] == pytest.approx(0.1)
    assert figures["bearing_error_p95"] == pytest.approx(0.02)
    assert figures["stops"] == [pytest.approx(0.4)]
    assert figures["resumes"] == [pytest.approx(0.4)]
    assert (figures["hidings"], figures["outside_share"]) == (1, 0.0)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"distance": 2.6}, "distance_error_p95"),
        ({"distance": 2.3}, "distance_error_median"),
        ({"distance": 0.9}, "as near as 0.90 m"),
        ({"bearing": 0.3}, "bearing_error_p95"),
        ({"bearing": -0.1}, "bearing_error_median"),
        ({"speed": -0.1}, "backwards"),
        ({"speed": 0.9}, "above max_speed"),
        ({"stop_after": 2.1}, "stop_s_max"),
        ({"again_after": 6.0}, "resume_s_max"),
        ({"again_after": None}, "1 times the target was not found again"),
        ({"stands": (30.0, 40.0)}, "it followed for"),
        # Out of sight no error counts: that must not make a run good.
        ({"leaves_at": 50.0}, "outside the picture for 16.7 %"),
    ],
)
def test_a_broken_bound_is_said(tmp_path: Path, wrong: dict[str, Any], word: str) -> None:
    assert any(word in problem for problem in verdict(write(tmp_path, **wrong)))


def test_a_file_without_a_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text("")
    with pytest.raises(CommandError, match="no run"):
        read_run(file)
