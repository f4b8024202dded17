"""Our figures on the same result files as the got10k toolkit's own (see got10k_reference.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.evaluation.metrics import RULES, curves, mean_curves, mean_scores, score

HERE = Path(__file__).parent
STORED = json.loads((HERE / "got10k_reference.json").read_text())
SAYS, SIZE = STORED["says"], tuple(STORED["size"])


def arrays(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    result = STORED["results"][name]
    boxes, truth = np.array(result["boxes"]), np.array(result["truth"])
    boxes[0] = truth[0]
    return boxes, truth, np.array(result["cover"]) == 0


def scored(name: str, protocol: str) -> Any:
    boxes, truth, hidden = arrays(name)
    if protocol == "otb":
        return score(boxes, truth)
    return score(boxes, truth, RULES[protocol], hidden, SIZE)


def test_otb_success_and_precision():
    mean = mean_scores([scored(name, "otb") for name in STORED["results"]])
    assert mean.auc == pytest.approx(SAYS["otb"]["auc"], abs=1e-12)
    assert mean.precision == pytest.approx(SAYS["otb"]["precision"], abs=1e-12)
    for name, auc in SAYS["otb"]["sequences"].items():
        assert scored(name, "otb").auc == pytest.approx(auc, abs=1e-12)


def test_got10k_average_overlap_and_success_rate():
    names = list(STORED["results"])
    for name in names:
        ours = scored(name, "got10k").ao
        assert ours == pytest.approx(SAYS["got10k"]["sequences"][name], abs=1e-12)
        assert scored(name, "otb").ao != pytest.approx(ours, abs=1e-4), "clipping and cover matter"
    mean = mean_scores([scored(name, "got10k") for name in names], RULES["got10k"])
    assert mean.ao == pytest.approx(SAYS["got10k"]["ao"], abs=1e-12)
    assert mean.sr50 == pytest.approx(SAYS["got10k"]["sr50"], abs=1e-12)
    shares = []
    for name in names:
        boxes, truth, hidden = arrays(name)
        shares.append(curves(boxes, truth, RULES["got10k"], hidden, SIZE))
    ours = mean_curves(shares, RULES["got10k"]).success
    np.testing.assert_allclose(ours, SAYS["got10k"]["success_curve"], atol=1e-12)
    # the toolkit has no SR.75 of its own: it is this point of its curve
    assert mean.sr75 == pytest.approx(SAYS["got10k"]["success_curve"][75], abs=1e-12)


def test_uav123_leaves_frames_without_a_box_out():
    for name, says in SAYS["uav123"].items():
        boxes, truth, hidden = arrays(name)
        truth[hidden] = np.nan
        # the toolkit takes the tracker's own first box
        boxes[0] = STORED["results"][name]["boxes"][0]
        ours = score(boxes, truth, RULES["uav123"])
        assert ours.auc == pytest.approx(says["auc"], abs=1e-12)
        assert ours.precision == pytest.approx(says["precision"], abs=1e-12)


def test_what_is_stored_is_what_the_toolkit_says():
    pytest.importorskip("got10k.experiments", reason="got10k 0.1.3 is not installed")
    spec = importlib.util.spec_from_file_location("reference", HERE / "got10k_reference.py")
    assert spec is not None and spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.make_results() == STORED["results"]
    said = json.loads(json.dumps(reference.ask_toolkit(STORED["results"]), default=float))
    for protocol in ("otb", "got10k", "uav123"):
        assert _flat(said[protocol]) == pytest.approx(_flat(SAYS[protocol]), abs=1e-12)


def _flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [v for key in sorted(value) for v in _flat(value[key])]
    if isinstance(value, list):
        return [v for item in value for v in _flat(item)]
    return [float(value)]
