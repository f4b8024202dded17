"""Parameters and multiply-adds of a network, part by part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from siam_tracker_ros.deployment.graphs import search_inputs, template_inputs
from siam_tracker_ros.networks.tracker_network import SearchGraph, TemplateGraph, TrackerNetwork


@dataclass(frozen=True)
class PartCosts:
    """One part of a network: parameters, and multiply-adds once a track (template) and once a frame (search)."""

    name: str
    parameters: int
    template_macs: int
    macs: int


@dataclass(frozen=True)
class Costs:
    """A network's parts in the order of computation, and their sums."""

    parts: tuple[PartCosts, ...]

    @property
    def parameters(self) -> int:
        """Weights of the network; BatchNorm's scale and shift count, its statistics do not."""
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-adds a frame in convolutions and matrix products."""
        return sum(part.macs for part in self.parts)

    @property
    def template_macs(self) -> int:
        """Multiply-adds once a track."""
        return sum(part.template_macs for part in self.parts)


def measure_costs(network: TrackerNetwork) -> Costs:
    """Count what a network really computes, by running both its graphs once on grey crops.

    Counted are the multiply-adds of convolutions and matrix products (the correlation with the template is one of
    them); everything else is negligible beside them. A part is a child module of the network; products outside of
    any module's forward pass (correlations, the memory read) are the matching's.
    """
    counter = _Counter()
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), counter.watching(network):
            inputs = search_inputs(network)
            counter.take()
            TemplateGraph(network)(*template_inputs(network))
            template = counter.take()
            SearchGraph(network)(*inputs)
            search = counter.take()
    finally:
        network.train(was_training)
    return Costs(
        tuple(
            PartCosts(
                name,
                sum(p.numel() for p in part.parameters()),
                template.get(name, 0),
                search.get(name, 0),
            )
            for name, part in network.named_children()
        )
    )


class _Counter(TorchDispatchMode):
    """Sums up multiply-adds under the name of the part that is running."""

    def __init__(self) -> None:
        super().__init__()
        self._running = ["matching"]
        self._sums: dict[str, int] = {}

    @contextmanager
    def watching(self, network: TrackerNetwork) -> Iterator[None]:
        undo: list[Callable[[], None]] = []
        for name, part in network.named_children():
            # Every module below too: a part's other methods call them without its own forward.
            for module in part.modules():
                undo.append(module.register_forward_pre_hook(self._enter(name)).remove)
                undo.append(module.register_forward_hook(self._leave).remove)
        try:
            with self:
                yield
        finally:
            for remove in undo:
                remove()

    def take(self) -> dict[str, int]:
        sums, self._sums = self._sums, {}
        return sums

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(module: Any, inputs: Any) -> None:
            self._running.append(name)

        return enter

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        macs = 0
        if name in ("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution"):
            weight = args[1]
            macs = out.numel() * math.prod(weight.shape[1:])
        elif name in ("mm", "bmm"):
            macs = out.numel() * args[0].shape[-1]
        elif name == "addmm":
            macs = out.numel() * args[1].shape[-1]
        if macs:
            part = self._running[-1]
            self._sums[part] = self._sums.get(part, 0) + macs
        return out
