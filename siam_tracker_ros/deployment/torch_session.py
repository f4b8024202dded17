"""A tracking session on the torch network itself: what exported graphs are measured against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from siam_tracker_ros.bundle import Memory, StepResult
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.networks.tracker_network import (
    RESULTS,
    SearchGraph,
    TemplateGraph,
    TrackerNetwork,
)

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[float, float]
State = dict[str, Tensor]


class TorchSession:
    """A ``StatefulSession`` (see the tracking room) that runs a network in torch, FP32, on the CPU.

    Args:
        network: it is put into evaluation mode.
        tuning: values of the tuning inputs, as a bundle's ``tuning`` has them.
    """

    def __init__(self, network: TrackerNetwork, tuning: Mapping[str, float]) -> None:
        self._network = network
        self._template = TemplateGraph(network).eval()
        self._search = SearchGraph(network).eval()
        self._crop = network.config.crop
        self._tuning = {name: float(tuning[name]) for name in network.tuning}
        self._state: State | None = None
        self._next: State | None = None
        self.outputs: dict[str, npt.NDArray[Any]] = {}
        """Every output of the last search step by its name in the graph."""

    @property
    def description(self) -> str:
        """What runs where, for people."""
        threads = torch.get_num_threads()
        return f"torch {torch.__version__} CPU, {threads} thread{'s'[: threads != 1]}"

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Begin a track: the template graph, then the search graph with first = 1."""
        given = (torch.from_numpy(template), torch.tensor(size, dtype=torch.float32))
        with torch.inference_mode():
            constant = self._template(*given[: len(self._template.reads)])
            state = dict(zip(self._network.constant_states, constant, strict=True))
            state.update(self._network.carried_states())
            result, after = self._run(search, size, 1.0, Memory(search, size), state)
        self._state, self._next = after, None
        return result

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Search one crop from the current state; never changes that state.

        Raises:
            RuntimeError: before ``start``.
            ValueError: if ``memory`` is given and the network does not read it, or the other way
                round.
        """
        if self._state is None:
            raise RuntimeError("step before start: there is no target")
        if (memory is not None) != ("memory" in self._search.reads):
            reads = "reads" if memory is None else "does not read"
            raise ValueError(f"this network {reads} the previous frame (input memory)")
        with torch.inference_mode():
            result, self._next = self._run(search, previous_size, 0.0, memory, self._state)
        return result

    def commit(self) -> None:
        """Make the last step's new state current.

        Raises:
            RuntimeError: if there is no step since the last commit or start.
        """
        if self._next is None:
            raise RuntimeError("commit without a step before it")
        self._state, self._next = self._next, None

    def set_tuning(self, name: str, value: float) -> None:
        """Set tuning input ``name`` from the next step on.

        Raises:
            ValueError: if the network has no such input.
        """
        if name not in self._tuning:
            known = ", ".join(self._tuning)
            raise ValueError(f"no tuning input {name}; there are {known}")
        self._tuning[name] = float(value)

    def warm_up(self) -> None:
        """Run both graphs once on grey crops; the state stays."""
        grey = [np.full((n, n, 3), 128, np.uint8) for n in (self._crop.template, self._crop.search)]
        kept = self._state, self._next
        self.start(grey[0], grey[1], (self._crop.search / 4, self._crop.search / 4))
        self._state, self._next = kept

    def close(self) -> None:
        """Forget the state."""
        self._state = self._next = None

    def _run(
        self, search: UInt8Array, size: Size, first: float, memory: Memory | None, state: State
    ) -> tuple[StepResult, State]:
        given = {
            "search": torch.from_numpy(search),
            "previous_size": torch.tensor(size, dtype=torch.float32),
            "first": torch.tensor([first]),
            **{f"tuning.{name}": torch.tensor([value]) for name, value in self._tuning.items()},
            **{f"state.{name}": value for name, value in state.items()},
        }
        if memory is not None:
            given["memory"] = torch.from_numpy(memory.crop)
            given["memory_size"] = torch.tensor(memory.size, dtype=torch.float32)
        outputs = self._search(*(given[name] for name in self._search.reads))
        self.outputs = {n: t.numpy() for n, t in zip(self._search.writes, outputs, strict=True)}
        box, score, runner_up, peak = (t.tolist() for t in outputs[: len(RESULTS)])
        result = StepResult(Box(*box), score[0], runner_up[0], (peak[0], peak[1]))
        carried = zip(self._network.carried_states(), outputs[len(RESULTS) :], strict=True)
        return result, {**state, **dict(carried)}
