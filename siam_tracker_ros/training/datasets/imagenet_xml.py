"""The XML that ImageNet's VID and DET share: one file an image."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from siam_tracker_ros.training.datasets.reading import Reading


class XmlObject(NamedTuple):
    """An object: box (xywh), category (WordNet id), number in its video, hidden in part."""

    box: tuple[float, float, float, float]
    category: str
    track: int
    occluded: bool


class XmlImage(NamedTuple):
    """An image's size (width, height) and objects."""

    size: tuple[int, int]
    objects: list[XmlObject]


def read_xml(reading: Reading, file: Path) -> XmlImage | None:
    """Read an annotation; None where it cannot be read."""
    root = reading.xml(file)
    if root is None:
        return None
    try:
        size = (int(_text(root, "size/width")), int(_text(root, "size/height")))
        objects = []
        for thing in root.iter("object"):
            x1, y1, x2, y2 = (
                float(_text(thing, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            objects.append(
                XmlObject(
                    (x1, y1, x2 - x1, y2 - y1),
                    _text(thing, "name"),
                    int(thing.findtext("trackid", "-1")),
                    thing.findtext("occluded", "0").strip() == "1",
                )
            )
    except ValueError as error:
        reading.wrong("not an ImageNet annotation", str(file), str(error))
        return None
    return XmlImage(size, objects)


def _text(node: object, path: str) -> str:
    text = node.findtext(path)  # type: ignore[attr-defined]
    if text is None:
        raise ValueError(f"no {path}")
    return str(text).strip()
