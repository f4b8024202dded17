"""Training samples: template and search crops of one object, from videos, stills or synthetic clips.

Sample ``i`` of seed ``s`` is always the same, whichever worker makes it and however often a run was
stopped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import ArrayPicture, Box, Crop, CropSpec, box_side, extract_crop
from siam_tracker_ros.training import augment
from siam_tracker_ros.training.config import AugmentationConfig, DataConfig, SamplingConfig
from siam_tracker_ros.training.tar_sets import DataError, ImageSet
from siam_tracker_ros.training.views import View, ViewSource, mirrored

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]

GRID_MARGIN = 4.0
"""Targets are kept at least half a cell inside the response grid, crop px."""

MAX_RELATED = 8
"""Boxes of ``Sample.related`` in a search."""

MIN_SEEN = 0.25
"""Part of a related object's area inside the crop, at least."""

SKIPPED_IN_A_ROW = 20
"""Samples whose images cannot be read, one after the other, before it is an error after all."""

MAX_COVERED = 0.5
"""Part of what is seen of a related object under what was laid over it, at most."""


class SampleShape(NamedTuple):
    """How many crops of one object a sample has: template (memory) crops and searches."""

    templates: int
    searches: int


TRIPLET = SampleShape(templates=1, searches=2)
"""The template and the two searches that SiamSTM is trained on."""


class Sample(NamedTuple):
    """One training sample of M template (memory) crops and S searches; K is :data:`MAX_RELATED`.

    Boxes are (cx, cy, w, h), crop px of their crop.

    Attributes:
        template: ``uint8 [M,nz,nz,3]`` RGB.
        template_boxes: ``float32 [M,4]``.
        searches: ``uint8 [S,nx,nx,3]`` RGB.
        boxes: ``float32 [S,4]``: the object that the crop was cut around: the target, or another
            one in its place (negative and same-category samples).
        visible: ``float32 [S]``, 1 where the target itself is to be seen.
        related: ``float32 [S,K,4]``: the annotated objects of the target's category, itself
            included where visible; zeros where there are no more.
        related_mask: ``float32 [S,K]``, 1 for a box of ``related``.
    """

    template: UInt8Array
    template_boxes: npt.NDArray[np.float32]
    searches: UInt8Array
    boxes: npt.NDArray[np.float32]
    visible: npt.NDArray[np.float32]
    related: npt.NDArray[np.float32]
    related_mask: npt.NDArray[np.float32]


@dataclass
class Search:
    """A search crop in the making.

    Attributes:
        image: ``uint8 [nx,nx,3]`` RGB.
        box: the object in the middle, crop px.
        visible: that object can be seen.
        related: the other objects of its category, crop px.
    """

    image: UInt8Array
    box: Box
    visible: bool
    related: list[Box]

    def clipped(self, box: Box) -> Box:
        """Return the part of ``box`` in the crop."""
        return box.clipped_to_image(self.image.shape[1], self.image.shape[0])

    def lay(self, box: Box, related: bool) -> None:
        """Account for what was pasted at ``box``: it hides related objects, and may be one."""
        self.related = [
            other
            for other in self.related
            if _overlap(self.clipped(other), box) <= MAX_COVERED * self.clipped(other).area
        ]
        if related:
            self.related.append(box)

    def related_boxes(self, response: float) -> list[Box]:
        """The first :data:`MAX_RELATED` related objects by distance from the middle, its own object first.

        Args:
            response: half the width of the response grid, crop px: centres inside only.
        """
        mid = (self.image.shape[0] - 1) / 2

        def distance(box: Box) -> float:
            return max(abs(box.cx - mid), abs(box.cy - mid))

        others = [
            box
            for box in self.related
            if distance(box) < response and self.clipped(box).area >= MIN_SEEN * box.area
        ]
        own = [self.box] if self.visible else []
        return (own + sorted(others, key=distance))[:MAX_RELATED]


class SampleSource:
    """Makes samples from image sets.

    Args:
        sets: what to draw from, already split (see :func:`split_sets`).
        crop: crop sizes of the tracker.
        response: half the width of the response grid in crop px: targets stay inside.
        data, sampling, augmentation: the run's configuration.
        seed: of the whole run.
        shape: crops of a sample.
        unreadable: file that is told of images which could not be read (``data.on_error: skip``).
    """

    def __init__(
        self,
        sets: Sequence[ImageSet],
        crop: CropSpec,
        response: float,
        data: DataConfig,
        sampling: SamplingConfig,
        augmentation: AugmentationConfig,
        seed: int,
        shape: SampleShape = TRIPLET,
        unreadable: Path | None = None,
    ) -> None:
        self.crop, self.response, self.shape = crop, response, shape
        self.sampling, self.augmentation, self.seed = sampling, augmentation, seed
        self.tries = SKIPPED_IN_A_ROW if data.on_error == "skip" else 1
        self.unreadable = unreadable
        self.views = ViewSource(sets, data, sampling, find_cutouts(data))

    def __call__(self, index: int) -> Sample:
        """Return sample ``index``; with ``data.on_error: skip`` another one where an image cannot be read.

        Raises:
            DataError: naming the image.
        """
        for attempt in range(self.tries):
            seed = (self.seed, index, attempt) if attempt else (self.seed, index)
            try:
                return self._sample(np.random.default_rng(seed))
            except DataError as error:
                if attempt + 1 == self.tries:
                    raise
                self._note(str(error))
        raise AssertionError("a sample is returned or an error raised")

    def _note(self, message: str) -> None:
        """Write down what was left out; workers share the file, a line is one write."""
        warnings.warn(f"left out: {message}", stacklevel=3)
        if self.unreadable is not None:
            with self.unreadable.open("a", encoding="utf-8") as stream:
                stream.write(message + "\n")

    def _sample(self, rng: np.random.Generator) -> Sample:
        sampling = self.sampling
        pair, memory, shown = self.views(rng, *self.shape)
        category = memory[0].category
        if pair == "instance" and rng.random() < self.augmentation.redrawn:
            box = augment.redrawing(rng)
            memory, shown = (
                [v._replace(box=box(v.box)) for v in views] for views in (memory, shown)
            )
        if rng.random() < self.augmentation.flip:
            memory, shown = mirrored(memory), mirrored(shown)
        cover = pair == "instance" and rng.random() < sampling.absent
        covered = int(rng.integers(len(shown))) if cover else -1
        searches = []
        for position, view in enumerate(shown):
            search = self._search(rng, view)
            # Nothing in a negative sample is of the template's category.
            avoid = category if pair == "none" else None
            if rng.random() < sampling.distractor:
                self._paste(rng, search, _beside(rng, search.box), avoid, category)
            if position == covered:
                over = search.box.scaled(rng.uniform(1.1, 1.5))
                self._paste(rng, search, over, avoid, category, whole=True)
                search.visible = False
            elif rng.random() < sampling.occluder:
                self._paste(rng, search, _across(rng, search.box), avoid, category)
            searches.append(search)
        templates = [self._template(rng, view) for view in memory]
        template_images, search_images = self._look(
            rng, [image for image, _ in templates], [search.image for search in searches]
        )
        related = np.zeros((len(searches), MAX_RELATED, 4), np.float32)
        mask = np.zeros((len(searches), MAX_RELATED), np.float32)
        for i, search in enumerate(searches if pair != "none" else []):
            found = search.related_boxes(self.response)
            related[i, : len(found)] = np.array([tuple(box) for box in found]).reshape(-1, 4)
            mask[i, : len(found)] = 1
        return Sample(
            np.stack(template_images),
            np.array([tuple(box) for _, box in templates], dtype=np.float32),
            np.stack(search_images),
            np.array([tuple(search.box) for search in searches], dtype=np.float32),
            np.array([pair == "instance" and s.visible for s in searches], dtype=np.float32),
            related,
            mask,
        )

    # -- where it is cut ------------------------------------------------------------------------

    def _template(self, rng: np.random.Generator, view: View) -> tuple[UInt8Array, Box]:
        """Template crop with jitter, and the box in it (crop px).

        A memory crop, which is as large as a search, is cut like one: turned and stretched too.
        """
        config = self.augmentation
        alike = self.crop.template == self.crop.search
        deformation = self._deformation(rng, view) if alike else np.eye(2)
        size = augment.deformed_size(deformation, view.box.w, view.box.h)
        grow = math.exp(rng.uniform(-config.template_scale, config.template_scale))
        side = box_side(*size, self.crop) * grow
        shift = rng.uniform(-config.template_shift, config.template_shift, 2)
        crop = _placed(view.box, side, self.crop.template, shift, deformation)
        return (
            self._cut(rng, view, crop, deformation, surround=alike),
            augment.deformed_box(view.box, crop, deformation),
        )

    def _search(self, rng: np.random.Generator, view: View) -> Search:
        """Search crop with jitter, and what is in it."""
        config = self.augmentation
        deformation = self._deformation(rng, view)
        w, h = augment.deformed_size(deformation, view.box.w, view.box.h)
        # The tracker's idea of the size is off by this much; the crop's scale follows that idea.
        size, aspect = rng.uniform(-config.scale, config.scale), rng.normal(0, config.aspect)
        believed = (w * math.exp(size + aspect), h * math.exp(size - aspect))
        side = box_side(*believed, self.crop) * self.crop.search / self.crop.template
        if rng.random() < 0.5:
            shift = rng.normal(0, config.shift_near, 2)
        else:
            shift = rng.uniform(-config.shift, config.shift, 2)
        limit = self.response - GRID_MARGIN
        crop = _placed(view.box, side, self.crop.search, np.clip(shift, -limit, limit), deformation)
        return Search(
            self._cut(rng, view, crop, deformation, surround=True),
            augment.deformed_box(view.box, crop, deformation),
            view.visible,
            [augment.deformed_box(box, crop, deformation) for box in view.related],
        )

    def _deformation(self, rng: np.random.Generator, view: View) -> FloatArray:
        return augment.random_deformation(rng, self.augmentation, rotate=not view.filmed)

    def _cut(
        self,
        rng: np.random.Generator,
        view: View,
        crop: Crop,
        deformation: FloatArray,
        surround: bool,
    ) -> UInt8Array:
        """Cut ``crop``; with ``surround``, another picture may show where a still ends.

        Objects that fill their photograph would otherwise always stand in a plain field, and
        finding the field's hole would do for finding the object.
        """
        picture = view.picture
        canvas = extract_crop(picture, crop, view.fill, deformation)
        if view.filmed or not surround or rng.random() >= self.augmentation.surround:
            return canvas
        ones = np.broadcast_to(np.uint8(255), (picture.height, picture.width))
        inside = extract_crop(ArrayPicture(ones, "gray"), crop, (0, 0, 0), deformation)
        other = self.views.background(rng)
        side = rng.uniform(0.6, 1.0) * min(other.shape[:2])
        cx, cy = (rng.uniform(side / 2, n - side / 2) for n in (other.shape[1], other.shape[0]))
        around = extract_crop(ArrayPicture(other), Crop(cx, cy, side, crop.size), (0, 0, 0))
        return np.asarray(np.where(inside > 127, canvas, around), dtype=np.uint8)

    # -- what happens to it ---------------------------------------------------------------------

    def _paste(
        self,
        rng: np.random.Generator,
        search: Search,
        box: Box,
        avoid: str | None,
        category: str | None,
        whole: bool = False,
    ) -> None:
        """Lay an object of another picture over the crop; ``whole``: with no soft outline."""
        patch, kind = self.views.patch(rng, avoid)
        outline = np.full(patch.shape[:2], 255, np.uint8) if whole else None
        augment.paste(rng, search.image, patch, box, outline)
        search.lay(box, related=kind is not None and kind == category)

    def _look(
        self, rng: np.random.Generator, templates: list[UInt8Array], searches: list[UInt8Array]
    ) -> tuple[list[UInt8Array], list[UInt8Array]]:
        config = self.augmentation
        if rng.random() < config.low_resolution:
            factor = rng.uniform(1.3, 4.0)
            templates = [augment.low_resolution(t, factor) for t in templates]
            searches = [augment.low_resolution(s, factor * rng.uniform(0.8, 1.2)) for s in searches]
        templates = [augment.photometric(rng, t, 0.4 * config.photometric) for t in templates]
        searches = [augment.photometric(rng, s, config.photometric) for s in searches]
        if rng.random() < config.gray:
            templates = [augment.to_gray(t) for t in templates]
            searches = [augment.to_gray(s) for s in searches]
        return templates, searches


def _placed(box: Box, side: float, size: int, shift: FloatArray, deformation: FloatArray) -> Crop:
    """Return the crop in which the centre of ``box`` is ``shift`` crop px from the middle."""
    # u = mid + k D (x - c) must put the box's centre at mid + shift.
    back = np.linalg.solve(size / side * deformation, shift)
    return Crop(box.cx - float(back[0]), box.cy - float(back[1]), side, size)


def _beside(rng: np.random.Generator, box: Box) -> Box:
    """Place of a distractor."""
    a, d = rng.uniform(0, 2 * math.pi), rng.uniform(0.9, 2.0)
    f = rng.uniform(0.7, 1.3)
    g = f * rng.uniform(0.8, 1.25)
    return Box(
        box.cx + math.cos(a) * box.w * d, box.cy + math.sin(a) * box.h * d, box.w * f, box.h * g
    )


def _across(rng: np.random.Generator, box: Box) -> Box:
    """Place of an occluder over a part of ``box``."""
    narrow, wide = rng.uniform(0.3, 0.6), rng.uniform(0.5, 1.1)
    fw, fh = (narrow, wide) if rng.random() < 0.5 else (wide, narrow)
    dx, dy = rng.uniform(-0.6, 0.6, 2)
    return Box(box.cx + dx * box.w, box.cy + dy * box.h, box.w * fw, box.h * fh)


def _overlap(a: Box, b: Box) -> float:
    """Area common to both."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.edges, b.edges
    return max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))


def find_cutouts(data: DataConfig) -> list[Path]:
    """List the PNG files of the configured folders.

    Raises:
        DataError: if a folder is missing and not optional.
    """
    files: list[Path] = []
    for folder in data.cutouts:
        path = Path(folder)
        if not path.is_dir():
            if data.cutouts_optional:
                continue
            raise DataError(
                f"data.cutouts: {folder} is no folder (or set data.cutouts_optional: true)"
            )
        files += [
            p
            for p in sorted(path.rglob("*.png"))
            if not any(part in str(p) for part in data.cutouts_exclude)
        ]
    return files


def split_sets(sets: Sequence[ImageSet], data: DataConfig, holdout: bool) -> list[ImageSet]:
    """Return the training part of the sets, or the part held out for validation."""
    return [s.split(data, holdout) for s in sets]
