"""What test/conftest.py promises to every other test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NEEDS_DATA = """
import pytest

def test_with_data(data_root):
    pass

@pytest.mark.data
def test_marked():
    pass
"""
NEEDS_A_PART = """
import pytest

def test_part():
    pytest.skip("needs SIAM_TRACKER_DATA/no_such_part")
"""
NEEDS_ROS = """
import pytest

@pytest.mark.ros
def test_graph():
    import rclpy
"""
IMPORTS_ROS = """
import rclpy

def test_graph():
    pass
"""


def run_tests(
    folder: Path, files: dict[str, str], *, ros: bool = True, **environment: str
) -> tuple[int, str]:
    """Run these test files in ``folder`` under this project's conftest, with or without ROS."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, text in {**files, "conftest.py": (ROOT / "test/conftest.py").read_text()}.items():
        path = folder / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(paths if ros else paths[:1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_without_data_tests_are_skipped_and_say_so(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    code, output = run_tests(
        tmp_path, {"test_x.py": NEEDS_DATA}, SIAM_TRACKER_DATA=missing, SIAM_TRACKER_CI="1"
    )
    assert code == 0, output
    assert "2 skipped" in output
    assert output.count("SIAM_TRACKER_DATA") >= 2


def test_with_data_tests_run(tmp_path: Path) -> None:
    code, output = run_tests(tmp_path, {"test_x.py": NEEDS_DATA}, SIAM_TRACKER_DATA=str(tmp_path))
    assert code == 0, output
    assert "2 passed" in output


@pytest.mark.parametrize(("ci", "expected"), [("1", 1), ("0", 0)])
def test_ci_fails_when_a_test_skips_though_the_data_is_here(
    tmp_path: Path, ci: str, expected: int
) -> None:
    code, output = run_tests(
        tmp_path,
        {"test_x.py": NEEDS_A_PART},
        SIAM_TRACKER_DATA=str(tmp_path),
        SIAM_TRACKER_CI=ci,
    )
    assert code == expected, output
    assert ("FAILED: the data is here" in output) == bool(expected)


def test_without_ros_tests_are_skipped_and_say_so(tmp_path: Path) -> None:
    files = {"test_x.py": NEEDS_ROS, "nodes/test_y.py": IMPORTS_ROS}
    code, output = run_tests(tmp_path, files, ros=False)
    assert code == 0, output
    assert "2 skipped" in output
    assert "rclpy is not on the path" in output


def test_files_of_one_name_in_two_folders(tmp_path: Path) -> None:
    text = "def test_x():\n    pass\n"
    code, output = run_tests(tmp_path, {"a/test_same.py": text, "b/test_same.py": text})
    assert code == 0, output
    assert "2 passed" in output


def test_every_test_process_has_a_ros_graph_of_its_own(tmp_path: Path) -> None:
    text = "import os\n\ndef test_x():\n    assert 0, 'domain ' + os.environ['ROS_DOMAIN_ID']\n"
    _, output = run_tests(tmp_path, {"test_x.py": text})
    (domain,) = set(re.findall(r"AssertionError: domain (\d+)", output))
    assert domain != os.environ["ROS_DOMAIN_ID"]
    assert 1 <= int(domain) <= 101
