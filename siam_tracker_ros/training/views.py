"""Which object is seen in which pictures: what a sample is cut from, drawn from image sets."""

from __future__ import annotations

from bisect import bisect_right
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import ArrayPicture, Box, Rgb
from siam_tracker_ros.training.config import DataConfig, SamplingConfig
from siam_tracker_ros.training.datasets.table import Rows
from siam_tracker_ros.training.synthetic_clips import ClipMaker, Cutout, elliptic, outlined
from siam_tracker_ros.training.tar_sets import DataError, ImageCache, ImageRef, ImageSet, TargetRef

UInt8Array = npt.NDArray[np.uint8]
Pair = Literal["instance", "category", "none"]
T = TypeVar("T")

TRIES = 16
"""Draws for an object that fits another one, before something else is taken."""

PHOTOGRAPHED = 0.6
"""Share of the objects of synthetic clips that come out of stills; the others are drawn cut-outs."""

OUTLINES = 4
"""Stills tried for an object whose outline can be told: two in five."""

OUTLINES_KEPT = 8192
"""Outlines kept in memory, about 40 kB each."""


class View(NamedTuple):
    """An object in a picture.

    Attributes:
        picture: RGB.
        box: the object, image px.
        fill: what a crop shows outside the picture: its mean colour.
        related: the other annotated objects of its category in the picture, image px.
        category: None where unknown.
        filmed: from a video, whose own motion need not be imitated.
        visible: the object can be seen; else ``box`` is where it was last.
    """

    picture: ArrayPicture
    box: Box
    fill: Rgb
    related: tuple[Box, ...] = ()
    category: str | None = None
    filmed: bool = False
    visible: bool = True


class Views(NamedTuple):
    """Views of a sample.

    Attributes:
        pair: what the searches show: the templates' ``instance``, another one of its ``category``,
            or ``none`` of them.
        templates: of one object.
        searches: of one object, which is the templates' where ``pair`` is ``instance``.
    """

    pair: Pair
    templates: list[View]
    searches: list[View]


class Thing(NamedTuple):
    """One object where it was annotated: once in a still, or in the frames of a video, in order.

    ``scene`` names the still or the video: what is in another scene is another object. ``absent`` are
    frames of the video in which it cannot be seen.
    """

    scene: tuple[str, str]
    targets: Sequence[TargetRef]
    absent: Sequence[TargetRef] = ()

    @property
    def category(self) -> str | None:
        """What it is, where known."""
        return self.targets[0].category

    @property
    def filmed(self) -> bool:
        """It is from a video."""
        return len(self.targets) > 1


class Joined(Sequence[T], Generic[T]):
    """Sequences one behind the other, without a copy."""

    def __init__(self, parts: Sequence[Sequence[T]]) -> None:
        self.parts = [part for part in parts if len(part)]
        self.ends = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: Any) -> Any:
        """Return element ``index`` of all of them."""
        index = range(len(self))[index]
        part = bisect_right(self.ends, index)
        return self.parts[part][index - (self.ends[part - 1] if part else 0)]


class Stills(Sequence[Thing]):
    """The objects of a set's stills as things."""

    def __init__(self, name: str, targets: Sequence[TargetRef]) -> None:
        self.name, self.targets = name, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Any) -> Any:
        """Return thing ``index``."""
        target = self.targets[index]
        return Thing((self.name, target.image.name), (target,))


class ViewSource:
    """Draws views of objects.

    Args:
        sets: what to draw from.
        data, sampling: the run's configuration.
        cutout_files: PNG files for synthetic clips.

    Raises:
        DataError: if there is no object to draw.
    """

    def __init__(
        self,
        sets: Sequence[ImageSet],
        data: DataConfig,
        sampling: SamplingConfig,
        cutout_files: Sequence[Path],
    ) -> None:
        self.sampling = sampling
        self.load = ImageCache(data.cache_gib * 2**30)
        self.images: Sequence[ImageRef] = Joined([s.images for s in sets])
        self.objects: Sequence[TargetRef] = Joined([s.stills for s in sets])
        self.annotated: Mapping[ImageRef, Sequence[TargetRef]] = ChainMap(
            *(s.annotated for s in sets)  # type: ignore[arg-type]
        )
        self.things: dict[str, list[tuple[Sequence[Thing], float]]] = {"video": [], "still": []}
        for s in sets:
            weight = data.sets.get(s.name, 1.0)
            tracks = [
                Thing((s.name, key[0]), track, s.absent.get(key, ()))
                for key, track in s.tracks.items()
                if len(track) > 1
            ]
            for kind, things in (("still", Stills(s.name, s.stills)), ("video", tracks)):
                if things:
                    self.things[kind].append((things, weight))
        self.by_category = self._by_category() if sampling.same_category else {}
        self._outlines: dict[int, Cutout | None] = {}
        self.clips = ClipMaker(
            cutout_files,
            self.background,
            self._photographed,
            PHOTOGRAPHED if self.objects else 0.0,
        )
        self.kinds = {
            "video": sampling.video if self.things["video"] else 0.0,
            "still": sampling.still if self.things["still"] else 0.0,
            "synthetic": sampling.synthetic
            if self.images and (cutout_files or self.objects)
            else 0.0,
        }
        if not sum(self.kinds.values()):
            raise DataError("the training sets hold no usable objects")

    def __call__(self, rng: np.random.Generator, templates: int, searches: int) -> Views:
        """Draw the views of one sample."""
        kind, draw = self._kind(rng), rng.random()
        if draw < self.sampling.negative:
            return self._foreign(rng, kind, templates, searches)
        if draw < self.sampling.negative + self.sampling.same_category:
            return self._same_category(rng, kind, templates, searches)
        if kind == "synthetic":
            views = self._clip(rng, templates + searches)
        else:
            thing = self._thing(rng, kind)
            targets = self._targets(rng, thing, templates + searches)
            if thing.absent and rng.random() < self.sampling.vanished:
                targets[templates + int(rng.integers(searches))] = self._absent(
                    rng, thing, targets[0]
                )
            views = self._seen(thing, targets)
        return Views("instance", views[:templates], views[templates:])

    def background(self, rng: np.random.Generator) -> UInt8Array:
        """Draw a picture; read-only."""
        return self.load(self.images[int(rng.integers(len(self.images)))])

    def patch(
        self, rng: np.random.Generator, avoid: str | None = None
    ) -> tuple[UInt8Array, str | None]:
        """Draw an object's rectangle out of a still, and its category; not ``avoid`` where it can be avoided.

        Where no still has objects it is any rectangle of any picture.
        """
        if not self.objects:
            image = self.background(rng)
            h, w = (max(8, int(v * rng.uniform(0.15, 0.5))) for v in image.shape[:2])
            y = int(rng.integers(image.shape[0] - h + 1))
            x = int(rng.integers(image.shape[1] - w + 1))
            return image[y : y + h, x : x + w], None
        for _ in range(TRIES):
            target = self.objects[int(rng.integers(len(self.objects)))]
            if avoid is None or target.category != avoid:
                break
        image = self.load(target.image)
        x1, y1, x2, y2 = target.box.clipped_to_image(image.shape[1], image.shape[0]).edges
        x, y = max(0, round(x1 + 0.5)), max(0, round(y1 + 0.5))
        patch = image[y : max(y + 4, round(y2 + 0.5)), x : max(x + 4, round(x2 + 0.5))]
        return (patch if patch.size else image), target.category

    def _photographed(self, rng: np.random.Generator) -> Cutout:
        """Draw an object out of a still, along its outline; else an ellipse of one."""
        for _ in range(OUTLINES if self.objects else 0):
            cutout = self._outlined(int(rng.integers(len(self.objects))))
            if cutout is not None:
                return cutout
        return elliptic(self.patch(rng)[0])

    def _outlined(self, index: int) -> Cutout | None:
        """Cut object ``index`` out; the oldest cut-outs are forgotten, to be made again alike."""
        kept = self._outlines
        if index not in kept:
            target = self.objects[index]
            while len(kept) >= OUTLINES_KEPT:
                del kept[next(iter(kept))]
            kept[index] = outlined(self.load(target.image), target.box)
        return kept[index]

    def _by_category(self) -> dict[str, list[Callable[[], Thing]]]:
        """Return the things of each category that is in more than one scene."""
        found: dict[str, list[Callable[[], Thing]]] = {}
        scenes: dict[str, set[tuple[str, str]]] = {}
        for things in (things for pools in self.things.values() for things, _ in pools):
            for index in range(len(things)):
                thing = things[index]
                if thing.category:
                    found.setdefault(thing.category, []).append(partial(things.__getitem__, index))
                    known = scenes.setdefault(thing.category, set())
                    if len(known) < 2:
                        known.add(thing.scene)
        return {name: things for name, things in found.items() if len(scenes[name]) > 1}

    # -- pairs ----------------------------------------------------------------------------------

    def _same_category(
        self, rng: np.random.Generator, kind: str, templates: int, searches: int
    ) -> Views:
        """Searches of another object of the template's category, out of another scene."""
        for _ in range(TRIES if self.by_category else 0):
            # A cut-out's category is not known.
            first = self._thing(rng, self._kind(rng, synthetic=False))
            things = self.by_category.get(first.category or "", [])
            if not things:
                continue
            second = things[int(rng.integers(len(things)))]()
            if second.scene != first.scene:
                return Views(
                    "category",
                    self._seen(first, self._targets(rng, first, templates)),
                    self._seen(second, self._targets(rng, second, searches)),
                )
        return self._foreign(rng, kind, templates, searches)

    def _foreign(self, rng: np.random.Generator, kind: str, templates: int, searches: int) -> Views:
        """Searches of another object, out of another scene and where possible of another category."""
        if kind == "synthetic":
            cutout = self.clips.cutout(rng)
            clip = self.clips.clip(rng, cutout, templates)
            foreign = self.clips.clip(rng, self.clips.cutout(rng, cutout), searches, cutout)
            return Views("none", _framed(clip), _framed(foreign))
        first = self._thing(rng, kind)
        found: tuple[Thing, list[TargetRef]] | None = None
        best = -1
        for attempt in range(2 * TRIES):
            # One video alone has no other scene: a still then serves, or the other way round.
            wanted = kind if attempt < TRIES else self._kind(rng, synthetic=False)
            thing = self._thing(rng, wanted)
            if thing.scene == first.scene:
                continue
            targets = self._targets(rng, thing, searches)
            present = {o.category for t in targets for o in self.annotated.get(t.image, (t,))}
            other = first.category is None or thing.category != first.category
            alone = first.category is None or first.category not in present
            if other + alone > best:
                found, best = (thing, targets), other + alone
            if alone:
                break
        shown = self._seen(first, self._targets(rng, first, templates))
        if found is None:  # all there is is one scene: cut-outs are not in it
            clip = self.clips.clip(rng, self.clips.cutout(rng), searches)
            return Views("none", shown, _framed(clip))
        return Views("none", shown, self._seen(*found))

    # -- things ---------------------------------------------------------------------------------

    def _kind(self, rng: np.random.Generator, synthetic: bool = True) -> str:
        kinds = {k: w for k, w in self.kinds.items() if synthetic or k != "synthetic"}
        if not sum(kinds.values()):  # configured for synthetic clips alone
            kinds = {k: float(bool(things)) for k, things in self.things.items()}
        return _weighted(rng, list(kinds), list(kinds.values()))

    def _thing(self, rng: np.random.Generator, kind: str) -> Thing:
        pools = self.things[kind]
        things = _weighted(rng, [p for p, _ in pools], [weight for _, weight in pools])
        return things[int(rng.integers(len(things)))]

    def _targets(self, rng: np.random.Generator, thing: Thing, count: int) -> list[TargetRef]:
        """Where to see ``thing`` ``count`` times: an anchor, then frames near it, distinct where there are enough."""
        if not thing.filmed:
            return [thing.targets[0]] * count
        numbers = frame_numbers(thing.targets)
        first = int(rng.integers(len(numbers)))
        others = np.delete(np.arange(len(numbers)), first)
        near = others[np.abs(numbers[others] - numbers[first]) <= self.sampling.max_gap]
        # A track sampled more thinly than max_gap still has its neighbours.
        near = near if len(near) else others
        chosen = [int(near[i]) for i in rng.permutation(len(near))[: count - 1]]
        while len(chosen) < count - 1:
            chosen.append([first, *near.tolist()][int(rng.integers(len(near) + 1))])
        targets = [thing.targets[i] for i in (first, *chosen)]
        # Templates come first: what nothing hides serves as one.
        return sorted(targets, key=lambda target: target.state != "seen")

    def _absent(self, rng: np.random.Generator, thing: Thing, template: TargetRef) -> TargetRef:
        """Draw a frame near ``template`` in which ``thing`` cannot be seen."""
        gaps = np.abs(frame_numbers(thing.absent) - template.frame)
        near = np.flatnonzero(gaps <= max(self.sampling.max_gap, int(gaps.min())))
        return thing.absent[int(near[rng.integers(len(near))])]

    def _seen(self, thing: Thing, targets: Sequence[TargetRef]) -> list[View]:
        """Views of a thing; the same view where the same target comes again."""
        views: dict[TargetRef, View] = {}
        for target in targets:
            if target in views:
                continue
            related = [
                o.box
                for o in self.annotated.get(target.image, ())
                if o != target
                and o.state != "ignored"
                and target.category
                and o.category == target.category
            ]
            picture = ArrayPicture(self.load(target.image))
            fill = target.image.fill
            views[target] = View(
                picture,
                target.box,
                picture.mean_rgb() if fill is None else fill,
                tuple(related),
                target.category,
                thing.filmed,
                target.state != "absent",
            )
        return [views[target] for target in targets]

    def _clip(self, rng: np.random.Generator, count: int) -> list[View]:
        return _framed(self.clips.clip(rng, self.clips.cutout(rng), count))


def mirrored(views: Sequence[View]) -> list[View]:
    """Mirror views left to right; what was one view stays one."""
    done: dict[int, View] = {}
    for view in views:
        if id(view) in done:
            continue
        picture = ArrayPicture(np.asarray(cv2.flip(view.picture.array, 1), dtype=np.uint8))
        last = picture.width - 1
        box, *related = (Box(last - b.cx, b.cy, b.w, b.h) for b in (view.box, *view.related))
        done[id(view)] = view._replace(picture=picture, box=box, related=tuple(related))
    return [done[id(view)] for view in views]


def _framed(clip: Sequence[tuple[UInt8Array, Box]]) -> list[View]:
    pictures = [(ArrayPicture(image), box) for image, box in clip]
    return [View(picture, box, picture.mean_rgb()) for picture, box in pictures]


def _weighted(rng: np.random.Generator, values: Sequence[T], weights: Sequence[float]) -> T:
    chances = np.array(weights, dtype=np.float64)
    return values[int(rng.choice(len(values), p=chances / chances.sum()))]


def frame_numbers(targets: Sequence[TargetRef]) -> npt.NDArray[np.integer[Any]]:
    """Return the numbers of targets' frames, ``[N]``."""
    if isinstance(targets, Rows):
        return targets.frames
    return np.array([target.frame for target in targets])
