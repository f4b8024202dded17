"""ImageNet DET: ``Annotations/DET/train/**/NAME.xml``, ``Data/DET/train/**/NAME.JPEG``."""

from __future__ import annotations

import numpy as np

from siam_tracker_ros.training.datasets.imagenet_xml import read_xml
from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import TableBuilder, TableSet


def read(reading: Reading) -> TableSet:
    """Read the folder that holds Annotations/DET and Data/DET; images without objects serve as backgrounds."""
    notes = reading.root / "Annotations" / "DET" / "train"
    files = sorted(notes.rglob("*.xml"))
    if not files:
        raise reading.other_layout("Annotations/DET/train/**/*.xml and Data/DET/train/")
    builder = TableBuilder(reading.root)
    for file in files:
        image = read_xml(reading, file)
        if image is None:
            continue
        name = f"Data/DET/train/{file.relative_to(notes).with_suffix('.JPEG').as_posix()}"
        if not (reading.root / name).is_file():
            reading.wrong("image is missing", str(reading.root / name))
            continue
        boxes = np.array([thing.box for thing in image.objects]).reshape(-1, 4)
        boxes = reading.inside(boxes, image.size, str(file), first=0)
        builder.add(
            name,
            [name],
            image.size,
            boxes,
            image=[0] * len(boxes),
            category=[thing.category for thing in image.objects],
        )
    return reading.finish(builder)
