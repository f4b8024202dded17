"""Training images with boxes from tar sets: ``images/...jpg``, ``annotations.jsonl``, one tar a set.

A line of ``annotations.jsonl`` is one image: ``image, width, height, objects: [{box: [x, y, w, h],
category, track}], video, frame, pseudo``. ``pseudo: null`` means unlabelled: a background, not an
empty picture. The other layouts, in ``datasets``, come to the same :class:`ImageSet`.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box, Rgb
from siam_tracker_ros.training.config import DataConfig

State = Literal["seen", "occluded", "absent", "ignored"]

STATES: tuple[State, ...] = ("seen", "occluded", "absent", "ignored")
"""What is known of an object in a frame.

``occluded`` ones are searched for and are no templates; ``absent`` ones cannot be seen, and their box
is where they were last; ``ignored`` ones (crowds, pictures of people) are of their category without
being an object.
"""

JPEG_BEGIN, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_TAIL = 4096
"""Bytes at the end of a JPEG among which its end is looked for: some have something behind it."""


class DataError(RuntimeError):
    """A data set is missing or broken; the message names file and line."""


@dataclass(frozen=True)
class ImageRef:
    """One compressed image of a set.

    Attributes:
        name: in its set; for messages, and for what is held out.
        offset, length: bytes in ``file``; length 0 is the whole file.
        file: a tar, or the image's own.
        number: of the image in its set.
        fill: what is seen outside it, where that is not its own mean colour: it was cut out of a
            larger picture.
    """

    name: str
    offset: int
    length: int
    file: Path
    number: int = -1
    fill: Rgb | None = None


@dataclass(frozen=True)
class TargetRef:
    """One annotated object in one image; ``row`` is its number in its set."""

    image: ImageRef
    box: Box
    category: str | None
    frame: int
    state: State = "seen"
    row: int = -1


@dataclass
class ImageSet:
    """What one set offers.

    Attributes:
        name: the set's name.
        stills: objects in single images.
        tracks: objects followed through a video, by (video, track), in order of frames.
        images: every image, for backgrounds.
        annotated: every object of an image, those that are left out below included: too small to
            be followed is still one of its category.
        skipped: reasons and counts of objects that were left out.
        sha256: hash of the set, or of its annotation.
        absent: frames of ``tracks`` in which their object cannot be seen.
    """

    name: str
    stills: Sequence[TargetRef] = field(default_factory=list)
    tracks: Mapping[tuple[str, int], Sequence[TargetRef]] = field(default_factory=dict)
    images: Sequence[ImageRef] = field(default_factory=list)
    annotated: Mapping[ImageRef, Sequence[TargetRef]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    sha256: str = ""
    absent: Mapping[tuple[str, int], Sequence[TargetRef]] = field(default_factory=dict)

    def split(self, data: DataConfig, holdout: bool) -> ImageSet:
        """Return the training part, or the part held out for validation.

        Stills are split by a hash of the image's name, so that all objects of an image fall on one
        side; videos by name.
        """
        chosen = {k for k in self.tracks if (k[0] in data.holdout_videos) == holdout}
        tracks = {k: v for k, v in self.tracks.items() if k in chosen}
        absent = {k: v for k, v in self.absent.items() if k in chosen}
        stills = [t for t in self.stills if held_out(t.image.name, data.holdout_every) == holdout]
        kept = {t.image.name for v in tracks.values() for t in v} | {t.image.name for t in stills}
        labelled = {t.image.name for v in self.tracks.values() for t in v}
        images = [
            r
            for r in self.images
            if r.name in kept
            or (r.name not in labelled and held_out(r.name, data.holdout_every) == holdout)
        ]
        return replace(self, stills=stills, tracks=tracks, images=images, absent=absent)


def held_out(name: str, every: int) -> bool:
    """Tell whether an image or a video is kept for validation: every n-th by the hash of its name."""
    return zlib.crc32(name.encode()) % every == 0


def read_tar_set(path: Path, name: str | None = None) -> ImageSet:
    """Index a tar set; images stay compressed in the file.

    Args:
        path: the tar.
        name: of the set; without, the file's.

    Raises:
        DataError: if the tar or its annotations cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such training set")
    result = TarContent(name or path.name.removesuffix(".tar"))
    digest = sha256_of(path)
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
            image = ImageRef(row["image"], member.offset_data, member.size, path)
            result.images.append(image)
            for thing in row["objects"]:
                result.add(image, row, thing)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{where}: {type(error).__name__} {error}") from error
    for track in (*result.tracks.values(), *result.absent.values()):
        track.sort(key=lambda t: t.frame)
    return ImageSet(
        result.name,
        result.stills,
        result.tracks,
        result.images,
        result.annotated,
        result.skipped,
        digest,
        result.absent,
    )


def sha256_of(path: Path) -> str:
    """Return the hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@dataclass
class TarContent:
    """An :class:`ImageSet` in the making."""

    name: str
    stills: list[TargetRef] = field(default_factory=list)
    tracks: dict[tuple[str, int], list[TargetRef]] = field(default_factory=dict)
    images: list[ImageRef] = field(default_factory=list)
    annotated: dict[ImageRef, list[TargetRef]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    absent: dict[tuple[str, int], list[TargetRef]] = field(default_factory=dict)
    rows: int = 0

    def add(self, image: ImageRef, row: dict[str, Any], thing: dict[str, Any]) -> None:
        """Add one object of a line."""
        box, state = Box.from_xywh(*map(float, thing["box"])), thing.get("state", "seen")
        if state not in STATES:
            raise ValueError(f"state {state!r} is not one of {', '.join(STATES)}")
        target = TargetRef(image, box, thing["category"], row["frame"] or 0, state, self.rows)
        self.rows += 1
        track = None
        if row["video"] is not None and thing["track"] is not None:
            track = (row["video"], thing["track"])
        sound = box.is_finite() and min(box.w, box.h) > 0
        if state == "absent":
            if track and sound:
                self.absent.setdefault(track, []).append(target)
            return
        if sound:
            self.annotated.setdefault(image, []).append(target)
        size = np.array([[row["width"], row["height"]]], dtype=np.float64)
        reason = str(unusable(np.array([tuple(box)]), size)[0])
        if state == "ignored" or (state == "occluded" and not track):
            reason = state
        if reason:
            self.skipped[reason] = self.skipped.get(reason, 0) + 1
        elif track:
            self.tracks.setdefault(track, []).append(target)
        else:
            self.stills.append(target)


def unusable(boxes: npt.NDArray[np.floating], sizes: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """Say why objects cannot be followed; an empty word for those that can.

    Args:
        boxes: ``[N,4]`` (cx, cy, w, h), image px.
        sizes: ``[N,2]`` or ``[1,2]``: width and height of their images.

    Returns:
        ``[N]`` strings.
    """
    w, h = boxes[:, 2], boxes[:, 3]
    with np.errstate(all="ignore"):
        area = w * h
        small = ~np.isfinite(boxes).all(axis=1) | (np.minimum(w, h) < 10) | (area < 400)
        thin = np.maximum(w / h, h / w) > 6
        whole = area > 0.85 * sizes[:, 0] * sizes[:, 1]
    return np.select(
        [small, thin, whole],
        ["smaller than 10 px or 400 px^2", "aspect above 6", "covers the picture"],
        "",
    )


class ImageCache:
    """Decoded RGB images, the least recently used ones forgotten above a byte limit."""

    def __init__(self, limit_bytes: float) -> None:
        self.limit = limit_bytes
        self.used = 0
        self.decoded = 0
        self._images: OrderedDict[tuple[Path, int], npt.NDArray[np.uint8]] = OrderedDict()

    def __call__(self, ref: ImageRef) -> npt.NDArray[np.uint8]:
        """Return ``uint8 [H,W,3]`` RGB; read-only, shared.

        Raises:
            DataError: if the image does not decode.
        """
        key = (ref.file, ref.offset)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        rgb = decode(ref)
        self.decoded += 1
        rgb.setflags(write=False)
        self._images[key] = rgb
        self.used += rgb.nbytes
        while self.used > self.limit and len(self._images) > 1:
            self.used -= self._images.popitem(last=False)[1].nbytes
        return rgb


def decode(ref: ImageRef) -> npt.NDArray[np.uint8]:
    """Return an image, ``uint8 [H,W,3]`` RGB.

    Raises:
        DataError: if it is missing, cut off or not an image.
    """
    where = str(ref.file) if not ref.length else f"{ref.file}: {ref.name}"
    try:
        with ref.file.open("rb") as stream:
            stream.seek(ref.offset)
            data = stream.read(ref.length or -1)
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror}") from error
    if data[:2] == JPEG_BEGIN and JPEG_END not in data[-JPEG_TAIL:]:
        # OpenCV would return it with a gray lower part, and only print a warning.
        raise DataError(f"{where}: a JPEG image that is cut off")
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise DataError(f"{where} is not a readable image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
