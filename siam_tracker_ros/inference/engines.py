"""A bundle's engines on this machine: what they must be, which are there, building those that are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.inference.cuda import GpuInfo
from siam_tracker_ros.inference.engine_build import BuildOptions, build_engine
from siam_tracker_ros.inference.engine_cache import EngineCache, Entry, safe
from siam_tracker_ros.inference.errors import CacheError, EngineError

PRECISIONS = ("auto", "fp32", "fp16", "int8")

_GRAPHS = ("template", "search")
_TIMING = "timing"


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is. ``fraction``: of this graph, in [0, 1]; None where TensorRT says nothing."""

    graph: str
    phase: str
    fraction: float | None
    seconds: float

    def __str__(self) -> str:
        share = "" if self.fraction is None else f" {100 * self.fraction:.0f} %"
        return f"building the engine of {self.graph}:{share} {self.phase} ({self.seconds:.0f} s)"


def choose_precision(bundle: Bundle, precision: str = "auto") -> str:
    """Return the precision that a bundle's engines have: auto takes fp16 where the bundle has it.

    Raises:
        EngineError: if there is no such precision, or the bundle does not have it.
    """
    if precision not in PRECISIONS:
        raise EngineError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "fp16" if "fp16" in bundle.precisions else "fp32"
    if precision != "fp32" and precision not in bundle.precisions:
        there = ", ".join(("fp32", *sorted(bundle.precisions)))
        raise EngineError(
            f"{bundle.name} has no {precision} graphs (it has: {there}); siam-tracker "
            f"add-precision --model {bundle.path} --precision {precision} makes them"
        )
    return precision


def graph_file(bundle: Bundle, graph: str, precision: str) -> str:
    """Return the file of a graph in a precision that the bundle has."""
    if precision == "fp32":
        return bundle.graphs[graph].file
    return bundle.precisions[precision][graph]


def entry_of(bundle: Bundle, graph: str, options: BuildOptions, trt: Any, gpu: GpuInfo) -> Entry:
    """Return what a graph's engine is called here and what it must have been built from and for.

    The graph's checksum counts, not the bundle's: new thresholds need no new engine.
    """
    file = graph_file(bundle, graph, options.precision)
    return Entry(
        family=".".join(
            safe(part) for part in (bundle.name, graph, options.precision, gpu.identity.name)
        ),
        fingerprint={
            "graph_sha256": bundle.files[file].sha256,
            "tensorrt": str(trt.__version__),
            "gpu": gpu.identity.to_json(),
            "builder": options.to_json(trt),
        },
    )


def timing_entry(trt: Any, gpu: GpuInfo) -> Entry:
    """Return the entry of the builder's measurements, shared by all graphs on this GPU."""
    return Entry(
        family=f"{_TIMING}.{safe(gpu.identity.name)}",
        fingerprint={"tensorrt": str(trt.__version__), "gpu": gpu.identity.to_json()},
    )


def find_engines(
    bundle: Bundle, options: BuildOptions, cache: EngineCache, trt: Any, gpu: GpuInfo
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the engines that are there and may be used, and for the others why not; by graph."""
    engines: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    for graph in _GRAPHS:
        found = cache.load(entry_of(bundle, graph, options, trt, gpu))
        if found.data is None:
            missing[graph] = found.reason
        else:
            engines[graph] = found.data
    return engines, missing


def discard_engines(
    bundle: Bundle, options: BuildOptions, cache: EngineCache, trt: Any, gpu: GpuInfo
) -> None:
    """Remove a bundle's engines from the cache."""
    for graph in _GRAPHS:
        cache.discard(entry_of(bundle, graph, options, trt, gpu))


def build_engines(
    bundle: Bundle,
    options: BuildOptions,
    cache: EngineCache,
    trt: Any,
    gpu: GpuInfo,
    *,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[str, str, float | None], None] = lambda graph, phase, fraction: None,
    cancelled: Callable[[], bool] = lambda: False,
    build: Callable[..., Any] = build_engine,
) -> Mapping[str, str]:
    """Build what is missing and store it; one process at a time builds a graph, others wait for it.

    Args:
        bundle: a loaded bundle.
        options: how to build.
        cache: where to.
        trt: the module ``tensorrt``.
        gpu: where they will run.
        force: build even what is there.
        say: called with lines for people.
        on_progress: called with graph, phase and fraction (or None), from any thread.
        cancelled: asked now and then.
        build: :func:`build_engine`, or what stands in for it.

    Returns:
        For each graph what was done: "built" or "there".

    Raises:
        EngineError: if a graph cannot be built.
        CacheError: if an engine cannot be stored.
        BundleError: if a graph's file changed since the bundle was loaded.
        BuildCancelledError: if ``cancelled`` answered True.
    """
    done: dict[str, str] = {}
    for graph in _GRAPHS:
        entry = entry_of(bundle, graph, options, trt, gpu)

        def waiting(holder: str, graph: str = graph) -> None:
            say(f"{holder} is building the engine of {graph}: waiting for it")

        with cache.lock(entry, waiting, cancelled):
            # Whoever held the lock may have built it.
            found = cache.load(entry)
            if found.data is not None and not force:
                done[graph] = "there"
                continue
            file = graph_file(bundle, graph, options.precision)
            onnx = bundle.read(file)
            cache.require_space(2 * len(onnx))
            why = "as asked" if found.data is not None else found.reason
            say(f"building the {options.precision} engine of {graph} ({file}): {why}")

            def report(phase: str, fraction: float | None, graph: str = graph) -> None:
                on_progress(graph, phase, fraction)

            built = build(
                trt,
                onnx,
                options,
                name=f"{bundle.name}: {file}",
                timing_cache=cache.load(timing_entry(trt, gpu)).data or b"",
                on_progress=report,
                cancelled=cancelled,
            )
            cache.store(entry, built.plan)
            done[graph] = "built"
        if built.timing_cache:
            timing = timing_entry(trt, gpu)
            try:
                with cache.lock(timing, cancelled=cancelled):
                    cache.store(timing, built.timing_cache)
            except CacheError as error:  # the next build only takes longer
                say(f"the builder's measurements were not kept: {error}")
    return done


def build_options(bundle: Bundle, precision: str) -> BuildOptions:
    """Return the options for a precision of :data:`PRECISIONS`.

    Raises:
        EngineError: see :func:`choose_precision`.
    """
    return BuildOptions(precision=choose_precision(bundle, precision))
