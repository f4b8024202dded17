"""What a GPU run needs and cannot make there: bundles, clips, the reference's answers, in one folder.

    prepared.json              what is there (see ``Prepared``)
    bundles/NAME/              bundles, all with FP16 twins
    recordings/NAME.npz        crops and outputs of the reference (ONNX Runtime, FP32)
    walks/NAME.npz             the reference's boxes over whole clips, and how far noise takes them
    clips/CLIP.npz             frames, exactly as they were decoded where the reference saw them
    products/PRECISION.onnx    a large matrix product, for the GPU's ceiling

Arrays and JSON alone, so that a Python with NumPy reads it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.evaluation.sequences import Sequence as Clip
from siam_tracker_ros.geometry import Box

Frames = npt.NDArray[np.uint8]
Xywh = tuple[float, float, float, float]

LISTING = "prepared.json"


class PreparedError(ValueError):
    """A prepared folder that is missing, incomplete or damaged; the message names the file."""


@dataclass(frozen=True)
class StoredClip:
    """A clip in memory: frames ``uint8 [N,h,w,3]`` BGR, and the target's box in the first."""

    name: str
    frames: Frames
    first_box: Xywh


@dataclass(frozen=True)
class Prepared:
    """A prepared folder.

    ``bundles``: by name: ``light`` (bool), ``trained`` (bool), ``published_fps`` (of the paper's
    tracker), ``work`` (by precision: ``flop`` and ``bytes`` of a step). ``clips``: names.
    ``products``: by precision, a file.
    """

    folder: Path
    bundles: Mapping[str, Mapping[str, Any]]
    clips: tuple[str, ...]
    products: Mapping[str, str]


def read_prepared(folder: Path) -> Prepared:
    """Read a prepared folder's listing.

    Raises:
        PreparedError: if there is none, or it is damaged.
    """
    file = folder / LISTING
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Prepared(
            folder, dict(content["bundles"]), tuple(content["clips"]), dict(content["products"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreparedError(
            f"{file}: not a prepared folder ({error}); siam-tracker gpu-prepare makes one"
        ) from error


def save_clip(clip: Clip, count: int, file: Path) -> StoredClip:
    """Store a clip's first ``count`` frames without loss; return what was stored."""
    frames = np.stack(list(islice(iter(clip.frames), count)))
    # Most of a frame is as in the one before: differences (modulo 256) pack far better.
    changes = frames.copy()
    changes[1:] -= frames[:-1]
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, changes=changes, first_box=np.array(clip.first_box, np.float64))
    return StoredClip(clip.name, frames, clip.first_box)


def load_clip(file: Path) -> StoredClip:
    """Read a clip of :func:`save_clip`.

    Raises:
        PreparedError: naming the file.
    """
    arrays = _load(file, "changes", "first_box")
    frames = np.cumsum(arrays["changes"], axis=0, dtype=np.uint8)
    x, y, w, h = (float(v) for v in arrays["first_box"])
    return StoredClip(file.stem, frames, (x, y, w, h))


def save_walks(walks: Mapping[str, tuple[Iterable[Box], Iterable[Box]]], file: Path) -> None:
    """Store boxes by clip: the reference's, and the reference's with noise."""
    arrays = {}
    for name, both in walks.items():
        for kind, boxes in zip(("reference", "noise"), both, strict=True):
            arrays[f"{kind}.{name}"] = np.array([(b.cx, b.cy, b.w, b.h) for b in boxes])
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)


def load_walks(file: Path, clips: Iterable[str]) -> dict[str, tuple[list[Box], list[Box]]]:
    """Read what :func:`save_walks` wrote.

    Raises:
        PreparedError: naming the file.
    """
    clips = list(clips)
    arrays = _load(file, *(f"{kind}.{name}" for name in clips for kind in ("reference", "noise")))

    def boxes(key: str) -> list[Box]:
        return [Box(*(float(v) for v in row)) for row in arrays[key]]

    return {name: (boxes(f"reference.{name}"), boxes(f"noise.{name}")) for name in clips}


def _load(file: Path, *names: str) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PreparedError(f"{file}: cannot be read: {error}") from error
