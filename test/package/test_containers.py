"""docker/: what cannot be built here is at least whole: files, bases, owner, cache."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker"
BASES = {
    "humble": "ros:humble-ros-base-jammy",
    "jazzy": "ros:jazzy-ros-base-noble",
    "jazzy-gpu": "ros:jazzy-ros-base-noble",
    "jetpack6": "nvcr.io/nvidia/l4t-jetpack:r36.4.0",
    "jetpack7": "nvcr.io/nvidia/tensorrt:25.08-py3",
}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what follows them, continued lines joined."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))


def copied() -> list[str]:
    words = [rest.split() for name, rest in instructions() if name == "COPY"]
    return [w for line in words for w in line[:-1] if not w.startswith("--")]


def test_all_that_is_copied_is_there_and_reaches_the_builder() -> None:
    assert {"siam_tracker_ros", "models", "launch", "package.xml"} <= set(copied())
    ignore = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    let_through = [line[1:] for line in ignore if line.startswith("!")]
    for path in copied():
        assert (ROOT / path).exists(), path
        assert path in let_through, f"{path} is ignored"
    assert ignore[1] == "*", "everything else stays outside: environments have gigabytes"


def test_what_setup_py_installs_is_copied() -> None:
    """setup.py reads these at build time; share/ gets these folders."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    folders = re.search(r"for top in \(([^)]+)\)", text)
    assert folders is not None
    assert set(re.findall(r'"(\w+)"', folders[1])) | {"requirements", "README.md"} <= set(copied())


def test_every_service_has_its_base_and_can_be_built() -> None:
    services = compose()["services"]
    assert {name: s["build"]["args"]["BASE"] for name, s in services.items()} == BASES
    declared = {rest.split("=")[0] for name, rest in instructions() if name == "ARG"}
    for service in services.values():
        build = service["build"]
        assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == FOLDER / "Dockerfile"
        assert set(build["args"]) <= declared
        assert build["args"]["ROS_DISTRO"] in ("humble", "jazzy")
        assert service["ipc"] == service["network_mode"] == "host"
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for base in BASES.values():
        assert base in text, f"docs/install.md does not name {base}"


def test_nothing_runs_as_root_and_the_engine_cache_belongs_to_its_user() -> None:
    from siam_tracker_ros.inference.engine_cache import default_folder

    order = [name for name, _ in instructions()]
    given = dict(instructions())  # the last of each
    assert given["USER"] == "tracker"
    assert order.index("USER") < order.index("ENTRYPOINT")
    home = Path("/home/tracker")
    assert Path(given["VOLUME"]) == home / default_folder().parent.relative_to(Path.home())
    owned = next(rest for name, rest in instructions() if name == "RUN" and "useradd" in rest)
    assert f"install -d -o tracker -g tracker -m 700 {home}/.cache {given['VOLUME']}" in " ".join(
        owned.split()
    )
    for service in compose()["services"].values():
        assert service["volumes"] == [f"engines:{given['VOLUME']}"]


def test_the_entry_point_is_a_script_that_runs_the_command() -> None:
    script = FOLDER / "entrypoint.sh"
    assert any(name == "ENTRYPOINT" and script.name in rest for name, rest in instructions())
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert script.read_text(encoding="utf-8").rstrip().endswith('exec "$@"')


def test_every_run_is_bash_that_parses() -> None:
    for name, rest in instructions():
        if name == "RUN":
            done = subprocess.run(["bash", "-n", "-c", rest], capture_output=True, text=True)
            assert done.returncode == 0, f"{rest}\n{done.stderr}"


def test_the_launch_file_of_the_command_is_there() -> None:
    command = next(rest for name, rest in instructions() if name == "CMD")
    (file,) = re.findall(r"[\w.]+\.launch\.py", command)
    assert (ROOT / "launch" / file).is_file()
