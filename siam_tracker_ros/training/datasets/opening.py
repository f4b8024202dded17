"""Which reader a training set's layout has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from siam_tracker_ros.training.datasets import (
    citypersons,
    coco,
    folder,
    got10k,
    imagenet_det,
    imagenet_vid,
    lasot,
    trackingnet,
    widerface,
    youtube_bb,
)
from siam_tracker_ros.training.datasets.reading import OnError, Reading
from siam_tracker_ros.training.datasets.table import TableSet
from siam_tracker_ros.training.shards import read_shards
from siam_tracker_ros.training.tar_sets import DataError, ImageSet, read_tar_set

READERS: dict[str, Callable[[Reading], TableSet]] = {
    "got10k": got10k.read,
    "lasot": lasot.read,
    "trackingnet": trackingnet.read,
    "imagenet_vid": imagenet_vid.read,
    "imagenet_det": imagenet_det.read,
    "youtube_bb": youtube_bb.read,
    "coco": coco.read,
    "citypersons": citypersons.read,
    "widerface": widerface.read,
    "folder": folder.read,
}

LAYOUTS = (*READERS, "tar", "shards")


def open_set(name: str, source: str, on_error: OnError) -> ImageSet:
    """List a training set.

    Args:
        name: what it is called in a configuration.
        source: ``LAYOUT:PATH``, or ``PATH`` alone where ``name`` is a layout; the path may have
            environment variables in it.
        on_error: stop at what is wrong, or skip and count it; another layout always stops.

    Raises:
        DataError: naming the set, and the file and line where there is one.
    """
    layout, separator, path = source.partition(":")
    if not separator or layout not in LAYOUTS:
        layout, path = name, source
    if layout not in LAYOUTS:
        raise DataError(
            f"data set {name}: {source!r} names no layout; write LAYOUT:PATH with one of "
            f"{', '.join(LAYOUTS)}"
        )
    whole = os.path.expandvars(path)
    if "$" in whole:
        raise DataError(f"data set {name}: {path!r} has a variable that is not set")
    place = Path(whole).expanduser()
    if layout == "tar":
        return read_tar_set(place, name)
    if layout == "shards":
        return read_shards(place, name)
    return READERS[layout](Reading(name, place, on_error))
