"""LaSOT: ``airplane/airplane-1/{img/00000001.jpg, groundtruth.txt, full_occlusion.txt, out_of_view.txt}``.

The flags are one line of numbers with commas. ``training_set.txt`` or ``testing_set.txt`` of LaSOT's
toolkit, laid beside the categories, keep its test videos out.
"""

from __future__ import annotations

import warnings

import numpy as np

from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import (
    ABSENT,
    SEEN,
    NumberedNames,
    TableBuilder,
    TableSet,
)


def read(reading: Reading) -> TableSet:
    """Read LaSOT's folder of categories (or of videos)."""
    builder = TableBuilder(reading.root, ("img/{:08d}.jpg", 1))
    for folder in _folders(reading):
        _add(reading, builder, folder)
    return reading.finish(builder)


def _folders(reading: Reading) -> list[str]:
    """Return the training videos' folders, below the root."""
    root = reading.root
    found = {
        file.parent.name: file.parent.relative_to(root).as_posix()
        for pattern in ("*/*/out_of_view.txt", "*/out_of_view.txt")
        for file in root.glob(pattern)
    }
    if not found:
        raise reading.other_layout("airplane/airplane-1/ with groundtruth.txt and out_of_view.txt")
    if (root / "training_set.txt").is_file():
        wanted = (reading.text(root / "training_set.txt") or "").split()
        for name in wanted:
            if name not in found:
                reading.wrong("video is missing", str(root / "training_set.txt"), name)
        return [found[name] for name in sorted(wanted) if name in found]
    if (root / "testing_set.txt").is_file():
        test = set((reading.text(root / "testing_set.txt") or "").split())
        return [found[name] for name in sorted(set(found) - test)]
    warnings.warn(
        f"data set {reading.name}: {root} has neither training_set.txt nor testing_set.txt: all videos "
        "are read, the test videos too if they are there",
        stacklevel=2,
    )
    return [found[name] for name in sorted(found)]


def _add(reading: Reading, builder: TableBuilder, folder: str) -> None:
    where = reading.root / folder
    boxes = reading.boxes(where / "groundtruth.txt")
    if boxes is None or not len(boxes):
        return
    hidden = reading.flags(where / "full_occlusion.txt", len(boxes))
    outside = reading.flags(where / "out_of_view.txt", len(boxes))
    size = reading.frames(NumberedNames([folder], [len(boxes)], "img/{:08d}.jpg", 1))
    if hidden is None or outside is None or size is None:
        return
    state = np.where((hidden > 0) | (outside > 0), ABSENT, SEEN)
    boxes = reading.inside(boxes, size, str(where / "groundtruth.txt"))
    category = where.name.rsplit("-", 1)[0]
    builder.add(
        where.name, len(boxes), size, boxes, state=state, track=0, category=category, folder=folder
    )
