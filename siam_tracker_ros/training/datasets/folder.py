"""Your own images: ``annotations.jsonl`` beside them, or a folder of frames a video with ``groundtruth.txt``.

``annotations.jsonl`` has a line an image, as in the tar sets: ``{"image": "images/0.jpg", "width": 640,
"height": 480, "objects": [{"box": [x, y, w, h], "category": "cup", "track": null}], "video": null, "frame":
null}``. An object may say ``"state"``: ``seen``, ``occluded``, ``absent`` or ``ignored``.

``groundtruth.txt`` has ``x,y,w,h`` a frame, in the order of the frames' names; ``absent`` where the object
cannot be seen. First pixel 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import ABSENT, SEEN, TableBuilder, TableSet
from siam_tracker_ros.training.tar_sets import STATES

NOTES, TRUTH = "annotations.jsonl", "groundtruth.txt"
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def read(reading: Reading) -> TableSet:
    """Read a folder with annotations.jsonl, or with folders of frames."""
    builder = TableBuilder(reading.root)
    if (reading.root / NOTES).is_file():
        _add_lines(reading, builder, reading.root / NOTES)
        return reading.finish(builder)
    truths = sorted(reading.root.glob(f"*/{TRUTH}"))
    if not truths:
        raise reading.other_layout(f"{NOTES}, or folders of frames with {TRUTH}")
    for truth in truths:
        _add_video(reading, builder, truth)
    return reading.finish(builder)


def _add_lines(reading: Reading, builder: TableBuilder, file: Path) -> None:
    videos: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate((reading.text(file) or "").splitlines(), 1):
        where = f"{file}:{number}"
        try:
            row = json.loads(line)
            size = (int(row["width"]), int(row["height"]))
            objects = row["objects"]
            boxes = np.array([o["box"] for o in objects], dtype=float).reshape(-1, 4)
            row["states"] = [STATES.index(o.get("state", "seen")) for o in objects]
            row["tracks"] = [-1 if o.get("track") is None else int(o["track"]) for o in objects]
            row["categories"] = [o.get("category") for o in objects]
            name, video = str(row["image"]), row.get("video")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reading.wrong("not an annotation", where, f"{type(error).__name__} {error}")
            continue
        if not (reading.root / name).is_file():
            reading.wrong("image is missing", where, name)
            continue
        row["boxes"] = reading.inside(boxes, size, where, first=0)
        if video is not None:
            videos.setdefault(str(video), []).append(row)
            continue
        builder.add(
            name,
            [name],
            size,
            row["boxes"],
            image=[0] * len(boxes),
            state=row["states"],
            category=row["categories"],
        )
    for video, rows in videos.items():
        rows.sort(key=lambda row: row.get("frame") or 0)
        counts = [len(row["boxes"]) for row in rows]
        builder.add(
            video,
            [str(row["image"]) for row in rows],
            (int(rows[0]["width"]), int(rows[0]["height"])),
            np.concatenate([row["boxes"] for row in rows]),
            image=np.repeat(np.arange(len(rows)), counts),
            state=[state for row in rows for state in row["states"]],
            track=[track for row in rows for track in row["tracks"]],
            category=[category for row in rows for category in row["categories"]],
            frame=np.repeat([int(row.get("frame") or 0) for row in rows], counts),
        )


def _add_video(reading: Reading, builder: TableBuilder, truth: Path) -> None:
    lines = [line.strip() for line in (reading.text(truth) or "").rstrip().splitlines()]
    folder = truth.parent
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in IMAGES)
    if len(names) != len(lines):
        reading.wrong("not a box a frame", str(truth), f"{len(lines)} lines, {len(names)} frames")
        return
    size = reading.frames([f"{folder.name}/{name}" for name in names])
    if size is None:
        return
    boxes, state = np.full((len(lines), 4), np.nan), np.full(len(lines), SEEN)
    for number, line in enumerate(lines):
        if line.lower() == "absent":
            state[number] = ABSENT
            continue
        try:
            boxes[number] = [float(v) for v in line.replace(",", " ").split()]
        except ValueError:
            reading.wrong("not a box", f"{truth}:{number + 1}", repr(line))
    boxes = reading.inside(boxes, size, str(truth))
    builder.add(
        folder.name, [f"{folder.name}/{name}" for name in names], size, boxes, state=state, track=0
    )
