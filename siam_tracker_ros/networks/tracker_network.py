"""What every tracker network is to the rest of the package, and its two graphs.

A robot runs two graphs of a network: ``template`` once for a target, ``search`` for every crop. Both
are made here from :meth:`TrackerNetwork.start` and :meth:`TrackerNetwork.step`, alike for all
trackers; names and order of inputs and outputs are the bundle's contract.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from siam_tracker_ros.networks.config import NetworkConfig
from siam_tracker_ros.networks.grid import Grid

RESULTS = ("box", "score", "runner_up", "peak")
"""What a search graph decides, in the order of :class:`Decision`."""


class Decision(NamedTuple):
    """Where the target is in one search crop; FP32.

    Attributes:
        box: ``[4]`` (cx, cy, w, h), crop px.
        score: ``[1]`` in [0, 1].
        runner_up: ``[1]`` score of the best place that is not the same object.
        peak: ``[2]`` crop px (x, y) of the winning cell.
    """

    box: Tensor
    score: Tensor
    runner_up: Tensor
    peak: Tensor


class StepInputs(NamedTuple):
    """What a search graph is given beside the state.

    Attributes:
        search: ``[1,3,n,n]`` RGB 0..255.
        previous_size: ``[2]`` (w, h) of the last box in pixels of this crop.
        first: ``[1]`` 1 on the frame that the target was chosen in, else 0.
        tuning: scalars ``[1]`` by name.
        memory: ``[1,3,n,n]`` crop of the last frame that was believed, around the box found there.
        memory_size: ``[2]`` (w, h) of that box in pixels of that crop; it is in the crop's middle.
    """

    search: Tensor
    previous_size: Tensor | None = None
    first: Tensor | None = None
    tuning: Mapping[str, Tensor] = {}
    memory: Tensor | None = None
    memory_size: Tensor | None = None


class TrackerNetwork(nn.Module, abc.ABC):
    """A tracker: parts named by a configuration, and how they work together.

    Attributes:
        config: which parts.
        backbone: the feature extractor (of the search crop, where there are two).
        grid: the response grid of the search crop.
    """

    template_reads: ClassVar[tuple[str, ...]] = ("template",)
    """Inputs of the template graph: ``template`` and, where it is read, ``previous_size``."""

    search_reads: ClassVar[tuple[str, ...]] = ("search", "previous_size", "first")
    """Inputs of the search graph beside tuning and state: fields of :class:`StepInputs`."""

    tuning: ClassVar[Mapping[str, float]]
    """Tuning inputs of the search graph with their default values."""

    host_tuning: ClassVar[Mapping[str, float]]
    """Defaults of what the host decides: ``size_rate``, ``size_bias``, and ``size_by_score`` where it is not 1."""

    config: NetworkConfig
    backbone: nn.Module
    grid: Grid

    @property
    @abc.abstractmethod
    def constant_states(self) -> tuple[str, ...]:
        """Names of the states that the template graph writes; they stay for the whole track."""

    def carried_states(self) -> dict[str, Tensor]:
        """States that every step reads and writes, with the (empty) value they have before the first.

        FP32, or INT32 for counters.
        """
        return {}

    @abc.abstractmethod
    def start(self, template: Tensor, size: Tensor | None = None) -> dict[str, Tensor]:
        """Make the constant states.

        Args:
            template: ``[1,3,n,n]`` RGB 0..255.
            size: ``[2]`` (w, h) of the target in it, if ``previous_size`` is in ``template_reads``.
        """

    @abc.abstractmethod
    def step(
        self, inputs: StepInputs, state: Mapping[str, Tensor]
    ) -> tuple[Decision, dict[str, Tensor]]:
        """Search one crop.

        Args:
            inputs: crops and numbers.
            state: constant and carried states by name.

        Returns:
            What was found, and the new value of every carried state.
        """

    def stages(self) -> dict[str, nn.Module]:
        """Name the backbone's stages from the input on, for freezing."""
        return dict(self.backbone.stages())  # type: ignore[operator]

    @property
    def default_tuning(self) -> dict[str, float]:
        """The tuning values of a bundle: those of the search graph and those of the host."""
        return {**self.tuning, **self.host_tuning}

    @property
    def states(self) -> tuple[str, ...]:
        """Names of all states in the order in which the search graph reads them."""
        return (*self.constant_states, *self.carried_states())


class TemplateGraph(nn.Module):
    """What ``template.onnx`` computes: ``uint8 [n,n,3]`` (and a size) -> constant states, in order."""

    def __init__(self, network: TrackerNetwork) -> None:
        super().__init__()
        self.network = network

    @property
    def reads(self) -> list[str]:
        """Names of the inputs, in order."""
        return list(self.network.template_reads)

    @property
    def writes(self) -> list[str]:
        """Names of the outputs, in order."""
        return [f"state.{name}" for name in self.network.constant_states]

    def forward(self, template: Tensor, size: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the constant states."""
        made = self.network.start(to_planes(template), size)
        return tuple(made[name] for name in self.network.constant_states)


class SearchGraph(nn.Module):
    """What ``search.onnx`` computes: one step, state in and state out; the box stays the host's.

    ``uint8 [n,n,3]`` crops; inputs and outputs in the order of :attr:`reads` and :attr:`writes`.
    """

    def __init__(self, network: TrackerNetwork) -> None:
        super().__init__()
        self.network = network

    @property
    def reads(self) -> list[str]:
        """Names of the inputs, in order."""
        return [
            *self.network.search_reads,
            *(f"tuning.{name}" for name in self.network.tuning),
            *(f"state.{name}" for name in self.network.states),
        ]

    @property
    def writes(self) -> list[str]:
        """Names of the outputs, in order."""
        return [
            *(f"result.{name}" for name in RESULTS),
            *(f"state.{name}.next" for name in self.network.carried_states()),
        ]

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        given = dict(zip(self.reads, values, strict=True))
        tuning = {name: given[f"tuning.{name}"] for name in self.network.tuning}
        state = {name: given[f"state.{name}"] for name in self.network.states}
        fields = {
            name: to_planes(given[name]) if name in ("search", "memory") else given[name]
            for name in self.network.search_reads
        }
        decision, after = self.network.step(StepInputs(tuning=tuning, **fields), state)
        return (*decision, *(after[name] for name in self.network.carried_states()))


def to_planes(image: Tensor) -> Tensor:
    """``uint8 [n,n,3]`` -> ``float32 [1,3,n,n]``."""
    return image.float().permute(2, 0, 1)[None]
