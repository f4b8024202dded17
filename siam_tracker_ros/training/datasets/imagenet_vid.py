"""ImageNet VID: ``Annotations/VID/train/PART/SNIPPET/000000.xml``, ``Data/VID/train/PART/SNIPPET/000000.JPEG``.

Every object of its 30 classes is annotated in every frame; one that is missing between two frames
that have it is absent there.
"""

from __future__ import annotations

from pathlib import Path

from siam_tracker_ros.training.datasets.imagenet_xml import XmlImage, read_xml
from siam_tracker_ros.training.datasets.reading import Reading
from siam_tracker_ros.training.datasets.table import ABSENT, OCCLUDED, SEEN, TableBuilder, TableSet

Row = tuple[int, tuple[float, float, float, float], int, int, str]
"""Number of the image, box, state, track, category."""


def read(reading: Reading) -> TableSet:
    """Read the folder that holds Annotations/VID and Data/VID."""
    notes = reading.root / "Annotations" / "VID" / "train"
    snippets = sorted({file.parent for file in notes.glob("*/*/000000.xml")})
    if not snippets:
        raise reading.other_layout("Annotations/VID/train/*/*/000000.xml and Data/VID/train/")
    builder = TableBuilder(reading.root)
    for snippet in snippets:
        _add(reading, builder, snippet.relative_to(notes).as_posix(), snippet)
    return reading.finish(builder)


def _add(reading: Reading, builder: TableBuilder, name: str, folder: Path) -> None:
    read_files = [(file, read_xml(reading, file)) for file in sorted(folder.glob("*.xml"))]
    images = [(file, image) for file, image in read_files if image is not None]
    names = [f"Data/VID/train/{name}/{file.stem}.JPEG" for file, _ in images]
    if not images or reading.frames(names) is None:
        return
    rows: list[Row] = []
    for at, (_, image) in enumerate(images):
        for thing in image.objects:
            state = OCCLUDED if thing.occluded else SEEN
            rows.append((at, thing.box, state, thing.track, thing.category))
    rows += _gaps([image for _, image in images])
    which, boxes, states, tracks, categories = zip(*rows, strict=True) if rows else ((),) * 5
    numbers = [int(file.stem) for file, _ in images]
    builder.add(
        name,
        names,
        images[0][1].size,
        boxes,
        image=which,
        state=states,
        track=tracks,
        category=categories,
        frame=[numbers[i] for i in which],
    )


def _gaps(images: list[XmlImage]) -> list[Row]:
    """Return a row for each frame between two of a track's that does not have it."""
    seen: dict[int, tuple[int, str]] = {}
    gone: list[Row] = []
    for at, image in enumerate(images):
        for thing in image.objects:
            before = seen.get(thing.track, (at, ""))[0]
            gone += [
                (i, (0.0, 0.0, 0.0, 0.0), ABSENT, thing.track, thing.category)
                for i in range(before + 1, at)
            ]
            seen[thing.track] = (at, thing.category)
    return gone
