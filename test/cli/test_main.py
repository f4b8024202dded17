from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from siam_tracker_ros import __version__
from siam_tracker_ros.cli.common import CommandError
from siam_tracker_ros.cli.main import VERBS, Verb, app

runner = CliRunner()


def test_help_lists_the_verbs_without_importing_them():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from siam_tracker_ros.cli.main import app\n"
        "print(CliRunner().invoke(app, ['--help']).output)\n"
        "heavy = ('torch', 'cv2', 'matplotlib', 'rclpy')\n"
        "print('heavy:', [m for m in heavy if m in sys.modules])\n"
        "print('verbs:', [m for m in sys.modules if m.startswith('siam_tracker_ros.cli.')])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert f" {verb} " in out.stdout
    assert "heavy: []" in out.stdout
    assert "verbs: ['siam_tracker_ros.cli.main']" in out.stdout


def test_version():
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.output.strip()) == (0, f"siam_tracker_ros {__version__}")


def test_an_unknown_verb_is_refused():
    result = runner.invoke(app, ["fly"])
    assert result.exit_code == 2 and "No such command 'fly'" in result.output


@pytest.mark.parametrize("verb", ["demo", "track", "evaluate", "compare", "benchmark"])
def test_each_verb_has_help(verb: str):
    result = runner.invoke(app, [verb, "--help"])
    assert result.exit_code == 0, result.output
    assert f"siam-tracker {verb}" in result.output or f" {verb} " in result.output


def raise_expected() -> None:
    raise CommandError("the lens cap is on")


def raise_unexpected() -> None:
    raise ZeroDivisionError("a bug")


def test_errors_for_people_are_one_line_and_bugs_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("SIAM_TRACKER_TRACEBACK", raising=False)
    monkeypatch.setattr(Verb, "load", lambda self: raise_expected)
    result = runner.invoke(app, ["track"])
    assert result.exit_code == 2
    assert result.output.strip() == "siam-tracker track: the lens cap is on"

    monkeypatch.setenv("SIAM_TRACKER_TRACEBACK", "1")
    assert isinstance(runner.invoke(app, ["track"]).exception, CommandError)

    monkeypatch.delenv("SIAM_TRACKER_TRACEBACK")
    monkeypatch.setattr(Verb, "load", lambda self: raise_unexpected)
    assert isinstance(runner.invoke(app, ["track"]).exception, ZeroDivisionError)
