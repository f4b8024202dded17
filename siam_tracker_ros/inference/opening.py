"""Choosing a back end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.inference.errors import BackendError

if TYPE_CHECKING:
    from siam_tracker_ros.inference.onnx_session import OnnxSession

BACKENDS = ("auto", "onnxruntime", "tensorrt")


def _say_nothing(_: str) -> None:
    """Log nowhere."""


def open_session(
    bundle: Bundle,
    backend: str = "auto",
    *,
    intra_op_threads: int = 0,
    log: Callable[[str], None] = _say_nothing,
) -> OnnxSession:
    """Open a bundle's graphs on a back end.

    Args:
        bundle: a loaded bundle.
        backend: auto, onnxruntime or tensorrt.
        intra_op_threads: threads within one operator on the CPU; 0 = one for each CPU this process
            may use.
        log: called with one line for people, saying what runs and why.

    Returns:
        A session (tracking's ``StatefulSession``); close it when done.

    Raises:
        BackendError: if the back end is unknown, not there, or does not fit the bundle.
        BundleError: if a graph's file changed since the bundle was loaded.
    """
    if backend not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if backend == "tensorrt":
        raise BackendError(
            "backend tensorrt: this version of siam_tracker_ros has no TensorRT sessions; "
            "use backend onnxruntime (or auto): on the CPU and, with onnxruntime-gpu, on CUDA"
        )
    try:
        from siam_tracker_ros.inference.onnx_session import OnnxSession
    except ImportError as error:
        raise BackendError(
            f"ONNX Runtime cannot be imported ({error}); install it: pip install onnxruntime "
            "(with an NVIDIA GPU: pip install onnxruntime-gpu)"
        ) from error
    session = OnnxSession(bundle, intra_op_threads=intra_op_threads, log=log)
    why = "as asked" if backend == "onnxruntime" else "this version has no TensorRT sessions"
    log(f"{bundle.name} on {session.description} (backend {backend}: {why})")
    return session
