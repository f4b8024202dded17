"""Training samples: a template and two search crops of the same object, from videos, stills or synthetic clips.

Sample ``i`` of seed ``s`` is always the same, whichever worker makes it and however often a run was
stopped.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import (
    ArrayPicture,
    Box,
    Crop,
    CropSpec,
    context_side,
    extract_crop,
)
from siam_tracker_ros.training import augment
from siam_tracker_ros.training.config import AugmentationConfig, DataConfig, SamplingConfig
from siam_tracker_ros.training.tar_sets import DataError, ImageCache, ImageRef, ImageSet, TargetRef

UInt8Array = npt.NDArray[np.uint8]

GRID_MARGIN = 4.0
"""Targets are kept at least half a cell inside the response grid, crop px."""

MAX_RELATED = 8
"""Boxes of ``Sample.related`` in a search."""


class View(NamedTuple):
    """An object in a picture: RGB array and box (image px)."""

    image: UInt8Array
    box: Box


@dataclass(frozen=True)
class Cutout:
    """An object with an outline: ``uint8 [h,w,3]`` RGB and ``uint8 [h,w]`` alpha, cropped to the object."""

    rgb: UInt8Array
    alpha: UInt8Array


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


class SampleSource:
    """Makes samples from image sets.

    Args:
        sets: what to draw from, already split (see :func:`split_sets`).
        crop: crop sizes of the tracker.
        response: half the width of the response grid in crop px: targets stay inside.
        data, sampling, augmentation: the run's configuration.
        seed: of the whole run.
        shape: crops of a sample.
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
    ) -> None:
        self.shape = shape
        self.crop, self.response = crop, response
        self.sampling, self.augmentation, self.seed = sampling, augmentation, seed
        self.load = ImageCache(data.cache_gib * 2**30)
        self.stills = [(s.stills, data.sets.get(s.name, 1.0)) for s in sets if s.stills]
        self.videos = [
            ([t for t in s.tracks.values() if len(t) > 1], data.sets.get(s.name, 1.0)) for s in sets
        ]
        self.videos = [(tracks, weight) for tracks, weight in self.videos if tracks]
        self.images: list[ImageRef] = [ref for s in sets for ref in s.images]
        self.objects: list[TargetRef] = [t for targets, _ in self.stills for t in targets]
        self.by_category: dict[str, list[TargetRef]] = {}
        for target in self.objects:
            if target.category:
                self.by_category.setdefault(target.category, []).append(target)
        self.cutout_files = find_cutouts(data)
        self._cutouts: dict[int, Cutout | None] = {}
        weights = {
            "video": sampling.video if self.videos else 0.0,
            "still": sampling.still if self.stills else 0.0,
            "synthetic": sampling.synthetic
            if self.images and (self.cutout_files or self.objects)
            else 0.0,
        }
        if not sum(weights.values()):
            raise DataError("the training sets hold no usable objects")
        self.kinds = list(weights)
        self.kind_weights = np.array([weights[k] for k in self.kinds]) / sum(weights.values())

    def __call__(self, index: int) -> Sample:
        """Return sample ``index``."""
        rng = np.random.default_rng((self.seed, index))
        sampling = self.sampling
        kind = self.kinds[int(rng.choice(len(self.kinds), p=self.kind_weights))]
        views = self._views(rng, kind)
        memory, shown = views[: self.shape.templates], views[self.shape.templates :]
        negative = rng.random() < sampling.negative
        if negative:
            shown = self._views(rng, kind)[self.shape.templates :]
        if rng.random() < self.augmentation.flip:
            memory, shown = [_mirrored(v) for v in memory], [_mirrored(v) for v in shown]
        absent = rng.random() < sampling.absent and not negative
        covered = int(rng.integers(len(shown))) if absent else -1
        rotate = kind != "video"
        searches, boxes, visible = [], [], []
        for position, view in enumerate(shown):
            canvas, box = self._search(rng, view, rotate)
            seen = not negative
            if rng.random() < sampling.distractor:
                self._paste_distractor(rng, canvas, box)
            if position == covered:
                self._paste_cover(rng, canvas, box)
                seen = False
            elif rng.random() < sampling.occluder:
                self._paste_occluder(rng, canvas, box)
            searches.append(canvas)
            boxes.append(tuple(box))
            visible.append(float(seen))
        cut = [self._template(rng, view) for view in memory]
        templates, searches = self._look(rng, [crop for crop, _ in cut], searches)
        related = np.zeros((len(boxes), MAX_RELATED, 4), np.float32)
        mask = np.zeros((len(boxes), MAX_RELATED), np.float32)
        mask[:, 0] = visible
        related[:, 0] = np.array(boxes) * mask[:, :1]
        return Sample(
            np.stack(templates),
            np.array([tuple(box) for _, box in cut], dtype=np.float32),
            np.stack(searches),
            np.array(boxes, dtype=np.float32),
            np.array(visible, dtype=np.float32),
            related,
            mask,
        )

    # -- what is seen ---------------------------------------------------------------------------

    def _views(self, rng: np.random.Generator, kind: str) -> list[View]:
        if kind == "video":
            return self._video(rng)
        if kind == "still":
            view = self._still(rng)
            return [view] * sum(self.shape)
        return self._synthetic(rng)

    def _video(self, rng: np.random.Generator) -> list[View]:
        tracks = _pick(rng, self.videos)
        track = tracks[int(rng.integers(len(tracks)))]
        anchor = track[int(rng.integers(len(track)))]
        near = [t for t in track if abs(t.frame - anchor.frame) <= self.sampling.max_gap]
        # A track sampled more thinly than max_gap still has its neighbours.
        near = near if len(near) > 1 else track
        chosen = [anchor, *(near[int(rng.integers(len(near)))] for _ in range(sum(self.shape) - 1))]
        return [View(self.load(t.image), t.box) for t in chosen]

    def _still(self, rng: np.random.Generator) -> View:
        targets = _pick(rng, self.stills)
        target = targets[int(rng.integers(len(targets)))]
        return View(self.load(target.image), target.box)

    def _synthetic(self, rng: np.random.Generator) -> list[View]:
        """Frames of a clip: a cut-out moves, grows and turns before a moving background."""
        cutout = self._cutout(rng)
        look_alike = self._cutout(rng) if rng.random() < 0.4 else None
        background = self.load(self.images[int(rng.integers(len(self.images)))])
        size = rng.uniform(40, 150)
        angle = 0.0
        views = []
        for frame in range(sum(self.shape)):
            if frame and rng.random() < 0.3:
                background = self.load(self.images[int(rng.integers(len(self.images)))])
            image = np.array(background)
            height, width = image.shape[:2]
            size *= math.exp(rng.normal(0, 0.12))
            angle += rng.normal(0, 8)
            shape, outline = _turned(cutout, angle)
            k = min(size, 0.8 * min(height, width)) / math.sqrt(shape.shape[0] * shape.shape[1])
            w, h = max(12.0, k * shape.shape[1]), max(12.0, k * shape.shape[0])
            w, h = min(w, width - 2.0), min(h, height - 2.0)
            box = Box(
                rng.uniform(w / 2, width - w / 2),
                rng.uniform(h / 2, height - h / 2),
                round(w),
                round(h),
            )
            # Whole pixels, as paste lays them: the label is the pasted object's own extent.
            x, y = round(box.cx - (box.w - 1) / 2), round(box.cy - (box.h - 1) / 2)
            box = Box.from_xywh(x, y, box.w, box.h)
            if look_alike is not None:
                a, d = rng.uniform(0, 2 * math.pi), rng.uniform(1.0, 2.0)
                beside = Box(box.cx + w * d * math.cos(a), box.cy + h * d * math.sin(a), w, h)
                augment.paste(rng, image, look_alike.rgb, beside, look_alike.alpha)
            augment.paste(rng, image, shape, box, outline)
            views.append(View(image, box))
        return views

    def _cutout(self, rng: np.random.Generator) -> Cutout:
        if self.cutout_files and (not self.objects or rng.random() < 0.6):
            for _ in range(8):
                index = int(rng.integers(len(self.cutout_files)))
                if index not in self._cutouts:
                    self._cutouts[index] = read_cutout(self.cutout_files[index])
                cutout = self._cutouts[index]
                if cutout is not None:
                    return cutout
        rgb = self._object_patch(rng, None)
        alpha = np.zeros(rgb.shape[:2], np.uint8)
        h, w = alpha.shape
        cv2.ellipse(alpha, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 255, -1)
        return Cutout(rgb, alpha)

    def _object_patch(self, rng: np.random.Generator, category: str | None) -> UInt8Array:
        if not self.objects:
            image = self.load(self.images[int(rng.integers(len(self.images)))])
            h, w = (max(8, int(v * rng.uniform(0.15, 0.5))) for v in image.shape[:2])
            y, x = (
                int(rng.integers(image.shape[0] - h + 1)),
                int(rng.integers(image.shape[1] - w + 1)),
            )
            return image[y : y + h, x : x + w]
        pool = self.by_category.get(category or "", self.objects)
        target = pool[int(rng.integers(len(pool)))]
        image = self.load(target.image)
        x1, y1, x2, y2 = target.box.clipped_to_image(image.shape[1], image.shape[0]).edges
        x, y = max(0, round(x1 + 0.5)), max(0, round(y1 + 0.5))
        patch = image[y : max(y + 4, round(y2 + 0.5)), x : max(x + 4, round(x2 + 0.5))]
        return patch if patch.size else image

    # -- where it is cut ------------------------------------------------------------------------

    def _template(self, rng: np.random.Generator, view: View) -> tuple[UInt8Array, Box]:
        """Template crop with jitter, and the box in it (crop px)."""
        picture = ArrayPicture(view.image)
        side = context_side(view.box.w, view.box.h, self.crop.context)
        reach = self.augmentation.template_shift * side / self.crop.template
        dx, dy = rng.uniform(-reach, reach, 2)
        crop = Crop(view.box.cx + dx, view.box.cy + dy, side, self.crop.template)
        return extract_crop(picture, crop, picture.mean_rgb()), crop.box_to_crop(view.box)

    def _search(self, rng: np.random.Generator, view: View, rotate: bool) -> tuple[UInt8Array, Box]:
        """Search crop with jitter, and the box in it (crop px)."""
        config = self.augmentation
        deformation = augment.random_deformation(rng, config, rotate)
        w, h = augment.deformed_size(deformation, view.box.w, view.box.h)
        # The tracker's idea of the size is off by this much; the crop's scale follows that idea.
        size, aspect = rng.uniform(-config.scale, config.scale), rng.normal(0, config.aspect)
        believed = (w * math.exp(size + aspect), h * math.exp(size - aspect))
        side = context_side(*believed, self.crop.context) * self.crop.search / self.crop.template
        k = self.crop.search / side
        if rng.random() < 0.5:
            shift = rng.normal(0, config.shift_near, 2)
        else:
            shift = rng.uniform(-config.shift, config.shift, 2)
        limit = self.response - GRID_MARGIN
        shift = np.clip(shift, -limit, limit)
        # u = mid + k D (x - c) must put the target's centre at mid + shift.
        back = np.linalg.solve(k * deformation, shift)
        crop = Crop(view.box.cx - back[0], view.box.cy - back[1], side, self.crop.search)
        picture = ArrayPicture(view.image)
        canvas = extract_crop(picture, crop, picture.mean_rgb(), deformation)
        if rotate and rng.random() < self.augmentation.surround:
            canvas = self._surrounded(rng, canvas, picture, crop, deformation)
        mid = (self.crop.search - 1) / 2
        return canvas, Box(mid + shift[0], mid + shift[1], k * w, k * h)

    def _surrounded(
        self,
        rng: np.random.Generator,
        canvas: UInt8Array,
        picture: ArrayPicture,
        crop: Crop,
        deformation: npt.NDArray[np.floating],
    ) -> UInt8Array:
        """Show another picture where this one ends.

        Objects that fill their photograph would otherwise always stand in a plain field, and
        finding the field's hole would do for finding the object.
        """
        ones = np.broadcast_to(np.uint8(255), (picture.height, picture.width))
        inside = extract_crop(ArrayPicture(ones, "gray"), crop, (0, 0, 0), deformation)
        other = self.load(self.images[int(rng.integers(len(self.images)))])
        side = rng.uniform(0.6, 1.0) * min(other.shape[:2])
        cx, cy = (rng.uniform(side / 2, n - side / 2) for n in (other.shape[1], other.shape[0]))
        around = extract_crop(ArrayPicture(other), Crop(cx, cy, side, crop.size), (0, 0, 0))
        return np.asarray(np.where(inside > 127, canvas, around), dtype=np.uint8)

    # -- what happens to it ---------------------------------------------------------------------

    def _paste_distractor(self, rng: np.random.Generator, canvas: UInt8Array, box: Box) -> None:
        a, d = rng.uniform(0, 2 * math.pi), rng.uniform(0.9, 2.0)
        f = rng.uniform(0.7, 1.3)
        g = f * rng.uniform(0.8, 1.25)
        beside = Box(
            box.cx + math.cos(a) * box.w * d, box.cy + math.sin(a) * box.h * d, box.w * f, box.h * g
        )
        augment.paste(rng, canvas, self._object_patch(rng, None), beside)

    def _paste_occluder(self, rng: np.random.Generator, canvas: UInt8Array, box: Box) -> None:
        narrow, wide = rng.uniform(0.3, 0.6), rng.uniform(0.5, 1.1)
        fw, fh = (narrow, wide) if rng.random() < 0.5 else (wide, narrow)
        dx, dy = rng.uniform(-0.6, 0.6, 2)
        over = Box(box.cx + dx * box.w, box.cy + dy * box.h, box.w * fw, box.h * fh)
        augment.paste(rng, canvas, self._object_patch(rng, None), over)

    def _paste_cover(self, rng: np.random.Generator, canvas: UInt8Array, box: Box) -> None:
        patch = self._object_patch(rng, None)
        outline = np.full(patch.shape[:2], 255, np.uint8)
        augment.paste(rng, canvas, patch, box.scaled(rng.uniform(1.1, 1.5)), outline)

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


def _pick(rng: np.random.Generator, pools: Sequence[tuple[list, float]]) -> list:  # type: ignore[type-arg]
    weights = np.array([weight for _, weight in pools])
    return pools[int(rng.choice(len(pools), p=weights / weights.sum()))][0]


def _mirrored(view: View) -> View:
    image = np.ascontiguousarray(view.image[:, ::-1])
    box = view.box
    return View(image, Box(image.shape[1] - 1 - box.cx, box.cy, box.w, box.h))


def _turned(cutout: Cutout, angle: float) -> tuple[UInt8Array, UInt8Array]:
    """Rotate a cut-out and crop it to its outline again."""
    h, w = cutout.alpha.shape
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, 1.0)
    n = int(math.hypot(w, h)) + 2
    matrix[:, 2] += ((n - w) / 2, (n - h) / 2)
    rgb = cv2.warpAffine(cutout.rgb, matrix, (n, n))
    alpha = cv2.warpAffine(cutout.alpha, matrix, (n, n))
    rows, columns = np.nonzero(alpha.max(axis=1) > 127)[0], np.nonzero(alpha.max(axis=0) > 127)[0]
    if not rows.size or not columns.size:
        return cutout.rgb, cutout.alpha
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return rgb[part], alpha[part]


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


def read_cutout(path: Path, limit: int = 256) -> Cutout | None:
    """Read a PNG with alpha, cropped to its object and at most ``limit`` px; None if it has no usable outline."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        return None
    alpha = image[:, :, 3]
    rows, columns = np.nonzero(alpha.max(axis=1) > 127)[0], np.nonzero(alpha.max(axis=0) > 127)[0]
    if rows.size < 12 or columns.size < 12:
        return None
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    k = limit / max(image.shape[:2])
    if k < 1:
        size = (max(1, round(image.shape[1] * k)), max(1, round(image.shape[0] * k)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    rgb = cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2RGB)
    return Cutout(rgb, np.ascontiguousarray(image[:, :, 3]))


def split_sets(sets: Sequence[ImageSet], data: DataConfig, holdout: bool) -> list[ImageSet]:
    """Return the training part of the sets, or the part held out for validation.

    Stills are split by a hash of the image's name, so that all objects of an image fall on one
    side; videos by name.
    """

    def held(name: str) -> bool:
        return zlib.crc32(name.encode()) % data.holdout_every == 0

    result = []
    for s in sets:
        tracks = {k: v for k, v in s.tracks.items() if (k[0] in data.holdout_videos) == holdout}
        stills = [t for t in s.stills if held(t.image.name) == holdout]
        kept = {t.image.name for v in tracks.values() for t in v} | {t.image.name for t in stills}
        labelled = {t.image.name for v in s.tracks.values() for t in v}
        images = [
            r
            for r in s.images
            if r.name in kept or (r.name not in labelled and held(r.name) == holdout)
        ]
        result.append(ImageSet(s.name, stills, tracks, images, s.skipped, s.sha256))
    return result
