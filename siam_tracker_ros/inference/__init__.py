"""Sessions: a bundle's graphs on TensorRT or ONNX Runtime, with the state they carry between frames."""

from __future__ import annotations

from siam_tracker_ros.inference.building import EngineBuild
from siam_tracker_ros.inference.engine_cache import default_folder as default_engine_folder
from siam_tracker_ros.inference.engines import PRECISIONS, BuildProgress
from siam_tracker_ros.inference.errors import (
    BackendError,
    BuildCancelledError,
    CacheError,
    CudaError,
    EngineError,
)
from siam_tracker_ros.inference.opening import (
    BACKENDS,
    engines_to_build,
    find_tensorrt,
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
    "default_engine_folder",
    "engines_to_build",
    "find_tensorrt",
    "open_session",
]
