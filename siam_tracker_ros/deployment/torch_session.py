"""A tracking session on the torch network itself: what exported graphs are measured against."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from siam_tracker_ros.bundle import StepResult
from siam_tracker_ros.deployment.graphs import CARRIED, NEXT, RESULTS, TUNING, empty_states
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.networks.siam_stm import (
    SearchGraph,
    SiamSTM,
    TemplateGraph,
    template_state_names,
)

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[float, float]


class TorchSession:
    """A ``StatefulSession`` (see the tracking room) that runs a network in torch, FP32, on the CPU.

    Args:
        network: it is put into evaluation mode.
        tuning: values of the tuning inputs, as a bundle's ``tuning`` has them.
    """

    def __init__(self, network: SiamSTM, tuning: Mapping[str, float]) -> None:
        self._template = TemplateGraph(network).eval()
        self._search = SearchGraph(network).eval()
        self._crop = network.config.crop
        self._names = (*template_state_names(network), *CARRIED)
        self._empty = empty_states(network.grid.cells)
        self._tuning = {name: float(tuning[name]) for name in TUNING}
        self._state: tuple[Tensor, ...] | None = None
        self._next: tuple[Tensor, ...] | None = None
        self.outputs: dict[str, npt.NDArray[np.float32]] = {}
        """Every output of the last search step by its name in the graph."""

    @property
    def description(self) -> str:
        """What runs where, for people."""
        threads = torch.get_num_threads()
        return f"torch {torch.__version__} CPU, {threads} thread{'s'[: threads != 1]}"

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Begin a track: the template graph, then the search graph with first = 1."""
        with torch.inference_mode():
            constant = self._template(torch.from_numpy(template))
            state = (*constant, *self._empty)
            result, after = self._run(search, size, 1.0, state)
        self._state, self._next = after, None
        return result

    def step(
        self, search: UInt8Array, previous_size: Size, memory: UInt8Array | None = None
    ) -> StepResult:
        """Search one crop from the current state; never changes that state.

        Raises:
            RuntimeError: before ``start``.
            ValueError: if ``memory`` is given: this network does not read it.
        """
        if self._state is None:
            raise RuntimeError("step before start: there is no target")
        if memory is not None:
            raise ValueError("this network does not read the previous frame (input memory)")
        with torch.inference_mode():
            result, self._next = self._run(search, previous_size, 0.0, self._state)
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
            raise ValueError(f"no tuning input {name}; there are {', '.join(TUNING)}")
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
        self, search: UInt8Array, size: Size, first: float, state: tuple[Tensor, ...]
    ) -> tuple[StepResult, tuple[Tensor, ...]]:
        outputs = self._search(
            torch.from_numpy(search),
            torch.tensor(size, dtype=torch.float32),
            torch.tensor([first]),
            *(torch.tensor([self._tuning[name]]) for name in TUNING),
            *state,
        )
        carried = outputs[len(RESULTS) :]
        names = [f"result.{n}" for n in RESULTS] + [f"state.{n}{NEXT}" for n in CARRIED]
        self.outputs = {n: t.numpy() for n, t in zip(names, outputs, strict=True)}
        box, score, runner_up, peak = (t.tolist() for t in outputs[: len(RESULTS)])
        result = StepResult(Box(*box), score[0], runner_up[0], (peak[0], peak[1]))
        return result, (*state[: len(state) - len(carried)], *carried)
