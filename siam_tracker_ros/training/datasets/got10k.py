"""GOT-10k: a folder a video under ``train``, with absence and cover labels a frame.

``list.txt``; ``GOT-10k_Train_000001/{00000001.jpg, groundtruth.txt, absence.label, cover.label,
meta_info.ini}``. ``cover.label`` is the visible part in eighths: 0 is hidden wholly, 8 is all there.
"""

from __future__ import annotations

import re

import numpy as np

from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import (
    ABSENT,
    OCCLUDED,
    SEEN,
    NumberedNames,
    TableBuilder,
    TableSet,
)

OCCLUDED_BELOW = 4
"""Eighths: with less than about half of it visible a target is no template."""


def read(reading: Reading) -> TableSet:
    """Read the folder ``train`` (or ``val``) of GOT-10k."""
    root = reading.root
    if (root / "list.txt").is_file():
        names = (reading.text(root / "list.txt") or "").split()
    else:
        names = sorted(file.parent.name for file in root.glob("*/groundtruth.txt"))
    if not names or not (root / names[0] / "absence.label").is_file():
        raise reading.other_layout("list.txt and folders with groundtruth.txt and absence.label")
    builder = TableBuilder(root, ("{:08d}.jpg", 1))
    for name in names:
        _add(reading, builder, name)
    return reading.finish(builder)


def _add(reading: Reading, builder: TableBuilder, name: str) -> None:
    folder = reading.root / name
    boxes = reading.boxes(folder / "groundtruth.txt")
    if boxes is None or not len(boxes):
        return
    absence = reading.flags(folder / "absence.label", len(boxes))
    cover = reading.flags(folder / "cover.label", len(boxes))
    size = reading.frames(NumberedNames([name], [len(boxes)], "{:08d}.jpg", 1))
    if absence is None or cover is None or size is None:
        return
    state = np.where(cover < OCCLUDED_BELOW, OCCLUDED, SEEN)
    state = np.where((absence > 0) | (cover == 0), ABSENT, state)
    boxes = reading.inside(boxes, size, str(folder / "groundtruth.txt"))
    builder.add(
        name, len(boxes), size, boxes, state=state, track=0, category=_category(reading, name)
    )


def _category(reading: Reading, name: str) -> str | None:
    """Return the object's class; a video without meta_info.ini has none."""
    file = reading.root / name / "meta_info.ini"
    found = re.search(
        r"^object_class: *(.+)$", (reading.text(file) or "") if file.is_file() else "", re.M
    )
    return found[1].strip() if found else None
