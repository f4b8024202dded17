"""WIDER FACE: ``wider_face_split/wider_face_train_bbx_gt.txt`` and ``WIDER_train/images``.

An image's name, the number of its faces, and a line a face: ``x y w h blur expression illumination invalid
occlusion pose``. An image without faces has a line of zeros. Invalid faces are ignored; occlusion 2 is
heavy.
"""

from __future__ import annotations

import numpy as np

from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import IGNORED, OCCLUDED, SEEN, TableBuilder, TableSet

TABLE = "wider_face_split/wider_face_train_bbx_gt.txt"
INVALID, OCCLUSION = 7, 8


def read(reading: Reading) -> TableSet:
    """Read the folder that holds wider_face_split/ and WIDER_train/."""
    file = reading.root / TABLE
    text = reading.text(file) if file.is_file() else None
    if text is None:
        raise reading.other_layout(f"{TABLE} and WIDER_train/images/")
    builder = TableBuilder(reading.root)
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        name = lines[at].strip()
        if not name.endswith(".jpg"):
            if name:
                reading.wrong("not a WIDER FACE line", f"{file}:{at + 1}", repr(name))
            at += 1
            continue
        count = lines[at + 1].strip() if at + 1 < len(lines) else ""
        if not count.isdigit():
            reading.wrong("not a number of faces", f"{file}:{at + 2}", repr(count))
            at += 1
            continue
        rows = lines[at + 2 : at + 2 + max(1, int(count))]
        _add(reading, builder, name, rows[: int(count)], at + 3)
        at += 2 + len(rows)
    return reading.finish(builder)


def _add(
    reading: Reading, builder: TableBuilder, image: str, lines: list[str], number: int
) -> None:
    name = f"WIDER_train/images/{image}"
    size = reading.size(reading.root / name)
    if size is None:
        return
    faces = np.full((len(lines), 10), np.nan)
    for i, line in enumerate(lines):
        try:
            faces[i] = [float(v) for v in line.split()]
        except ValueError:
            reading.wrong("not a face", f"{reading.root / TABLE}:{number + i}", repr(line))
    state = np.where(faces[:, OCCLUSION] == 2, OCCLUDED, SEEN)
    state = np.where(faces[:, INVALID] == 1, IGNORED, state)
    boxes = reading.inside(faces[:, :4], size, str(reading.root / TABLE), first=number)
    builder.add(name, [name], size, boxes, image=[0] * len(boxes), state=state, category="face")
