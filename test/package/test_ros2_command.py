"""``ros2`` as the environment gives it: a ROS 2 from a wheel has no such command of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

LAUNCH_FILE = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo
from launch.substitutions import LaunchConfiguration


def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument("word", default_value="nothing", description="what is said"),
        LogInfo(msg=["said ", LaunchConfiguration("word")]),
    ])
"""


def ros2(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("ros2") is None:
        pytest.skip("needs the ros2 command on the path (run it through scripts/with_ros.sh)")
    return subprocess.run(["ros2", *words], capture_output=True, text=True, timeout=60)


@pytest.fixture
def launch_file(tmp_path: Path) -> str:
    path = tmp_path / "say.launch.py"
    path.write_text(LAUNCH_FILE)
    return str(path)


def test_verbs_work() -> None:
    done = ros2("topic", "list", "--no-daemon")
    assert done.returncode == 0, done.stderr
    assert "/rosout" in done.stdout.split()


def test_launch_takes_arguments(launch_file: str) -> None:
    done = ros2("launch", launch_file, "word:=hello")
    assert done.returncode == 0, done.stderr
    assert "said hello" in done.stdout + done.stderr


def test_launch_shows_arguments(launch_file: str) -> None:
    done = ros2("launch", launch_file, "--show-args")
    assert done.returncode == 0, done.stderr
    assert "'word'" in done.stdout
    assert "what is said" in done.stdout
    assert "nothing" in done.stdout


@pytest.mark.parametrize("words", [("no_such_package", "x.launch.py"), ("rclpy", "no.launch.py")])
def test_launch_says_what_is_not_there(words: tuple[str, str]) -> None:
    done = ros2("launch", *words)
    assert done.returncode != 0
    assert next(word for word in words if word.startswith("no")) in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
