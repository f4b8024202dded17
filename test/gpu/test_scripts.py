"""Packing, receiving and unpacking for a machine that nothing can be fetched to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACK, MACHINE = ROOT / "scripts/gpu/pack.py", ROOT / "scripts/gpu/on_machine.sh"

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("xz") is None, reason="needs xz"),
]


@pytest.fixture
def sent(tmp_path):
    """A packed folder with one part."""
    (tmp_path / "prepared" / "clips").mkdir(parents=True)
    (tmp_path / "prepared" / "prepared.json").write_text("{}")
    (tmp_path / "prepared" / "clips" / "a.npz").write_bytes(os.urandom(50_000))
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.writestr("some_module.py", "VALUE = 1\n")
    done = pack(tmp_path, "--part-mib", "0.02")
    assert done.returncode == 1 and "MiB of a call's 64" in done.stderr
    done = pack(tmp_path, "--wheel", tmp_path / "w.whl", "--part-mib", "1.0")
    assert done.returncode == 0, done.stderr
    return tmp_path / "send"


def pack(folder, *options):
    command = [sys.executable, PACK, "--prepared", folder / "prepared", "--out", folder / "send"]
    return subprocess.run(
        [*map(str, (*command, "--level", "0", *options))], capture_output=True, text=True, cwd=ROOT
    )


def machine(work, *words):
    return subprocess.run(
        [str(MACHINE), *map(str, words)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "GPU_WORK": str(work)},
        cwd="/",
    )


def test_what_was_packed_arrives_and_what_did_not_is_named(sent, tmp_path):
    work = tmp_path / "work"
    assert "parts.json has not come" in machine(work, "unpack").stderr
    (part,) = json.loads((sent / "parts.json").read_text())
    assert part["folder"] == "00" and part["name"] == "extras.00"
    assert machine(work, "receive", sent / "00").returncode == 0
    arrived = work / "parts" / part["name"]
    data = arrived.read_bytes()
    arrived.write_bytes(data[:-1])
    done = machine(work, "unpack")
    assert done.returncode != 0 and "extras.00 is damaged (folder 00)" in done.stderr
    arrived.write_bytes(data)
    done = machine(work, "unpack")
    assert done.returncode == 0, done.stderr
    assert (work / "extras" / "prepared" / "clips" / "a.npz").stat().st_size == 50_000
    assert (work / "extras" / "site" / "some_module.py").is_file()
    assert "no kit in" in machine(work, "run", "1").stderr
    assert "is wanted, got 'fly'" in machine(work, "fly").stderr


def test_a_kit_that_is_cut_too_large_is_refused(sent, tmp_path):
    kit = tmp_path / "kit"
    kit.mkdir()
    (kit / "part.00").write_bytes(bytes(3 << 20))
    done = pack(tmp_path, "--kit", kit, "--part-mib", "2")
    assert done.returncode == 1 and "cut the kit into smaller parts" in done.stderr
    done = pack(tmp_path, "--kit", kit, "--part-mib", "4")
    assert done.returncode == 1 and "is no kit" in done.stderr


def test_opencvs_stand_in_says_what_is_missing():
    code = "import cv2\nprint(cv2.__version__)\ncv2.resize"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "scripts/gpu/without_opencv")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "none\n" and "OpenCV is not here (cv2.resize" in done.stderr
