"""What a model bundle holds, as plain dataclasses (schema 1)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.geometry import Box, CropSpec

SCHEMA = 1
"""The newest bundle schema that this version reads, and the one it writes."""

BUNDLE_FILE = "bundle.yaml"
MAX_BUNDLE_FILE_BYTES = 1 << 20
MAX_GRAPH_BYTES = 512 << 20

NEXT = ".next"
"""Suffix of a search graph's state outputs: commit makes ``state.a.next`` the new ``state.a``.

ONNX knows every value of a graph by one name: what is read and what is written differ in theirs.
"""

PRESENCE_FEATURES = ("score", "runner_up_ratio", "size_change")
"""The features a presence model may use; ``tracking/presence.py`` computes them."""

HOST_TUNING = ("window", "penalty", "size_rate", "size_by_score", "size_bias")
"""Tuning values that every bundle may carry, whether or not a graph reads them.

``size_by_score``: how much the score slows the size down, 1 (default) as in SiamRPN, 0 not at all.
``size_bias``: share of the network's size error on the selected picture that is taken off every later
size, 0 (default) for none.
"""


class BundleError(ValueError):
    """A bundle that is missing, damaged or not understood; the message names file and field."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (NumPy's spelling) and fixed shape of a graph's input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX graph: its file inside the bundle and every input and output."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input(self, name: str) -> TensorSpec | None:
        """Return the input called ``name``, or None."""
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """Return the output called ``name``, or None."""
        return next((tensor for tensor in self.outputs if tensor.name == name), None)


@dataclass(frozen=True)
class PresenceSpec:
    """How a graph's outputs become the probability that the target is visible and the box right.

    ``uncalibrated``: the score itself. ``logistic``: sigmoid(bias + sum weights_i features_i).
    ``found`` and ``lost`` are the default thresholds, 0 <= lost <= found <= 1.
    """

    kind: str = "uncalibrated"
    features: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    bias: float = 0.0
    found: float = 0.6
    lost: float = 0.3

    @property
    def calibrated(self) -> bool:
        """Whether the outcome is a fitted probability."""
        return self.kind != "uncalibrated"


@dataclass(frozen=True)
class FileEntry:
    """Checksum (SHA-256, lower-case hexadecimal) and size of one file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Bundle:
    """One trained tracker, ready to run: everything but the weights' bytes is in memory.

    ``fingerprint`` is the SHA-256 of bundle.yaml; since that lists every graph's checksum, it names
    the whole.
    """

    path: Path
    name: str
    tracker: str
    crop: CropSpec
    graphs: Mapping[str, GraphSpec]
    tuning: Mapping[str, float]
    presence: PresenceSpec
    precisions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def reads_memory(self) -> bool:
        """Whether the search graph reads the previous frame (input ``memory``)."""
        search = self.graphs.get("search")
        return search is not None and search.input("memory") is not None

    @property
    def graph_tuning(self) -> frozenset[str]:
        """Names of the tuning values that a graph reads (inputs ``tuning.<name>``)."""
        prefix = "tuning."
        return frozenset(
            tensor.name[len(prefix) :]
            for graph in self.graphs.values()
            for tensor in graph.inputs
            if tensor.name.startswith(prefix)
        )

    def read(self, file: str) -> bytes:
        """Return the bytes of one listed file, checked against its checksum.

        Raises:
            BundleError: if the file is not listed, cannot be read, or changed since the bundle was
                loaded.
        """
        entry = self.files.get(file)
        if entry is None:
            raise BundleError(f"{self.path / BUNDLE_FILE}: files: {file} is not listed")
        try:
            with open(self.path / file, "rb") as stream:
                data = stream.read(entry.bytes + 1)
        except OSError as error:
            raise BundleError(f"{self.path / file}: {os.strerror(error.errno or 0)}") from error
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(f"{self.path / file}: changed since the bundle was loaded")
        return data


class Memory(NamedTuple):
    """The last frame that was believed, for networks that read it.

    ``crop``: ``uint8 [n,n,3]`` RGB, C-contiguous, cut like a search crop around the box found there.
    ``size``: (w, h) of that box in pixels of the crop; it is in the crop's middle.
    """

    crop: npt.NDArray[np.uint8]
    size: tuple[float, float]


@dataclass(frozen=True)
class StepResult:
    """The decoded outputs of a search graph for one crop.

    ``box``: the target in crop pixels. ``score``: in [0, 1]. ``runner_up``: score of the
    second-best place. ``peak``: crop pixels (x, y) of the winning cell.
    """

    box: Box
    score: float
    runner_up: float
    peak: tuple[float, float]
