"""Objects of a training set as short clips: what INT8 ranges can be measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.training.tar_sets import DataError, ImageCache, TargetRef, read_tar_set

CLIPS = 64


@dataclass(frozen=True)
class SetClip:
    """The pictures of an object's track, or its one picture twice."""

    name: str
    targets: tuple[TargetRef, ...]

    @property
    def first_box(self) -> tuple[float, float, float, float]:
        """x, y, w, h in the first picture."""
        x, y, w, h = self.targets[0].box.xywh
        return x, y, w, h

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.targets)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures, BGR."""
        read = ImageCache(0)
        for target in self.targets:
            yield np.ascontiguousarray(read(target.image)[..., ::-1])


def set_clips(path: Path, count: int = CLIPS) -> list[SetClip]:
    """Return at most ``count`` objects of a tar set, spread over it: tracks first, then stills.

    Raises:
        DataError: if it is no training set, or one without objects.
    """
    found = read_tar_set(path)
    objects = [tuple(track) for track in found.tracks.values() if len(track) > 1]
    objects += [(still, still) for still in found.stills]
    if not objects:
        raise DataError(f"{path}: no objects in it")
    chosen = np.unique(np.linspace(0, len(objects) - 1, count).round().astype(int))
    return [SetClip(f"{found.name} {index}", objects[index]) for index in chosen]
