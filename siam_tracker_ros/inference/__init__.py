"""Sessions: a bundle's graphs on TensorRT or ONNX Runtime, with the state they carry between frames."""

from __future__ import annotations

from siam_tracker_ros.inference.building import EngineBuild
from siam_tracker_ros.inference.engine_cache import default_folder as default_engine_folder
from siam_tracker_ros.inference.engines import PRECISIONS, BuildProgress, choose_precision
from siam_tracker_ros.inference.errors import (
    BackendError,
    BuildCancelledError,
    CacheError,
    CudaError,
    EngineError,
    EnginesMissingError,
)
from siam_tracker_ros.inference.opening import (
    BACKENDS,
    find_tensorrt,
    log_now_and_then,
    open_session,
)

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "BackendError",
    "BuildCancelledError",
    "BuildProgress",
    "CacheError",
    "CudaError",
    "EngineBuild",
    "EngineError",
    "EnginesMissingError",
    "choose_precision",
    "default_engine_folder",
    "find_tensorrt",
    "log_now_and_then",
    "open_session",
]
