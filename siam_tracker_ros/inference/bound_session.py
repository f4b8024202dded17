"""What commit means, once for every back end: buffers bound once, and roles that are swapped.

State lives in three sets of buffers that the search graph reads from and writes to:

* set 0 and set 1 take turns: a step reads the current one and writes the other; ``commit`` swaps
  their roles;
* the seed set is what the first frame reads: what the template graph wrote, zeros for the rest.

States that only the template graph writes (a template's features) are constant during a track.
There are two sets of those, so that a start that fails leaves the running track as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.bundle import NEXT, Bundle, GraphSpec, Memory, StepResult, TensorSpec
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.inference.errors import BackendError

UInt8Array = npt.NDArray[np.uint8]
Array = npt.NDArray[np.generic]
Size = tuple[float, float]

RESULTS = ("result.box", "result.score", "result.runner_up", "result.peak")

Buffer = TypeVar("Buffer")


class Run(Protocol):
    """One graph with every input and output bound."""

    def run(self) -> None:
        """Run the graph; a search graph's results are in their arrays when this returns.

        Raises:
            BackendError: if that fails.
        """
        ...


MakeRun = Callable[[str, Mapping[str, Buffer], Mapping[str, Buffer]], Run]


@dataclass(frozen=True)
class Runs:
    """Every way in which the graphs are run.

    ``template``: [constant set]. ``first`` and ``step``: [constant set][state set that is written].
    """

    template: list[Run]
    first: list[list[Run]]
    step: list[list[Run]]


def lay_out(
    bundle: Bundle, make_buffer: Callable[[TensorSpec], Buffer], make_run: MakeRun[Buffer]
) -> Runs:
    """Make the state sets and bind the graphs to them.

    Args:
        bundle: whose graphs.
        make_buffer: gives a zeroed buffer for a state tensor.
        make_run: binds a graph ("template" or "search") to the buffers that it reads and those that
            it writes; both by the state's name, without ``.next``.
    """
    search = bundle.graphs["search"]
    read = [t for t in search.inputs if t.name.startswith("state.")]
    carried = [t for t in read if search.output(t.name + NEXT)]
    constant = [t for t in read if t not in carried]
    states = [{t.name: make_buffer(t) for t in carried} for _ in range(2)]
    seed = {t.name: make_buffer(t) for t in carried}
    constants = [{t.name: make_buffer(t) for t in constant} for _ in range(2)]
    return Runs(
        template=[make_run("template", {}, {**seed, **c}) for c in constants],
        first=[[make_run("search", {**seed, **c}, s) for s in states] for c in constants],
        step=[
            [make_run("search", {**states[1 - w], **c}, states[w]) for w in range(2)]
            for c in constants
        ],
    )


def host_inputs(graphs: Iterable[GraphSpec]) -> list[TensorSpec]:
    """Return the inputs that come from the host, each name once."""
    tensors = {t.name: t for g in graphs for t in g.inputs if not t.name.startswith("state.")}
    return list(tensors.values())


def state_name(tensor: str) -> str:
    """Return the state that a graph's output is the new value of."""
    return tensor[: -len(NEXT)] if tensor.endswith(NEXT) else tensor


class BoundSession:
    """A ``StatefulSession`` (see the tracking room) over bound runs. One owner, one thread.

    Args:
        bundle: a loaded bundle.
        description: what runs where, for people.
        inputs: for every host input, the arrays that hold it (one for each graph that has its own).
        results: the arrays that the search graph's results arrive in.
        runs: see :func:`lay_out`.
    """

    fallback: str | None = None
    """Why this runs instead of what was asked for first; None if it is what was asked for."""

    def __init__(
        self,
        bundle: Bundle,
        description: str,
        inputs: Mapping[str, list[Array]],
        results: Mapping[str, Array],
        runs: Runs,
    ) -> None:
        self._bundle = bundle
        self.description = description
        self._inputs = inputs
        self._results = results
        self._runs = runs
        self._constant = 0
        self._current = 0
        self._started = self._pending = self._closed = False
        for name in bundle.graph_tuning:
            self._fill(f"tuning.{name}", bundle.tuning[name])

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Begin a track: the template graph, then the search graph with first = 1.

        Args:
            template: ``uint8 [n,n,3]`` RGB, C-contiguous, of the first frame.
            search: likewise.
            size: (w, h) of the given box in pixels of the search crop.

        Raises:
            BackendError: if a graph fails or gives a result that is not finite; a running track is
                untouched.
            ValueError: if a crop has another shape or dtype than the bundle says.
        """
        self._enter()
        result = self._run_first(template, search, size)
        self._constant, self._current = 1 - self._constant, 1 - self._current
        self._started = True
        return result

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Search one crop from the current state; never changes that state.

        Args:
            search: ``uint8 [n,n,3]`` RGB, C-contiguous.
            previous_size: (w, h) of the target's last box in pixels of this crop.
            memory: given exactly when the search graph lists that input.

        Raises:
            BackendError: before ``start``, if the graph fails, or if its result is not finite.
            ValueError: if a crop has another shape or dtype than the bundle says.
        """
        self._enter()
        if not self._started:
            raise BackendError("step before start: there is no target")
        if (memory is not None) != ("memory" in self._inputs):
            wanted = "reads" if "memory" in self._inputs else "does not read"
            raise ValueError(f"{self._bundle.name} {wanted} the previous frame (input memory)")
        self._pending = False
        self._put("search", search)
        if memory is not None:
            self._put_memory(memory)
        self._put_scalars(previous_size, 0.0)
        result = self._run_search(self._runs.step[self._constant][1 - self._current])
        self._pending = True
        return result

    def commit(self) -> None:
        """Make the last step's new state current.

        Raises:
            BackendError: if there is no step since the last commit, start or warm-up.
        """
        self._enter()
        if not self._pending:
            raise BackendError("commit without a step before it")
        self._current = 1 - self._current
        self._pending = False

    def set_tuning(self, name: str, value: float) -> None:
        """Set graph input ``tuning.<name>`` from the next step on.

        Raises:
            BackendError: if no graph has that input.
            ValueError: if the value is not finite.
        """
        self._enter()
        key = f"tuning.{name}"
        if key not in self._inputs:
            known = ", ".join(sorted(self._bundle.graph_tuning)) or "none"
            raise BackendError(f"{self._bundle.name} has no {key} input; tuning inputs: {known}")
        if not math.isfinite(value):
            raise ValueError(f"{key} must be finite, got {value}")
        self._fill(key, value)

    def warm_up(self) -> None:
        """Run both graphs on grey crops; the state stays, a step not yet committed is forgotten."""
        self._enter()
        crop = self._bundle.crop
        grey = [np.full((n, n, 3), 128, dtype=np.uint8) for n in (crop.template, crop.search)]
        self._pending = False
        for _ in range(2):
            self._run_first(grey[0], grey[1], (crop.search / 4, crop.search / 4), check=False)

    def close(self) -> None:
        """Give everything back; nothing but close may follow."""
        if self._closed:
            return
        self._closed = True
        self._runs = Runs([], [], [])
        self._inputs, self._results = {}, {}
        self._release()

    def _release(self) -> None:
        """Give back what the back end holds; called once."""

    def _run_first(
        self, template: UInt8Array, search: UInt8Array, size: Size, check: bool = True
    ) -> StepResult:
        """Run template and search graph into the sets that are not current."""
        constant, written = 1 - self._constant, 1 - self._current
        self._pending = False
        self._put("template", template)
        self._put("search", search)
        if "memory" in self._inputs:
            self._put_memory(Memory(search, size))
        self._put_scalars(size, 1.0)
        self._runs.template[constant].run()
        return self._run_search(self._runs.first[constant][written], check)

    def _run_search(self, run: Run, check: bool = True) -> StepResult:
        run.run()
        numbers = [float(v) for name in RESULTS for v in self._results[name]]  # type: ignore[arg-type]
        if check and not all(map(math.isfinite, numbers)):
            raise BackendError(
                f"{self._bundle.name}: the search graph's result is not finite "
                f"(box, score, runner-up, peak: {numbers})"
            )
        return StepResult(Box(*numbers[:4]), numbers[4], numbers[5], (numbers[6], numbers[7]))

    def _put(self, name: str, crop: UInt8Array) -> None:
        for target in self._inputs[name]:
            if crop.shape != target.shape or crop.dtype != target.dtype:
                raise ValueError(
                    f"the {name} crop must be {target.dtype} {list(target.shape)}, "
                    f"got {crop.dtype} {list(crop.shape)}"
                )
            np.copyto(target, crop)

    def _put_memory(self, memory: Memory) -> None:
        self._put("memory", memory.crop)
        self._fill("memory_size", memory.size)

    def _put_scalars(self, size: Size, first: float) -> None:
        self._fill("previous_size", size)
        self._fill("first", first)

    def _fill(self, name: str, value: float | Size) -> None:
        """Set a small input, if a graph has it."""
        for target in self._inputs.get(name, ()):
            target[:] = value

    def _enter(self) -> None:
        """Begin every call but close.

        Raises:
            BackendError: if the session is closed.
        """
        if self._closed:
            raise BackendError("the session is closed")
