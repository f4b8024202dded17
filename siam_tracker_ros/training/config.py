"""A training run as data: the YAML file that ``siam-tracker train --config`` reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from siam_tracker_ros.networks.config import ConfigError, NetworkConfig, from_mapping


@dataclass(frozen=True)
class DataConfig:
    """Where training images come from, and how often.

    Attributes:
        sets: sets by name and weight: how often each is drawn among the sets of its kind.
        sources: where a set is, by its name: ``LAYOUT:PATH``, or ``PATH`` where the set is called by
            its layout (see docs/data.md). What is not named is the tar set
            ``$SIAM_TRACKER_DATA/train/NAME.tar``.
        on_error: ``stop`` at what is wrong in a set, with file and line, or ``skip`` and count it.
        cutouts: folders of PNG files with alpha (objects for synthetic clips); a folder that is not
            there is an error, unless ``cutouts_optional``.
        cutouts_exclude: parts of paths to leave out.
        cutouts_optional: train without cut-outs where a folder is missing, and say so.
        holdout_videos: videos of the sets kept for validation.
        holdout_every: every n-th still image (by hash of its name) is kept for validation; of sets
            that are no tar sets, every n-th video too.
        cache_gib: memory for decoded images, a worker.
    """

    sets: dict[str, float] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    on_error: Literal["skip", "stop"] = "stop"
    cutouts: tuple[str, ...] = ()
    cutouts_exclude: tuple[str, ...] = ()
    cutouts_optional: bool = True
    holdout_videos: tuple[str, ...] = ()
    holdout_every: int = 20
    cache_gib: float = 3.0


@dataclass(frozen=True)
class SamplingConfig:
    """What a triplet (template, two search frames) is made of: probabilities, normalised where they compete.

    Attributes:
        video, still, synthetic: weights of the three kinds.
        max_gap: frames between any two of a video's triplet, at most.
        negative: both search frames from another image (no target).
        same_category: both search frames show another object of the template's category, from
            another image (SPM-Tracker's generalised training); negative where no category is known.
        absent: the target is wholly covered in one search frame.
        vanished: one search frame of a video shows where its target was last seen, and it cannot
            be seen there; for videos in which such frames are annotated.
        distractor: a second object beside the target.
        occluder: an object over part of the target.
    """

    video: float = 0.25
    still: float = 0.55
    synthetic: float = 0.20
    max_gap: int = 50
    negative: float = 0.08
    same_category: float = 0.0
    absent: float = 0.06
    vanished: float = 0.1
    distractor: float = 0.3
    occluder: float = 0.2


@dataclass(frozen=True)
class AugmentationConfig:
    """Geometric jitter of search crops (crop px where not said otherwise) and photometric strength.

    Attributes:
        shift: uniform shift of the target in half of the search crops.
        shift_near: standard deviation of the shift in the other half.
        scale: natural log of the size error, uniform in +-scale.
        aspect: standard deviation of the log of the aspect error.
        rotation: standard deviation in degrees, stills and cut-outs only.
        stretch: standard deviation of the log of an anisotropic stretch of the picture.
        template_shift: uniform shift of the template (memory) crops.
        template_scale: natural log of their size error, uniform in +-template_scale.
        photometric: 0 = none, 1 = as tuned for little data.
        low_resolution: probability that the picture is first shrunk, then enlarged.
        gray: probability of gray pictures.
        flip: probability of mirroring all three.
        surround: probability that another picture is seen where a still ends, instead of its mean
            colour.
        redrawn: probability that the object's box is drawn anew: with its sides up to 1.28 times
            longer or shorter and moved by up to a tenth of them, the same in all its pictures. An
            operator's box is followed as it was drawn.
    """

    shift: float = 76.0
    shift_near: float = 14.0
    scale: float = 0.22
    aspect: float = 0.07
    rotation: float = 6.0
    stretch: float = 0.05
    template_shift: float = 2.0
    template_scale: float = 0.0
    photometric: float = 1.0
    low_resolution: float = 0.25
    gray: float = 0.12
    flip: float = 0.5
    surround: float = 0.6
    redrawn: float = 0.0


@dataclass(frozen=True)
class SiamSTMLossConfig:
    """Weights of SiamSTM's losses; ``box`` says which box loss.

    ``center_l1`` is the paper's: L1 on offset and size at the target's cell. ``dense_giou`` adds
    GIoU and relative L1 at all cells near the centre, weighted by the label: tighter boxes from few
    samples.
    """

    kind: Literal["siam_stm"] = "siam_stm"
    box: Literal["center_l1", "dense_giou"] = "dense_giou"
    offset: float = 1.0
    size: float = 0.1
    giou: float = 1.5
    arm: float = 0.5


@dataclass(frozen=True)
class IMSiamLossConfig:
    """Weights of IMSiam's losses (equation 15).

    Attributes:
        box: ``iou``: -ln IoU (paper). ``giou``: 1 - GIoU, which also pulls boxes that do not meet.
        smooth: added to both areas of the IoU (1 in the reference, 0 in the paper).
    """

    kind: Literal["im_siam"] = "im_siam"
    box: Literal["iou", "giou"] = "iou"
    regression: float = 1.2
    centre: float = 0.5
    iou: float = 0.5
    smooth: float = 1.0


@dataclass(frozen=True)
class STMTrackLossConfig:
    """Weights of STMTrack's losses; ``box`` as for IMSiam."""

    kind: Literal["stm_track"] = "stm_track"
    box: Literal["iou", "giou"] = "iou"
    centre: float = 1.0
    regression: float = 3.0
    smooth: float = 0.0


@dataclass(frozen=True)
class SPMTrackerLossConfig:
    """Weights and sampling of SPM-Tracker's losses (equation 1).

    What is not the defaults here is not in the paper; it learns more from few samples.

    Attributes:
        box: weight of the coarse stage's box loss.
        classes: the coarse stage's class loss: cross-entropy of ``sampled`` anchors, or ``focal``
            loss of all of them.
        regression: ``smooth_l1`` on deltas; ``giou``: that and 1 - GIoU of the decoded boxes, which
            alone has no gradient where a size is clipped.
        positive: an anchor that overlaps an object more than this is positive.
        best: so is an object's best anchor, whatever its overlap.
        positives, anchors: how many anchors of an image take part: positive ones, and all.
        proposals: how many proposals of an image the fine stage is trained on, half of them
            positive.
    """

    kind: Literal["spm_tracker"] = "spm_tracker"
    box: float = 2.0
    classes: Literal["sampled", "focal"] = "sampled"
    regression: Literal["smooth_l1", "giou"] = "smooth_l1"
    positive: float = 0.6
    best: bool = False
    positives: int = 16
    anchors: int = 64
    proposals: int = 48


LossConfig = SiamSTMLossConfig | IMSiamLossConfig | STMTrackLossConfig | SPMTrackerLossConfig


@dataclass(frozen=True)
class OptimiserConfig:
    """Optimiser and schedule.

    Attributes:
        kind: ``adamw`` or ``sgd`` (momentum 0.9).
        rate: peak learning rate of everything but the backbone.
        backbone_rate: factor on it for backbone stages.
        schedule: ``stable_decay`` (warm-up, constant, cosine to ``final`` over the last ``decay``
            of the run; per step) or a paper's own by the tracker's name, see schedules.py.
        trainable: backbone stages that train, with the epoch they start in; the others stay frozen.
        ema: decay of the moving average of the weights, which is what is validated and saved; 0 for
            none.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    rate: float = 1e-3
    backbone_rate: float = 0.2
    weight_decay: float = 1e-4
    clip: float = 10.0
    schedule: Literal["stable_decay", "siam_stm", "im_siam", "stm_track", "spm_tracker"] = (
        "stable_decay"
    )
    warmup_steps: int = 100
    decay: float = 0.4
    final: float = 0.01
    trainable: dict[str, int] = field(default_factory=lambda: {"late": 0})
    ema: float = 0.998


@dataclass(frozen=True)
class TeacherConfig:
    """A published tracker whose features are imitated.

    Attributes:
        kind: ``fear_xs``: ``$SIAM_TRACKER_DATA/peers/fear_xs_search.onnx``.
        weight: of the mean squared difference in the loss.
    """

    kind: Literal["none", "fear_xs"] = "none"
    weight: float = 1.0


@dataclass(frozen=True)
class RunConfig:
    """How long, how large, on what.

    ``threads`` 0 leaves the choice to PyTorch. ``presence_clips``: how many clips of held-out pictures
    are made at the end to calibrate presence, half of them to check it; 0: the bundle will say
    uncalibrated.
    """

    epochs: int = 20
    samples_per_epoch: int = 4000
    batch: int = 16
    workers: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    threads: int = 1
    seed: int = 1
    validation_samples: int = 256
    presence_clips: int = 120
    checkpoint_every: int = 200


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run needs; what is not named has the defaults of these classes.

    Attributes:
        pretrained: weights of the backbone: ``auto`` (ImageNet's), ``none`` or a file.
        start: a run's ``network.safetensors`` of the same network to go on from with other data or
            settings, or ``none``.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    pretrained: str = "auto"
    start: str = "none"
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    loss: LossConfig = field(default_factory=SiamSTMLossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.loss.kind != self.network.tracker:
            raise ConfigError(
                f"loss.kind {self.loss.kind} does not train network.tracker {self.network.tracker}"
            )


def load_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a YAML file; ``overrides`` are ``key.sub=value`` strings (values in YAML).

    A file with the key ``base`` is another file (a path beside it) with changes: of each section the
    keys that it names are replaced, whole.

    Raises:
        ConfigError: naming the file and the key.
    """
    values = _read(path)
    for override in overrides or []:
        key, sep, text = override.partition("=")
        if not sep:
            raise ConfigError(f"override {override!r}: key.sub=value is wanted")
        node = values
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"override {override!r}: {parent} is not a section")
        node[last] = yaml.safe_load(text)
    values["loss"] = _with_kind(values)
    return from_mapping(TrainConfig, values, str(path))


def _read(path: Path, after: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file on top of its base; ``after``: the files that led to it."""
    try:
        values: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping is wanted, got {values!r:.100}")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: a file's path is wanted, got {base!r}")
    before = path.parent / base
    if before.resolve() in (seen := (*after, path.resolve())):
        raise ConfigError(f"{path}: base: {base} is based on this file itself")
    merged = _read(before, seen)
    for section, changes in values.items():
        under = merged.get(section)
        both = isinstance(under, dict) and isinstance(changes, dict)
        merged[section] = {**under, **changes} if both else changes  # type: ignore[dict-item]
    return merged


def _with_kind(values: dict[str, Any]) -> Any:
    """Return the loss section; one that names no kind is the tracker's."""
    network, loss = values.get("network"), values.get("loss", {})
    if not isinstance(network, dict) or not isinstance(loss, dict):
        return loss
    return {"kind": network.get("tracker", "siam_stm"), **loss}
