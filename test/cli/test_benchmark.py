from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from siam_tracker_ros.cli.main import app

runner = CliRunner()


def test_speed_on_the_synthetic_clip(colour_bundle: Path, tmp_path: Path):
    file = tmp_path / "speed.json"
    options = ["--model", str(colour_bundle), "--frames", "12", "--threads", "1"]
    result = runner.invoke(app, ["benchmark", *options, "--json", str(file)])
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    assert report["picture"] == [1280, 720]
    assert report["update_ms"]["count"] == 12 - 1 - 5
    assert report["machine"]["cores"] >= 1
    assert "session.step" in result.output


def test_an_annotated_clip(colour_bundle: Path, square_clip: Path, tmp_path: Path):
    options = ["--model", str(colour_bundle), "--clip", str(square_clip)]
    result = runner.invoke(app, ["benchmark", *options, "--json", str(tmp_path / "b.json")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "b.json").read_text())["clip"] == "square"


@pytest.mark.parametrize(
    ("clip", "message"),
    [("nobody", "no clip 'nobody'"), ("none.mp4", "no such clip: none.mp4")],
)
def test_a_missing_clip(
    colour_bundle: Path, clip: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sequences").mkdir()
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path))
    result = runner.invoke(app, ["benchmark", "--model", str(colour_bundle), "--clip", clip])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.ros
def test_through_a_ros_graph(colour_bundle: Path, tmp_path: Path):
    file = tmp_path / "ros.json"
    options = ["--ros", "--model", str(colour_bundle), "--duration", "5", "--rate", "10"]
    result = runner.invoke(app, ["benchmark", *options, "--json", str(file)])
    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert figures["frames"]["published"] == 50
    # best effort on a machine that may be busy: some may be missing, but none unaccounted for
    assert figures["frames"]["processed"] >= 25
    missing = figures["frames"]["not_received"] - figures["first_frame_repeats"]
    assert figures["frames"]["received"] + missing == 50
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"]
    assert float(figures["node"]["overhead_ms_p50"]) > 0
    assert figures["picture"] == [1280, 720] and figures["machine"]["cores"] >= 1
