"""The walls between the rooms hold, and would be seen to fall."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="needs import-linter, which is not installed")

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "geometry",
    "bundle",
    "tracking",
    "inference",
    "nodes",
    "networks",
    "evaluation",
    "deployment",
    "training",
    "cli",
)
MAY_IMPORT = {
    "geometry": set(),
    "bundle": {"geometry"},
    "tracking": {"geometry", "bundle"},
    "inference": {"geometry", "bundle"},
    "nodes": {"geometry", "bundle", "tracking", "inference"},
    "networks": {"geometry"},
    "evaluation": {"geometry", "bundle", "tracking", "inference"},
    "deployment": {"networks", "evaluation", "geometry", "bundle", "tracking", "inference"},
    "training": {"networks", "geometry", "evaluation", "deployment"},
    "cli": set(ROOMS) - {"cli"},
}
ROBOT_ROOMS = ("geometry", "bundle", "tracking", "inference", "nodes")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True
    )


def house(folder: Path, imports: dict[str, list[str]]) -> Path:
    """Empty rooms with the walls of this project; ``imports`` gives a room its lines of code."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    package = folder / "siam_tracker_ros"
    package.mkdir()
    (package / "__init__.py").touch()
    for room in ROOMS:
        (package / room).mkdir()
        (package / room / "__init__.py").write_text("\n".join(imports.get(room, [])) + "\n")
    return folder


def broken(output: str) -> set[str]:
    """The contracts that the linter reports as broken."""
    lines = (line.strip() for line in output.splitlines())
    return {line.removesuffix(" BROKEN") for line in lines if line.endswith(" BROKEN")}


def test_the_walls_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_allowed_is_allowed(tmp_path: Path) -> None:
    imports = {
        room: [f"import siam_tracker_ros.{other}" for other in sorted(others)]
        for room, others in MAY_IMPORT.items()
    }
    imports["nodes"].append("import rclpy, sensor_msgs.msg")
    imports["networks"].append("import torch")
    done = lint(house(tmp_path, imports))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "cli"])
def test_what_a_room_may_not_import_is_found(tmp_path: Path, room: str) -> None:
    forbidden = sorted(set(ROOMS) - MAY_IMPORT[room] - {room})
    imports = {room: [f"import siam_tracker_ros.{other}" for other in forbidden]}
    output = lint(house(tmp_path, imports)).stdout
    for other in forbidden:
        assert f"siam_tracker_ros.{room} -> siam_tracker_ros.{other}" in output


@pytest.mark.parametrize("room", ROBOT_ROOMS)
def test_torch_on_the_robot_is_found(tmp_path: Path, room: str) -> None:
    output = lint(house(tmp_path, {room: ["import torch"]})).stdout
    assert f"siam_tracker_ros.{room} -> torch" in output


def test_torch_through_another_room_is_found(tmp_path: Path) -> None:
    imports = {"nodes": ["from siam_tracker_ros import networks"], "networks": ["import torch"]}
    assert len(broken(lint(house(tmp_path, imports)).stdout)) == 2


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "nodes"])
def test_ros_outside_of_nodes_is_found(tmp_path: Path, room: str) -> None:
    output = lint(house(tmp_path, {room: ["from sensor_msgs.msg import Image"]})).stdout
    assert f"siam_tracker_ros.{room} -> sensor_msgs" in output
