"""README.md says what is so: its parameter table, commands and files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_verb_it_names_exists():
    main = pytest.importorskip("siam_tracker_ros.cli.main")
    named = set(re.findall(r"siam-tracker ([a-z0-9-]+)", TEXT))
    assert {"train", "export", "evaluate", "benchmark"} <= named
    assert named <= set(main.VERBS)


def test_every_file_it_names_exists():
    named = re.findall(r"\]\(([^)#:]+)\)", TEXT) + re.findall(
        r"`((?:config|models)/[\w./-]+)`", TEXT
    )
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_every_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make (\w+)", TEXT, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
