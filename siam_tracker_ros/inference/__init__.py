"""Sessions: a bundle's graphs on ONNX Runtime, with the state they carry from frame to frame."""

from __future__ import annotations

from siam_tracker_ros.inference.errors import BackendError
from siam_tracker_ros.inference.opening import BACKENDS, open_session

__all__ = ["BACKENDS", "BackendError", "open_session"]
