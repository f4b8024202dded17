from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from siam_tracker_ros.evaluation.recording import RecordingError, read_recording
from siam_tracker_ros.evaluation.verdict import run_figures, shortcomings

MS = 1_000_000
START = 1_000_000_000_000


def stamp(index: int) -> int:
    return START + index * 33 * MS


def text(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09d}"


def write(
    folder: Path,
    *,
    frames: int = 10,
    skipped: tuple[int, ...] = (),
    lost: tuple[int, ...] = (),
    missed: int = 0,
    shift: float = 0.0,
    known: bool = True,
    finished: bool = True,
    node: dict[str, str] | None = None,
    statuses: list[dict] | None = None,
) -> Path:
    """Write what recorder_node would: a target that stands still, answered 5 ms after each image."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = [
        {
            "stamp": stamp(i),
            "index": i,
            "known": known or i == 0,
            "box": [10, 10, 20, 20] if known or i == 0 else None,
        }
        for i in range(frames)
    ]
    answered = [i for i in range(frames) if i not in skipped]
    detections = [
        {
            "stamp": stamp(i),
            "received": stamp(i) + 5 * MS,
            "id": "target-1",
            "visible": i not in lost,
            "box": None if i in lost else [10 + (shift if i else 0), 10, 20, 20],
            "score": None if i in lost else 0.9,
            "label": "target" if i not in lost else "",
            "frame_id": "camera",
        }
        for i in answered
    ]
    # the first picture was offered once before, and answered under another stamp
    detections.insert(0, {**detections[0], "stamp": START - 500 * MS} if detections else {})
    values = {
        "images_received": str(len(answered) + 1),
        "images_refused": "0",
        "dropped_transport": "0",
        "dropped_busy": str(len(skipped)),
        "overhead_ms_p50": "0.91",
        "backend": "ONNX Runtime 1.31 CPU, 2 threads",
        **(node or {}),
    }
    given = statuses or [status("tracking", 0)]
    for name, rows in {
        "truth": truths[missed:],
        "detections": [d for d in detections if d],
        "status": given,
        "diagnostics": [{"received": START, "level": 0, "message": "", "values": values}],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    summary = {
        "finished": finished,
        "published": frames if finished else None,
        "detections": len(answered),
        "visible": 0,
        "truths": frames,
        "started": START,
        "ended": stamp(frames),
        "reason": "the publisher has finished" if finished else "nothing came for 60 s",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def status(state: str, index: int, level: int = 0, message: str = "") -> dict:
    values = {"state": state, "stamp": text(stamp(index)), "selection_verdict": "accepted"}
    return {
        "received": stamp(index),
        "level": level,
        "message": message or state,
        "values": values,
    }


def test_a_good_run(tmp_path: Path):
    recording = read_recording(write(tmp_path), "toy")
    counts = recording.counts
    assert (counts.published, counts.received, counts.processed) == (10, 11, 10)
    assert (counts.lost_in_transport, counts.skipped_busy, counts.refused) == (0, 0, 0)
    assert (counts.not_received(), counts.not_received(repeats=3)) == (0, 2)
    assert recording.seconds == pytest.approx(9 * 0.033)
    assert recording.node_number("overhead_ms_p50") == 0.91
    assert recording.node_number("step_ms_p50") is None
    assert shortcomings(recording, lockstep=True) == []
    figures = json.loads(json.dumps(run_figures(recording, 2)))
    assert figures["average_overlap"] == 1 and figures["final_state"] == "TRACKING"
    assert figures["latency_ms"]["p50"] == pytest.approx(5.0)
    assert figures["frames"]["published"] == 10 and figures["frames"]["not_received"] == 1


def test_skipped_frames_keep_their_numbers(tmp_path: Path):
    recording = read_recording(write(tmp_path, skipped=(3, 4)), "toy")
    assert [e.frame for e in recording.log.entries] == [0, 1, 2, 5, 6, 7, 8, 9]
    assert recording.counts.skipped_busy == 2
    assert shortcomings(recording, lockstep=False) == []
    assert shortcomings(recording, lockstep=True) == [
        "2 frames were not answered, though each was waited for"
    ]


def test_states_come_from_the_status_changes(tmp_path: Path):
    changes = [status("tracking", 0), status("uncertain", 4), status("lost", 6)]
    changes.append(status("tracking", 8))
    recording = read_recording(write(tmp_path, lost=(6, 7), statuses=changes), "toy")
    states = [e.state[0] for e in recording.log.entries]
    assert "".join(states) == "TTTTUULLTT"
    assert recording.log.entries[6].box is None
    assert recording.log.lost_share() == pytest.approx(0.2)


def test_the_selection_alone_is_no_ground_truth(tmp_path: Path):
    recording = read_recording(write(tmp_path, known=False), "toy")
    assert recording.log.truth is None and recording.log.average_overlap() is None
    assert shortcomings(recording, lockstep=True) == []
    lost_at_the_end = read_recording(write(tmp_path, known=False, lost=(9,)), "toy")
    assert "lost at the end" in shortcomings(lost_at_the_end, lockstep=True)[0]


def test_an_absent_target_has_no_truth_but_is_known(tmp_path: Path):
    write(tmp_path)
    lines = (tmp_path / "truth.jsonl").read_text().splitlines()
    absent = {**json.loads(lines[5]), "box": None}
    lines[5] = json.dumps(absent)
    (tmp_path / "truth.jsonl").write_text("\n".join(lines) + "\n")
    truth = read_recording(tmp_path, "toy").log.truth
    assert truth is not None
    assert np.isnan(truth[5]).all() and np.isfinite(np.delete(truth, 5, axis=0)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": 15.0}, "average overlap 0.143, at least 0.5"),
        ({"lost": tuple(range(3, 10))}, "lost in 70% of the frames"),
        ({"node": {"dropped_transport": "3"}}, "3 frames were lost in transport"),
        ({"node": {"images_refused": "2"}}, "2 frames could not be read"),
        ({"finished": False}, "not played to its end: nothing came for 60 s"),
        ({"missed": 4}, "the recorder came up late"),
        ({"skipped": (0,)}, "the recorder came up late"),
        ({"skipped": tuple(range(1, 8))}, "only 3 of 10 frames were processed, 50%"),
    ],
)
def test_what_is_bad_is_said(tmp_path: Path, changes: dict, message: str):
    found = shortcomings(read_recording(write(tmp_path, **changes), "toy"), lockstep=False)
    assert any(message in line for line in found), found


def test_nothing_processed_names_the_cause(tmp_path: Path):
    everything = tuple(range(10))
    problem = [status("unconfigured", 0, level=2, message="configure failed: no model")]
    recording = read_recording(write(tmp_path, skipped=everything, statuses=problem), "toy")
    assert shortcomings(recording, lockstep=False) == [
        "no frame was processed: configure failed: no model"
    ]
    refused = status("idle", 0)
    refused["values"]["selection_verdict"] = "refused: outside"
    recording = read_recording(write(tmp_path, skipped=everything, statuses=[refused]), "toy")
    assert shortcomings(recording, lockstep=False) == [
        "no frame was processed: the selection was refused: outside"
    ]


def test_damaged_recordings_are_named(tmp_path: Path):
    with pytest.raises(RecordingError, match=r"summary.json is missing: .*did not come to its end"):
        read_recording(tmp_path, "toy")
    write(tmp_path)
    (tmp_path / "truth.jsonl").write_text('{"stamp": 1}\nnot json\n')
    with pytest.raises(RecordingError, match=r"truth.jsonl:2: not a JSON object"):
        read_recording(tmp_path, "toy")
    (tmp_path / "truth.jsonl").write_text('{"stamp": 1}\n')
    with pytest.raises(RecordingError, match=r"not as recorder_node writes it.*index"):
        read_recording(tmp_path, "toy")
    (tmp_path / "truth.jsonl").unlink()
    with pytest.raises(RecordingError, match=r"truth.jsonl is missing"):
        read_recording(tmp_path, "toy")
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(RecordingError, match=r"summary.json: a JSON object"):
        read_recording(tmp_path, "toy")


def test_memory_of_the_node_over_a_run(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert read_recording(folder, "short").memory_growth() is None
    file = folder / "diagnostics.jsonl"
    entry = json.loads(file.read_text())
    # fills up to 100 MB in the first tenth, then grows by 1 MB an entry
    sizes = [10.0 * i for i in range(10)] + [100.0 + i for i in range(90)]
    entries = [{**entry, "values": {**entry["values"], "memory_mb": f"{s:.1f}"}} for s in sizes]
    file.write_text("".join(json.dumps(e) + "\n" for e in entries))
    grown = read_recording(folder, "long").memory_growth()
    assert grown == {"early": 104.5, "late": 184.5, "most": 189.0}
    assert run_figures(read_recording(folder, "long"))["memory_mb"] == grown
