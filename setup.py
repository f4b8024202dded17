"""Metadata, entry points and installed data of siam_tracker_ros.

They live here alone: with a ``[project]`` table in pyproject.toml, colcon reports success and
installs no executables.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "siam_tracker_ros"
ROOT = Path(__file__).resolve().parent


def version() -> str:
    """The version that the package states; read, not imported."""
    text = (ROOT / NAME / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def requirements(name: str) -> list[str]:
    """The direct requirements named in ``requirements/<name>.in``."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines()
    return [line for raw in lines if (line := raw.split("#")[0].strip())]


def data_files() -> list[tuple[str, list[str]]]:
    """What is installed under ``share``: launch files, configurations and model bundles."""
    installed = [
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ]
    for top in ("launch", "config", "models"):
        for folder, subfolders, names in os.walk(ROOT / top):
            subfolders[:] = sorted(s for s in subfolders if s != "__pycache__")
            relative = Path(folder).relative_to(ROOT)
            wanted = sorted(n for n in names if top != "launch" or n.endswith(".py"))
            if wanted:
                installed.append((f"share/{NAME}/{relative}", [str(relative / n) for n in wanted]))
    return installed


setup(
    name=NAME,
    version=version(),
    description="Follows one selected object through a camera's images (ROS 2).",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    maintainer="siam_tracker_ros maintainers",
    maintainer_email="maintainers@siam-tracker-ros.example",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    data_files=data_files(),
    zip_safe=False,
    install_requires=["setuptools"],
    extras_require={
        "test": ["pytest"],  # colcon test looks for this one
        "train": requirements("train"),
        "dev": requirements("dev"),
    },
    entry_points={
        "console_scripts": [
            "tracker_node = siam_tracker_ros.nodes.tracker_node:main",
            "video_publisher_node = siam_tracker_ros.nodes.video_publisher_node:main",
            "recorder_node = siam_tracker_ros.nodes.recorder_node:main",
            "target_selector_node = siam_tracker_ros.nodes.target_selector_node:main",
            "target_localizer_node = siam_tracker_ros.nodes.target_localizer_node:main",
            "follow_controller_node = siam_tracker_ros.nodes.follow_controller_node:main",
            "follow_simulator_node = siam_tracker_ros.nodes.follow_simulator_node:main",
            "siam-tracker = siam_tracker_ros.cli.main:main",
        ],
    },
)
