"""Writes got10k_reference.json: small result files, and what the got10k toolkit says about them.

    pip install got10k==0.1.3 && python test/evaluation/got10k_reference.py

Runs without this package: it needs the toolkit alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".json")
NAMES = ("Basketball", "Bolt", "Boy")  # the toolkit reads sequences of these names alone
SIZE = (160, 120)


def make_results() -> dict[str, dict[str, list[Any]]]:
    """Boxes of a made-up tracker: good at first, drifting, out of the picture, exactly at limits."""
    random = np.random.default_rng(5)
    results = {}
    for index, name in enumerate(NAMES):
        frames = 20 + 7 * index
        truth = np.tile([60.0, 40.0, 30.0, 20.0], (frames, 1))
        truth[:, :2] += np.cumsum(random.normal(0, 2.5, (frames, 2)), axis=0)
        truth[:, 2:] *= np.exp(np.cumsum(random.normal(0, 0.03, (frames, 2)), axis=0))
        error = (
            random.normal(0, 1.0, (frames, 4)) * np.linspace(0.3, 4 + 4 * index, frames)[:, None]
        )
        boxes = truth + error
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 2.0)
        truth[5] = [-12.0, 100.0, 40.0, 40.0]  # over two edges of the picture
        boxes[5] = [-20.0, 95.0, 40.0, 50.0]
        truth[7], boxes[7] = [20.0, 20.0, 20.0, 10.0], [20.0, 20.0, 20.0, 5.0]  # overlap 0.5
        truth[8], boxes[8] = [20.0, 20.0, 20.0, 10.0], [40.0, 20.0, 20.0, 10.0]  # 20 px away
        truth[9], boxes[9] = [170.0, 20.0, 20.0, 10.0], [165.0, 20.0, 20.0, 10.0]  # outside
        cover = np.full(frames, 8)
        cover[11:13] = 0
        results[name] = {
            "truth": np.round(truth, 3).tolist(),
            "boxes": np.round(boxes, 3).tolist(),
            "cover": cover.tolist(),
        }
    return results


def _save(file: Path, rows: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(file, rows, fmt="%.3f", delimiter=",")


def ask_toolkit(results: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    """What ``ExperimentOTB``, ``ExperimentGOT10k`` and ``ExperimentUAV123`` report."""
    import matplotlib

    matplotlib.use("agg")
    from got10k.datasets import OTB
    from got10k.experiments import ExperimentGOT10k, ExperimentOTB, ExperimentUAV123

    OTB._download = lambda *_: None
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        root = Path(folder)
        for name, result in results.items():
            _save(root / "otb" / name / "groundtruth_rect.txt", result["truth"])
            _save(root / "results" / "OTB2015" / "toy" / f"{name}.txt", result["boxes"])
            val = root / "got" / "val" / name
            _save(val / "groundtruth.txt", result["truth"])
            for label in ("absence", "cut_by_image"):
                _save(val / f"{label}.label", np.zeros(len(result["cover"])))
            _save(val / "cover.label", result["cover"])
            (val / "meta_info.ini").write_text(f"[METAINFO]\nresolution: {SIZE}\n")
            record = root / "results" / "GOT-10k" / "toy" / name / f"{name}_001.txt"
            _save(record, result["boxes"])
            # seconds a frame, for the toolkit's speed; ours are not compared with it
            _save(record.with_name(f"{name}_time.txt"), np.full(len(result["cover"]), 0.01))
            for number in range(len(result["truth"])):
                for pictures in (root / "otb" / name / "img", val):
                    pictures.mkdir(exist_ok=True)
                    (pictures / f"{number + 1:08d}.jpg").touch()
        (root / "got" / "val" / "list.txt").write_text("\n".join(results))
        places = {"result_dir": str(root / "results"), "report_dir": str(root / "reports")}
        here = os.getcwd()
        otb = ExperimentOTB(str(root / "otb"), 2015, **places).report(["toy"])["toy"]
        got = ExperimentGOT10k(str(root / "got"), "val", **places).report(["toy"])["toy"]
        os.chdir(here)
        uav = {}
        for name, result in results.items():
            truth = np.array(result["truth"])
            truth[np.array(result["cover"]) == 0] = np.nan
            experiment = ExperimentUAV123.__new__(ExperimentUAV123)
            experiment.nbins_iou, experiment.nbins_ce = 21, 51
            measured = experiment._calc_metrics(np.array(result["boxes"]), truth)
            success, precision = experiment._calc_curves(*measured)
            uav[name] = {"auc": float(success.mean()), "precision": float(precision[20])}
    return {
        "otb": {
            "auc": otb["overall"]["success_score"],
            "precision": otb["overall"]["precision_score"],
            "sequences": {n: float(v["success_score"]) for n, v in otb["seq_wise"].items()},
        },
        "got10k": {
            "ao": float(got["overall"]["ao"]),
            "sr50": float(got["overall"]["sr"]),
            "success_curve": got["overall"]["succ_curve"],
            "sequences": {n: float(v["ao"]) for n, v in got["seq_wise"].items()},
        },
        "uav123": uav,
    }


if __name__ == "__main__":
    made = make_results()
    content = {"size": SIZE, "results": made, "toolkit": "got10k 0.1.3", "says": ask_toolkit(made)}
    FILE.write_text(json.dumps(content, default=float) + "\n")
