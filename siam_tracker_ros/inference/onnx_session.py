"""A bundle's graphs on ONNX Runtime: everything is bound once, a frame is one copy in and one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from siam_tracker_ros.bundle import Bundle, GraphSpec, TensorSpec
from siam_tracker_ros.inference.bound_session import (
    BoundSession,
    host_inputs,
    lay_out,
    state_name,
)
from siam_tracker_ros.inference.errors import BackendError

_ORT_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_ERRORS_ONLY = 3


class OnnxSession(BoundSession):
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
        threads = intra_op_threads or len(os.sched_getaffinity(0))
        self._sessions, self._device = _open_graphs(bundle, threads, log)
        version = ".".join(ort.__version__.split(".")[:2])
        where = "CUDA" if self._device == "cuda" else f"CPU, {threads} thread{'s'[: threads != 1]}"
        inputs = {t.name: _zeros(t) for t in host_inputs(bundle.graphs.values())}
        results = {t.name: _zeros(t) for t in bundle.graphs["search"].outputs if _is_result(t.name)}
        self._host = {n: _host_value(a) for n, a in (*inputs.items(), *results.items())}
        super().__init__(
            bundle,
            f"ONNX Runtime {version} {where}",
            {name: [array] for name, array in inputs.items()},
            results,
            lay_out(bundle, self._state_value, partial(self._make_run, bundle)),
        )

    def _release(self) -> None:
        self._sessions, self._host = {}, {}

    def _state_value(self, tensor: TensorSpec) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(_zeros(tensor), self._device, 0)

    def _make_run(
        self,
        bundle: Bundle,
        graph: str,
        reads: Mapping[str, ort.OrtValue],
        writes: Mapping[str, ort.OrtValue],
    ) -> _Run:
        spec = bundle.graphs[graph]
        return _Run(
            f"{bundle.name}: {spec.file}",
            spec,
            self._sessions[graph],
            {t.name: self._host[t.name] for t in spec.inputs if t.name in self._host},
            {t.name: reads[t.name] for t in spec.inputs if t.name in reads},
            {
                t.name: self._host[t.name] if t.name in self._host else writes[state_name(t.name)]
                for t in spec.outputs
            },
            # Binding a CPU value as input of a CUDA graph copies it there and then.
            rebind=self._device != "cpu",
        )


class _Run:
    """One graph with every input and output bound.

    Args:
        name: for messages.
        spec: the graph's inputs and outputs.
        session: the graph.
        host: the inputs that come from the host.
        states: the states that it reads.
        outputs: every output.
        rebind: whether host inputs must be bound each time.
    """

    def __init__(
        self,
        name: str,
        spec: GraphSpec,
        session: ort.InferenceSession,
        host: Mapping[str, ort.OrtValue],
        states: Mapping[str, ort.OrtValue],
        outputs: Mapping[str, ort.OrtValue],
        rebind: bool,
    ) -> None:
        self._name = name
        self._session = session
        self._binding = session.io_binding()
        self._rebind = host if rebind else {}
        # Older ones (1.16) keep no reference to the arrays behind a binding: they would be freed.
        self._values = (host, states, outputs)
        for tensor in spec.inputs:
            value = host[tensor.name] if tensor.name in host else states[tensor.name]
            self._binding.bind_ortvalue_input(tensor.name, value)
        for tensor in spec.outputs:
            self._binding.bind_ortvalue_output(tensor.name, outputs[tensor.name])

    def run(self) -> None:
        """Run the graph; results are in the bound buffers afterwards."""
        try:
            for name, value in self._rebind.items():
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


def _host_value(array: npt.NDArray[np.generic]) -> ort.OrtValue:
    """Wrap an array; ONNX Runtime reads and writes its memory directly."""
    return ort.OrtValue.ortvalue_from_numpy(array)


def _zeros(tensor: TensorSpec) -> npt.NDArray[np.generic]:
    return np.zeros(tensor.shape, dtype=np.dtype(tensor.dtype))


def _is_result(name: str) -> bool:
    return name.startswith("result.")
