"""CUDA through ctypes on the driver library alone: no toolkit, no package, no compiler.

What is here is what a session needs: one device's primary context (the one that TensorRT, PyTorch
and CuPy use too), a stream, memory on both sides, copies, and graphs. The same file serves
JetPack 5 to 7 and desktops with CUDA 11 to 13: the names in ``_SIGNATURES`` have been in every
driver since CUDA 11.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from ctypes import (
    POINTER,
    c_char_p,
    c_float,
    c_int,
    c_size_t,
    c_ubyte,
    c_uint,
    c_uint64,
    c_void_p,
)
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.inference.errors import CudaError

LIBRARIES = ("libcuda.so.1", "libcuda.so")
ALIGNMENT = 256
"""Bytes to which TensorRT wants tensors aligned; every allocation of the driver is."""

_OUT_OF_MEMORY = 2
_SM_COUNT, _INTEGRATED, _CC_MAJOR, _CC_MINOR = 16, 18, 75, 76
_NON_BLOCKING = 1
_PORTABLE, _MAPPED = 1, 2
_CAPTURE_THREAD_LOCAL = 1

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemsetD8Async": (c_uint64, c_ubyte, c_size_t, c_void_p),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemHostGetDevicePointer_v2": (POINTER(c_uint64), c_void_p, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_uint64, c_uint64, c_size_t, c_void_p),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphInstantiate_v2": (POINTER(c_void_p), c_void_p, POINTER(c_void_p), c_char_p, c_size_t),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}
_NOT_EVERYWHERE = ("cuGraphInstantiateWithFlags", "cuGraphInstantiate_v2")

T = TypeVar("T")


@functools.lru_cache(maxsize=1)
def load_library() -> Any:
    """Return the driver's library with its functions' types set.

    Raises:
        CudaError: if there is none, or it is too old.
    """
    library = None
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            break
        except OSError:
            continue
    if library is None:
        raise CudaError(f"no NVIDIA driver on this machine ({LIBRARIES[0]} is not there)")
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name, None)
        if function is not None:
            function.argtypes, function.restype = arguments, c_int
        elif name not in _NOT_EVERYWHERE:
            raise CudaError(f"the NVIDIA driver is too old: it has no {name} (CUDA 11 is needed)")
    return library


def call(name: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        CudaError: if it answers anything but success.
    """
    library = load_library()
    code = getattr(library, name)(*arguments)
    if code:
        text = c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        said = (text.value or b"unknown error").decode(errors="replace")
        raise CudaError(f"CUDA: {said} ({name} gave {code})", code)


def _ask(name: str, kind: Any, *arguments: Any) -> Any:
    """Call a function that writes one value to its first argument; return that value."""
    value = kind()
    call(name, ctypes.byref(value), *arguments)
    return value.value


@dataclass(frozen=True)
class GpuIdentity:
    """What an engine is tied to, of the GPU that it was built on."""

    name: str
    compute_capability: str
    multiprocessors: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class GpuInfo:
    """A GPU as the driver describes it, asked without making a context."""

    index: int
    handle: int
    identity: GpuIdentity
    total_bytes: int
    integrated: bool
    driver_cuda: str


def find_gpu(index: int = 0) -> GpuInfo:
    """Ask the driver for a GPU.

    Raises:
        CudaError: if there is no driver or no such GPU.
    """
    call("cuInit", 0)
    count = _ask("cuDeviceGetCount", c_int)
    if index >= count:
        raise CudaError(f"GPU {index} is not there: the driver sees {count}")
    handle = _ask("cuDeviceGet", c_int, index)
    name = ctypes.create_string_buffer(256)
    call("cuDeviceGetName", name, 256, handle)

    def attribute(number: int) -> int:
        return int(_ask("cuDeviceGetAttribute", c_int, number, handle))

    version = _ask("cuDriverGetVersion", c_int)
    return GpuInfo(
        index=index,
        handle=handle,
        identity=GpuIdentity(
            name=name.value.decode(errors="replace"),
            compute_capability=f"{attribute(_CC_MAJOR)}.{attribute(_CC_MINOR)}",
            multiprocessors=attribute(_SM_COUNT),
        ),
        total_bytes=_ask("cuDeviceTotalMem_v2", c_size_t, handle),
        integrated=bool(attribute(_INTEGRATED)),
        driver_cuda=f"{version // 1000}.{version % 1000 // 10}",
    )


class Context:
    """A GPU's primary context: held until :meth:`close`, which frees everything made with it.

    Raises:
        CudaError: if the GPU cannot be used (every method too).
    """

    def __init__(self, gpu: GpuInfo) -> None:
        self.gpu = gpu
        self._owned: list[Callable[[], None]] = []
        self._handle = _ask("cuDevicePrimaryCtxRetain", c_void_p, gpu.handle)
        try:
            self.bind()
        except CudaError:
            call("cuDevicePrimaryCtxRelease_v2", gpu.handle)
            raise

    def bind(self) -> None:
        """Make the calling thread use this context."""
        call("cuCtxSetCurrent", self._handle)

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory is free."""
        free, total = c_size_t(), c_size_t()
        call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def memory(self, size: int) -> int:
        """Allocate ``size`` bytes on the GPU; return their address."""
        try:
            address = int(_ask("cuMemAlloc_v2", c_uint64, max(size, 1)))
        except CudaError as error:
            raise self._explained(error, size) from error
        self._owned.append(lambda: call("cuMemFree_v2", address))
        return address

    def host_memory(self, size: int) -> tuple[npt.NDArray[np.uint8], int]:
        """Allocate page-locked host memory that the GPU can address too.

        Returns:
            ``uint8 [size]`` zeros, and the GPU's address of the same bytes. On a GPU with memory of
            its own the address reaches over the bus: copy instead.
        """
        try:
            pointer = int(_ask("cuMemHostAlloc", c_void_p, max(size, 1), _PORTABLE | _MAPPED))
        except CudaError as error:
            raise self._explained(error, size) from error
        self._owned.append(lambda: call("cuMemFreeHost", pointer))
        address = int(_ask("cuMemHostGetDevicePointer_v2", c_uint64, pointer, 0))
        array = np.frombuffer((c_ubyte * max(size, 1)).from_address(pointer), dtype=np.uint8)[:size]
        array[:] = 0
        return array, address

    def stream(self) -> Stream:
        """Make a stream that does not wait for the default stream."""
        stream = Stream(_ask("cuStreamCreate", c_void_p, _NON_BLOCKING))
        self._owned.append(lambda: call("cuStreamDestroy_v2", stream.handle))
        return stream

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        """Record what ``enqueue`` puts on the stream; nothing of it runs.

        Raises:
            CudaError: if it cannot be captured; the stream can be used as before.
            Exception: what ``enqueue`` raises.
        """

        def instantiate(recorded: int) -> int:
            if hasattr(load_library(), "cuGraphInstantiateWithFlags"):
                return int(_ask("cuGraphInstantiateWithFlags", c_void_p, recorded, 0))
            return int(_ask("cuGraphInstantiate_v2", c_void_p, recorded, None, None, 0))

        handle = self.record(stream, enqueue, instantiate)
        self._owned.append(lambda: call("cuGraphExecDestroy", handle))
        return Graph(handle, stream)

    def record(self, stream: Stream, enqueue: Callable[[], None], use: Callable[[int], T]) -> T:
        """Record what ``enqueue`` puts on the stream; return what ``use`` makes of the CUgraph.

        Raises:
            CudaError, Exception: see :meth:`capture`; what ``use`` raises.
        """
        call("cuStreamBeginCapture_v2", stream.handle, _CAPTURE_THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            # The stream stays in capture mode until this is called, whatever it answers.
            recorded = c_void_p()
            load_library().cuStreamEndCapture(stream.handle, ctypes.byref(recorded))
            if recorded.value:
                call("cuGraphDestroy", recorded.value)
            raise
        handle = _end_capture(stream.handle)
        try:
            return use(handle)
        finally:
            call("cuGraphDestroy", handle)

    def event(self) -> Event:
        """Make a mark for a stream that knows its time; close it when done."""
        return Event(_ask("cuEventCreate", c_void_p, 0))

    def close(self) -> None:
        """Free everything, newest first, and release the context. A second call does nothing."""
        if self._handle is None:
            return
        owned, self._owned = self._owned, []
        try:
            self.bind()
            for free in reversed(owned):
                free()
        except CudaError:
            # After a failure of the GPU itself every call fails; there is nothing left to free.
            pass
        finally:
            self._handle = None
            load_library().cuDevicePrimaryCtxRelease_v2(self.gpu.handle)

    def _explained(self, error: CudaError, size: int) -> CudaError:
        if error.code != _OUT_OF_MEMORY:
            return error
        try:
            free = f"{self.free_bytes() >> 20} MiB"
        except CudaError:
            free = "too little"
        return CudaError(
            f"out of GPU memory: {size / 1e6:.1f} MB wanted, {free} of "
            f"{self.gpu.total_bytes >> 20} MiB free on {self.gpu.identity.name}",
            error.code,
        )


class Stream:
    """A queue of work on the GPU."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def upload(self, address: int, source: npt.NDArray[np.uint8]) -> None:
        """Queue a copy from page-locked host memory."""
        call("cuMemcpyHtoDAsync_v2", address, source.ctypes.data, source.nbytes, self.handle)

    def download(self, target: npt.NDArray[np.uint8], address: int) -> None:
        """Queue a copy to page-locked host memory."""
        call("cuMemcpyDtoHAsync_v2", target.ctypes.data, address, target.nbytes, self.handle)

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy from GPU memory to GPU memory."""
        call("cuMemcpyDtoDAsync_v2", target, source, size, self.handle)

    def clear(self, address: int, size: int) -> None:
        """Queue filling memory with zeros."""
        call("cuMemsetD8Async", address, 0, size, self.handle)

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        call("cuStreamSynchronize", self.handle)


class Event:
    """A mark in a stream, with the time at which the GPU came to it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def record(self, stream: Stream) -> None:
        """Put the mark behind what is queued on the stream."""
        call("cuEventRecord", self._handle, stream.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Return the GPU's time between two marks; both streams must have been synchronised."""
        return float(_ask("cuEventElapsedTime", c_float, earlier._handle, self._handle))

    def close(self) -> None:
        """Give the mark back."""
        call("cuEventDestroy_v2", self._handle)


class Graph:
    """Captured work, replayed with one call."""

    def __init__(self, handle: int, stream: Stream) -> None:
        self._handle, self._stream = handle, stream

    def launch(self) -> None:
        """Queue the captured work."""
        call("cuGraphLaunch", self._handle, self._stream.handle)


def _end_capture(stream: int) -> int:
    """End a capture; return the recorded graph."""
    recorded = c_void_p()
    call("cuStreamEndCapture", stream, ctypes.byref(recorded))
    if not recorded.value:
        raise CudaError("CUDA: the capture was invalidated")
    return recorded.value
