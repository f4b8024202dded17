"""Annotated objects in columns: how sets of millions of frames are held.

A Python object a frame would take gigabytes. Here an object in a frame is a row of some 30 bytes, and
a :class:`TargetRef` is made when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.training.config import DataConfig
from siam_tracker_ros.training.tar_sets import (
    STATES,
    DataError,
    ImageRef,
    ImageSet,
    TargetRef,
    held_out,
    unusable,
)

SEEN, OCCLUDED, ABSENT, IGNORED = range(4)

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating]


class NumberedNames(Sequence[str]):
    """Names of videos' frames by number, ``folder/00000001.jpg``: nothing is kept a frame."""

    def __init__(
        self, folders: Sequence[str], counts: Sequence[int], pattern: str, first: int
    ) -> None:
        self.folders, self.pattern, self.first = list(folders), pattern, first
        self.ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: Any) -> Any:
        """Return the name of frame ``index`` of all of them."""
        index = range(len(self))[index]
        video = bisect_right(self.ends, index)
        number = index - (self.ends[video - 1] if video else 0)
        return f"{self.folders[video]}/{self.pattern.format(number + self.first)}"


@dataclass(frozen=True)
class Table:
    """Images of a set, and the objects annotated in them.

    I images of S scenes (videos; a still is a scene of its own) with N objects.

    Attributes:
        root: folder of the images.
        names: I names below ``root``.
        scenes: S names.
        scene: ``int32 [I]``, an image's scene.
        image: ``int32 [N]``, an object's image.
        boxes: ``float32 [N,4]``, (cx, cy, w, h), image px; where an absent object was seen last.
        state: ``uint8 [N]``, index into :data:`STATES`.
        frame: ``int32 [N]``, number of the frame in its video, in steps of the video's own rate.
        track: ``int32 [N]``, number of the object in its video; -1 in a still.
        category: ``int32 [N]``, index into ``categories``; -1 where unknown.
        usable: ``bool [N]``, fit to be followed (see :func:`unusable`).
    """

    root: Path
    names: Sequence[str]
    scenes: Sequence[str]
    scene: Ints
    image: Ints
    boxes: Floats
    state: Ints
    frame: Ints
    track: Ints
    category: Ints
    categories: Sequence[str]
    usable: npt.NDArray[np.bool_]

    def ref(self, image: int) -> ImageRef:
        """Return where image number ``image`` is."""
        name = self.names[image]
        return ImageRef(name, 0, 0, self.root / name, image)

    def target(self, row: int) -> TargetRef:
        """Return the object of row ``row``."""
        code = int(self.category[row])
        return TargetRef(
            self.ref(int(self.image[row])),
            Box(*self.boxes[row].tolist()),
            self.categories[code] if code >= 0 else None,
            int(self.frame[row]),
            STATES[self.state[row]],
            row,
        )

    @cached_property
    def rows_by_image(self) -> Ints:
        """Rows sorted by their images."""
        return np.argsort(self.image, kind="stable")

    def rows_of(self, image: int) -> Ints:
        """Return the rows of an image."""
        order = self.rows_by_image
        first, last = np.searchsorted(self.image, [image, image + 1], sorter=order)
        return order[first:last]

    @property
    def crowded(self) -> bool:
        """Some image has more than one object."""
        return len(np.unique(self.image)) < len(self.image)


class Rows(Sequence[TargetRef]):
    """Some rows of a table, as targets."""

    def __init__(self, table: Table, rows: Ints) -> None:
        self.table, self.rows = table, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Return target ``index``."""
        return self.table.target(int(self.rows[index]))

    @property
    def frames(self) -> Ints:
        """Numbers of their frames."""
        return self.table.frame[self.rows]

    @property
    def clear(self) -> npt.NDArray[np.bool_]:
        """Those that nothing hides."""
        return np.asarray(self.table.state[self.rows] == SEEN)


class Images(Sequence[ImageRef]):
    """Some images of a table."""

    def __init__(self, table: Table, images: Ints) -> None:
        self.table, self.images = table, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        """Return image ``index``."""
        return self.table.ref(int(self.images[index]))


class Annotated(Mapping[ImageRef, "list[TargetRef]"]):
    """The annotated objects of an image, absent ones left out."""

    def __init__(self, table: Table) -> None:
        self.table = table
        _ = table.rows_by_image  # sorted once, before workers are forked

    def __len__(self) -> int:
        return len(np.unique(self.table.image))

    def __iter__(self) -> Iterator[ImageRef]:
        return (self.table.ref(int(i)) for i in np.unique(self.table.image))

    def __getitem__(self, ref: ImageRef) -> list[TargetRef]:
        """Return the objects of ``ref``; KeyError where it has none, or is another set's."""
        known = 0 <= ref.number < len(self.table.names)
        if not known or self.table.ref(ref.number) != ref:
            raise KeyError(ref)
        rows = self.table.rows_of(ref.number)
        rows = rows[self.table.state[rows] != ABSENT]
        if not len(rows):
            raise KeyError(ref)
        return [self.table.target(int(row)) for row in rows]


class TableSet(ImageSet):
    """An :class:`ImageSet` whose parts are made from a table when they are asked for.

    Args:
        name: the set's name.
        table: what it holds.
        skipped: reasons and counts of what is not in the table.
        sha256: hash of the annotation.
        kept: ``bool [S]``, scenes that are part of it; None for all.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        skipped: dict[str, int],
        sha256: str,
        kept: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.table = table
        part = np.ones(len(table.scene), bool) if kept is None else kept[table.scene]
        mine = part[table.image]
        single = (table.track < 0) & (table.state == SEEN) & table.usable & mine
        visible = (table.track >= 0) & (table.state <= OCCLUDED) & table.usable & mine
        gone = (table.track >= 0) & (table.state == ABSENT) & mine
        super().__init__(
            name,
            Rows(table, np.flatnonzero(single)),
            _tracks(table, visible),
            Images(table, np.flatnonzero(part)),
            Annotated(table) if table.crowded else {},
            skipped,
            sha256,
            _tracks(table, gone),
        )

    def split(self, data: DataConfig, holdout: bool) -> TableSet:
        """Return the training part, or the part held out: whole scenes, by a hash of their names."""
        held = np.array(
            [
                held_out(scene, data.holdout_every) or scene in data.holdout_videos
                for scene in self.table.scenes
            ],
            dtype=bool,
        )
        return TableSet(self.name, self.table, self.skipped, self.sha256, held == holdout)


def _tracks(table: Table, chosen: npt.NDArray[np.bool_]) -> dict[tuple[str, int], Rows]:
    """Group the chosen rows by video and track, in order of frames."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return {}
    scene, track = table.scene[table.image[rows]], table.track[rows]
    order = np.lexsort((table.frame[rows], track, scene))
    rows, scene, track = rows[order], scene[order], track[order]
    cuts = np.flatnonzero(np.diff(scene) | np.diff(track)) + 1
    return {
        (table.scenes[scene[part[0]]], int(track[part[0]])): Rows(table, rows[part[0] : part[-1]])
        for part in _ranges(cuts, len(rows))
    }


def _ranges(cuts: Ints, end: int) -> Iterator[tuple[int, int]]:
    first = 0
    for last in (*cuts.tolist(), end):
        yield first, last
        first = last


@dataclass
class TableBuilder:
    """Collects a table, a video or a still at a time.

    Attributes:
        root: folder of the images.
        numbered: pattern and first number of frames' names, where they are numbered.
    """

    root: Path
    numbered: tuple[str, int] | None = None
    scenes: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    _folders: list[str] = field(default_factory=list)
    _columns: list[tuple[Any, ...]] = field(default_factory=list)
    _images: int = 0

    def skip(self, reason: str, count: int = 1) -> None:
        """Count what is left out."""
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count

    def add(
        self,
        scene: str,
        images: Sequence[str] | int,
        size: tuple[int, int],
        xywh: Any,
        *,
        image: Any = None,
        state: Any = None,
        track: Any = -1,
        category: Sequence[str | None] | str | None = None,
        frame: Any = None,
        folder: str | None = None,
    ) -> None:
        """Add a scene.

        Args:
            scene: its name: the video's, or the still's.
            images: names of its images, or how many numbered frames there are.
            size: (width, height) of them, px.
            xywh: ``[n,4]`` boxes; first pixel 0.
            image: ``[n]`` which of the images; without, one box an image.
            state: ``[n]`` states; without, all seen.
            track: ``[n]`` or one number of the object; -1 for stills.
            category: of each object, or of all of them.
            frame: ``[n]`` numbers of frames; without, the image's own.
            folder: of numbered frames; without, the scene's name.
        """
        boxes = np.asarray(xywh, dtype=np.float64).reshape(-1, 4)
        n = len(boxes)
        at = np.arange(n) if image is None else np.asarray(image, dtype=np.int64)
        states = np.zeros(n, np.uint8) if state is None else np.asarray(state, dtype=np.uint8)
        tracks = np.broadcast_to(np.asarray(track, dtype=np.int32), (n,))
        frames = at if frame is None else np.asarray(frame, dtype=np.int64)
        if category is None or isinstance(category, str):
            codes = np.full(n, self._code(category), np.int32)
        else:
            codes = np.array([self._code(c) for c in category], dtype=np.int32).reshape(n)
        boxes = np.column_stack(
            [boxes[:, :2] + (boxes[:, 2:] - 1) / 2, boxes[:, 2:]]
        )  # the centre, as Box.from_xywh
        there = states != ABSENT
        sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
        self.skip("no box", int((there & ~sound).sum()))
        boxes, known = _last_seen(boxes, tracks, frames, there & sound)
        keep = np.where(there, sound, known)
        usable = np.zeros(n, bool)
        followed = np.flatnonzero(keep & (states <= OCCLUDED))
        reasons = unusable(boxes[followed], np.array([size], dtype=np.float64))
        for reason in np.unique(reasons[reasons != ""]):
            self.skip(str(reason), int((reasons == reason).sum()))
        usable[followed] = reasons == ""
        self.skip("ignored", int((keep & (states == IGNORED)).sum()))
        hidden = keep & (states == OCCLUDED) & (tracks < 0)
        self.skip("heavily occluded", int((hidden & usable).sum()))
        self._columns.append(
            tuple(
                column[keep]
                for column in (
                    (at + self._images).astype(np.int32),
                    boxes.astype(np.float32),
                    states,
                    frames.astype(np.int32),
                    tracks,
                    codes,
                    usable,
                )
            )
        )
        self.scenes.append(scene)
        count = images if isinstance(images, int) else len(images)
        self.counts.append(count)
        self._folders.append(scene if folder is None else folder)
        if not isinstance(images, int):
            self.names += images
        self._images += count

    def _code(self, category: str | None) -> int:
        return (
            -1 if category is None else self.categories.setdefault(category, len(self.categories))
        )

    def build(self) -> Table:
        """Return the table.

        Raises:
            DataError: if there is nothing in it.
        """
        if not self._images:
            raise DataError(f"{self.root}: holds no image that can be used ({self.skipped})")
        image, boxes, state, frame, track, category, usable = (
            np.concatenate(columns) for columns in zip(*self._columns, strict=True)
        )
        names: Sequence[str] = self.names
        if self.numbered is not None:
            names = NumberedNames(self._folders, self.counts, *self.numbered)
        scene = np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)
        return Table(
            self.root, names, self.scenes, scene, image, boxes, state, frame, track, category,
            list(self.categories), usable,
        )  # fmt: skip


def _last_seen(
    boxes: Floats, tracks: Ints, frames: Ints, good: npt.NDArray[np.bool_]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Give boxes that are not ``good`` their track's last good one before; and say where there is one."""
    if good.all() or not len(boxes):
        return boxes, good.copy()
    order = np.lexsort((frames, tracks))
    position = np.arange(len(boxes))
    last = np.maximum.accumulate(np.where(good[order], position, -1))
    begins = np.r_[True, np.diff(tracks[order]) != 0]
    first = np.maximum.accumulate(np.where(begins, position, 0))
    known = last >= first
    source = order[np.where(known, last, position)]
    result, found = boxes.copy(), np.zeros(len(boxes), bool)
    result[order], found[order] = boxes[source], known
    return result, found
