"""COCO: ``annotations/instances_train2017.json`` and ``train2017/000000000009.jpg``.

A crowd (``iscrowd``) is no object that could be followed: it counts only where a picture must be
free of its category.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import IGNORED, SEEN, TableBuilder, TableSet
from siam_tracker_ros.training.tar_sets import DataError


def read(reading: Reading) -> TableSet:
    """Read the folder that holds annotations/ and the folder of the training images."""
    files = sorted((reading.root / "annotations").glob("instances_train*.json"))
    if not files:
        raise reading.other_layout("annotations/instances_train2017.json and train2017/")
    builder = TableBuilder(reading.root)
    for file in files:
        text = reading.text(file)
        if text is None:
            continue
        try:
            content = json.loads(text, object_hook=_without_outline)
            names = {c["id"]: str(c["name"]) for c in content["categories"]}
            images = {image["id"]: image for image in content["images"]}
            notes: dict[Any, list[dict[str, Any]]] = {number: [] for number in images}
            for note in content["annotations"]:
                if note["image_id"] in notes:
                    notes[note["image_id"]].append(note)
                else:
                    what = f"annotation {note['id']}: image {note['image_id']}"
                    reading.wrong("image is not listed", str(file), what)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{file}: no COCO instances: {type(error).__name__} {error}") from error
        folder = file.stem.removeprefix("instances_")
        for number in sorted(images):
            _add(
                reading,
                builder,
                f"{file}: image {number}",
                folder,
                images[number],
                notes[number],
                names,
            )
    return reading.finish(builder)


def _without_outline(values: dict[str, Any]) -> dict[str, Any]:
    # outlines are nearly all of the file, and are not needed
    values.pop("segmentation", None)
    return values


def _add(
    reading: Reading,
    builder: TableBuilder,
    where: str,
    folder: str,
    image: dict[str, Any],
    notes: list[dict[str, Any]],
    names: dict[Any, str],
) -> None:
    try:
        name = f"{folder}/{image['file_name']}"
        size = (int(image["width"]), int(image["height"]))
        boxes = np.array([note["bbox"] for note in notes], dtype=float).reshape(-1, 4)
        categories = [names[note["category_id"]] for note in notes]
        states = [IGNORED if note.get("iscrowd") else SEEN for note in notes]
    except (KeyError, TypeError, ValueError) as error:
        reading.wrong("not a COCO annotation", where, f"{type(error).__name__} {error}")
        return
    if not (reading.root / name).is_file():
        reading.wrong("image is missing", str(reading.root / name))
        return
    boxes = reading.inside(boxes, size, where, first=0)
    builder.add(
        name, [name], size, boxes, image=[0] * len(boxes), state=states, category=categories
    )
