from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for p in ("siam_tracker_ros", "test", "launch", "setup.py") if (ROOT / p).exists()]
TYPED = ("geometry", "bundle", "tracking", "inference", "nodes", "deployment")


def check(tool: str, *arguments: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"needs {tool}, which is not installed")
    command = [sys.executable, "-m", tool, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_style() -> None:
    check("ruff", "check", *SOURCES)


def test_format() -> None:
    check("ruff", "format", "--check", *SOURCES)


def test_types() -> None:
    check("mypy", *(f"siam_tracker_ros/{room}" for room in TYPED))
