"""A bundle's graphs on TensorRT: the state stays on the GPU, a frame is one copy each way.

All inputs of a graph that come from the host lie in one block of page-locked memory, and all
results in another: a frame is one copy in, one execution, one copy out of about a kilobyte, and one
synchronisation. On a GPU that shares the host's memory (Jetson) TensorRT reads and writes the
page-locked blocks themselves and nothing is copied.

Every way of running the search graph on a running track (two directions, with either set of
constants) is captured as a CUDA graph, copies included, and replayed with one call. Where that does
not work the same is enqueued call by call.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.bundle import Bundle, GraphSpec, StepResult, TensorSpec
from siam_tracker_ros.inference.bound_session import (
    RESULTS,
    Array,
    BoundSession,
    Run,
    Runs,
    host_inputs,
    lay_out,
    state_name,
)
from siam_tracker_ros.inference.cuda import ALIGNMENT, Context, GpuInfo, Graph, Stream
from siam_tracker_ros.inference.errors import (
    BackendError,
    CudaError,
    EngineError,
    UnusableEngineError,
)
from siam_tracker_ros.inference.trt_module import (
    dtype_name,
    is_out_of_memory,
    last_errors,
    make_logger,
    short_version,
)

_GRAPHS = ("template", "search")

T = TypeVar("T")

_NARROWED = {"int64": "int32"}
"""TensorRT 8 gives 64-bit inputs and outputs 32 bits."""


class TensorRTSession(BoundSession):
    """A ``StatefulSession`` (see the tracking room) on TensorRT. One owner, one thread.

    Args:
        bundle: a loaded bundle.
        engines: "template" and "search": the serialised engines, built on this GPU.
        precision: what they were built with, for the description.
        trt: the module ``tensorrt``.
        gpu: where to run; from ``find_gpu``, which has asked the driver (TensorRT 8.6 dies without
            one).
        cuda_graphs: whether to capture CUDA graphs.
        log: called with one line if they cannot be captured.

    Raises:
        UnusableEngineError: if an engine cannot be loaded or is not one of this bundle's.
        EngineError: if it cannot be run.
        CudaError: if the GPU cannot be used; out of memory among others.
    """

    def __init__(
        self,
        bundle: Bundle,
        engines: Mapping[str, bytes],
        *,
        precision: str,
        trt: Any,
        gpu: GpuInfo,
        cuda_graphs: bool = True,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._context = Context(gpu)
        self._last: _Run | None = None
        self._staging: npt.NDArray[np.uint8] | None = None
        self._engines: dict[str, _Engine] = {}
        try:
            self._stream = self._context.stream()
            # TensorRT's objects keep no reference to what made them: these must outlive them.
            self._logger = make_logger(trt)
            if hasattr(trt, "init_libnvinfer_plugins"):
                trt.init_libnvinfer_plugins(self._logger, "")
            self._runtime = _made(trt.Runtime, self._logger, "TensorRT has no runtime here")
            for graph in _GRAPHS:
                self._engines[graph] = self._load(bundle, graph, engines[graph], trt)
            description = f"TensorRT {short_version(trt)} {precision} on {gpu.identity.name}"
            runs, inputs, results = self._bind(bundle)
            super().__init__(bundle, description, inputs, results, runs)
            self._stream.synchronize()
            self.cuda_graphs = cuda_graphs and self._capture(runs, log)
        except BaseException:
            self._closed = True
            self._release()
            raise

    # --- for checks and benchmarks; tracking uses none of it -------------------------------------

    @property
    def outputs(self) -> dict[str, Array]:
        """Every output of the last search, the state's new values included, copied to the host.

        Raises:
            BackendError: before the first search, or if the GPU fails.
        """
        self._enter()
        if self._last is None:
            raise BackendError("no search yet")
        tensors = self._bundle.graphs["search"].outputs
        if self._staging is None:
            self._staging, _ = self._context.host_memory(max(map(_bytes_of, tensors)))
        found: dict[str, Array] = {}
        for tensor in tensors:
            part = self._staging[: _bytes_of(tensor)]
            self._stream.download(part, self._last.addresses[tensor.name])
            self._stream.synchronize()
            found[tensor.name] = part.copy().view(np.dtype(tensor.dtype)).reshape(tensor.shape)
        return found

    def time_steps(self, count: int) -> list[float]:
        """Return the GPU's time for each of ``count`` steps in milliseconds, copies included.

        They are queued one behind the other, each on the state that the one before it left, all on
        the crop of the last step. The track is over afterwards.

        Raises:
            BackendError: before ``start``, or if the GPU fails.
        """
        runs = self._both_directions()
        self._started = self._pending = False
        marks = [self._context.event() for _ in range(count + 1)]
        try:
            marks[0].record(self._stream)
            for index, mark in enumerate(marks[1:]):
                runs[index % 2].queue()
                mark.record(self._stream)
            self._stream.synchronize()
            return [b.milliseconds_since(a) for a, b in pairwise(marks)]
        finally:
            for mark in marks:
                mark.close()

    def inspect_step(self, look: Callable[[int], T]) -> T:
        """Record a step, run nothing, and return what ``look`` says of the recorded CUgraph.

        Raises:
            BackendError: before ``start``, or if a step cannot be recorded.
        """
        run = self._both_directions()[0]
        return self._context.record(self._stream, run.enqueue, look)

    def _both_directions(self) -> list[_Run]:
        self._enter()
        if not self._started:
            raise BackendError("step before start: there is no target")
        row = self._runs.step[self._constant]
        runs = [row[1 - self._current], row[self._current]]
        return [run for run in runs if isinstance(run, _Run)]

    def _run_search(self, run: Run, check: bool = True) -> StepResult:
        assert isinstance(run, _Run)
        self._last = run
        return super()._run_search(run, check)

    def _enter(self) -> None:
        super()._enter()
        # CUDA's current context is the calling thread's; the session may have changed hands.
        self._context.bind()

    def _release(self) -> None:
        # TensorRT's objects before the memory and the context that they use.
        for engine in self._engines.values():
            engine.close()
        self._engines, self._last, self._staging = {}, None, None
        self._runtime = None
        self._context.close()

    def _load(self, bundle: Bundle, graph: str, plan: bytes, trt: Any) -> _Engine:
        spec = bundle.graphs[graph]
        name = f"{bundle.name}: engine of {spec.file}"
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            why = last_errors(self._logger)
            if is_out_of_memory(why):
                raise self._no_memory(name, why)
            raise UnusableEngineError(f"{name} cannot be loaded: {why}")
        wrong = _differences(spec, engine, trt)
        if wrong:
            engine = None  # the exception holds this frame, and the engine must go before the GPU
            raise UnusableEngineError(f"{name} is not what bundle.yaml says: {'; '.join(wrong)}")
        execution = engine.create_execution_context()
        if execution is None:
            raise self._no_memory(name, last_errors(self._logger))
        return _Engine(name, engine, execution, self._logger)

    def _no_memory(self, name: str, why: str) -> CudaError:
        free = self._context.free_bytes() >> 20
        return CudaError(f"{name}: not enough GPU memory, {free} MiB are free: {why}")

    def _bind(self, bundle: Bundle) -> tuple[Runs, dict[str, list[Array]], dict[str, Array]]:
        """Make all buffers; return what the graphs are run with."""
        search = bundle.graphs["search"]
        results = _Block(self._context, [t for t in search.outputs if t.name in RESULTS])
        blocks = {g: _Block(self._context, host_inputs([bundle.graphs[g]])) for g in _GRAPHS}
        inputs: dict[str, list[Array]] = {}
        for block in blocks.values():
            for name, array in block.arrays.items():
                inputs.setdefault(name, []).append(array)
        runs = lay_out(
            bundle,
            self._state_memory,
            partial(self._make_run, bundle, blocks, results),
        )
        return runs, inputs, results.arrays

    def _state_memory(self, tensor: TensorSpec) -> int:
        size = _bytes_of(tensor)
        address = self._context.memory(size)
        self._stream.clear(address, size)
        return address

    def _make_run(
        self,
        bundle: Bundle,
        blocks: Mapping[str, _Block],
        results: _Block,
        graph: str,
        reads: Mapping[str, int],
        writes: Mapping[str, int],
    ) -> _Run:
        spec = bundle.graphs[graph]
        addresses = dict(blocks[graph].addresses)
        addresses.update((t.name, reads[t.name]) for t in spec.inputs if t.name in reads)
        if graph == "search":
            addresses.update(results.addresses)
        for tensor in spec.outputs:
            if tensor.name not in addresses:
                addresses[tensor.name] = writes[state_name(tensor.name)]
        return _Run(
            self._engines[graph],
            self._stream,
            addresses,
            blocks[graph],
            results if graph == "search" else None,
        )

    def _capture(self, runs: Runs, log: Callable[[str], None]) -> bool:
        """Capture the steps; return whether that worked. Called while there is no state to lose."""
        steps = [run for row in runs.step for run in row]
        try:
            for run in steps:
                assert isinstance(run, _Run)
                run.run()  # TensorRT finishes its own preparations outside of the capture
                run.graph = self._context.capture(self._stream, run.enqueue)
                run.run()
        except BackendError as error:
            for run in steps:
                assert isinstance(run, _Run)
                run.graph = None
            log(f"CUDA graphs cannot be used, steps are enqueued call by call: {error}")
            try:
                self._stream.synchronize()
            except CudaError as broken:
                raise EngineError(f"the GPU failed while running: {broken}") from error
            return False
        return True


@dataclass
class _Engine:
    """A loaded engine and the context it is run in."""

    name: str
    engine: Any
    execution: Any
    logger: Any
    bound: Mapping[str, int] | None = None

    def enqueue(self, stream: Stream, addresses: Mapping[str, int]) -> None:
        """Queue one execution.

        Raises:
            EngineError: if TensorRT refuses.
        """
        if self.bound is not addresses:
            self.bound = None
            for name, address in addresses.items():
                if not self.execution.set_tensor_address(name, address):
                    raise EngineError(f"{self.name} refused the memory of {name}: {self._why()}")
            self.bound = addresses
        if not self.execution.execute_async_v3(stream.handle):
            raise EngineError(f"{self.name} failed: {self._why()}")

    def close(self) -> None:
        """Drop TensorRT's objects, the context before its engine."""
        self.execution = None
        self.engine = None

    def _why(self) -> str:
        return last_errors(self.logger)


class _Block:
    """Tensors side by side in one piece of page-locked host memory, and in one on the GPU.

    ``arrays``: the host's views of the tensors. ``addresses``: the GPU's. Where host and GPU share
    memory there is one piece.
    """

    def __init__(self, context: Context, tensors: list[TensorSpec]) -> None:
        offsets: dict[str, int] = {}
        size = 0
        for tensor in tensors:
            offsets[tensor.name] = size
            size += math.ceil(_bytes_of(tensor) / ALIGNMENT) * ALIGNMENT
        self.host, mapped = context.host_memory(size)
        self.shared = context.gpu.integrated
        self.address = mapped if self.shared else context.memory(size)
        self.arrays: dict[str, Array] = {}
        self.addresses: dict[str, int] = {}
        for tensor in tensors:
            start = offsets[tensor.name]
            part: npt.NDArray[np.uint8] = self.host[start : start + _bytes_of(tensor)]
            self.arrays[tensor.name] = part.view(np.dtype(tensor.dtype)).reshape(tensor.shape)
            self.addresses[tensor.name] = self.address + start

    def upload(self, stream: Stream) -> None:
        """Queue the copy to the GPU, if there is one."""
        if not self.shared and self.host.size:
            stream.upload(self.address, self.host)

    def download(self, stream: Stream) -> None:
        """Queue the copy to the host, if there is one."""
        if not self.shared and self.host.size:
            stream.download(self.host, self.address)


class _Run(Run):
    """One graph with every input and output bound; with results it waits for them."""

    def __init__(
        self,
        engine: _Engine,
        stream: Stream,
        addresses: Mapping[str, int],
        inputs: _Block,
        results: _Block | None,
    ) -> None:
        self._engine, self._stream, self.addresses = engine, stream, addresses
        self._inputs, self._results = inputs, results
        self.graph: Graph | None = None

    def run(self) -> None:
        """Run it; results, if it has any, are in their arrays afterwards."""
        try:
            self.queue()
        except BackendError:
            # What was queued before still reads the inputs, which are written to again next.
            with contextlib.suppress(CudaError):
                self._stream.synchronize()
            raise
        if self._results is not None:
            self._stream.synchronize()

    def queue(self) -> None:
        """Queue it as it is run: the captured graph, or call by call."""
        if self.graph is not None:
            self.graph.launch()
        else:
            self.enqueue()

    def enqueue(self) -> None:
        """Queue copies and execution, call by call."""
        self._inputs.upload(self._stream)
        self._engine.enqueue(self._stream, self.addresses)
        if self._results is not None:
            self._results.download(self._stream)


def _differences(spec: GraphSpec, engine: Any, trt: Any) -> list[str]:
    """Say where an engine's inputs and outputs differ from the bundle's list."""
    there: dict[tuple[str, str], TensorSpec] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = "input" if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "output"
        shape = tuple(int(side) for side in engine.get_tensor_shape(name))
        there[kind, name] = TensorSpec(name, dtype_name(engine.get_tensor_dtype(name)), shape)
    listed = {
        **{("input", t.name): t for t in spec.inputs},
        **{("output", t.name): t for t in spec.outputs},
    }
    said = [f"{kind} {name} is not in the engine" for kind, name in listed.keys() - there.keys()]
    said += [f"{kind} {name} is not in the bundle" for kind, name in there.keys() - listed.keys()]
    for key in listed.keys() & there.keys():
        want, have = listed[key], there[key]
        dtypes = (want.dtype, _NARROWED.get(want.dtype, want.dtype))
        if have.shape != want.shape or have.dtype not in dtypes:
            said.append(
                f"{key[0]} {key[1]} is {have.dtype} {list(have.shape)} in the engine, "
                f"{want.dtype} {list(want.shape)} in the bundle"
            )
    return sorted(said)


def _bytes_of(tensor: TensorSpec) -> int:
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def _made(factory: Any, logger: Any, what: str) -> Any:
    try:
        return factory(logger)
    except TypeError as error:  # pybind11's word for a factory that failed
        raise EngineError(f"{what}: {last_errors(logger)}") from error
