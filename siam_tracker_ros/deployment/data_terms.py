"""What the project's training sets are and on which terms they come: the facts behind a model card."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """A data set in words, its licence as its source states it, and whether that allows commercial use."""

    what: str
    licence: str
    commercial: bool


_NO_LICENCE = "none stated at the mirror; distributed for research"

KNOWN_SETS: dict[str, Terms] = {
    "coco256": Terms(
        "256 photographs of COCO 2017, 80 classes",
        "annotations CC BY 4.0; photographs under their Flickr Creative Commons terms",
        False,
    ),
    "bsds500": Terms(
        "Berkeley Segmentation Data Set 500; boxes of human-drawn segments",
        "non-commercial research and education",
        False,
    ),
    "imagenet_samples": Terms(
        "one ILSVRC2012 photograph a class; boxes found by a segmentation network",
        "non-commercial research",
        False,
    ),
    "caltech101": Terms(
        "Caltech-101, up to 25 images a class; boxes found by a segmentation network",
        "CC BY 4.0",
        True,
    ),
    "weizmann_horses": Terms("Weizmann Horse Database; boxes of its masks", _NO_LICENCE, False),
    "camvid": Terms("CamVid street scenes; boxes of its masks", "research, non-commercial", False),
    "davis8": Terms(
        "8 videos of DAVIS 2016 validation; boxes of its masks", "research; BSD / CC BY-NC", False
    ),
    "segtrack_bmx": Terms("SegTrack v2, sequence bmx; boxes of its masks", _NO_LICENCE, False),
    "drone_visible": Terms(
        "Drone-detection-dataset (Svanstrom et al.), visible light: drones, aircraft, birds",
        "CC0 1.0",
        True,
    ),
    "cutouts": Terms(
        "picture cut-outs with alpha, moved over other pictures (tuxpaint-stamps)",
        "each stamp's own: GPL-2.0, CC BY-SA or public domain",
        False,
    ),
    "imagenet_weights": Terms(
        "ImageNet-1k, through the backbone's pretrained weights",
        "images for non-commercial research",
        False,
    ),
}


def terms_of(name: str) -> Terms:
    """Return what is known of a set; of an unknown one, that its terms are not known."""
    return KNOWN_SETS.get(
        name, Terms("", "not known to this project: ask whoever trained it", False)
    )
