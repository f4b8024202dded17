"""What goes wrong with a back end."""

from __future__ import annotations


class BackendError(RuntimeError):
    """A back end that is not there, does not fit the bundle, or failed."""


class CudaError(BackendError):
    """A call of the CUDA driver failed, or there is no driver. ``code``: its CUresult, else 0."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class CacheError(BackendError):
    """The engine cache cannot be used: others can write there, no permission, no space."""


class EngineError(BackendError):
    """A TensorRT engine cannot be built, loaded or run."""


class UnusableEngineError(EngineError):
    """A serialised engine that does not load, or is another graph's: it must be built anew."""


class BuildCancelledError(EngineError):
    """An engine's build was cancelled."""


class EnginesMissingError(EngineError):
    """Engines that are not in the cache, or not as they must be, and that were not to be built."""
