"""A bundle's graphs on ONNX Runtime: everything is bound once, a frame is one copy in and one run.

State lives in three sets of buffers that the search graph reads from and writes to:

* set 0 and set 1 take turns: a step reads the current one and writes the other; ``commit`` swaps
  their roles;
* the seed set is what the first frame reads: what the template graph wrote, zeros for the rest.

States that only the template graph writes (a template's features) are constant during a track.
There are two sets of those, so that a start that fails leaves the running track as it was.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from siam_tracker_ros.bundle import NEXT, Bundle, GraphSpec, Memory, StepResult, TensorSpec
from siam_tracker_ros.geometry import Box
from siam_tracker_ros.inference.errors import BackendError

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[float, float]

_ORT_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_ERRORS_ONLY = 3


class OnnxSession:
    """A ``StatefulSession`` (see the tracking room) on ONNX Runtime. One owner, one thread.

    Args:
        bundle: a loaded bundle.
        intra_op_threads: threads within one operator; 0 = one for each CPU this process may use.
        log: called with one line if CUDA was there but could not be used.

    Raises:
        BackendError: if a graph cannot be loaded or differs from what the bundle says of it.
        BundleError: if a graph's file changed since the bundle was loaded.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        intra_op_threads: int = 0,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        if intra_op_threads < 0:
            raise BackendError(f"intra_op_threads must not be negative, got {intra_op_threads}")
        self._bundle = bundle
        threads = intra_op_threads or len(os.sched_getaffinity(0))
        self._sessions, self._device = _open_graphs(bundle, threads, log)
        version = ".".join(ort.__version__.split(".")[:2])
        where = "CUDA" if self._device == "cuda" else f"CPU, {threads} thread{'s'[: threads != 1]}"
        self.description = f"ONNX Runtime {version} {where}"

        search = bundle.graphs["search"]
        self._inputs = _host_inputs(bundle)
        self._results = {t.name: _zeros(t) for t in search.outputs if _is_result(t.name)}
        self._host = {n: _host_value(a) for n, a in (*self._inputs.items(), *self._results.items())}
        read = [t for t in search.inputs if t.name.startswith("state.")]
        carried = [t for t in read if search.output(t.name + NEXT)]
        constant = [t for t in read if t not in carried]
        states = [{t.name: self._state_value(t) for t in carried} for _ in range(2)]
        seed = {t.name: self._state_value(t) for t in carried}
        constants = [{t.name: self._state_value(t) for t in constant} for _ in range(2)]
        self._template_runs = [_Run(self, "template", {}, {**seed, **c}) for c in constants]
        # [constant set][state set that is written]
        self._first_runs = [
            [_Run(self, "search", {**seed, **c}, s) for s in states] for c in constants
        ]
        self._step_runs = [
            [_Run(self, "search", {**states[1 - w], **c}, states[w]) for w in range(2)]
            for c in constants
        ]
        self._constant = 0
        self._current = 0
        self._started = self._pending = self._closed = False

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
        self._check_open()
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
        self._check_open()
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
        result = self._run_search(self._step_runs[self._constant][1 - self._current])
        self._pending = True
        return result

    def commit(self) -> None:
        """Make the last step's new state current.

        Raises:
            BackendError: if there is no step since the last commit, start or warm-up.
        """
        self._check_open()
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
        self._check_open()
        key = f"tuning.{name}"
        if key not in self._inputs:
            known = ", ".join(sorted(self._bundle.graph_tuning)) or "none"
            raise BackendError(f"{self._bundle.name} has no {key} input; tuning inputs: {known}")
        if not math.isfinite(value):
            raise ValueError(f"{key} must be finite, got {value}")
        self._inputs[key][0] = value

    def warm_up(self) -> None:
        """Run both graphs on grey crops; the state stays, a step not yet committed is forgotten."""
        self._check_open()
        crop = self._bundle.crop
        grey = [np.full((n, n, 3), 128, dtype=np.uint8) for n in (crop.template, crop.search)]
        self._pending = False
        for _ in range(2):
            self._run_first(grey[0], grey[1], (crop.search / 4, crop.search / 4), check=False)

    def close(self) -> None:
        """Give everything back; nothing but close may follow."""
        self._closed = True
        self._template_runs, self._first_runs, self._step_runs = [], [], []
        self._sessions, self._host = {}, {}

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
        self._template_runs[constant].run()
        return self._run_search(self._first_runs[constant][written], check)

    def _run_search(self, run: _Run, check: bool = True) -> StepResult:
        run.run()
        numbers = [float(v) for name in _RESULTS for v in self._results[name]]
        if check and not all(map(math.isfinite, numbers)):
            raise BackendError(
                f"{self._bundle.name}: the search graph's result is not finite "
                f"(box, score, runner-up, peak: {numbers})"
            )
        return StepResult(Box(*numbers[:4]), numbers[4], numbers[5], (numbers[6], numbers[7]))

    def _put(self, name: str, crop: UInt8Array) -> None:
        target = self._inputs[name]
        if crop.shape != target.shape or crop.dtype != target.dtype:
            raise ValueError(
                f"the {name} crop must be {target.dtype} {list(target.shape)}, "
                f"got {crop.dtype} {list(crop.shape)}"
            )
        np.copyto(target, crop)

    def _put_memory(self, memory: Memory) -> None:
        self._put("memory", memory.crop)
        if "memory_size" in self._inputs:
            self._inputs["memory_size"][:] = memory.size

    def _put_scalars(self, size: Size, first: float) -> None:
        if "previous_size" in self._inputs:
            self._inputs["previous_size"][:] = size
        if "first" in self._inputs:
            self._inputs["first"][0] = first

    def _state_value(self, tensor: TensorSpec) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(_zeros(tensor), self._device, 0)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the session is closed")


_RESULTS = ("result.box", "result.score", "result.runner_up", "result.peak")


class _Run:
    """One graph with every input and output bound."""

    def __init__(
        self,
        owner: OnnxSession,
        graph: str,
        states_in: Mapping[str, ort.OrtValue],
        states_out: Mapping[str, ort.OrtValue],
    ) -> None:
        spec = owner._bundle.graphs[graph]
        self._name = f"{owner._bundle.name}: {spec.file}"
        self._session = owner._sessions[graph]
        self._binding = self._session.io_binding()
        self._host_inputs = [
            (t.name, owner._host[t.name]) for t in spec.inputs if t.name in owner._host
        ]
        # Binding a CPU value as input of a CUDA graph copies it there and then: such inputs are
        # bound each time.
        self._rebind = owner._device != "cpu"
        for name, value in self._host_inputs:
            self._binding.bind_ortvalue_input(name, value)
        for tensor in spec.inputs:
            if tensor.name in states_in:
                self._binding.bind_ortvalue_input(tensor.name, states_in[tensor.name])
        for tensor in spec.outputs:
            if tensor.name in owner._host:
                value = owner._host[tensor.name]
            elif graph == "search":
                value = states_out[tensor.name[: -len(NEXT)]]
            else:
                value = states_out[tensor.name]
            self._binding.bind_ortvalue_output(tensor.name, value)

    def run(self) -> None:
        """Run the graph; results are in the bound buffers afterwards."""
        try:
            if self._rebind:
                for name, value in self._host_inputs:
                    self._binding.bind_ortvalue_input(name, value)
            self._session.run_with_iobinding(self._binding)
            if self._rebind:
                self._binding.synchronize_outputs()
        except Exception as error:  # ONNX Runtime's own exception classes share no public base
            raise BackendError(f"{self._name}: ONNX Runtime failed: {error}") from error


def _open_graphs(
    bundle: Bundle, threads: int, log: Callable[[str], None]
) -> tuple[dict[str, ort.InferenceSession], str]:
    """Return the sessions of both graphs and the device they run on, "cpu" or "cuda"."""
    data = {name: bundle.read(graph.file) for name, graph in bundle.graphs.items()}

    def open_all(providers: list[str]) -> dict[str, ort.InferenceSession]:
        return {
            name: _open_graph(bundle, name, data[name], threads, providers)
            for name in bundle.graphs
        }

    if "CUDAExecutionProvider" in ort.get_available_providers():
        reason = "its libraries could not be loaded"
        try:
            sessions = open_all(["CUDAExecutionProvider", "CPUExecutionProvider"])
            if all("CUDAExecutionProvider" in s.get_providers() for s in sessions.values()):
                _check_all(bundle, sessions)
                return sessions, "cuda"
        except BackendError as error:
            reason = str(error)
        log(f"ONNX Runtime's CUDA provider cannot be used, running on the CPU: {reason}")
    sessions = open_all(["CPUExecutionProvider"])
    _check_all(bundle, sessions)
    return sessions, "cpu"


def _open_graph(
    bundle: Bundle, name: str, data: bytes, threads: int, providers: list[str]
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    # Spinning threads win a fraction of a millisecond and keep a core busy between frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(data, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own exception classes share no public base
        file = bundle.path / bundle.graphs[name].file
        raise BackendError(f"{file}: ONNX Runtime cannot load it: {error}") from error


def _check_all(bundle: Bundle, sessions: Mapping[str, ort.InferenceSession]) -> None:
    for name, session in sessions.items():
        spec = bundle.graphs[name]
        differences = [
            *_differences("input", spec.inputs, session.get_inputs()),
            *_differences("output", spec.outputs, session.get_outputs()),
        ]
        if differences:
            raise BackendError(
                f"{bundle.path / spec.file} is not what bundle.yaml says (graphs.{name}): "
                + "; ".join(differences)
            )


def _differences(kind: str, wanted: tuple[TensorSpec, ...], found: list[ort.NodeArg]) -> list[str]:
    """Say where a graph's inputs or outputs differ from the bundle's list."""
    there = {
        arg.name: TensorSpec(arg.name, _ORT_TYPES.get(arg.type, arg.type), tuple(arg.shape))
        for arg in found
    }
    listed = {tensor.name: tensor for tensor in wanted}
    said = [f"{kind} {name} is not in the file" for name in listed if name not in there]
    said += [f"{kind} {name} is not in bundle.yaml" for name in there if name not in listed]
    for name, tensor in listed.items():
        if name in there and there[name] != tensor:
            have = there[name]
            said.append(
                f"{kind} {name} is {have.dtype} {list(have.shape)} in the file, "
                f"{tensor.dtype} {list(tensor.shape)} in bundle.yaml"
            )
    return said


def _host_inputs(bundle: Bundle) -> dict[str, npt.NDArray[np.generic]]:
    """Return a buffer for every input that comes from the host, tuning values filled in."""
    graphs: list[GraphSpec] = list(bundle.graphs.values())
    inputs = {
        t.name: _zeros(t) for g in graphs for t in g.inputs if not t.name.startswith("state.")
    }
    for name in bundle.graph_tuning:
        inputs[f"tuning.{name}"][0] = bundle.tuning[name]
    return inputs


def _host_value(array: npt.NDArray[np.generic]) -> ort.OrtValue:
    """Wrap an array; ONNX Runtime reads and writes its memory directly."""
    return ort.OrtValue.ortvalue_from_numpy(array)


def _zeros(tensor: TensorSpec) -> npt.NDArray[np.generic]:
    return np.zeros(tensor.shape, dtype=np.dtype(tensor.dtype))


def _is_result(name: str) -> bool:
    return name.startswith("result.")
