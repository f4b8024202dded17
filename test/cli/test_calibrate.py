"""``siam-tracker calibrate`` on the toy bundle: it measures, rewrites what is better, and says what is missing."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from evaluation_fixtures import write_square_clip
from typer.testing import CliRunner

from siam_tracker_ros.bundle import PresenceSpec, load_bundle
from siam_tracker_ros.cli.main import app
from siam_tracker_ros.deployment import presence_fit
from siam_tracker_ros.evaluation.presence import StateFigures
from siam_tracker_ros.evaluation.reliability import Bin

SPEC = PresenceSpec("logistic", ("score",), (6.0,), -3.0, 0.5, 0.2)
STATES = StateFigures(4, 0.5, 11.0, 0.0, 2, 1.0, 3.0, 0.1)
runner = CliRunner()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Sixteen clips, all the same, whose target vanishes."""
    folder = tmp_path_factory.mktemp("mine")
    first = write_square_clip(folder / "clip00.mp4", frames=45, visible=20)
    for number in range(1, 16):
        for suffix in (".mp4", ".txt"):
            shutil.copy(first.with_suffix(suffix), folder / f"clip{number:02d}{suffix}")
    return folder


@pytest.fixture
def bundle(colour_bundle, tmp_path):
    return shutil.copytree(colour_bundle, tmp_path / "colour")


@pytest.fixture
def calibrate(bundle, tmp_path):
    """Function (*options) -> the command's result."""
    options = [
        "calibrate",
        "--model",
        str(bundle),
        "--out",
        str(tmp_path / "out"),
        "--threads",
        "1",
    ]
    return lambda *more: runner.invoke(app, [*options, *map(str, more)])


def test_own_clips_are_measured_and_the_bundle_left_alone(calibrate, bundle, clips, tmp_path):
    before = (bundle / "bundle.yaml").read_bytes()
    result = calibrate("--sequences", clips, "--dry-run")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / load_bundle(bundle).name / "presence.json").read_text())
    assert report["presence"]["kind"] == "logistic"
    assert report["after"]["auroc"] > 0.9
    assert report["after"]["calibration_error"] < 0.1
    assert report["after"]["looks"] == 8 * 44
    assert (bundle / "bundle.yaml").read_bytes() == before


def result_with(error_before, error_after):
    def quality(error):
        return presence_fit.Quality(0.9, error, (Bin(0.5, 0.5, 10),), 10, 0.5, STATES)

    return presence_fit.Calibration(SPEC, quality(error_before), quality(error_after))


def test_what_is_better_is_written_and_what_is_worse_is_not(calibrate, bundle, clips, monkeypatch):
    monkeypatch.setattr(presence_fit, "calibrate", lambda *_: result_with(0.05, 0.2))
    worse = calibrate("--sequences", clips)
    assert worse.exit_code == 1
    assert "it stays as it was" in worse.output
    assert load_bundle(bundle).presence.kind == "uncalibrated"
    monkeypatch.setattr(presence_fit, "calibrate", lambda *_: result_with(0.2, 0.05))
    better = calibrate("--sequences", clips)
    assert better.exit_code == 0, better.output
    assert load_bundle(bundle).presence == SPEC


def test_a_bundle_that_does_not_say_what_was_held_out_needs_clips(calibrate):
    result = calibrate()
    assert result.exit_code == 2
    assert "give --sequences" in " ".join(result.output.split())


def test_one_clip_is_too_few(calibrate, tmp_path):
    (tmp_path / "one").mkdir()
    write_square_clip(tmp_path / "one" / "a.mp4")
    result = calibrate("--sequences", tmp_path / "one")
    assert result.exit_code == 2
    assert "two annotated clips at least" in " ".join(result.output.split())
