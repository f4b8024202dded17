"""Every model that ships, in tracker_node through the launch file: it follows a moving thing, frame by frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import iou_xywh

pytestmark = [pytest.mark.ros, pytest.mark.once]

MODELS = sorted(p.parent.name for p in Path(__file__).parents[2].glob("models/*/bundle.yaml"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("model", MODELS)
def test_it_follows_in_the_node(start: Any, installed: None, model: str, tmp_path: Path) -> None:
    process = start(
        [
            *("ros2", "launch", "siam_tracker_ros", "demo.launch.py"),
            f"model:={model}",
            "backend:=onnxruntime",
            f"out:={tmp_path / 'run'}",
            "lockstep:=true",
            "frames:=60",
        ],
        FASTRTPS_DEFAULT_PROFILES_FILE="",
    )
    assert process.wait(150) == 0, process.output
    assert f"ready: {model} on ONNX Runtime" in process.output
    truths = {t["stamp"]: t["box"] for t in lines(tmp_path / "run" / "truth.jsonl")}
    found = {
        d["stamp"]: d["box"]
        for d in lines(tmp_path / "run" / "detections.jsonl")
        if d["stamp"] in truths and d["box"] is not None
    }
    # A tracker may say that it does not see it, but where it says something it is right.
    assert len(found) > 0.8 * len(truths)
    overlaps = iou_xywh(np.array([truths[s] for s in found]), np.array(list(found.values())))
    assert np.mean(overlaps > 0.5) > 0.9, overlaps.round(2)
