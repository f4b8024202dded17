"""``siam-tracker evaluate-redetection`` on two small clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_fixtures import write_square_clip
from typer.testing import CliRunner

from siam_tracker_ros.cli.main import app


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a", "b"):
        write_square_clip(folder / f"{name}.mp4")
    return folder


def run(*arguments: object):
    return CliRunner().invoke(app, ["evaluate-redetection", *map(str, arguments)])


def test_the_same_seed_gives_the_same_report(
    clips: Path, colour_bundle: Path, tmp_path: Path
) -> None:
    reports = []
    for out in (tmp_path / "one", tmp_path / "two"):
        given = ("--model", colour_bundle, "--sequences", clips, "--absent", 10, "--after", 8)
        result = run(*given, "--seed", 3, "--out", out)
        assert result.exit_code == 0, result.output
        reports.append(json.loads((out / "redetection.json").read_text()))
        assert (out / "redetection.md").read_text().count("| colour | yes |") == 3
    report = reports[0]
    assert reports[1]["models"] == report["models"]
    assert (report["looks"], report["seed"], report["times"]["absent"]) == (4, 3, 10)
    outcomes = report["models"]["colour"]["outcomes"]
    assert len(outcomes) == 8 and {o["sequence"] for o in outcomes} == {"a", "b"}
    assert all(o["followed"] for o in outcomes)
    # The other clip's picture has a red square too: what is covered is found in it.
    assert any(o["false_frames"] for o in outcomes)


def test_one_sequence_is_not_enough(clips: Path, colour_bundle: Path) -> None:
    result = run("--model", colour_bundle, "--sequences", clips, "--names", "a")
    assert result.exit_code == 2
    assert "two sequences at least" in result.output
