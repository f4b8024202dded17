"""TrackingNet: ``TRAIN_0/anno/NAME.txt`` with a box a line, ``TRAIN_0/frames/NAME/0.jpg``.

It has no labels of absence; a line without an extent is left out.
"""

from __future__ import annotations

from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import NumberedNames, TableBuilder, TableSet


def read(reading: Reading) -> TableSet:
    """Read the folder that holds TRAIN_0 to TRAIN_11, or some of them."""
    files = sorted(reading.root.glob("TRAIN_*/anno/*.txt"))
    if not files:
        raise reading.other_layout("TRAIN_0/anno/*.txt and TRAIN_0/frames/")
    builder = TableBuilder(reading.root, ("{:d}.jpg", 0))
    for file in files:
        part = file.parents[1].name
        folder = f"{part}/frames/{file.stem}"
        boxes = reading.boxes(file)
        if boxes is None or not len(boxes):
            continue
        size = reading.frames(NumberedNames([folder], [len(boxes)], "{:d}.jpg", 0))
        if size is None:
            continue
        boxes = reading.inside(boxes, size, str(file))
        builder.add(f"{part}/{file.stem}", len(boxes), size, boxes, track=0, folder=folder)
    return reading.finish(builder)
