from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from siam_tracker_ros.cli.compare import Column, difference
from siam_tracker_ros.cli.main import app
from siam_tracker_ros.evaluation.frames import open_frames

runner = CliRunner()


def run(*arguments: object):
    return runner.invoke(app, list(map(str, arguments)))


def test_model_and_peer_by_one_command(colour_bundle: Path, square_clip: Path, tmp_path: Path):
    folder = square_clip.parent
    options = ["--sequences", folder, "--out", tmp_path, "--threads", 1]
    result = run("evaluate", "--model", colour_bundle, "--peers", "static", *options)
    assert result.exit_code == 0, result.output
    own = json.loads((tmp_path / "colour.json").read_text())
    static = json.loads((tmp_path / "static.json").read_text())
    assert own["mean"]["auc"] > 0.75 > static["mean"]["auc"] + 0.3
    assert own["tracker"]["bundle"] == "colour" and own["protocol"]["start"]
    assert (tmp_path / "success.png").stat().st_size > 5000
    assert "States of colour" in (tmp_path / "report.html").read_text()
    texts = list((tmp_path / "results").glob("colour-*/square.txt"))
    assert len(texts) == 1 and len(texts[0].read_text().splitlines()) == 20

    compared = run("compare", tmp_path / "static.json", colour_bundle, *options)
    assert compared.exit_code == 0, compared.output
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["sequences"] == ["square"]
    gap = own["mean"]["auc"] - static["mean"]["auc"]
    assert content["trackers"][1]["auc_difference"] == pytest.approx(gap)


def test_earlier_results_are_used_unless_told_not_to(square_clip: Path, tmp_path: Path):
    options = ["--no-model", "--peers", "static", "--sequences", square_clip.parent]
    options += ["--out", tmp_path]
    assert run("evaluate", *options).exit_code == 0
    (file,) = (tmp_path / "results").glob("static-*/square.frames.csv")
    text = file.read_text().replace("40.0,50.0,20.0,20.0", "80.0,50.0,20.0,20.0")
    file.write_text(text)
    assert run("evaluate", *options).exit_code == 0
    assert file.read_text() == text
    assert run("evaluate", *options, "--fresh").exit_code == 0
    assert "80.0,50.0" not in file.read_text()


def got10k(folder: Path, boxes: dict[str, int], frames: int = 5) -> None:
    """Write GOT-10k's layout with a grey picture for each frame."""
    for name, count in boxes.items():
        (folder / name).mkdir(parents=True)
        for index in range(frames):
            picture = np.full((48, 64, 3), 90, np.uint8)
            cv2.imwrite(str(folder / name / f"{index + 1:08d}.jpg"), picture)
        lines = "".join(f"{10 + index},10,20,20\n" for index in range(count))
        (folder / name / "groundtruth.txt").write_text(lines)
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in boxes))


def test_a_benchmark_by_its_rules_in_real_time_and_without_what_is_bad(tmp_path: Path):
    got10k(tmp_path / "got" / "val", {"a": 5, "b": 5, "wrong": 3})
    arguments = ["evaluate", "--no-model", "--peers", "static", "--sequences", tmp_path / "got"]
    arguments += ["--out", tmp_path / "out", "--per-sequence"]
    stopped = run(*arguments)
    assert stopped.exit_code == 2 and "3 boxes, but" in stopped.output
    result = run(*arguments, "--on-bad", "skip", "--realtime", "30")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "Left out 1 sequences: wrong:" in words and "rules of GOT-10k val" in words
    content = json.loads((tmp_path / "out" / "static.json").read_text())
    assert set(content["sequences"]) == {"a", "b"} and "GOT-10k" in content["protocol"]["rules"]
    # moved by 1 to 4 of 20 px
    overlaps = [(20 - step) / (20 + step) for step in range(1, 5)]
    assert content["mean"]["ao"] == pytest.approx(sum(overlaps) / 4)
    late = json.loads((tmp_path / "out" / "static-realtime30.json").read_text())
    assert "30 a second" in late["protocol"]["realtime"]


def test_a_test_set_makes_the_file_to_submit(tmp_path: Path):
    got10k(tmp_path / "got" / "test", {"GOT-10k_Test_000001": 1})
    arguments = ["--no-model", "--peers", "static", "--sequences", tmp_path / "got"]
    result = run("evaluate", *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "out" / "submission").iterdir()
    with zipfile.ZipFile(file) as archive:
        boxes = archive.read("GOT-10k_Test_000001/GOT-10k_Test_000001_001.txt").decode()
    assert boxes == "10.000,10.000,20.000,20.000\n" * 5
    assert not (tmp_path / "out" / "static.json").exists()


def test_a_model_is_a_tracker_of_the_vot_toolkit(colour_bundle: Path, square_clip: Path):
    frames = [base64.b64encode(cv2.imencode(".png", f)[1]).decode() for f in first(square_clip, 3)]
    lines = ['@@TRAX:initialize "40,50,20,20" ']
    lines += [f'@@TRAX:frame "data:image/png;{frame}" ' for frame in frames]
    environment = {k: v for k, v in os.environ.items() if k != "TRAX_SOCKET"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "siam_tracker_ros.cli.main", "vot-trax"]
    done = subprocess.run(
        [*command, "--model", str(colour_bundle), "--threads", "1"],
        input="\n".join([*lines, "@@TRAX:quit \n"]),
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    hello, *states = done.stdout.splitlines()
    assert hello.startswith("@@TRAX:hello") and '"trax.name=colour"' in hello
    assert len(states) == 3
    for index, state in enumerate(states):
        x = float(state.split('"')[1].split(",")[0])
        assert x == pytest.approx(40 + 2 * index, abs=1.5)


def first(clip: Path, count: int) -> list[np.ndarray]:
    return list(itertools.islice(open_frames(clip), count))


def test_the_difference_has_an_error():
    first = Column("a", {"x": {"auc": 0.5}, "y": {"auc": 0.7}})
    second = Column("b", {"x": {"auc": 0.6}, "y": {"auc": 0.9}})
    mean, error = difference(first, second, "auc")
    assert mean == pytest.approx(0.15)
    assert error == pytest.approx(0.05)  # of 0.1 and 0.2: deviation 0.0707, over the root of 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--sequences", "nowhere"], "no such folder of sequences: nowhere"),
        (["evaluate", "--names", "Nobody", "--sequences", "CLIPS"], "no sequence 'Nobody'"),
        (["evaluate", "--no-model", "--sequences", "CLIPS"], "nothing to run"),
        (["evaluate", "--no-model", "--peers", "sort", "--sequences", "CLIPS"], "no peer 'sort'"),
        (["evaluate", "--model", "./none", "--sequences", "CLIPS"], "none: not a model bundle"),
        (["evaluate", "--sequences", "CLIPS", "--protocol", "vot"], "no protocol 'vot'"),
        (["evaluate", "--sequences", "CLIPS", "--protocol", "lasot"], "it looks like otb"),
        (["evaluate", "--sequences", "CLIPS", "--split", "val"], "OTB has no splits"),
        (["evaluate", "--sequences", "CLIPS", "--on-bad", "guess"], "stop or skip, got 'guess'"),
        (["evaluate", "--sequences", "CLIPS", "--realtime", "0"], "frames a second above 0"),
        (
            ["evaluate", "--sequences", "CLIPS", "--realtime", "30", "--jobs", "2"],
            "several --jobs take from each other",
        ),
        (["compare", "none.json", "other.json"], "no such file: none.json"),
        (["compare", "WRONG", "WRONG"], "not written by siam-tracker evaluate"),
    ],
)
def test_wrong_input_is_said_in_words(
    square_clip: Path, tmp_path: Path, arguments: list[str], message: str
):
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"tracker": {"name": "x"}, "sequences": {"a": {"auc": 1}}}')
    known = {"CLIPS": str(square_clip.parent), "WRONG": str(wrong)}
    result = run(*(known.get(a, a) for a in arguments))
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_a_comparison_follows_the_rules(tmp_path: Path):
    files = []
    for name, (rules, values) in {
        "a": ("got10k", (0.5, 0.6)),
        "b": ("got10k", (0.7, 0.6)),
        "c": ("otb", (0.5, 0.6)),
    }.items():
        sequences = {
            s: {**dict.fromkeys(("auc", "sr50", "sr75"), 0.5), "ao": v, "fps": 9, "frames": f}
            | {"precision": 0.5, "normalised_precision": 0.5}
            for s, v, f in zip("xy", values, (11, 31), strict=True)
        }
        file = tmp_path / f"{name}.json"
        content = {"benchmark": rules, "tracker": {"name": name}, "sequences": sequences}
        file.write_text(json.dumps(content))
        files.append(file)
    result = run("compare", *files[:2], "--out", tmp_path)
    assert result.exit_code == 0, result.output
    first, second = json.loads((tmp_path / "comparison.json").read_text())["trackers"]
    assert first["ao"] == pytest.approx((10 * 0.5 + 30 * 0.6) / 40), "frames weigh"
    assert second["ao_difference"] == pytest.approx(0.1), "sequences give the error"
    result = run("compare", files[0], files[2], "--out", tmp_path)
    assert result.exit_code == 2 and "their figures do not compare" in " ".join(
        result.output.split()
    )


def test_a_comparison_needs_two(tmp_path: Path, square_clip: Path):
    options = ["--no-model", "--peers", "static", "--sequences", square_clip.parent]
    assert run("evaluate", *options, "--out", tmp_path).exit_code == 0
    result = run("compare", tmp_path / "static.json", "--out", tmp_path)
    assert result.exit_code == 2 and "two trackers at least" in result.output
