"""Pre-cropped training images: what a search region can ever show of them, in few large files.

A set of shards is a folder: ``00000.tar`` with JPEG images, ``00000.npz`` with what is in them, and
``manifest.json``, which is written last. An image is a window of an original around an object (or around
several that share it), large enough for the search regions that the jitter of training cuts; where the
network would shrink it, it is reduced by a whole factor as :func:`extract_crop` would.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tarfile
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import ArrayPicture, Box, CropSpec, Rgb, box_side
from siam_tracker_ros.geometry.crops import _reduced  # the crops' own way to shrink
from siam_tracker_ros.training.augment import (
    REDRAWN_SCALE,
    REDRAWN_SHIFT,
    deformed_size,
    random_deformation,
)
from siam_tracker_ros.training.config import AugmentationConfig
from siam_tracker_ros.training.datasets.reading import OnError
from siam_tracker_ros.training.datasets.table import Floats, Ints, Table, TableSet
from siam_tracker_ros.training.tar_sets import (
    STATES,
    DataError,
    ImageRef,
    ImageSet,
    TargetRef,
    decode,
    held_out,
    sha256_of,
)

SCHEMA = 1
INSIDE = 0.99
"""Part of the search crops that lie wholly inside their window; of the others a corner does not."""

DRAWS = 800
"""Random crops from which that is known."""

ALIGNED = 12
"""Windows begin at multiples of this, so that crops which shrink them average the same pixels."""

WHOLE = 0.8
"""A window of this part of its picture is the whole picture."""

BACKGROUND_SIDE = 1024
"""Pictures without objects are reduced to less than twice this, px."""

RATIOS = np.linspace(-math.log(6.5), math.log(6.5), 13)
"""Logarithms of aspect ratios for which a region's reach is known; sets have none beyond 6."""


@dataclass(frozen=True)
class Region:
    """What of the surroundings of an object a training run can show."""

    crop: CropSpec
    augmentation: AugmentationConfig

    def reach(self, w: float, h: float) -> float:
        """Return how far from the centre of a w x h box search crops reach, px of the box's image."""
        ratio = float(np.clip(math.log(w / h), RATIOS[0], RATIOS[-1]))
        at = int(np.searchsorted(RATIOS, ratio))
        return math.sqrt(w * h) * float(self._reaches[max(0, at - 1) : at + 1].max())

    def shrink(self, w: float, h: float) -> float:
        """Return how many px of its image a px of an unjittered crop of a w x h box is."""
        return box_side(w, h, self.crop) / self.crop.template

    @cached_property
    def _reaches(self) -> Floats:
        """Reach around a box of area one, for each of :data:`RATIOS`: the same in every process."""
        rng = np.random.default_rng(0)
        jitter, n = self.augmentation, self.crop.search
        corners = np.array([[x, y] for x in (-n / 2, n / 2) for y in (-n / 2, n / 2)])
        reached = np.zeros((DRAWS, len(RATIOS)))
        for draw in range(DRAWS):
            deformation = random_deformation(rng, jitter, rotate=True)
            size, aspect = rng.uniform(-jitter.scale, jitter.scale), rng.normal(0, jitter.aspect)
            far = max(jitter.shift, 3 * jitter.shift_near) if draw % 2 else jitter.shift_near
            shift = rng.uniform(-far, far, 2) if draw % 2 else rng.normal(0, far, 2)
            turned = (corners - shift.clip(-n / 2, n / 2)) @ np.linalg.inv(deformation).T
            furthest = float(np.abs(turned).max())
            for i, ratio in enumerate(RATIOS):
                w, h = deformed_size(deformation, math.exp(ratio / 2), math.exp(-ratio / 2))
                believed = (w * math.exp(size + aspect), h * math.exp(size - aspect))
                reached[draw, i] = furthest * box_side(*believed, self.crop) / self.crop.template
                if jitter.redrawn:  # the furthest that a box may be drawn anew
                    reached[draw, i] *= math.exp(REDRAWN_SCALE)
                    reached[draw, i] += REDRAWN_SHIFT * max(w, h)
        return np.asarray(np.quantile(reached, INSIDE, axis=0))


@dataclass(frozen=True)
class PackSettings:
    """How shards are made.

    Attributes:
        regions: of the training runs that will read them.
        quality: of the JPEG images, 1 to 100.
        shard_mib: a shard is closed when it has grown beyond this, MiB.
        detail: stored px for each px of an unjittered crop, at least; 0 keeps every px.
        every: of a video's frames, every n-th is kept.
        holdout_every: for the counts of the two parts in the manifest.
    """

    regions: tuple[Region, ...]
    quality: int = 90
    shard_mib: float = 512.0
    detail: float = 1.0
    every: int = 1
    holdout_every: int = 20

    def plain(self) -> dict[str, Any]:
        """Return what decides over the shards' content, as JSON has it."""
        return dict(json.loads(json.dumps(asdict(self))))

    def window(self, box: Box, width: int, height: int) -> tuple[int, int, int, int, int]:
        """Return what is kept around ``box``: columns x0..x1-1, rows y0..y1-1, and by what to reduce them."""
        factor = 1
        if self.detail:
            shrink = min(region.shrink(box.w, box.h) for region in self.regions)
            factor = max(1, int(shrink / self.detail))
        reach = max(region.reach(box.w, box.h) for region in self.regions) + 4 * factor
        step = ALIGNED * factor
        x0, x1 = (int(min(max(v, 0), width)) for v in (box.cx - reach, box.cx + reach + 1))
        y0, y1 = (int(min(max(v, 0), height)) for v in (box.cy - reach, box.cy + reach + 1))
        x0, y0 = x0 - x0 % step, y0 - y0 % step
        x1, y1 = min(width, x1 + -x1 % factor), min(height, y1 + -y1 % factor)
        if x1 <= x0 or y1 <= y0 or (x1 - x0) * (y1 - y0) >= WHOLE * width * height:
            return 0, 0, width, height, factor
        return x0, y0, x1, y1, factor


@dataclass
class Cut:
    """An image of a shard.

    Attributes:
        jpeg: its bytes.
        size: width, height, px.
        fill: mean colour of the original.
        rows: objects: box (cx, cy, w, h) in the image, state, frame, track, category, and whether it
            is one that the window was cut around.
    """

    jpeg: bytes
    size: tuple[int, int]
    fill: Rgb
    rows: list[tuple[tuple[float, ...], int, int, int, str, bool]]


@dataclass(frozen=True)
class Job:
    """One scene to pack: a video's tracks, a still's objects, or a picture without any."""

    scene: str
    tracks: tuple[tuple[str, int], ...] = ()
    stills: tuple[int, ...] = ()
    image: int = -1


def jobs_of(image_set: ImageSet) -> list[Job]:
    """Return the scenes of a set in its own order: videos, then stills and pictures without objects."""
    tracks = [key for key, track in image_set.tracks.items() if len(track) > 1]
    jobs = [Job(video, tuple(keys)) for video, keys in groupby(tracks, key=lambda key: key[0])]
    stills: dict[str, list[int]] = {}
    for index in range(len(image_set.stills)):
        stills.setdefault(image_set.stills[index].image.name, []).append(index)
    for index in _unfilmed(image_set):
        name = image_set.images[index].name
        jobs.append(Job(name, stills=tuple(stills.get(name, ())), image=index))
    return jobs


def _unfilmed(image_set: ImageSet) -> Iterable[int]:
    """Return numbers (in ``images``) of the images that are not of a video."""
    if isinstance(image_set, TableSet):
        table = image_set.table
        filmed = np.zeros(len(table.scenes), bool)
        filmed[table.scene[table.image[table.track >= 0]]] = True
        return np.flatnonzero(~filmed[table.scene[image_set.images.images]]).tolist()  # type: ignore[attr-defined]
    names = {t.image.name for track in image_set.tracks.values() for t in track}
    names |= {t.image.name for track in image_set.absent.values() for t in track}
    return [i for i, ref in enumerate(image_set.images) if ref.name not in names]


def cut_scene(image_set: ImageSet, job: Job, settings: PackSettings) -> Iterator[Cut | DataError]:
    """Yield the images of a scene; an error in place of one that cannot be read."""
    by_image: dict[ImageRef, list[tuple[TargetRef, int]]] = {}
    for key in job.tracks:
        track, absent = image_set.tracks[key], image_set.absent.get(key, ())
        for targets in (track, absent):
            for index in range(0, len(targets), settings.every):
                by_image.setdefault(targets[index].image, []).append((targets[index], key[1]))
    for index in job.stills:
        target = image_set.stills[index]
        by_image.setdefault(target.image, []).append((target, -1))
    if not by_image:
        by_image[image_set.images[job.image]] = []
    for ref in sorted(by_image, key=lambda ref: by_image[ref][0][0].frame if by_image[ref] else 0):
        try:
            picture = decode(ref)
        except DataError as error:
            yield error
            continue
        yield from _cuts(ref, picture, by_image[ref], image_set.annotated.get(ref, ()), settings)


def _cuts(
    ref: ImageRef,
    picture: npt.NDArray[np.uint8],
    mains: list[tuple[TargetRef, int]],
    annotated: Sequence[TargetRef],
    settings: PackSettings,
) -> Iterator[Cut]:
    height, width = picture.shape[:2]
    fill = ArrayPicture(picture).mean_rgb() if ref.fill is None else ref.fill
    windows: dict[tuple[int, int, int, int, int], list[tuple[TargetRef, int]]] = {}
    for target, track in mains:
        windows.setdefault(settings.window(target.box, width, height), []).append((target, track))
    if not mains:
        factor = max(1, max(width, height) // BACKGROUND_SIDE)
        windows[(0, 0, width, height, factor)] = []
    for (x0, y0, x1, y1, factor), around in windows.items():
        part = picture[y0:y1, x0:x1]
        small = _reduced(part, factor) if factor > 1 else part
        ok, data = cv2.imencode(
            ".jpg",
            cv2.cvtColor(small, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, settings.quality],
        )
        assert ok
        first = {target.row for target, _ in around}
        rows = [_row(t, track, (x0, y0), factor, True) for t, track in around]
        for other in annotated:
            seen = other.box.edges
            inside = seen[2] > x0 and seen[0] < x1 and seen[3] > y0 and seen[1] < y1
            if inside and other.row not in first:
                rows.append(_row(other, -1, (x0, y0), factor, False))
        yield Cut(data.tobytes(), (small.shape[1], small.shape[0]), fill, rows)


def _row(
    target: TargetRef, track: int, corner: tuple[int, int], factor: int, main: bool
) -> tuple[tuple[float, ...], int, int, int, str, bool]:
    # Pixel i of a window reduced by f is centred on column x0 + f i + (f - 1) / 2 of the image.
    x, y = (v + (factor - 1) / 2 for v in corner)
    box = target.box
    mapped = ((box.cx - x) / factor, (box.cy - y) / factor, box.w / factor, box.h / factor)
    state = STATES.index(target.state)
    return mapped, state, target.frame, track, target.category or "", main


# -- writing ------------------------------------------------------------------------------------


@dataclass
class _Shard:
    """A shard in the making."""

    path: Path
    number: int
    stream: Any = None
    tar: Any = None
    scenes: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    images: list[tuple[int, int, int, int, int, int, int, int]] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream = (self.path / f"{self.number:05d}.tar.part").open("wb")
        self.tar = tarfile.open(fileobj=self.stream, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @property
    def bytes(self) -> int:
        return int(self.tar.offset)

    def add(self, cut: Cut) -> None:
        """Write an image of the scene that was begun last."""
        info = tarfile.TarInfo(f"{len(self.images):08d}.jpg")
        info.size = len(cut.jpeg)
        start = self.tar.offset + tarfile.BLOCKSIZE
        self.tar.addfile(info, io.BytesIO(cut.jpeg))
        image = len(self.images)
        self.images.append((start, info.size, *cut.size, *cut.fill, len(self.scenes) - 1))
        self.rows += [(image, *row) for row in cut.rows]

    def close(self, done: int) -> None:
        """Put the files in place, the list last: where it is, the shard is complete."""
        self.tar.close()
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        part = Path(self.stream.name)
        digest = sha256_of(part)
        images = np.array(self.images, dtype=np.int64).reshape(-1, 8)
        image, box, state, frame, track, category, main = (
            zip(*self.rows, strict=True) if self.rows else ((),) * 7
        )
        names = sorted({c for c in category if c})
        codes = {name: i for i, name in enumerate(names)}
        stem = self.path / f"{self.number:05d}"
        with (listing := stem.with_suffix(".npz.part")).open("wb") as stream:
            np.savez(
                stream,
                images=images,
                image=np.array(image, np.int32),
                boxes=np.array(box, np.float32).reshape(-1, 4),
                state=np.array(state, np.uint8),
                frame=np.array(frame, np.int32),
                track=np.array(track, np.int32),
                category=np.array([codes.get(c, -1) for c in category], np.int32),
                main=np.array(main, bool),
                scenes=np.array(self.scenes, dtype=str),
                categories=np.array(names, dtype=str),
                done=np.array(done),
                sha256=np.array(digest),
                skipped=np.array(json.dumps(self.skipped)),
            )
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(stem.with_suffix(".tar"))
        listing.replace(stem.with_suffix(".npz"))


_packed: tuple[ImageSet, PackSettings] | None = None
"""What a worker packs; set before it is forked."""


def _cut_job(job: Job) -> list[Cut | DataError]:
    assert _packed is not None
    return list(cut_scene(_packed[0], job, _packed[1]))


def pack(
    image_set: ImageSet,
    out: Path,
    settings: PackSettings,
    source: str,
    on_error: OnError = "stop",
    workers: int = 1,
    progress: Any = None,
) -> dict[str, Any]:
    """Write a set as shards and return its manifest; goes on where an earlier call was stopped.

    The same set and settings make the same files, however many workers there are and however often
    it was stopped.

    Args:
        image_set: what to pack.
        out: the set's folder.
        settings: how.
        source: where the set is, for the manifest.
        on_error: stop at an image that cannot be read, or skip and count it.
        workers: processes that cut and compress.
        progress: called with the numbers of scenes done and of all.

    Raises:
        DataError: if ``out`` holds shards of another set or with other settings, an image cannot be
            read, or the disk is full.
    """
    out.mkdir(parents=True, exist_ok=True)
    head = {
        "schema": SCHEMA,
        "set": image_set.name,
        "source": source,
        "source_sha256": image_set.sha256,
        "settings": settings.plain(),
    }
    _same_packing(out, head)
    jobs = jobs_of(image_set)
    try:
        done, number = _finished(out)
        shard: _Shard | None = None
        for job, cuts in _cut_all(image_set, settings, jobs[done:], workers):
            shard = shard or _Shard(out, number)
            shard.scenes.append(job.scene)
            for cut in cuts:
                if isinstance(cut, Cut):
                    shard.add(cut)
                elif on_error == "stop":
                    raise cut
                else:
                    if not shard.skipped:
                        warnings.warn(f"left out: {cut}", stacklevel=2)
                    shard.skipped["unreadable image"] = shard.skipped.get("unreadable image", 0) + 1
            done += 1
            if shard.bytes > settings.shard_mib * 2**20:
                shard.close(done)
                shard, number = None, number + 1
            if progress is not None:
                progress(done, len(jobs))
        if shard is not None:
            shard.close(done)
        return _write_manifest(out, head, image_set, settings)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written: {error.strerror}; complete shards are kept, and the same "
            "command goes on behind them"
        ) from error


def _same_packing(out: Path, head: dict[str, Any]) -> None:
    """Keep what ``out`` is being packed with, or check that it is the same as before."""
    file = out / "packing.json"
    if not file.is_file():
        _write_text(file, json.dumps(head, indent=1) + "\n")
        return
    before = json.loads(file.read_text())
    changed = [key for key in head if before.get(key) != head[key]]
    if changed:
        raise DataError(
            f"{out}: holds shards with another {' and '.join(changed)}; choose another folder or "
            "delete it"
        )


def _write_text(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def _finished(out: Path) -> tuple[int, int]:
    """Return how many scenes are in complete shards, and how many of those there are."""
    done = number = 0
    while (out / f"{number:05d}.npz").is_file():
        with np.load(out / f"{number:05d}.npz", allow_pickle=False) as content:
            done = int(content["done"])
        number += 1
    return done, number


def _cut_all(
    image_set: ImageSet, settings: PackSettings, jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, list[Cut | DataError]]]:
    """Yield scenes with their images, in order."""
    global _packed
    _packed = (image_set, settings)
    if workers < 2:
        for job in jobs:
            yield job, _cut_job(job)
        return
    with ProcessPoolExecutor(workers, get_context("fork"), cv2.setNumThreads, (0,)) as pool:
        waiting: deque[tuple[Job, Future[list[Cut | DataError]]]] = deque()
        for job in jobs:
            waiting.append((job, pool.submit(_cut_job, job)))
            if len(waiting) > 4 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _write_manifest(
    out: Path, head: dict[str, Any], image_set: ImageSet, settings: PackSettings
) -> dict[str, Any]:
    shards, skipped = [], dict(image_set.skipped)
    parts = {part: {"scenes": 0, "images": 0, "objects": 0} for part in ("train", "holdout")}
    for listing in sorted(out.glob("*.npz")):
        tar = listing.with_suffix(".tar")
        with np.load(listing, allow_pickle=False) as content:
            shards.append(
                {
                    "file": tar.name,
                    "bytes": tar.stat().st_size,
                    "sha256": str(content["sha256"]),
                    "images": len(content["images"]),
                    "objects": int(content["main"].sum()),
                }
            )
            for reason, count in json.loads(str(content["skipped"])).items():
                skipped[reason] = skipped.get(reason, 0) + count
            held = np.array([held_out(str(s), settings.holdout_every) for s in content["scenes"]])
            scene = content["images"][:, 7]
            for part, mask in (("holdout", held), ("train", ~held)):
                inside = mask[scene]
                parts[part]["scenes"] += int(mask.sum())
                parts[part]["images"] += int(inside.sum())
                parts[part]["objects"] += int(inside[content["image"][content["main"]]].sum())
    splits = {"rule": f"crc32(scene) % {settings.holdout_every} == 0 is held out", **parts}
    manifest = {**head, "splits": splits, "skipped": skipped, "shards": shards}
    _write_text(out / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


# -- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardTable(Table):
    """A table of images in shards.

    Attributes:
        files: the tars.
        place: ``int64 [I,3]``: number of the tar, first byte, bytes.
        fill: ``uint8 [I,3]``: mean colour of the original.
        regions: what the windows are large enough for.
    """

    files: Sequence[Path]
    place: Ints
    fill: Ints
    regions: tuple[Region, ...]

    def ref(self, image: int) -> ImageRef:
        """Return where image number ``image`` is."""
        file, offset, length = self.place[image].tolist()
        r, g, b = self.fill[image].tolist()
        return ImageRef(self.names[image], offset, length, self.files[file], image, (r, g, b))


class SceneNames(Sequence[str]):
    """The scene of each image as its name."""

    def __init__(self, scenes: Sequence[str], scene: Ints) -> None:
        self.scenes, self.scene = scenes, scene

    def __len__(self) -> int:
        return len(self.scene)

    def __getitem__(self, index: Any) -> Any:
        """Return the name of image ``index``."""
        return self.scenes[self.scene[index]]


def read_shards(folder: Path, name: str) -> TableSet:
    """List the shards of one set.

    Raises:
        DataError: if they are missing, not complete or not what the manifest says.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        begun = (folder / "packing.json").is_file()
        what = "packing did not come to its end; the same command goes on" if begun else "no shards"
        raise DataError(f"data set {name}: {folder}: {what} (no manifest.json)")
    text = file.read_text(encoding="utf-8")
    try:
        manifest = json.loads(text)
        if manifest["schema"] != SCHEMA:
            raise ValueError(f"schema {manifest['schema']}, {SCHEMA} is wanted")
        settings = manifest["settings"]
        regions = tuple(
            Region(CropSpec(**r["crop"]), AugmentationConfig(**r["augmentation"]))
            for r in settings["regions"]
        )
        files = [folder / Path(shard["file"]).name for shard in manifest["shards"]]
        contents = [_listing(f, shard) for f, shard in zip(files, manifest["shards"], strict=True)]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: {type(error).__name__} {error}") from error
    if not contents:
        raise DataError(f"{file}: names no shards")
    table = _joined(folder, files, contents, regions)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return TableSet(name, table, dict(manifest["skipped"]), digest)


def _listing(tar: Path, shard: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of one shard."""
    try:
        size = tar.stat().st_size
        with np.load(tar.with_suffix(".npz"), allow_pickle=False) as content:
            columns = {key: content[key] for key in content.files}
    except OSError as error:
        raise DataError(f"{error.filename or tar}: cannot be read: {error.strerror}") from error
    if size != shard["bytes"] or str(columns["sha256"]) != shard["sha256"]:
        raise DataError(f"{tar}: is not the file that manifest.json names; pack the set again")
    return columns


def _joined(
    folder: Path, files: Sequence[Path], contents: list[dict[str, Any]], regions: tuple[Region, ...]
) -> ShardTable:
    categories: dict[str, int] = {}
    scenes: list[str] = []
    parts: list[tuple[Any, ...]] = []
    count = 0
    for number, c in enumerate(contents):
        names = [str(name) for name in c["categories"]]
        codes = np.array([*(categories.setdefault(n, len(categories)) for n in names), -1])
        images = c["images"]
        place = np.column_stack([np.full(len(images), number), images[:, :2]])
        scene = (images[:, 7] + len(scenes)).astype(np.int32)
        usable = c["main"] & (c["state"] <= 1)
        parts.append(
            (
                place, images[:, 4:7].astype(np.uint8), scene, (c["image"] + count).astype(np.int32),
                c["boxes"], c["state"], c["frame"], c["track"], codes[c["category"]], usable,
            )
        )  # fmt: skip
        scenes += [str(scene) for scene in c["scenes"]]
        count += len(images)
    place, fill, scene, image, boxes, state, frame, track, category, usable = (
        np.concatenate(columns) for columns in zip(*parts, strict=True)
    )
    return ShardTable(
        folder, SceneNames(scenes, scene), scenes, scene, image, boxes, state, frame, track,
        category, list(categories), usable, files, place, fill, regions,
    )  # fmt: skip


def check_regions(sets: Sequence[ImageSet], regions: Sequence[Region]) -> None:
    """Check that shards hold all that a run's crops can show.

    Raises:
        DataError: naming the set, and what to do.
    """
    for image_set in sets:
        table = image_set.table if isinstance(image_set, TableSet) else None
        if not isinstance(table, ShardTable):
            continue
        for w, h in ((1.0, 1.0), (4.0, 1.0), (1.0, 4.0)):
            wanted = max(region.reach(w, h) for region in regions)
            held = max(region.reach(w, h) for region in table.regions)
            if wanted > held * 1.001:
                raise DataError(
                    f"data set {image_set.name}: its shards in {table.root} reach {held:.2f} times an object's "
                    f"size, this configuration's crops {wanted:.2f}; pack them with this configuration"
                )
