"""What a GPU does with a bundle's engines, and what it can do at most: times by its own clock.

Needs NumPy, the TensorRT bindings and the driver. Nothing here runs on a robot.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.evaluation.agreement import StepRecord, replay
from siam_tracker_ros.inference import EngineBuild, EngineError, cuda, find_tensorrt, open_session
from siam_tracker_ros.inference.engine_build import BuildOptions, build_engine
from siam_tracker_ros.inference.engine_cache import EngineCache
from siam_tracker_ros.inference.engines import build_options, find_engines
from siam_tracker_ros.inference.tensorrt_session import TensorRTSession
from siam_tracker_ros.inference.trt_module import dtype_name, last_errors, make_logger

Section = Callable[[], Mapping[str, Any]]

COPY_BYTES = 1 << 30
_REPEATS = 20
_WARM_UP = 20


def describe_gpu() -> dict[str, Any]:
    """Return GPU, driver and TensorRT, ready for JSON.

    Raises:
        BackendError: saying which of them is not there.
    """
    trt, gpu = find_tensorrt()
    return {
        "gpu": gpu.identity.name,
        "compute_capability": gpu.identity.compute_capability,
        "multiprocessors": gpu.identity.multiprocessors,
        "memory_mib": gpu.total_bytes >> 20,
        "driver_cuda": gpu.driver_cuda,
        "tensorrt": str(trt.__version__),
    }


def millisecond_percentiles(times: list[float]) -> dict[str, float]:
    """Return p50, p95, least, mean and number of times in milliseconds."""
    values = np.array(times)
    return {
        "p50": float(np.percentile(values, 50)),
        "p95": float(np.percentile(values, 95)),
        "min": float(values.min()),
        "mean": float(values.mean()),
        "count": len(times),
    }


# --- ceilings -------------------------------------------------------------------------------------


def measure_copy(size: int = COPY_BYTES, repeats: int = _REPEATS) -> dict[str, Any]:
    """Return what a copy within the GPU's memory moves: bytes read plus bytes written, a second."""
    with _context() as context:
        stream = context.stream()
        source, target = context.memory(size), context.memory(size)
        stream.clear(source, size)
        times = _timed(context, stream, lambda: stream.copy(target, source, size), repeats)
    best = float(np.median(times))
    return {
        "bytes": size,
        "ms": millisecond_percentiles(times),
        "bytes_per_s": 2 * size / (best / 1e3),
    }


def measure_product(
    onnx: bytes, name: str, precision: str, repeats: int = _REPEATS
) -> dict[str, Any]:
    """Return what a product of two large random matrices reaches, as TensorRT computes it.

    Args:
        onnx: a graph with inputs ``a`` [m,k] and ``b`` [k,n] and one output, in its precision.
        name: for messages.
        precision: fp32 or fp16.
        repeats: how often it is timed.

    Raises:
        BackendError: if it cannot be built or run.
    """
    trt, _ = find_tensorrt()
    with _context() as context:
        began = time.monotonic()
        plan = build_engine(trt, onnx, BuildOptions(precision=precision), name=name).plan
        seconds = time.monotonic() - began
        (m, k, n), times = _run_product(trt, context, plan, repeats)
    median = float(np.median(times))
    return {
        "m_k_n": [m, k, n],
        "build_s": seconds,
        "ms": millisecond_percentiles(times),
        "flop_per_s": 2 * m * k * n / (median / 1e3),
    }


def _run_product(
    trt: Any, context: cuda.Context, plan: bytes, repeats: int
) -> tuple[tuple[int, int, int], list[float]]:
    """Return the matrices' sides and the times. TensorRT's objects end here, before the context."""
    logger = make_logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    execution = None if engine is None else engine.create_execution_context()
    if execution is None:
        raise EngineError(f"the product's engine cannot be loaded: {last_errors(logger)}")
    stream = context.stream()
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        shape = shapes[tensor] = tuple(int(v) for v in engine.get_tensor_shape(tensor))
        dtype = np.dtype(dtype_name(engine.get_tensor_dtype(tensor)))
        size = math.prod(shape) * dtype.itemsize
        address = context.memory(size)
        if engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT:
            # Random numbers: on zeros the same product may run faster than on real data.
            values = random.standard_normal(shape, np.float32).astype(dtype)
            host, _ = context.host_memory(size)
            host[:] = values.view(np.uint8).reshape(-1)
            stream.upload(address, host)
        execution.set_tensor_address(tensor, address)

    def enqueue() -> None:
        if not execution.execute_async_v3(stream.handle):
            raise EngineError(f"the product failed: {last_errors(logger)}")

    times = _timed(context, stream, enqueue, repeats)
    return (*shapes["a"], shapes["b"][1]), times


def _timed(
    context: cuda.Context, stream: cuda.Stream, enqueue: Callable[[], Any], repeats: int
) -> list[float]:
    """Return the GPU's milliseconds of each of ``repeats`` runs, after three that do not count."""
    for _ in range(3):
        enqueue()
    marks = [context.event() for _ in range(repeats + 1)]
    marks[0].record(stream)
    for mark in marks[1:]:
        enqueue()
        mark.record(stream)
    stream.synchronize()
    times = [b.milliseconds_since(a) for a, b in pairwise(marks)]
    for mark in marks:
        mark.close()
    return times


@contextlib.contextmanager
def _context() -> Iterator[cuda.Context]:
    context = cuda.Context(cuda.find_gpu())
    try:
        yield context
    finally:
        context.close()


# --- a bundle -------------------------------------------------------------------------------------


def measure_build(bundle: Bundle, precision: str, cache_dir: Path | None) -> dict[str, Any]:
    """Build what is missing of a bundle's engines; return times and sizes.

    Raises:
        BackendError: if an engine cannot be built.
    """
    said: list[str] = []
    marks: dict[str, float] = {}

    def note(progress: Any) -> None:
        marks[progress.graph] = max(progress.seconds, marks.get(progress.graph, 0.0))

    began = time.monotonic()
    built = EngineBuild(
        bundle, precision, cache_dir=cache_dir, on_progress=note, say=said.append
    ).wait()
    seconds = time.monotonic() - began
    trt, gpu = find_tensorrt()
    cache = EngineCache(cache_dir)
    engines, _ = find_engines(bundle, build_options(bundle, precision), cache, trt, gpu)
    return {
        "seconds": seconds,
        "graphs": dict(built),
        "engine_bytes": {name: len(plan) for name, plan in engines.items()},
        "said": said,
    }


def measure_steps(session: TensorRTSession, recording: StepRecord, steps: int) -> dict[str, Any]:
    """Return the times of a step: on the GPU alone, and as the tracker calls it.

    ``gpu_ms``: between events around each replay of a captured graph, copies included.
    ``call_ms``: ``session.step`` and ``commit``, from the host's crop to the host's result.
    """
    assert recording.template is not None
    last = len(recording.searches) - 1
    search, size = recording.searches[last], recording.sizes[last]
    memory = recording.memories[last]

    def begin() -> None:
        assert recording.template is not None
        session.start(recording.template, recording.searches[0], recording.sizes[0])
        for _ in range(_WARM_UP):
            session.step(search, size, memory)
            session.commit()

    begin()
    calls = []
    for _ in range(steps):
        before = time.perf_counter()
        session.step(search, size, memory)
        session.commit()
        calls.append(1e3 * (time.perf_counter() - before))
    begin()
    session.time_steps(min(steps, _WARM_UP))
    begin()
    return {
        "cuda_graphs": session.cuda_graphs,
        "gpu_ms": millisecond_percentiles(session.time_steps(steps)),
        "call_ms": millisecond_percentiles(calls),
    }


def measure_copies(session: TensorRTSession, recording: StepRecord) -> dict[str, Any]:
    """Return what a step copies between host and GPU, by what is recorded of it.

    ``state_stays``: whether that is one copy of the inputs in and one copy of the results out,
    and nothing as large as the state leaves.
    """
    assert recording.template is not None
    session.start(recording.template, recording.searches[0], recording.sizes[0])
    copies = session.inspect_step(copies_in_graph)
    sizes = {
        kind: [size for found, size in copies if found == kind]
        for kind in ("host to gpu", "gpu to host", "within the gpu", "unknown")
    }
    with _counted_calls() as calls:
        session.step(recording.searches[-1], recording.sizes[-1], recording.memories[-1])
        session.commit()
    return {
        "bytes": sizes,
        "driver_calls": dict(calls),
        "state_stays": len(sizes["host to gpu"]) == len(sizes["gpu to host"]) == 1
        and not sizes["unknown"]
        and sizes["gpu to host"][0] <= 4096,
    }


@contextlib.contextmanager
def _counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of the driver that this package makes."""
    calls: Counter[str] = Counter()
    original = cuda.call

    def counted(name: str, *arguments: Any) -> None:
        calls[name] += 1
        original(name, *arguments)

    cuda.call = counted
    try:
        yield calls
    finally:
        cuda.call = original


class _Copy3D(ctypes.Structure):
    """CUDA_MEMCPY3D."""

    _fields_ = (
        *((f"source_{k}", ctypes.c_size_t) for k in ("x", "y", "z", "lod")),
        ("source_kind", ctypes.c_uint),
        *((f"source_{k}", ctypes.c_uint64) for k in ("host", "device", "array", "reserved")),
        *((f"source_{k}", ctypes.c_size_t) for k in ("pitch", "height")),
        *((f"target_{k}", ctypes.c_size_t) for k in ("x", "y", "z", "lod")),
        ("target_kind", ctypes.c_uint),
        *((f"target_{k}", ctypes.c_uint64) for k in ("host", "device", "array", "reserved")),
        *((f"target_{k}", ctypes.c_size_t) for k in ("pitch", "height")),
        *((k, ctypes.c_size_t) for k in ("width", "height", "depth")),
    )


_HOST, _DEVICE, _MEMCPY_NODE = 1, 2, 1
_DIRECTIONS = {
    (_HOST, _DEVICE): "host to gpu",
    (_DEVICE, _HOST): "gpu to host",
    (_DEVICE, _DEVICE): "within the gpu",
}


def copies_in_graph(graph: int) -> list[tuple[str, int]]:
    """Return direction and bytes of every copy in a CUgraph, TensorRT's own included.

    Raises:
        CudaError: if the driver cannot be asked.
    """
    handle = ctypes.c_void_p(graph)
    count = ctypes.c_size_t()
    cuda.call("cuGraphGetNodes", handle, None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * max(count.value, 1))()
    cuda.call("cuGraphGetNodes", handle, nodes, ctypes.byref(count))
    found = []
    for node in list(nodes)[: count.value]:
        kind = ctypes.c_int()
        cuda.call("cuGraphNodeGetType", ctypes.c_void_p(node), ctypes.byref(kind))
        if kind.value != _MEMCPY_NODE:
            continue
        copy = _Copy3D()
        cuda.call("cuGraphMemcpyNodeGetParams", ctypes.c_void_p(node), ctypes.byref(copy))
        direction = _DIRECTIONS.get((copy.source_kind, copy.target_kind), "unknown")
        found.append((direction, copy.width * max(copy.height, 1) * max(copy.depth, 1)))
    return found


def measure_bundle(
    bundle: Bundle,
    precision: str,
    recording: StepRecord,
    *,
    steps: int,
    cache_dir: Path | None,
    work: Mapping[str, Any],
    walk: Callable[[TensorRTSession], Mapping[str, Any]] | None,
    done: Callable[[str, Mapping[str, Any]], None],
) -> None:
    """Measure one bundle in one precision, section by section; a failing one does not stop the rest.

    Args:
        bundle: as loaded.
        precision: fp32, or one of the bundle's.
        recording: the reference's crops and outputs.
        steps: how many are timed.
        cache_dir: of the engines.
        work: ``flop`` and ``bytes`` of a step in this precision.
        walk: follows whole clips and compares; None: not possible here.
        done: called with each section's name and figures (``failed``: why there are none).
    """

    def section(name: str, measure: Section) -> bool:
        try:
            done(name, measure())
        except Exception as error:  # whatever it is, the other sections' figures count
            done(name, {"failed": f"{type(error).__name__}: {error}"})
            return False
        return True

    if not section("build", lambda: measure_build(bundle, precision, cache_dir)):
        return
    sessions: list[TensorRTSession] = []

    def load() -> Mapping[str, Any]:
        with (
            _context() as context
        ):  # kept until the end of this section: its own memory is not counted
            free = context.free_bytes()
            began = time.monotonic()
            session = open_session(
                bundle,
                "tensorrt",
                precision=precision,
                cache_dir=cache_dir,
                allow_fallback=False,
            )
            assert isinstance(session, TensorRTSession)
            sessions.append(session)
            seconds = time.monotonic() - began
            return {"seconds": seconds, "gpu_memory_mib": (free - context.free_bytes()) / 2**20}

    if not section("load", load):
        return
    session = sessions[0]
    try:
        section("parity", lambda: replay(recording, session))

        def speed() -> Mapping[str, Any]:
            times = measure_steps(session, recording, steps)
            seconds = times["gpu_ms"]["p50"] / 1e3
            rates = {f"{key}_per_s": value / seconds for key, value in work.items()}
            return {**times, **rates}

        section("speed", speed)
        section("copies", lambda: measure_copies(session, recording))
        if walk is not None:
            section("trajectories", lambda: walk(session))
    finally:
        session.close()
