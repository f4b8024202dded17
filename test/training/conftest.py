"""Small training sets made on the spot."""

from __future__ import annotations

import io
import json
import tarfile

import cv2
import numpy as np
import pytest


def write_set(path, rows):
    """A tar set of pictures with one red rectangle each."""
    lines = []
    with tarfile.open(path, "w") as tar:

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for i, (box, video) in enumerate(rows):
            image = np.full((200, 300, 3), (90, 120, 90), np.uint8)
            x, y, w, h = box
            image[y : y + h, x : x + w] = (0, 0, 255)
            add(
                f"images/{i}.jpg",
                cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(),
            )
            thing = {"box": box, "category": "red", "track": 1 if video else None}
            lines.append(
                json.dumps(
                    {
                        "image": f"images/{i}.jpg",
                        "width": 300,
                        "height": 200,
                        "objects": [thing],
                        "video": video,
                        "frame": i if video else None,
                        "pseudo": False,
                    }
                )
            )
        add("annotations.jsonl", "\n".join(lines).encode())
    return path


@pytest.fixture
def make_set():
    """Return the function that writes a tar set: (path, rows of (xywh box, video name or None))."""
    return write_set
