from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "requirements"
EVERYTHING = ("robot", "train", "ros", "dev")
SOURCES = {
    "robot": ("robot",),
    "dev": EVERYTHING,
    "system_ros_py310": (*EVERYTHING, "system_ros"),
    "system_ros_py312": (*EVERYTHING, "system_ros"),
    "jammy": ("jammy",),
}


def lines(name: str) -> list[str]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    return [line for raw in text.splitlines() if (line := raw.split("#")[0].strip())]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", line)[0].lower().replace("_", "-") for line in requirements}


def test_every_lock_is_known() -> None:
    locks = {path.stem for path in FOLDER.glob("*.txt")} - {"ros_wheel"}
    assert locks == set(SOURCES)


@pytest.mark.parametrize("lock", SOURCES)
def test_a_lock_holds_what_was_asked_for(lock: str) -> None:
    pinned = lines(f"{lock}.txt")
    assert all(re.match(r"[A-Za-z0-9._-]+==\S+", line) for line in pinned)
    for source in SOURCES[lock]:
        assert names(lines(f"{source}.in")) <= names(pinned), source


@pytest.mark.parametrize(
    "path", [p for p in sorted(FOLDER.rglob("*")) if p.is_file()], ids=lambda path: path.name
)
def test_no_registry_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|@ file", text)


def test_pytest_is_one_that_launch_testing_runs_with() -> None:
    (version,) = (line for line in lines("dev.txt") if line.startswith("pytest=="))
    assert int(version.split("==")[1].split(".")[0]) < 9


def test_opencv_for_ubuntu_22_is_ubuntu_22s() -> None:
    pinned = lines("jammy.txt")
    assert any(line.startswith("numpy==1.21.") for line in pinned)
    assert any(line.startswith("opencv-python-headless==4.5.4.") for line in pinned)
