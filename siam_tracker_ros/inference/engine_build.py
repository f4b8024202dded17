"""From an ONNX graph to a TensorRT engine, in one path for TensorRT 8.6, 10 and 11.

Versions are told apart by what they have, never by their number:

* STRONGLY_TYPED there (10 and later): every tensor has the type that the ONNX graph gives it, and
  no precision flag is set;
* not there (8.6): the FP16 flag with OBEY_PRECISION_CONSTRAINTS, and every layer pinned to the
  type that it has in the ONNX graph;
* EXPLICIT_BATCH is set while it exists, CUBLAS and CUDNN tactics are left out while they exist.

TF32 is off: what is FP32 in a graph is computed in FP32.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from siam_tracker_ros.inference.errors import BuildCancelledError, EngineError
from siam_tracker_ros.inference.trt_module import (
    bits,
    is_out_of_memory,
    last_errors,
    make_logger,
    members,
)

REVISION = 1
"""Raised when what is built from the same graph and options changes."""

REPORT_EVERY_S = 0.5

OnProgress = Callable[[str, "float | None"], None]
"""Called with what TensorRT is at, and how far it is in [0, 1] (None: it does not say)."""


@dataclass(frozen=True)
class BuildOptions:
    """What an engine is built with.

    ``precision``: fp32, or a name of the bundle's ``precisions`` (fp16, int8).
    ``workspace_mib``: most scratch memory that a layer may take.
    ``optimization_level``: 0 to 5, higher looks longer for faster kernels; 3 is TensorRT's default.
    """

    precision: str = "fp32"
    workspace_mib: int = 1024
    optimization_level: int = 3

    def to_json(self, trt: Any) -> dict[str, Any]:
        """Return plain data: what of these, and of this file, an engine depends on."""
        return {
            "precision": self.precision,
            "typing": "strong" if is_strongly_typed(trt) else "weak",
            "tf32": False,
            "workspace_mib": self.workspace_mib,
            "optimization_level": self.optimization_level,
            "revision": REVISION,
        }


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine, and what the builder measured on the way (b"" if it gave nothing)."""

    plan: bytes
    timing_cache: bytes


def is_strongly_typed(trt: Any) -> bool:
    """Whether engines are built strongly typed by this version."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def build_engine(
    trt: Any,
    onnx: bytes,
    options: BuildOptions,
    *,
    name: str,
    timing_cache: bytes = b"",
    on_progress: OnProgress = lambda phase, fraction: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> BuiltEngine:
    """Build one engine; takes seconds to many minutes.

    Args:
        trt: the module ``tensorrt``.
        onnx: the graph, in the precision asked for; with fixed shapes.
        options: how to build.
        name: of the graph, for messages.
        timing_cache: of an earlier build on the same GPU and version; a damaged one is left out.
        on_progress: see :data:`OnProgress`; called from TensorRT's threads, where it reports
            progress at all (10 and later).
        cancelled: asked now and then, where TensorRT reports progress.

    Raises:
        EngineError: if the graph cannot be parsed or built; the message names operators or the
            builder's own reason.
        BuildCancelledError: if ``cancelled`` answered True.
    """
    logger = make_logger(trt)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # pybind11's word for a factory that failed
        raise EngineError(f"TensorRT has no builder here: {last_errors(logger)}") from error
    network = builder.create_network(
        bits(members(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", "STRONGLY_TYPED"))
    )
    parser = trt.OnnxParser(network, logger)
    on_progress("reading the graph", None)
    if not parser.parse(onnx):
        raise EngineError(f"{name}: {_parser_errors(trt, parser)}")
    config = builder.create_builder_config()
    _configure(trt, config, options)
    if not is_strongly_typed(trt):
        _set_weak_types(trt, config, network, options.precision)
    monitor = _attach_monitor(trt, config, on_progress, cancelled)
    _set_timing_cache(config, timing_cache)
    on_progress("choosing kernels", None)
    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.stopped:
        raise BuildCancelledError(f"{name}: the build was cancelled")
    if plan is None:
        raise EngineError(f"{name}: TensorRT {trt.__version__} cannot build it: {_why(logger)}")
    return BuiltEngine(bytes(plan), _read_timing_cache(config))


def _configure(trt: Any, config: Any, options: BuildOptions) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if hasattr(config, "builder_optimization_level"):
        config.builder_optimization_level = options.optimization_level
    config.clear_flag(trt.BuilderFlag.TF32)
    # Kernels of cuBLAS and cuDNN would need those libraries on the robot.
    config.set_tactic_sources(
        bits(members(trt.TacticSource, "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"))
    )
    for feature in members(trt.PreviewFeature, "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"):
        config.set_preview_feature(feature, True)


def _set_weak_types(trt: Any, config: Any, network: Any, precision: str) -> None:
    """Allow lower precision, and pin every layer to the type that its graph gives it."""
    if precision == "fp32":
        return
    if precision == "int8":
        # The graph's Q and DQ say where it is INT8; pinned layers would not fuse with them.
        config.set_flag(trt.BuilderFlag.INT8)
        return
    if precision != "fp16":
        raise EngineError(f"TensorRT {trt.__version__} cannot be told to use precision {precision}")
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    # What these do has no precision of its own, and setting one is an error or changes a cast.
    free = members(trt.LayerType, "CONSTANT", "CAST", "SHAPE", "IDENTITY", "ASSERTION")
    floats = (trt.DataType.FLOAT, trt.DataType.HALF)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type in free:
            continue
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
        types = [t.dtype for t in (*outputs, *inputs) if t is not None and t.dtype in floats]
        if not types:
            continue
        # A comparison has FP32 inputs alone: its inputs' type counts where no output has one.
        layer.precision = types[0]
        for i, output in enumerate(outputs):
            if output is not None and output.dtype in floats:
                layer.set_output_type(i, output.dtype)


def _attach_monitor(
    trt: Any, config: Any, on_progress: OnProgress, cancelled: Callable[[], bool]
) -> Any:
    """Make TensorRT report progress, where it can; return the monitor, or None."""
    if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
        return None
    progress = Progress(on_progress)

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Called by TensorRT, from any of its threads. Nothing may be raised through it."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Note that a phase began."""
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Note a phase's step; False asks TensorRT to stop."""
            progress.step(phase_name, step)
            if cancelled():
                self.stopped = True
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            """Note that a phase ended."""
            progress.finish(phase_name)

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


class Progress:
    """Puts TensorRT's nested phases together to one number that never goes back.

    Args:
        on_progress: called at most twice a second, and with 1.0 when the outermost phase ends.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, done
        self._said = float("-inf")
        self._fraction = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """Note that a phase began."""
        with self._lock:
            self._phases[phase] = (parent, max(steps, 1), 0)
            self._say(phase)

    def step(self, phase: str, step: int) -> None:
        """Note that step ``step`` (from 0) of a phase is done."""
        with self._lock:
            if phase in self._phases:
                parent, steps, done = self._phases[phase]
                self._phases[phase] = (parent, steps, min(max(done, step + 1), steps))
                self._say(phase)

    def finish(self, phase: str) -> None:
        """Note that a phase ended."""
        with self._lock:
            ended = self._phases.pop(phase, None)
            if ended is not None and ended[0] not in self._phases:
                self._fraction = 1.0
                self._on_progress(phase, 1.0)

    def _say(self, phase: str) -> None:
        roots = [n for n, (parent, _, _) in self._phases.items() if parent not in self._phases]
        self._fraction = max(self._fraction, *(self._done(root, 0) for root in roots), 0.0)
        now = time.monotonic()
        if now - self._said >= REPORT_EVERY_S:
            self._said = now
            self._on_progress(phase, self._fraction)

    def _done(self, phase: str, depth: int) -> float:
        _, steps, done = self._phases[phase]
        inside = 0.0
        if done < steps and depth < 8:
            children = [n for n, (parent, _, _) in self._phases.items() if parent == phase]
            inside = max((self._done(child, depth + 1) for child in children), default=0.0)
        return (done + inside) / steps


def _set_timing_cache(config: Any, data: bytes) -> None:
    """Give the builder what was measured before; if that cannot be used, an empty cache."""
    for content in (data, b"") if data else (b"",):
        try:
            cache = config.create_timing_cache(content)
            if cache is not None and config.set_timing_cache(cache, False):
                return
        except (TypeError, RuntimeError):
            continue


def _read_timing_cache(config: Any) -> bytes:
    cache = config.get_timing_cache()
    return b"" if cache is None else bytes(cache.serialize())


def _parser_errors(trt: Any, parser: Any) -> str:
    """Say what the parser did not like, each operator once."""
    said: list[str] = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = []
        if hasattr(error, "node_operator") and error.node_operator():
            where.append(f"operator {error.node_operator()}")
        if hasattr(error, "node_name") and error.node_name():
            where.append(f"node {error.node_name()}")
        text = " ".join(str(error.desc()).split())[:300]
        line = f"{' of '.join(where)}: {text}" if where else text
        if line not in said:
            said.append(line)
    return f"TensorRT {trt.__version__} cannot read the graph: " + (
        "; ".join(said[:4]) or "no reason given"
    )


def _why(logger: Any) -> str:
    text = last_errors(logger)
    if is_out_of_memory(text):
        return f"out of GPU memory while building ({text}); close what else uses the GPU"
    return text
