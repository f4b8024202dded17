"""A bundle's graphs on ONNX Runtime with every output in sight, unlike the session that robots use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from siam_tracker_ros.bundle import NEXT, Bundle, Memory, StepResult
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.inference import BackendError

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[float, float]
Arrays = dict[str, npt.NDArray[Any]]


class ReferenceSession:
    """A ``StatefulSession`` (see the tracking room) that keeps what its graphs gave; on the CPU.

    Args:
        bundle: a loaded bundle.
        threads: within one operator; one makes results the same from run to run.

    Raises:
        BackendError: if a graph cannot be loaded.
        BundleError: if a graph's file changed since the bundle was loaded.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._name = bundle.name
        try:
            self._sessions = {
                name: onnxruntime.InferenceSession(
                    bundle.read(graph.file), options, providers=["CPUExecutionProvider"]
                )
                for name, graph in bundle.graphs.items()
            }
        except Exception as error:  # ONNX Runtime's own exception classes share no public base
            if isinstance(error, ValueError):
                raise
            raise BackendError(f"{bundle.name}: ONNX Runtime cannot load it: {error}") from error
        self._reads = {name: {t.name for t in g.inputs} for name, g in bundle.graphs.items()}
        self._tuning = {name: bundle.tuning[name] for name in bundle.graph_tuning}
        self._empty = {
            t.name: np.zeros(t.shape, t.dtype)
            for t in bundle.graphs["search"].inputs
            if t.name.startswith("state.")
        }
        self._state: Arrays = {}
        self._next: Arrays | None = None
        self.outputs: Arrays = {}
        """Every output of the last search by its name in the graph."""

    @property
    def description(self) -> str:
        """What runs where, for people."""
        return f"ONNX Runtime {onnxruntime.__version__} CPU"

    def start(self, template: UInt8Array, search: UInt8Array, size: Size) -> StepResult:
        """Begin a track: the template graph, then the search graph with first = 1."""
        given = {"template": template, "previous_size": np.array(size, np.float32)}
        self._state = {**self._empty, **self._run("template", given)}
        result = self._search(search, size, 1.0, Memory(search, size))
        self.commit()
        return result

    def step(
        self, search: UInt8Array, previous_size: Size, memory: Memory | None = None
    ) -> StepResult:
        """Search one crop from the current state; never changes that state."""
        if not self._state:
            raise BackendError("step before start: there is no target")
        return self._search(search, previous_size, 0.0, memory)

    def commit(self) -> None:
        """Make the last step's new state current."""
        if self._next is None:
            raise BackendError("commit without a step before it")
        self._state, self._next = {**self._state, **self._next}, None

    def set_tuning(self, name: str, value: float) -> None:
        """Set graph input ``tuning.<name>`` from the next step on."""
        if name not in self._tuning or not math.isfinite(value):
            raise ValueError(f"{self._name}: no tuning input {name}, or {value} is not finite")
        self._tuning[name] = value

    def warm_up(self) -> None:
        """Do nothing: it is not for speed."""

    def close(self) -> None:
        """Forget the state and the graphs."""
        self._sessions, self._state, self._next = {}, {}, None

    def _search(
        self, search: UInt8Array, size: Size, first: float, memory: Memory | None
    ) -> StepResult:
        given: dict[str, Any] = {
            "search": search,
            "previous_size": np.array(size, np.float32),
            "first": np.array([first], np.float32),
            **{f"tuning.{k}": np.array([v], np.float32) for k, v in self._tuning.items()},
            **self._state,
        }
        if memory is not None:
            given["memory"], given["memory_size"] = memory.crop, np.array(memory.size, np.float32)
        outputs = self._run("search", given)
        self.outputs = outputs
        self._next = {k.removesuffix(NEXT): v for k, v in outputs.items() if k.startswith("state.")}
        box, score, runner_up, peak = (
            outputs[f"result.{name}"].tolist() for name in ("box", "score", "runner_up", "peak")
        )
        return StepResult(Box(*box), score[0], runner_up[0], (peak[0], peak[1]))

    def _run(self, graph: str, given: Mapping[str, Any]) -> Arrays:
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        feed = {k: v for k, v in given.items() if k in self._reads[graph]}
        try:
            return dict(zip(names, session.run(names, feed), strict=True))
        except Exception as error:  # see above
            raise BackendError(f"{self._name}: ONNX Runtime failed: {error}") from error
