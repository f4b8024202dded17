"""YouTube-BoundingBoxes: ``yt_bb_detection_train.csv`` (or ``.csv.gz``), and frames cut out of the videos.

Only the table is published. Frames are looked for under the names that the usual download script
gives them, ``YOUTUBE_ID+CLASS_ID+OBJECT_ID+TIMESTAMP.jpg``, in ``JPEGImages`` or
``youtubebbdevkit/youtubebb2017/JPEGImages``. Videos vanish from YouTube: frames that are not there are
counted, and are no error. One frame a second is annotated.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import ABSENT, SEEN, TableBuilder, TableSet
from siam_tracker_ros.training.tar_sets import DataError

FRAMES = ("JPEGImages", "youtubebbdevkit/youtubebb2017/JPEGImages")
FRAMES_PER_SECOND = 30
"""What time stamps are counted in, so that gaps mean the same as in other videos."""

COLUMNS = 10
"""id, ms, class, class name, object, presence, xmin, xmax, ymin, ymax."""


def read(reading: Reading) -> TableSet:
    """Read the folder that holds the detection table and the frames."""
    root = reading.root
    tables = sorted(root.glob("yt_bb_detection_train.csv*"))
    folder = next((root / name for name in FRAMES if (root / name).is_dir()), None)
    if not tables or folder is None:
        raise reading.other_layout("yt_bb_detection_train.csv and JPEGImages/")
    there = {entry.name for entry in os.scandir(folder)}
    builder = TableBuilder(folder)
    rows = sorted(_rows(reading, tables[0]), key=lambda row: (row[0], row[2], row[4], int(row[1])))
    for (video, kind, thing), group in itertools.groupby(rows, key=lambda r: (r[0], r[2], r[4])):
        _add(reading, builder, f"{video}+{kind}+{thing}", list(group), there)
    return reading.finish(builder)


def _rows(reading: Reading, table: Path) -> Iterator[list[str]]:
    """Yield the table's rows of frames, without their line numbers."""
    try:
        opened = gzip.open if table.suffix == ".gz" else open
        with opened(table, "rt", encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.reader(stream), 1):
                if len(row) != COLUMNS or not row[1].isdigit() or not _numbers(row[6:]):
                    what = f"{COLUMNS} columns with numbers are wanted, got {','.join(row)[:80]!r}"
                    reading.wrong("not a row", f"{table}:{number}", what)
                    continue
                yield row
    except (OSError, EOFError) as error:
        raise DataError(f"{table}: cannot be read: {error}") from error


def _numbers(texts: list[str]) -> bool:
    try:
        return len([float(text) for text in texts]) == len(texts)
    except ValueError:
        return False


def _add(
    reading: Reading, builder: TableBuilder, scene: str, rows: list[list[str]], there: set[str]
) -> None:
    names = [f"{scene}+{int(row[1])}.jpg" for row in rows]
    kept = [i for i, name in enumerate(names) if name in there]
    builder.skip("frame was not downloaded", len(rows) - len(kept))
    size = reading.size(builder.root / names[kept[0]]) if kept else None
    if size is None:
        return
    edges = np.array([[float(v) for v in rows[i][6:]] for i in kept])
    x1, x2, y1, y2 = edges.T * np.array([size[0], size[0], size[1], size[1]])[:, None]
    boxes = np.column_stack([x1, y1, x2 - x1, y2 - y1])
    builder.add(
        scene,
        [names[i] for i in kept],
        size,
        boxes,
        state=[SEEN if rows[i][5] == "present" else ABSENT for i in kept],
        track=0,
        category=rows[0][3],
        frame=[int(rows[i][1]) * FRAMES_PER_SECOND // 1000 for i in kept],
    )
