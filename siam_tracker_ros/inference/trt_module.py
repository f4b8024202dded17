"""TensorRT's Python module: imported only when asked for, and what its versions call things."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from siam_tracker_ros.inference.errors import EngineError

INSTALL = "on a Jetson it comes with JetPack (python3-libnvinfer); else: pip install tensorrt"

_NUMPY_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
_ERROR = 1
_KEPT_ERRORS = 20


def import_tensorrt() -> Any:
    """Return the module ``tensorrt``.

    Raises:
        EngineError: if it is not there, or older than what is written here fits.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise EngineError(f"TensorRT cannot be imported ({error}); {INSTALL}") from error
    version = getattr(trt, "__version__", "")
    context = getattr(trt, "IExecutionContext", None)
    if not version or not hasattr(context, "execute_async_v3"):
        raise EngineError(f"TensorRT {version or 'without a version'} is too old: 8.6 is needed")
    return trt


def short_version(trt: Any) -> str:
    """Return major.minor."""
    return ".".join(str(trt.__version__).split(".")[:2])


def make_logger(trt: Any, say: Callable[[str], None] = lambda _: None) -> Any:
    """Return a logger whose ``errors`` are the last that TensorRT reported; ``say`` gets them too.

    The logger must live as long as anything that was made with it.
    """

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from any of its threads."""
            if int(severity) <= _ERROR:
                self.errors.append(message)
                del self.errors[:-_KEPT_ERRORS]
                say(message)

    return Logger()


def last_errors(logger: Any, none: str = "no reason given") -> str:
    """Return the newest errors as one line."""
    lines = [" ".join(str(message).split())[:300] for message in logger.errors[-3:]]
    return "; ".join(lines) or none


def is_out_of_memory(text: str) -> bool:
    """Whether TensorRT's words are about memory that ran out."""
    plain = text.lower().replace("_", "").replace(" ", "")
    return "outofmemory" in plain or "cudaerrormemoryallocation" in plain


def dtype_name(dtype: Any) -> str:
    """Return NumPy's name of a ``tensorrt.DataType`` (TensorRT's own where NumPy has none)."""
    name = getattr(dtype, "name", str(dtype))
    return _NUMPY_NAMES.get(name, name)


def members(enum: Any, *names: str) -> list[Any]:
    """Return those members of an enumeration that this version has."""
    return [getattr(enum, name) for name in names if hasattr(enum, name)]


def bits(values: list[Any]) -> int:
    """Return the bit mask of enumeration members."""
    mask = 0
    for value in values:
        mask |= 1 << int(value)
    return mask
