from __future__ import annotations

import sys

import pytest

pytest.importorskip("typer")

import typer
from typer.testing import CliRunner

from siam_tracker_ros.cli.main import app
from siam_tracker_ros.cli.select import parse_stamp

runner = CliRunner()


def test_without_ros_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIAM_TRACKER_TRACEBACK", raising=False)
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.delitem(sys.modules, "siam_tracker_ros.nodes.select_once", raising=False)
    result = runner.invoke(app, ["select", "--box", "10,20,30,40"])
    assert result.exit_code == 2
    assert "siam-tracker select: ROS 2 is not on the path" in result.output


@pytest.mark.parametrize("box", ["10,20,30", "a,b,c,d", "1,2,0,4", "1,2,3,nan"])
def test_what_is_no_box_is_refused(box: str) -> None:
    result = runner.invoke(app, ["select", "--box", box])
    assert result.exit_code == 2 and "a box" in result.output


def test_stamps_are_exact() -> None:
    assert parse_stamp("0") == 0
    assert parse_stamp("1763630000.123456789") == 1763630000123456789
    assert parse_stamp("2.5") == 2_500_000_000
    for wrong in ("soon", "-1", "0.1234567891", "nan", "inf", "1e30"):
        with pytest.raises(typer.BadParameter, match="a stamp is seconds"):
            parse_stamp(wrong)


@pytest.mark.ros
def test_nobody_listens() -> None:
    result = runner.invoke(
        app, ["select", "--box", "10,20,30,40", "--namespace", "nowhere", "--timeout", "0.3"]
    )
    assert result.exit_code == 2
    assert "nobody listens on /nowhere/target" in result.output
