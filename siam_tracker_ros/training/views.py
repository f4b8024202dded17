"""Which object is seen in which pictures: what a sample is cut from, drawn from image sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import ArrayPicture, Box, Rgb
from siam_tracker_ros.training.config import DataConfig, SamplingConfig
from siam_tracker_ros.training.synthetic_clips import ClipMaker
from siam_tracker_ros.training.tar_sets import DataError, ImageCache, ImageRef, ImageSet, TargetRef

UInt8Array = npt.NDArray[np.uint8]
Pair = Literal["instance", "category", "none"]
T = TypeVar("T")

TRIES = 16
"""Draws for an object that fits another one, before something else is taken."""


class View(NamedTuple):
    """An object in a picture.

    Attributes:
        picture: RGB.
        box: the object, image px.
        fill: what a crop shows outside the picture: its mean colour.
        related: the other annotated objects of its category in the picture, image px.
        category: None where unknown.
        filmed: from a video, whose own motion need not be imitated.
    """

    picture: ArrayPicture
    box: Box
    fill: Rgb
    related: tuple[Box, ...] = ()
    category: str | None = None
    filmed: bool = False


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

    ``scene`` names the still or the video: what is in another scene is another object.
    """

    scene: tuple[str, str]
    targets: Sequence[TargetRef]

    @property
    def category(self) -> str | None:
        """What it is, where known."""
        return self.targets[0].category

    @property
    def filmed(self) -> bool:
        """It is from a video."""
        return len(self.targets) > 1


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
        self.images: list[ImageRef] = [ref for s in sets for ref in s.images]
        self.objects: list[TargetRef] = [t for s in sets for t in s.stills]
        self.annotated = {ref: targets for s in sets for ref, targets in s.annotated.items()}
        self.things: dict[str, list[tuple[list[Thing], float]]] = {"video": [], "still": []}
        for s in sets:
            weight = data.sets.get(s.name, 1.0)
            stills = [Thing((s.name, t.image.name), (t,)) for t in s.stills]
            tracks = [
                Thing((s.name, video), track)
                for (video, _), track in s.tracks.items()
                if len(track) > 1
            ]
            for kind, things in (("still", stills), ("video", tracks)):
                if things:
                    self.things[kind].append((things, weight))
        self.by_category: dict[str, list[Thing]] = {}
        for pools in self.things.values():
            for thing in (t for things, _ in pools for t in things if t.category):
                self.by_category.setdefault(str(thing.category), []).append(thing)
        self.by_category = {
            name: things
            for name, things in self.by_category.items()
            if len({t.scene for t in things}) > 1
        }
        self.clips = ClipMaker(
            cutout_files,
            self.background,
            self._any_patch,
            boxed=0.4 if self.objects else 0.0,
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
            views = self._seen(thing, self._targets(rng, thing, templates + searches))
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

    def _any_patch(self, rng: np.random.Generator) -> UInt8Array:
        return self.patch(rng)[0]

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
            second = things[int(rng.integers(len(things)))]
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
        anchor = thing.targets[int(rng.integers(len(thing.targets)))]
        others = [t for t in thing.targets if t is not anchor]
        near = [t for t in others if abs(t.frame - anchor.frame) <= self.sampling.max_gap]
        # A track sampled more thinly than max_gap still has its neighbours.
        near = near or others
        chosen = [near[int(i)] for i in rng.permutation(len(near))[: count - 1]]
        while len(chosen) < count - 1:
            chosen.append([anchor, *near][int(rng.integers(len(near) + 1))])
        return [anchor, *chosen]

    def _seen(self, thing: Thing, targets: Sequence[TargetRef]) -> list[View]:
        """Views of a thing; the same view where the same target comes again."""
        views: dict[int, View] = {}
        for target in targets:
            if id(target) in views:
                continue
            related = [
                o.box
                for o in self.annotated.get(target.image, ())
                if o is not target and target.category and o.category == target.category
            ]
            picture = ArrayPicture(self.load(target.image))
            views[id(target)] = View(
                picture,
                target.box,
                picture.mean_rgb(),
                tuple(related),
                target.category,
                thing.filmed,
            )
        return [views[id(target)] for target in targets]

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
