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
        kind: ``atrous_resnet50`` (the paper's; valid padding, stride 8), ``mobilenetv2_100`` or
            ``tf_efficientnet_lite0`` (timm's; padded, strides 8 and 16).
        shortcut: ``1x1`` (torchvision's checkpoints load) or ``3x3`` (pysot's layout); ResNet only.
    """

    kind: Literal["atrous_resnet50", "mobilenetv2_100", "tf_efficientnet_lite0"] = "mobilenetv2_100"
    shortcut: Literal["1x1", "3x3"] = "1x1"


@dataclass(frozen=True)
class NeckConfig:
    """``adjust``: 1x1 convolution and BatchNorm. ``pyramid``: stride 16 laid over stride 8."""

    kind: Literal["adjust", "pyramid"] = "pyramid"
    channels: int = 96

    def __post_init__(self) -> None:
        _at_least_one("channels", self.channels)


@dataclass(frozen=True)
class MatchingConfig:
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
class HeadConfig:
    """Two towers (classification, regression) of ``depth`` 3x3 convolutions of ``width`` channels."""

    width: int = 96
    depth: int = 3
    separable: bool = True

    def __post_init__(self) -> None:
        _at_least_one("width", self.width)
        _at_least_one("depth", self.depth)


@dataclass(frozen=True)
class TemporalConfig:
    """ARM: how many peaks it weighs, how peaks are found, and which frame it remembers."""

    kind: Literal["response_arm"] = "response_arm"
    candidates: int = 3
    peaks: Literal["maxima", "pixels"] = "maxima"
    update: Literal["previous", "literal"] = "previous"
    criterion: Literal["kl", "corr"] = "kl"

    def __post_init__(self) -> None:
        _at_least_one("candidates", self.candidates)


@dataclass(frozen=True)
class DecoderConfig:
    """Centre decoding; ``size`` says whether the size map is (w, h)/8 (paper) or its logarithm."""

    kind: Literal["center"] = "center"
    size: Literal["linear", "log"] = "log"


@dataclass(frozen=True)
class NetworkConfig:
    """A whole tracker network."""

    tracker: Literal["siam_stm"] = "siam_stm"
    crop: CropSpec = field(default_factory=lambda: CropSpec(129, 257, 0.5))
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

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
