from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from siam_tracker_ros.cli.compare import Column, difference
from siam_tracker_ros.cli.main import app

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


def test_a_comparison_needs_two(tmp_path: Path, square_clip: Path):
    options = ["--no-model", "--peers", "static", "--sequences", square_clip.parent]
    assert run("evaluate", *options, "--out", tmp_path).exit_code == 0
    result = run("compare", tmp_path / "static.json", "--out", tmp_path)
    assert result.exit_code == 2 and "two trackers at least" in result.output
