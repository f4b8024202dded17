"""Closed-loop clips from held-out pictures, with the truth of every frame: what presence is calibrated on.

A virtual camera of 400 x 300 pixels moves, turns and zooms over a still, or follows a held-out
video. The target is the picture's own object, or an object cut out of another still that moves by
itself; it bends, stretches, turns and changes its brightness, for what keeps its look is too easily
recognised. Look-alikes stand by, things pass in front, the picture blurs and darkens; in most clips
the target is gone for a while: covered, out of the picture, or the scene is another one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.evaluation.presence import Clip
from siam_tracker_ros.evaluation.sequences import Sequence as Annotated
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.training.augment import deformed_size, motion_kernel
from siam_tracker_ros.training.config import DataConfig, SamplingConfig
from siam_tracker_ros.training.synthetic_clips import Cutout
from siam_tracker_ros.training.tar_sets import DataError, ImageSet, TargetRef
from siam_tracker_ros.training.views import ViewSource

Floats = npt.NDArray[np.float64]
UInt8Array = npt.NDArray[np.uint8]

WIDTH, HEIGHT = 400, 300
SEEN, HIDDEN = 0.5, 0.05
"""Part of the target that is to be seen where it counts as visible (at least) and as absent (at most)."""

OWN_OBJECT = 0.2
"""An object that fills more than this part of its picture leaves a camera no room: it is cut out."""

VIDEO_SHARE = 0.15
"""Part of the clips that are of held-out videos, where there are any."""


def halves(sets: Sequence[ImageSet]) -> tuple[list[ImageSet], list[ImageSet]]:
    """Split held-out sets in two by source, a picture or a video: to fit on one, to check on the other."""

    def second(name: str) -> bool:
        # Not the CRC that chose the held-out pictures: its last bit is the same for all of them.
        return bool(hashlib.sha256(name.encode()).digest()[0] & 1)

    result: tuple[list[ImageSet], list[ImageSet]] = ([], [])
    for half, kept in enumerate(result):
        for s in sets:
            tracks = {k: v for k, v in s.tracks.items() if second(k[0]) == bool(half)}
            filmed = {t.image.name for v in s.tracks.values() for t in v}
            # Not a video's frames: they would be the ground of most clips.
            images = [r for r in s.images if r.name not in filmed and second(r.name) == bool(half)]
            kept.append(
                ImageSet(
                    s.name,
                    stills=[t for t in s.stills if second(t.image.name) == bool(half)],
                    tracks=tracks,
                    images=images or [v[len(v) // 2].image for v in tracks.values()],
                    annotated=s.annotated,
                )
            )
    return result


def presence_clips(
    sets: Sequence[ImageSet], data: DataConfig, count: int, seed: int, frames: int = 50
) -> list[Clip]:
    """Return ``count`` clips of the objects of ``sets``; the same for the same arguments.

    Frames are rendered when iterated over.

    Args:
        sets: held-out sets, or one half of them.
        data: of the run; how often each set is drawn.
        count: clips.
        seed: of everything that is drawn.
        frames: of a clip, at least 40.

    Raises:
        DataError: if the sets hold no object.
    """
    if frames < 40:
        raise ValueError(f"a clip needs 40 frames for the target to leave and return, got {frames}")
    if not any(s.stills or s.tracks for s in sets):
        raise DataError(
            "held-out pictures show no object to make a clip of: see data.holdout_every, holdout_videos"
        )
    source = ViewSource(sets, data, SamplingConfig(), ())
    return [_clip(source, (seed, index), frames) for index in range(count)]


@dataclass(frozen=True, eq=False)
class _Sprite:
    """A cut-out on its way through a clip: place (view px), scale and angle (rad) in each frame."""

    cutout: Cutout
    centre: Floats  # [N,2]
    scale: Floats  # [N]
    angle: Floats  # [N]
    aspect: Floats  # [N], ln of the stretch
    shown: npt.NDArray[np.bool_]  # [N]

    def box(self, frame: int) -> Box:
        """The extent, as of an ellipse in the cut-out's rectangle."""
        h, w = self.cutout.alpha.shape
        turned = deformed_size(self._linear(frame), w, h)
        return Box(float(self.centre[frame, 0]), float(self.centre[frame, 1]), *turned)

    def _linear(self, frame: int) -> Floats:
        return _linear(self.angle[frame], self.scale[frame], self.aspect[frame])

    def lay(self, view: UInt8Array, frame: int) -> None:
        """Draw it over ``view``."""
        if not self.shown[frame]:
            return
        box = self.box(frame).scaled(1.5)  # corners of rectangles reach beyond the ellipse's box
        x1, y1, x2, y2 = (round(v) for v in box.edges)
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, WIDTH), min(y2, HEIGHT)
        if right <= left or bottom <= top:
            return
        h, w = self.cutout.alpha.shape
        linear = self._linear(frame)
        shift = self.centre[frame] - linear @ ((w - 1) / 2, (h - 1) / 2) - (left, top)
        matrix, size = np.column_stack([linear, shift]), (right - left, bottom - top)
        rgb = cv2.warpAffine(self.cutout.rgb, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(self.cutout.alpha, matrix, size)[:, :, None].astype(np.float32) / 255
        part = view[top:bottom, left:right]
        part[:] = (part * (1 - alpha) + rgb * alpha).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What a virtual camera looks at: pictures by frame, and the camera's affine maps [N,2,3] to the view."""

    pictures: Sequence[UInt8Array]
    maps: Floats

    def view(self, frame: int) -> UInt8Array:
        """The camera's picture, RGB."""
        picture = self.pictures[frame % len(self.pictures)]
        view = cv2.warpAffine(
            picture, self.maps[frame], (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101
        )
        return np.asarray(view, np.uint8)


@dataclass(frozen=True, eq=False)
class _Change:
    """How a target's look changes inside its box, whose sides stay: it bends, and it lightens or darkens.

    ``bend`` and ``gain`` [N] are strengths, ``phase`` [N,2] moves the waves of the bending.
    """

    boxes: Sequence[Box]
    bend: Floats
    gain: Floats
    phase: Floats
    waves: Floats  # [2], in a side

    def apply(self, view: UInt8Array, frame: int) -> None:
        """Change the target in ``view``."""
        x1, y1, x2, y2 = (round(v) for v in self.boxes[frame].edges)
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, WIDTH), min(y2, HEIGHT)
        if right - left < 4 or bottom - top < 4:
            return
        u = (np.arange(left, right, dtype=np.float32) - x1 + 0.5) / (x2 - x1)
        v = (np.arange(top, bottom, dtype=np.float32)[:, None] - y1 + 0.5) / (y2 - y1)
        inside = np.sin(np.pi * u) * np.sin(np.pi * v)  # nothing moves at the sides
        wave = 2 * np.pi * self.waves
        dx = self.bend[frame] * np.sin(wave[0] * v + self.phase[frame, 0]) * inside * (x2 - x1)
        dy = self.bend[frame] * np.sin(wave[1] * u + self.phase[frame, 1]) * inside * (y2 - y1)
        at_x = (np.arange(right - left, dtype=np.float32) + dx).astype(np.float32)
        at_y = (np.arange(bottom - top, dtype=np.float32)[:, None] + dy).astype(np.float32)
        part = view[top:bottom, left:right]
        bent = cv2.remap(
            np.ascontiguousarray(part), at_x, at_y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
        )
        lit = bent * (1 + self.gain[frame] * inside)[:, :, None]
        part[:] = np.clip(lit, 0, 255).astype(np.uint8)


class _Frames:
    """Renders a clip frame by frame."""

    fps = 30.0

    def __init__(
        self,
        path: Path,
        scene: _Scene,
        cut: tuple[_Scene, range],
        sprites: Sequence[_Sprite],
        over: Sequence[_Sprite],
        change: _Change,
        gain: Floats,
        blurred: Sequence[npt.NDArray[np.floating] | None],
    ) -> None:
        self.path, self._scene, self._cut = path, scene, cut
        self._sprites, self._over, self._change = sprites, over, change
        self._gain, self._blurred = gain, blurred

    def __iter__(self) -> Iterator[Frame]:
        """Render from the first frame on, BGR."""
        other, cut = self._cut
        for frame, (gain, kernel) in enumerate(zip(self._gain, self._blurred, strict=True)):
            view = other.view(frame) if frame in cut else self._scene.view(frame)
            if frame not in cut:
                for sprite in self._sprites:
                    sprite.lay(view, frame)
                self._change.apply(view, frame)
                for sprite in self._over:
                    sprite.lay(view, frame)
            if kernel is not None:
                view = np.asarray(cv2.filter2D(view, -1, kernel), np.uint8)
            view = cv2.convertScaleAbs(view, alpha=gain)
            yield np.asarray(cv2.cvtColor(view, cv2.COLOR_RGB2BGR), np.uint8)


def _clip(source: ViewSource, seed: tuple[int, int], frames: int) -> Clip:
    """Draw one clip."""
    rng = np.random.default_rng(seed)
    share = VIDEO_SHARE if source.things["still"] else 2 * VIDEO_SHARE
    filmed = bool(source.things["video"]) and rng.random() < share
    sprites: list[_Sprite] = []
    if filmed:
        scene, boxes = _filmed(rng, source, frames)
    else:
        target = _object(rng, source)
        picture = source.load(target.image)
        room = target.box.area <= OWN_OBJECT * picture.shape[0] * picture.shape[1]
        if room and rng.random() < 0.6:
            scene, boxes = _own(rng, picture, target.box, frames)
        else:
            scene = _ground(rng, source.background(rng), frames)
            sprites.append(_moved(rng, _cut_out(picture, target.box), frames))
            boxes = [sprites[0].box(i) for i in range(frames)]
    gone = range(0)
    if (chance := rng.random()) < 0.75:
        length = int(rng.integers(8, min(26, frames - 25)))
        start = int(rng.integers(12, frames - length - 10))
        gone = range(start, start + length)
    kind = "stays" if not gone else "covered" if chance < 0.35 else "cut" if chance < 0.5 else "out"
    if kind == "out" and sprites:
        sprites[0] = _leaving(rng, sprites[0], gone)
        boxes = [sprites[0].box(i) for i in range(frames)]
    elif kind == "out":
        kind = "covered"
    if rng.random() < 0.4:
        sprites.insert(0, _beside(rng, source, sprites, boxes))
    hidden, over = np.zeros(frames), []
    if kind == "covered" or rng.random() < 0.2:
        over.append(_across(rng, source, boxes, gone if kind == "covered" else None))
        for i in np.flatnonzero(over[0].shown):
            hidden[i] = _covered(boxes[i], over[0].box(int(i)))
    cut = gone if kind == "cut" else range(0)
    other = _ground(rng, source.background(rng), frames)
    truth = np.full((frames, 4), np.nan)
    seen = np.zeros(frames)
    for i, box in enumerate(boxes):
        inside = box.clipped_to_image(WIDTH, HEIGHT)
        part = inside.area / box.area if min(inside.w, inside.h) > 0 else 0.0
        seen[i] = 0.0 if i in cut else part * (1 - hidden[i])
        if seen[i] > HIDDEN:
            truth[i] = inside.xywh
    change = _changing(rng, boxes, 0.0 if filmed else 1.0)
    gain = np.exp(_path(rng, frames, 0.35 * rng.random()))
    blurred = [motion_kernel(rng) if i > 0 and rng.random() < 0.1 else None for i in range(frames)]
    name = f"{seed[0]}_{seed[1]:04d}_{kind}"
    rendered = _Frames(Path(name), scene, (other, cut), sprites, over, change, gain, blurred)
    return Clip(
        Annotated(name, rendered, truth, Path(name)), (seen <= HIDDEN) | (seen >= SEEN), kind
    )


def _object(rng: np.random.Generator, source: ViewSource) -> TargetRef:
    """Draw an object in a picture, a still where there are any; set by set as training draws them."""
    pools = source.things["still"] or source.things["video"]
    chances = np.array([weight for _, weight in pools])
    things = pools[int(rng.choice(len(pools), p=chances / chances.sum()))][0]
    targets = things[int(rng.integers(len(things)))].targets
    return targets[int(rng.integers(len(targets)))]


def _cut_out(picture: UInt8Array, box: Box, whole: bool = False) -> Cutout:
    """Cut an object's ellipse (``whole``: rectangle) out of its picture."""
    x1, y1, x2, y2 = box.clipped_to_image(picture.shape[1], picture.shape[0]).edges
    x, y = max(0, round(x1 + 0.5)), max(0, round(y1 + 0.5))
    rgb = picture[y : max(y + 4, round(y2 + 0.5)), x : max(x + 4, round(x2 + 0.5))]
    h, w = rgb.shape[:2]
    alpha = np.full((h, w), 255, np.uint8)
    if not whole:
        alpha[:] = 0
        axes = (max(1, (w - 1) // 2), max(1, (h - 1) // 2))
        cv2.ellipse(alpha, ((w - 1) // 2, (h - 1) // 2), axes, 0, 0, 360, 255, -1)
    return Cutout(np.ascontiguousarray(rgb), alpha)


def _path(rng: np.random.Generator, frames: int, reach: float) -> Floats:
    """A smooth way that begins at 0 and goes as far as ``reach``."""
    velocity = np.convolve(rng.normal(size=frames + 8), np.hanning(11)[1:-1], "valid")[:frames]
    way = np.cumsum(velocity) - velocity[0]
    return np.asarray(way * reach / max(float(np.abs(way).max()), 1e-9))


def _linear(angle: float, scale: float, aspect: float) -> Floats:
    """Turn what was stretched by exp(aspect) in width and height against each other."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    k = math.exp(aspect / 2)
    return np.array([[c * k, -s / k], [s * k, c / k]])


def _camera(
    rng: np.random.Generator, frames: int, anchor: Sequence[float], start: Floats, scale: float
) -> Floats:
    """Affine maps [N,2,3] that show ``anchor`` (picture px) on a way from ``start`` (view px)."""
    reach = rng.uniform(5, 90, 2)
    place = start + np.stack([_path(rng, frames, r) for r in reach], axis=1)
    zoom = scale * np.exp(_path(rng, frames, rng.uniform(0, 0.6)))
    angle = _path(rng, frames, math.radians(rng.uniform(0, 12)))
    aspect = _path(rng, frames, rng.uniform(0, 0.4))
    maps = np.empty((frames, 2, 3))
    for i in range(frames):
        linear = _linear(angle[i], zoom[i], aspect[i])
        maps[i] = np.column_stack([linear, place[i] - linear @ np.asarray(anchor)])
    return maps


def _ground(rng: np.random.Generator, picture: UInt8Array, frames: int) -> _Scene:
    """A camera over a background."""
    h, w = picture.shape[:2]
    scale = rng.uniform(1.1, 1.6) * max(WIDTH / w, HEIGHT / h)
    mid = ((w - 1) / 2, (h - 1) / 2)
    maps = _camera(rng, frames, mid, np.array([WIDTH / 2, HEIGHT / 2]), scale)
    return _Scene([picture], maps)


def _own(
    rng: np.random.Generator, picture: UInt8Array, box: Box, frames: int
) -> tuple[_Scene, list[Box]]:
    """A camera over a still, and its own object's boxes in the view."""
    h, w = picture.shape[:2]
    wanted = rng.uniform(22, 110) / math.sqrt(box.area)
    scale = max(wanted, 0.7 * max(WIDTH / w, HEIGHT / h))
    start = np.array([WIDTH / 2, HEIGHT / 2]) + rng.uniform(-60, 60, 2)
    scene = _Scene([picture], _camera(rng, frames, (box.cx, box.cy), start, scale))
    return scene, [_seen_by(m, box) for m in scene.maps]


def _filmed(rng: np.random.Generator, source: ViewSource, frames: int) -> tuple[_Scene, list[Box]]:
    """A held-out video, forwards and backwards from somewhere in it, and the target's boxes."""
    things = [t for pool, _ in source.things["video"] for t in pool]
    targets = things[int(rng.integers(len(things)))].targets
    period = max(2 * (len(targets) - 1), 1)
    begin = int(rng.integers(period))
    order = [
        abs((begin + i + len(targets) - 1) % period - (len(targets) - 1)) for i in range(frames)
    ]
    order = [len(targets) - 1 - o for o in order]
    pictures = [source.load(targets[o].image) for o in order]
    h, w = pictures[0].shape[:2]
    scale = max(WIDTH / w, HEIGHT / h)
    first = targets[order[0]].box
    maps = np.empty((frames, 2, 3))
    # The camera stays with the place of the first box, as far as the picture reaches.
    for axis, (centre, size, view) in enumerate([(first.cx, w, WIDTH), (first.cy, h, HEIGHT)]):
        shift = view / 2 - scale * centre
        low = view - scale * size
        maps[:, axis] = [scale * (axis == 0), scale * (axis == 1), min(max(shift, low), 0.0)]
    scene = _Scene(pictures, maps)
    return scene, [_seen_by(m, targets[o].box) for m, o in zip(maps, order, strict=True)]


def _seen_by(matrix: Floats, box: Box) -> Box:
    """A box of the picture as the camera shows it."""
    x, y = matrix @ (box.cx, box.cy, 1.0)
    return Box(float(x), float(y), *deformed_size(matrix[:, :2], box.w, box.h))


def _moved(rng: np.random.Generator, cutout: Cutout, frames: int) -> _Sprite:
    """A target that moves by itself."""
    area = math.sqrt(cutout.alpha.shape[0] * cutout.alpha.shape[1])
    start = np.array([WIDTH / 2, HEIGHT / 2]) + rng.uniform(-50, 50, 2)
    reach = (rng.uniform(10, 130), rng.uniform(10, 90))
    return _Sprite(
        cutout,
        start + np.stack([_path(rng, frames, r) for r in reach], axis=1),
        rng.uniform(22, 100) / area * np.exp(_path(rng, frames, rng.uniform(0, 0.7))),
        _path(rng, frames, math.radians(rng.uniform(0, 45))),
        _path(rng, frames, rng.uniform(0, 0.6)),
        np.ones(frames, np.bool_),
    )


def _leaving(rng: np.random.Generator, target: _Sprite, gone: range) -> _Sprite:
    """The target leaves by the nearest side and comes back where it left, or elsewhere."""
    frames, ramp = len(target.scale), int(rng.integers(3, 9))
    size = target.box(gone.start)
    x, y = target.centre[gone.start]
    ways = {
        (-1, 0): x + size.w,
        (1, 0): WIDTH - x + size.w,
        (0, -1): y + size.h,
        (0, 1): HEIGHT - y + size.h,
    }
    direction = min(ways, key=lambda d: ways[d])
    away = np.interp(
        np.arange(frames),
        [gone.start - ramp, gone.start, gone.stop - 1, gone.stop - 1 + ramp],
        [0, 1, 1, 0],
    )
    distance = ways[direction] + 60.0  # its own way may lead back a little meanwhile
    centre = target.centre + distance * away[:, None] * np.array(direction)
    return replace(target, centre=centre)


def _changing(rng: np.random.Generator, boxes: Sequence[Box], strength: float) -> _Change:
    """A change of look that begins with none; video has its own (``strength`` 0)."""
    frames = len(boxes)
    phase = [rng.uniform(0, 2 * math.pi) + _path(rng, frames, rng.uniform(1, 6)) for _ in range(2)]
    return _Change(
        boxes,
        strength * np.abs(_path(rng, frames, rng.uniform(0, 0.25))),
        strength * _path(rng, frames, rng.uniform(0, 0.6)),
        np.stack(phase, axis=1),
        rng.uniform(0.5, 1.5, 2),
    )


def _beside(
    rng: np.random.Generator, source: ViewSource, sprites: Sequence[_Sprite], boxes: Sequence[Box]
) -> _Sprite:
    """A look-alike, or just something else, that keeps near the target's way."""
    frames = len(boxes)
    if sprites and rng.random() < 0.5:
        own = sprites[0].cutout
        flipped = np.ascontiguousarray(own.rgb[:, ::-1]), np.ascontiguousarray(own.alpha[:, ::-1])
        cutout = Cutout(*flipped)
    else:
        thing = _object(rng, source)
        cutout = _cut_out(source.load(thing.image), thing.box)
    side = math.sqrt(boxes[0].area)
    angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(1.2, 2.5) * max(boxes[0].w, boxes[0].h)
    offset = far * np.array([math.cos(angle), math.sin(angle)])
    way = np.stack([_path(rng, frames, rng.uniform(5, 60)) for _ in range(2)], axis=1)
    middle = np.array([(b.cx, b.cy) for b in boxes])
    area = math.sqrt(cutout.alpha.shape[0] * cutout.alpha.shape[1])
    return _Sprite(
        cutout,
        # It follows at half the target's pace: they part and meet.
        middle[0] + 0.5 * (middle - middle[0]) + offset + way,
        np.full(frames, rng.uniform(0.8, 1.25) * side / area),
        np.zeros(frames),
        np.zeros(frames),
        np.ones(frames, np.bool_),
    )


def _across(
    rng: np.random.Generator, source: ViewSource, boxes: Sequence[Box], gone: range | None
) -> _Sprite:
    """Something that passes in front: it covers the target wholly while ``gone``, else a part of it."""
    frames = len(boxes)
    thing = _object(rng, source)
    cutout = _cut_out(source.load(thing.image), thing.box, whole=True)
    h, w = cutout.alpha.shape
    at = np.arange(frames)
    middle = np.array([(b.cx, b.cy) for b in boxes])
    size = np.array([(b.w, b.h) for b in boxes])
    side = rng.uniform(1.15, 1.5) if gone else rng.uniform(0.4, 0.8)
    scale = side * (size / (w, h)).max(axis=1)
    ramp = int(rng.integers(4, 10))
    angle = rng.uniform(0, 2 * math.pi)
    direction = np.array([math.cos(angle), math.sin(angle)])
    far = 1.2 * float((scale * max(w, h)).max() + size.max())
    if gone:
        stops = [gone.start - ramp, gone.start, gone.stop - 1, gone.stop - 1 + ramp]
        away = np.interp(at, stops, [-1, 0, 0, 1])
    else:
        begin = int(rng.integers(3, frames - 20))
        away = np.interp(at, [begin, begin + 20], [-1, 1])
    centre = middle + far * away[:, None] * direction
    return _Sprite(cutout, centre, scale, np.zeros(frames), np.zeros(frames), np.abs(away) < 1)


def _covered(box: Box, over: Box) -> float:
    """Part of ``box`` under ``over``."""
    overlap = box.iou(over)
    return overlap * (box.area + over.area) / ((1 + overlap) * box.area)
