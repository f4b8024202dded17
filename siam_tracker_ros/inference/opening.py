"""Choosing a back end, and saying which one it is and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.inference.building import EngineBuild
from siam_tracker_ros.inference.cuda import GpuInfo, find_gpu
from siam_tracker_ros.inference.engine_build import BuildOptions
from siam_tracker_ros.inference.engine_cache import EngineCache
from siam_tracker_ros.inference.engines import (
    PRECISIONS,
    BuildProgress,
    build_options,
    discard_engines,
    find_engines,
)
from siam_tracker_ros.inference.errors import (
    BackendError,
    BuildCancelledError,
    EngineError,
    EnginesMissingError,
    UnusableEngineError,
)
from siam_tracker_ros.inference.trt_module import import_tensorrt

if TYPE_CHECKING:
    from siam_tracker_ros.inference.bound_session import BoundSession

BACKENDS = ("auto", "onnxruntime", "tensorrt")

Log = Callable[[str], None]
Folder = str | os.PathLike[str] | None


def _say_nothing(_: str) -> None:
    """Log nowhere."""


def open_session(
    bundle: Bundle,
    backend: str = "auto",
    *,
    intra_op_threads: int = 0,
    precision: str = "auto",
    cache_dir: Folder = None,
    force_rebuild: bool = False,
    build: bool = True,
    allow_fallback: bool | None = None,
    on_progress: Callable[[BuildProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    log: Log = _say_nothing,
) -> BoundSession:
    """Open a bundle's graphs on a back end; on TensorRT, build the engines that are not there.

    Building takes minutes. To keep tracking meanwhile, call this with ``build=False``; if it raises
    EnginesMissingError, open the session on ``onnxruntime`` and start an :class:`EngineBuild`.

    Args:
        bundle: a loaded bundle.
        backend: auto (TensorRT if it is importable and there is a GPU, else ONNX Runtime),
            onnxruntime or tensorrt.
        intra_op_threads: ONNX Runtime: threads within one operator on the CPU; 0 = one for each CPU
            this process may use.
        precision: TensorRT: auto (fp16 where the bundle has it, else fp32), fp32, fp16 or int8.
        cache_dir: TensorRT: where engines are kept; None: the user's cache folder.
        force_rebuild: TensorRT: build even engines that are there.
        build: TensorRT: whether to build what is missing; if not, that is an error.
        allow_fallback: whether to run on ONNX Runtime where TensorRT does not work; None: only with
            backend auto (which takes ONNX Runtime where there is no TensorRT in any case). The
            session's ``fallback`` then says why.
        on_progress: called while engines are built, from another thread; None: ``log`` gets a line
            now and then.
        cancelled: asked while engines are built; True cancels that.
        log: called with lines for people; the last says what runs and why. While engines are built
            it is called from another thread too.

    Returns:
        A session (tracking's ``StatefulSession``); close it when done.

    Raises:
        BackendError: if the back end is unknown, not there, or does not fit the bundle.
        BuildCancelledError: if ``cancelled`` answered True; there is no fallback from that.
        EnginesMissingError: if engines would have to be built and ``build`` is False; saying why,
            and no fallback either.
        BundleError: if a graph's file changed since the bundle was loaded.
    """
    _check_choices(backend, precision)
    if backend == "onnxruntime":
        return _open_onnx(bundle, intra_op_threads, log, "backend onnxruntime: as asked")
    may_fall_back = backend == "auto" if allow_fallback is None else allow_fallback
    try:
        trt, gpu = find_tensorrt()
    except BackendError as error:
        if backend != "auto" and not may_fall_back:
            raise BackendError(
                f"backend tensorrt: {error}; backend auto or onnxruntime runs without it"
            ) from error
        return _open_onnx(
            bundle,
            intra_op_threads,
            log,
            f"backend {backend}: {error}",
            # auto asked for what is there: that is no fallback
            fallback=None if backend == "auto" else str(error),
        )
    reporter = on_progress or log_now_and_then(log)

    def built(force: bool, options: BuildOptions, why: str) -> None:
        if not build:
            raise EnginesMissingError(f"{bundle.name}: engines have to be built: {why}")
        log(f"{bundle.name}: building TensorRT engines ({options.precision}), once: {why}")
        EngineBuild(
            bundle,
            options.precision,
            cache_dir=cache_dir,
            force=force,
            on_progress=reporter,
            say=log,
        ).wait(cancelled)

    try:
        session, origin = _open_tensorrt(
            bundle, precision, cache_dir, force_rebuild, trt, gpu, built, log
        )
    except (BuildCancelledError, EnginesMissingError):
        raise
    except BackendError as error:
        if not may_fall_back:
            raise
        log(f"TensorRT cannot be used: {error}")
        return _open_onnx(
            bundle,
            intra_op_threads,
            log,
            f"backend {backend}: TensorRT cannot be used",
            fallback=str(error),
        )
    why = "as asked" if backend == "tensorrt" else "there is a GPU"
    log(f"{bundle.name} on {session.description}, {origin} (backend {backend}: {why})")
    return session


def find_tensorrt() -> tuple[Any, GpuInfo]:
    """Return the module ``tensorrt`` and the GPU.

    The driver is asked first: without one, creating a runtime of TensorRT 8.6 ends the process.

    Raises:
        BackendError: saying what is missing.
    """
    gpu = find_gpu()
    return import_tensorrt(), gpu


def _open_tensorrt(
    bundle: Bundle,
    precision: str,
    cache_dir: Folder,
    force: bool,
    trt: Any,
    gpu: GpuInfo,
    build: Callable[[bool, BuildOptions, str], None],
    log: Log,
) -> tuple[BoundSession, str]:
    """Return a session, and where its engines come from.

    ``build`` gets whether to build what is there too, the options, and why; it returns when the
    engines are in the cache, or raises.
    """
    from siam_tracker_ros.inference.tensorrt_session import TensorRTSession

    options = build_options(bundle, precision)
    cache = EngineCache(cache_dir)
    origin = "engines from the cache"
    # An engine may be right by its fingerprint and still not load: it is built anew, once.
    for attempt in range(2):
        engines, missing = find_engines(bundle, options, cache, trt, gpu)
        if missing or force:
            build(force, options, "as asked" if force else _reasons(missing))
            origin, force = "engines just built", False
            engines, missing = find_engines(bundle, options, cache, trt, gpu)
            if missing:
                raise EngineError(
                    f"{bundle.name}: engines were built, but cannot be used: {_reasons(missing)}"
                )
        try:
            session = TensorRTSession(
                bundle, engines, precision=options.precision, trt=trt, gpu=gpu, log=log
            )
            return session, origin
        except UnusableEngineError as error:
            if attempt or origin != "engines from the cache":
                raise
            log(f"{error}; the engines are removed from the cache and built again")
            discard_engines(bundle, options, cache, trt, gpu)
    raise AssertionError("the second attempt returns or raises")


def _open_onnx(
    bundle: Bundle, threads: int, log: Log, why: str, fallback: str | None = None
) -> BoundSession:
    try:
        from siam_tracker_ros.inference.onnx_session import OnnxSession
    except ImportError as error:
        raise BackendError(
            f"ONNX Runtime cannot be imported ({error}); install it: pip install onnxruntime "
            "(with an NVIDIA GPU: pip install onnxruntime-gpu)"
        ) from error
    session = OnnxSession(bundle, intra_op_threads=threads, log=log)
    session.fallback = fallback
    log(f"{bundle.name} on {session.description} ({why})")
    return session


def _check_choices(backend: str, precision: str) -> None:
    if backend not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise BackendError(
            f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}"
        )


def _reasons(missing: dict[str, str]) -> str:
    """Say in one line why engines are missing; for both graphs at once where it is the same."""
    if len(set(missing.values())) == 1 and len(missing) > 1:
        return next(iter(missing.values()))
    return "; ".join(f"{graph}: {reason}" for graph, reason in missing.items())


def log_now_and_then(log: Log) -> Callable[[BuildProgress], None]:
    """Return what logs progress at the start, every ten seconds, and with a new graph."""
    said: list[tuple[str, int]] = []

    def report(progress: BuildProgress) -> None:
        now = (progress.graph, int(progress.seconds // 10))
        if said[-1:] != [now]:
            said[:] = [now]
            log(str(progress))

    return report
