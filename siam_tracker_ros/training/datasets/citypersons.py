"""CityPersons: ``gtBboxCityPersons/train/CITY/NAME_gtBboxCityPersons.json`` with Cityscapes' ``leftImg8bit``.

``ignore`` regions and groups are no objects; a person of whom less than half is visible
(``bboxVis``) is heavily occluded.
"""

from __future__ import annotations

import json

import numpy as np

from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import IGNORED, OCCLUDED, SEEN, TableBuilder, TableSet

SUFFIX = "_gtBboxCityPersons.json"
PERSONS = ("pedestrian", "rider", "sitting person", "person (other)")
VISIBLE = 0.5


def read(reading: Reading) -> TableSet:
    """Read the folder that holds gtBboxCityPersons/ and leftImg8bit/."""
    notes = reading.root / "gtBboxCityPersons" / "train"
    files = sorted(notes.glob(f"*/*{SUFFIX}"))
    if not files:
        raise reading.other_layout(f"gtBboxCityPersons/train/*/*{SUFFIX} and leftImg8bit/train/")
    builder = TableBuilder(reading.root)
    for file in files:
        text = reading.text(file)
        if text is None:
            continue
        try:
            content = json.loads(text)
            size = (int(content["imgWidth"]), int(content["imgHeight"]))
            objects = content["objects"]
            boxes = np.array([o["bbox"] for o in objects], dtype=float).reshape(-1, 4)
            visible = np.array([o["bboxVis"] for o in objects], dtype=float).reshape(-1, 4)
            labels = [str(o["label"]) for o in objects]
        except (KeyError, TypeError, ValueError) as error:
            reading.wrong(
                "not a CityPersons annotation", str(file), f"{type(error).__name__} {error}"
            )
            continue
        image = file.name.removesuffix(SUFFIX) + "_leftImg8bit.png"
        name = f"leftImg8bit/train/{file.parent.name}/{image}"
        if not (reading.root / name).is_file():
            reading.wrong("image is missing", str(reading.root / name))
            continue
        hidden = visible[:, 2:].prod(axis=1) < VISIBLE * boxes[:, 2:].prod(axis=1)
        state = np.where(hidden, OCCLUDED, SEEN)
        state = np.where([label in PERSONS for label in labels], state, IGNORED)
        boxes = reading.inside(boxes, size, str(file), first=0)
        builder.add(
            name,
            [name],
            size,
            boxes,
            image=[0] * len(boxes),
            state=state,
            category=["person"] * len(boxes),
        )
    return reading.finish(builder)
