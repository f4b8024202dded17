"""A tracker's network as data: which parts it is made of, and their sizes.

``NetworkConfig.from_dict`` reads the ``network:`` section of a training configuration and refuses
what it does not know, so that a misspelt key never passes for a default.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from siam_tracker_ros.geometry import CropSpec

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration names something unknown or parts that do not fit."""


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class BackboneConfig:
    """Which feature extractor.

    Attributes:
        kind: ``atrous_resnet50`` (SiamSTM, IMSiam; unpadded where it strides), ``inception_v3``
            (STMTrack), ``alexnet`` (SPM-Tracker), all of stride 8; ``mobilenetv2_100`` or
            ``tf_efficientnet_lite0`` (timm's; padded, strides 8 and 16).
        levels: which of its maps, by stage name, from the input on; empty for its own choice.
        shortcut: ``1x1`` (torchvision's checkpoints load) or ``3x3`` (pysot's layout); ResNet only.
        layout: ``grouped`` (the two-column original) or ``torchvision``; AlexNet only.
    """

    kind: Literal[
        "atrous_resnet50", "inception_v3", "alexnet", "mobilenetv2_100", "tf_efficientnet_lite0"
    ] = "mobilenetv2_100"
    levels: tuple[str, ...] = ()
    shortcut: Literal["1x1", "3x3"] = "1x1"
    layout: Literal["grouped", "torchvision"] = "grouped"


@dataclass(frozen=True)
class NeckConfig:
    """From backbone maps to the maps that are matched.

    Attributes:
        kind: ``adjust``: 1x1 convolution and BatchNorm (one for each level where a tracker matches
            several). ``pyramid``: stride 16 laid over stride 8. ``conv``: a bare 3x3 convolution
            (STMTrack). ``none``: the maps as they are.
        channels: channels matched.
        margin: cells cut off on every side before (STMTrack).
        relu: a ReLU at the end (``conv`` only; the paper's words, not its code).
    """

    kind: Literal["adjust", "pyramid", "conv", "none"] = "pyramid"
    channels: int = 96
    margin: int = 0
    relu: bool = False

    def __post_init__(self) -> None:
        _at_least_one("channels", self.channels)
        if self.margin < 0:
            raise ConfigError(f"margin must not be negative, got {self.margin}")


@dataclass(frozen=True)
class SVCCorrConfig:
    """SVC-Corr (SiamSTM, section 3.2).

    Attributes:
        kernel: side of the template's centre that is correlated, in cells.
        hidden: width of the shared fully connected layers of the channel transform.
        channel: the space-variant channel term f_ca (off: plain depth-wise correlation).
        separable: phi1 as a depth-wise separable convolution (light configurations).
        pixel: adds the cosine of every search cell with every template cell, the search features
            and their product with the template's centre (not in the paper; see svc_corr.py).
        xcorr_pre_conv: a 3x3 convolution per branch before the depth-wise correlation
            (SiamRPN++'s way).
        phi1_pad: pad phi1 instead of the paper-literal valid convolution.
    """

    kind: Literal["svc_corr"] = "svc_corr"
    kernel: int = 9
    hidden: int = 24
    channel: bool = True
    separable: bool = True
    pixel: bool = True
    xcorr_pre_conv: bool = False
    phi1_pad: bool = False

    def __post_init__(self) -> None:
        _at_least_one("hidden", self.hidden)


@dataclass(frozen=True)
class AdaptiveConfig:
    """Matching-adaptive maps (IMSiam): L1 difference, identity, padded depth-wise correlation.

    Attributes:
        cells: side of the template's centre that becomes the correlation kernel, before its 3x3
            convolution (7 -> a 5x5 kernel).
        difference, identity: the first two maps (off in the paper's ablations).
        separable: the 3x3 convolutions as depth-wise separable ones (light configurations).
        norm: BatchNorm in the neck and after the 3x3 convolutions. Off for small batches: template
            and search crops differ in statistics, so that what is compared with batch statistics in
            training is not what is compared with stored ones later.
    """

    kind: Literal["adaptive"] = "adaptive"
    cells: int = 7
    difference: bool = True
    identity: bool = True
    separable: bool = False
    norm: bool = True

    def __post_init__(self) -> None:
        if self.cells < 3 or self.cells % 2 == 0:
            raise ConfigError(f"cells must be odd and at least 3, got {self.cells}")


@dataclass(frozen=True)
class SpaceTimeConfig:
    """Space-time memory read (STMTrack, section 3.2).

    Attributes:
        label: the memory branch sees the foreground map of the target's box (g, equation 1).
        label_at: where it is added: after the first convolution (``stem``, the paper's), or on the
            stride-8 map (``early``, ours), so that the stages below can stay frozen without a
            backward pass through them.
        cosine: cells are compared by direction, times a learned gain, instead of by their product
            (not in the paper): pretrained features then tell cells apart before anything is
            trained.
    """

    kind: Literal["space_time"] = "space_time"
    label: bool = True
    label_at: Literal["stem", "early"] = "stem"
    cosine: bool = False


@dataclass(frozen=True)
class UpChannelConfig:
    """Up-channel correlation (SiamRPN) as SPM-Tracker's coarse stage.

    Attributes:
        template_cells, search_cells: sides of the central parts that are matched, in cells.
        width: channels of the correlated search features.
        unit: cells' features are scaled to one length first (not in the paper: pretrained features
            then match from the start).
        start: initial weights; ``match``: the target's maps begin as the correlation of the
            features themselves (not in the paper: little training data then has less to learn).
    """

    kind: Literal["up_channel"] = "up_channel"
    template_cells: int = 6
    search_cells: int = 24
    width: int = 256
    unit: bool = False
    start: Literal["random", "match"] = "random"

    def __post_init__(self) -> None:
        _at_least_one("width", self.width)
        for name, cells in (("template", self.template_cells), ("search", self.search_cells)):
            if cells < 3:
                raise ConfigError(f"{name}_cells must be at least 3, got {cells}")


@dataclass(frozen=True)
class DenseHeadConfig:
    """Two towers (classification, regression) of ``depth`` 3x3 convolutions of ``width`` channels.

    Attributes:
        separable: depth-wise separable convolutions (light configurations).
        norm: ``batch``, ``group`` (32 groups, or as many as divide the width) or ``none``.
        sampler: a 1x1 convolution in front of each tower that picks from the maps (IMSiam).
        last_relu: a ReLU after a tower's last layer.
        output_kernel: side of the output convolutions.
        output_norm: BatchNorm after the output convolutions (STMTrack).
    """

    kind: Literal["dense"] = "dense"
    width: int = 96
    depth: int = 3
    separable: bool = True
    norm: Literal["batch", "group", "none"] = "batch"
    sampler: bool = False
    last_relu: bool = True
    output_kernel: Literal[1, 3] = 1
    output_norm: bool = False

    def __post_init__(self) -> None:
        _at_least_one("width", self.width)
        _at_least_one("depth", self.depth)


@dataclass(frozen=True)
class RegionHeadConfig:
    """SPM-Tracker's fine stage: a relation network on aligned features of a few proposals.

    Attributes:
        proposals: how many are compared (K, the near box included).
        cells: side of the aligned features.
        kernel: side of the fusion convolution (the paper's text says 1, its weights are 3).
        width: channels after the fusion convolution.
        hidden: width of the fully connected layers.
        start: initial weights; ``match``: the fusion begins with the difference of template and
            candidate (not in the paper).
    """

    kind: Literal["region"] = "region"
    proposals: int = 9
    cells: int = 6
    kernel: Literal[1, 3] = 3
    width: int = 256
    hidden: int = 256
    start: Literal["random", "match"] = "random"

    def __post_init__(self) -> None:
        _at_least_one("width", self.width)
        _at_least_one("hidden", self.hidden)
        if self.proposals < 2 or self.cells < 2:
            raise ConfigError(
                f"proposals and cells must be at least 2, got {self.proposals} and {self.cells}"
            )


@dataclass(frozen=True)
class ResponseArmConfig:
    """ARM: how many peaks it weighs, how peaks are found, and which frame it remembers."""

    kind: Literal["response_arm"] = "response_arm"
    candidates: int = 3
    peaks: Literal["maxima", "pixels"] = "maxima"
    update: Literal["previous", "literal"] = "previous"
    criterion: Literal["kl", "corr"] = "kl"

    def __post_init__(self) -> None:
        _at_least_one("candidates", self.candidates)


@dataclass(frozen=True)
class FeatureBankConfig:
    """STMTrack's memory of constant size: ``slots`` features kept, ``frames`` of them read."""

    kind: Literal["feature_bank"] = "feature_bank"
    slots: int = 32
    frames: int = 6

    def __post_init__(self) -> None:
        if self.frames < 3 or self.slots < self.frames:
            raise ConfigError(
                f"frames must be at least 3 and at most slots, got {self.frames} of {self.slots}"
            )


@dataclass(frozen=True)
class NoTemporalConfig:
    """Nothing is remembered but the box."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True)
class CenterDecoderConfig:
    """Centre decoding; ``size`` says whether the size map is (w, h)/8 (paper) or its logarithm."""

    kind: Literal["center"] = "center"
    size: Literal["linear", "log"] = "log"


@dataclass(frozen=True)
class PointDecoderConfig:
    """Distances to the box's edges at every cell: ``unit`` exp(scale x + bias), in crop px.

    Attributes:
        unit: 1 (IMSiam) or the stride, 8 (STMTrack).
        iou: the predicted IoU joins the score (IMSiam).
    """

    kind: Literal["point"] = "point"
    unit: float = 8.0
    iou: bool = False


@dataclass(frozen=True)
class AnchorDecoderConfig:
    """Anchors of one scale (area 64 px squared) and several shapes.

    Attributes:
        ratios: h / w of the anchors.
        class_weight: W_cls of equation (2), the fine stage's share of the score.
        box_weight: W_box of equation (2).
    """

    kind: Literal["anchor"] = "anchor"
    ratios: tuple[float, ...] = (0.33, 0.5, 1.0, 2.0, 3.0)
    class_weight: float = 0.5
    box_weight: float = 3.0

    def __post_init__(self) -> None:
        if not self.ratios or min(self.ratios) <= 0:
            raise ConfigError(f"ratios must be positive, got {list(self.ratios)}")


MatchingConfig = SVCCorrConfig | AdaptiveConfig | SpaceTimeConfig | UpChannelConfig
HeadConfig = DenseHeadConfig | RegionHeadConfig
TemporalConfig = ResponseArmConfig | FeatureBankConfig | NoTemporalConfig
DecoderConfig = CenterDecoderConfig | PointDecoderConfig | AnchorDecoderConfig

_PARTS: dict[str, dict[str, type]] = {
    "siam_stm": {
        "matching": SVCCorrConfig,
        "head": DenseHeadConfig,
        "temporal": ResponseArmConfig,
        "decoder": CenterDecoderConfig,
    },
    "im_siam": {
        "matching": AdaptiveConfig,
        "head": DenseHeadConfig,
        "temporal": NoTemporalConfig,
        "decoder": PointDecoderConfig,
    },
    "stm_track": {
        "matching": SpaceTimeConfig,
        "head": DenseHeadConfig,
        "temporal": FeatureBankConfig,
        "decoder": PointDecoderConfig,
    },
    "spm_tracker": {
        "matching": UpChannelConfig,
        "head": RegionHeadConfig,
        "temporal": NoTemporalConfig,
        "decoder": AnchorDecoderConfig,
    },
}
"""Which parts each tracker is made of; the others are free."""


@dataclass(frozen=True)
class NetworkConfig:
    """A whole tracker network; what is not named is SiamSTM's.

    Raises:
        ConfigError: if a part is not of the tracker's kind.
    """

    tracker: Literal["siam_stm", "im_siam", "stm_track", "spm_tracker"] = "siam_stm"
    crop: CropSpec = field(default_factory=lambda: CropSpec(129, 257, 0.5))
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    matching: MatchingConfig = field(default_factory=SVCCorrConfig)
    head: HeadConfig = field(default_factory=DenseHeadConfig)
    temporal: TemporalConfig = field(default_factory=ResponseArmConfig)
    decoder: DecoderConfig = field(default_factory=CenterDecoderConfig)

    def __post_init__(self) -> None:
        for part, kind in _PARTS[self.tracker].items():
            found = getattr(self, part)
            if not isinstance(found, kind):
                raise ConfigError(
                    f"tracker {self.tracker} needs {part}.kind {kind().kind}, got {found.kind}"
                )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """Read a plain mapping.

        Raises:
            ConfigError: naming the key that is unknown or has a wrong value.
        """
        return from_mapping(cls, values, "network")

    def to_dict(self) -> dict[str, Any]:
        """Return a plain mapping that ``from_dict`` reads back."""
        return dataclasses.asdict(self)


def from_mapping(kind: type[T], values: Any, where: str) -> T:
    """Build the dataclass ``kind`` from a mapping; unknown keys and wrong types are errors that name their place."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: a mapping is wanted, got {values!r}")
    hints = _hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(
            f"{where}.{unknown[0]}: unknown; known keys are {', '.join(sorted(hints))}"
        )
    made = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return kind(**made)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _hints(kind: type) -> dict[str, Any]:
    import typing

    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _convert(hint: Any, value: Any, where: str) -> Any:
    import types
    import typing

    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_mapping(hint, value, where)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(str, choices))}")
        return value
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(hint)
        if all(dataclasses.is_dataclass(choice) for choice in choices):
            return _convert(_named_kind(choices, value, where), value, where)
        if value is None and type(None) in typing.get_args(hint):
            return None
        return _convert(next(a for a in typing.get_args(hint) if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: a list is wanted, got {value!r}")
        return tuple(
            _convert(typing.get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value)
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: a mapping is wanted, got {value!r}")
        inner = typing.get_args(hint)[1]
        return {str(k): _convert(inner, v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ConfigError(f"{where}: {getattr(hint, '__name__', hint)} is wanted, got {value!r}")


def _named_kind(choices: tuple[type, ...], value: Any, where: str) -> type:
    """Return the dataclass whose ``kind`` a mapping names; the first one if it names none."""
    if isinstance(value, choices):
        return type(value)
    if not isinstance(value, dict) or "kind" not in value:
        return choices[0]
    kinds = {choice().kind: choice for choice in choices}
    if value["kind"] not in kinds:
        raise ConfigError(
            f"{where}.kind: {value['kind']!r} is not one of {', '.join(map(str, kinds))}"
        )
    return kinds[value["kind"]]
