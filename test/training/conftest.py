"""Small training sets made on the spot."""

from __future__ import annotations

import io
import json
import tarfile
from typing import NamedTuple

import cv2
import numpy as np
import pytest

RED, BLUE = (255, 0, 0), (0, 0, 255)


class Thing(NamedTuple):
    """A rectangle in a picture: box xywh, category, RGB colour."""

    box: list[int]
    category: str | None = "red"
    colour: tuple[int, int, int] = RED


def write_pictures(path, pictures, ground=lambda index: (90, 120, 90)):
    """A tar set of 300 x 200 pictures: rows of (things, video name or None), on ``ground(index)``."""
    lines = []
    with tarfile.open(path, "w") as tar:

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for i, (things, video) in enumerate(pictures):
            image = np.full((200, 300, 3), ground(i), np.uint8)
            for (x, y, w, h), _, colour in things:
                image[y : y + h, x : x + w] = colour
            quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
            add(f"images/{i}.jpg", cv2.imencode(".jpg", image[:, :, ::-1], quality)[1].tobytes())
            objects = [
                {"box": t.box, "category": t.category, "track": number if video else None}
                for number, t in enumerate(things, 1)
            ]
            lines.append(
                json.dumps(
                    {
                        "image": f"images/{i}.jpg",
                        "width": 300,
                        "height": 200,
                        "objects": objects,
                        "video": video,
                        "frame": i if video else None,
                        "pseudo": False,
                    }
                )
            )
        add("annotations.jsonl", "\n".join(lines).encode())
    return path


def write_set(path, rows):
    """A tar set of pictures with one red rectangle each."""
    return write_pictures(path, [([Thing(box)], video) for box, video in rows])


@pytest.fixture(scope="session")
def make_set():
    """Return the function that writes a tar set: (path, rows of (xywh box, video name or None))."""
    return write_set


@pytest.fixture
def make_pictures():
    """Return the function that writes a tar set of any rectangles, and the class of a rectangle."""
    return write_pictures, Thing
