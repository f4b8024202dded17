from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from siam_tracker_ros.cli.main import app

runner = CliRunner()


def track(*arguments: object):
    return runner.invoke(app, ["track", *map(str, arguments)])


def test_a_clip_with_truth(colour_bundle: Path, square_clip: Path, tmp_path: Path):
    result = track(square_clip, "--model", colour_bundle, "--out", tmp_path, "--threads", 1)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["processed"] == 20 and figures["final_state"] == "TRACKING"
    assert figures["average_overlap"] > 0.8
    assert figures["model"] == "colour" and figures["session"].startswith("ONNX Runtime")
    boxes = np.loadtxt(tmp_path / "boxes.txt", delimiter=",")
    truth = np.loadtxt(square_clip.with_suffix(".txt"), delimiter=",")
    assert np.abs(boxes - truth).max() < 3
    capture = cv2.VideoCapture(str(tmp_path / "track.mp4"))
    assert sum(1 for _ in iter(capture.grab, False)) == 20
    assert len((tmp_path / "track.csv").read_text().splitlines()) == 21
    assert cv2.imread(str(tmp_path / "track.png")) is not None
    assert "average overlap" in result.output


def test_a_lost_target_has_no_box(colour_bundle: Path, tmp_path: Path, request):
    from evaluation_fixtures import write_square_clip

    clip = write_square_clip(tmp_path / "gone.mp4", frames=40, visible=10)
    clip.with_suffix(".txt").unlink()
    out = tmp_path / "out"
    options = ["--model", colour_bundle, "--box", "40,50,20,20", "--out", out, "--no-video"]
    result = track(clip, *options)
    assert result.exit_code == 0, result.output
    boxes = np.loadtxt(out / "boxes.txt", delimiter=",")
    assert np.isfinite(boxes[:10]).all() and np.isnan(boxes[-1]).all()
    assert not (out / "track.mp4").exists()
    figures = json.loads((out / "figures.json").read_text())
    assert figures["final_state"] == "LOST" and figures["average_overlap"] is None


def test_only_the_first_frames(colour_bundle: Path, square_clip: Path, tmp_path: Path):
    result = track(square_clip, "--model", colour_bundle, "--out", tmp_path, "--frames", 5)
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "boxes.txt").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mp4", "--box", "1,2,3,4"], "no such clip: none.mp4"),
        (["CLIP", "--box", "1,2,3"], "a box is x,y,w,h in pixels, got '1,2,3'"),
        (["CLIP", "--box", "1,2,x,4"], "a box is x,y,w,h in pixels, got '1,2,x,4'"),
        (["CLIP", "--box", "1,2,0,4"], "needs a width and a height"),
        (["CLIP", "--box", "500,500,20,20"], "outside the 160 x 120 picture"),
        (["CLIP", "--box", "10,10,2,2"], "too small"),
        (["CLIP", "--model", "./nowhere"], "nowhere: not a model bundle"),
        (["CLIP", "--set", "speed=3"], "no setting called speed"),
        (["CLIP", "--set", "lost=x"], "a setting is NAME=NUMBER"),
        (["CLIP", "--set", "lost=2"], "lost must be in [0, 1]"),
        (["CLIP", "--truth", "none.txt"], "no such annotation: none.txt"),
        (["CLIP", "--backend", "abacus"], "unknown backend 'abacus'"),
    ],
)
def test_wrong_input_is_said_in_words(
    colour_bundle: Path, square_clip: Path, tmp_path: Path, arguments: list[str], message: str
):
    given = [str(square_clip) if a == "CLIP" else a for a in arguments]
    result = track("--model", colour_bundle, "--out", tmp_path / "out", *given)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_clip_without_truth_needs_a_box(colour_bundle: Path, square_clip: Path, tmp_path: Path):
    alone = tmp_path / "alone.mp4"
    alone.write_bytes(square_clip.read_bytes())
    result = track(alone, "--model", colour_bundle)
    assert result.exit_code == 2 and "give --box x,y,w,h" in result.output
