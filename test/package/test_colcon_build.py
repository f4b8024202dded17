"""colcon must install what users start: it can report success without doing so."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "siam_tracker_ros"
DATA = ("launch", "config", "models")

pytestmark = pytest.mark.ros


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tree(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROS workspace as a user has it: the package's files under src, built without links."""
    if shutil.which("colcon") is None:
        pytest.skip("needs colcon, which is not installed")
    folder = tmp_path_factory.mktemp("workspace")
    source = folder / "src" / NAME
    source.mkdir(parents=True)
    for part in (NAME, *DATA, "resource", "requirements"):
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__")
            )
    for part in ("package.xml", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    before = tree(source)
    run("colcon", "build", cwd=folder)
    assert tree(source) == before, "the build wrote into the sources"
    return folder


def setup_says(attribute: str) -> dict[str, list[str]]:
    """What setup.py gives to setuptools under this name."""
    program = (
        "import json, setuptools; from distutils.core import run_setup; "
        f"print(json.dumps(run_setup('setup.py', stop_after='init').{attribute}))"
    )
    return json.loads(run(sys.executable, "-c", program, cwd=ROOT))


@cache
def entry_points() -> dict[str, str]:
    """Name to ``module:function``."""
    scripts = setup_says("entry_points")["console_scripts"]
    return dict(tuple(part.strip() for part in line.split("=")) for line in scripts)


def test_every_entry_point_is_an_executable(workspace: Path) -> None:
    folder = workspace / "install" / NAME / "lib" / NAME
    assert {path.name for path in folder.iterdir()} == set(entry_points())
    for path in folder.iterdir():
        assert os.access(path, os.X_OK), path.name
        # The interpreter is the one of the environment in which it is started.
        assert path.read_text().splitlines()[0] == "#!/usr/bin/env python3", path.name


def test_every_entry_point_has_its_function() -> None:
    for name, target in entry_points().items():
        module, function = target.split(":")
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        assert path.is_file(), f"{name} = {target}"
        body = ast.parse(path.read_text(encoding="utf-8")).body
        functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
        assert function in functions, f"{name} = {target}"


@pytest.mark.parametrize("top", [t for t in DATA if (ROOT / t).is_dir()])
def test_data_is_installed(workspace: Path, top: str) -> None:
    source = workspace / "src" / NAME
    wanted = {str(p.relative_to(source)): p for p in (source / top).rglob("*") if p.is_file()}
    assert wanted, f"{top} is empty"
    share = workspace / "install" / NAME / "share" / NAME
    for name, path in wanted.items():
        assert (share / name).read_bytes() == path.read_bytes(), name


def test_ros2_finds_the_executables(workspace: Path) -> None:
    shell = f"source install/local_setup.bash && ros2 pkg executables {NAME}"
    listed = run("bash", "-c", shell, cwd=workspace).split()
    assert set(listed) == {NAME} | set(entry_points())


def test_the_installed_command_runs(workspace: Path) -> None:
    shell = f"source install/local_setup.bash && ros2 run {NAME} siam-tracker --help"
    helped = run("bash", "-c", shell, cwd=workspace, PYTHONDONTWRITEBYTECODE="1")
    assert "usage" in helped.lower()


def test_colcon_finds_the_tests() -> None:
    """Without an extra named test that holds pytest, ``colcon test`` finds nothing."""
    assert "pytest" in setup_says("extras_require")["test"]
