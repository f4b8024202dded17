"""Training images with boxes from tar sets: ``images/...jpg``, ``annotations.jsonl``, one tar a set.

A line of ``annotations.jsonl`` is one image: ``image, width, height, objects: [{box: [x, y, w, h],
category, track}], video, frame, pseudo``. ``pseudo: null`` means unlabelled: a background, not an
empty picture.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box


class DataError(RuntimeError):
    """A data set is missing or broken; the message names file and line."""


@dataclass(frozen=True)
class ImageRef:
    """One compressed image inside a set."""

    name: str
    offset: int
    length: int
    tar: Path


@dataclass(frozen=True)
class TargetRef:
    """One annotated object in one image."""

    image: ImageRef
    box: Box
    category: str | None
    frame: int


@dataclass
class ImageSet:
    """What one tar offers.

    Attributes:
        name: the set's name.
        stills: objects in single images.
        tracks: objects followed through a video, by (video, track), in order of frames.
        images: every image, for backgrounds.
        annotated: every object of an image, those that are left out below included: too small to
            be followed is still one of its category.
        skipped: reasons and counts of objects that were left out.
    """

    name: str
    stills: list[TargetRef] = field(default_factory=list)
    tracks: dict[tuple[str, int], list[TargetRef]] = field(default_factory=dict)
    images: list[ImageRef] = field(default_factory=list)
    annotated: dict[ImageRef, list[TargetRef]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    sha256: str = ""


def read_tar_set(path: Path) -> ImageSet:
    """Index a tar set; images stay compressed in the file.

    Raises:
        DataError: if the tar or its annotations cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such training set")
    result = ImageSet(path.name.removesuffix(".tar"))
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    result.sha256 = digest.hexdigest()
    try:
        with tarfile.open(path) as tar:
            members = {m.name.removeprefix("./"): m for m in tar.getmembers() if m.isfile()}
            if "annotations.jsonl" not in members:
                raise DataError(f"{path}: holds no annotations.jsonl")
            stream = tar.extractfile(members["annotations.jsonl"])
            assert stream is not None
            lines = stream.read().decode().splitlines()
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not a readable tar: {error}") from error
    for number, line in enumerate(lines, 1):
        where = f"{path}: annotations.jsonl line {number}"
        try:
            row = json.loads(line)
            member = members[row["image"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{where}: {type(error).__name__} {error}") from error
        image = ImageRef(row["image"], member.offset_data, member.size, path)
        result.images.append(image)
        for thing in row["objects"]:
            _add_object(result, image, row, thing)
    for track in result.tracks.values():
        track.sort(key=lambda t: t.frame)
    return result


def _add_object(
    result: ImageSet, image: ImageRef, row: dict[str, Any], thing: dict[str, Any]
) -> None:
    box = Box.from_xywh(*map(float, thing["box"]))
    target = TargetRef(image, box, thing["category"], row["frame"] or 0)
    if box.is_finite() and min(box.w, box.h) > 0:
        result.annotated.setdefault(image, []).append(target)
    reason = _unusable(box, row["width"], row["height"])
    if reason:
        result.skipped[reason] = result.skipped.get(reason, 0) + 1
        return
    if row["video"] is not None and thing["track"] is not None:
        result.tracks.setdefault((row["video"], thing["track"]), []).append(target)
    else:
        result.stills.append(target)


def _unusable(box: Box, width: int, height: int) -> str | None:
    if not box.is_finite() or min(box.w, box.h) < 10 or box.area < 400:
        return "smaller than 10 px or 400 px^2"
    if max(box.w / box.h, box.h / box.w) > 6:
        return "aspect above 6"
    if box.area > 0.85 * width * height:
        return "covers the picture"
    return None


class ImageCache:
    """Decoded RGB images, the least recently used ones forgotten above a byte limit."""

    def __init__(self, limit_bytes: float) -> None:
        self.limit = limit_bytes
        self.used = 0
        self._images: OrderedDict[tuple[Path, int], npt.NDArray[np.uint8]] = OrderedDict()

    def __call__(self, ref: ImageRef) -> npt.NDArray[np.uint8]:
        """Return ``uint8 [H,W,3]`` RGB; read-only, shared.

        Raises:
            DataError: if the image does not decode.
        """
        key = (ref.tar, ref.offset)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        with ref.tar.open("rb") as stream:
            stream.seek(ref.offset)
            data = np.frombuffer(stream.read(ref.length), dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{ref.tar}: {ref.name} is not a readable image")
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        rgb.setflags(write=False)
        self._images[key] = rgb
        self.used += rgb.nbytes
        while self.used > self.limit and len(self._images) > 1:
            self.used -= self._images.popitem(last=False)[1].nbytes
        return rgb
