from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from siam_tracker_ros.evaluation import EvaluationError
from siam_tracker_ros.evaluation.protocol import Runs
from siam_tracker_ros.evaluation.runs import Run
from siam_tracker_ros.evaluation.submission import write_submission

RUN = Run(
    np.array([[1, 2, 3, 4], [1.23456, 2, 3, 4]]),
    np.array([0.5, 0.0123456789]),
    np.full(2, np.nan),
    ("", ""),
)
RUNS = Runs("toy", {"GOT-10k_Test_000001": RUN}, frozenset(), {})


def test_got10k(tmp_path: Path):
    file = write_submission(tmp_path / "new", "got10k", RUNS)
    assert file.name == "toy_got10k.zip" and list(file.parent.iterdir()) == [file]
    with zipfile.ZipFile(file) as archive:
        name = "GOT-10k_Test_000001"
        assert archive.namelist() == [f"{name}/{name}_001.txt", f"{name}/{name}_time.txt"]
        boxes = archive.read(f"{name}/{name}_001.txt").decode()
        assert boxes == "1.000,2.000,3.000,4.000\n1.235,2.000,3.000,4.000\n"
        assert archive.read(f"{name}/{name}_time.txt").decode() == "0.50000000\n0.01234568\n"


def test_trackingnet(tmp_path: Path):
    with zipfile.ZipFile(write_submission(tmp_path, "trackingnet", RUNS)) as archive:
        assert archive.namelist() == ["GOT-10k_Test_000001.txt"]


def test_refusals(tmp_path: Path):
    with pytest.raises(EvaluationError, match="otb has no server"):
        write_submission(tmp_path, "otb", RUNS)
    with pytest.raises(EvaluationError, match="toy: there is no run"):
        write_submission(tmp_path, "got10k", Runs("toy", {}, frozenset(), {}))
