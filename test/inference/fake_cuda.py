"""A CUDA driver in Python: the functions of libcuda that ``inference/cuda.py`` calls.

What makes it worth testing against: device memory has addresses that the host cannot read; nothing
that is queued on a stream happens before the stream is synchronised; captured work happens only
when its graph is launched; memory runs out; freed memory is not there any more; every call is
counted and may be made to fail.
"""

# ruff: noqa: N802 (the names are the driver's)

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

OUT_OF_MEMORY, NOT_SUPPORTED, ILLEGAL_ADDRESS = 2, 801, 700
TEXTS = {
    2: b"out of memory",
    700: b"an illegal memory access was encountered",
    801: b"not supported",
}
FIRST_ADDRESS = 0x7F0000000000


@dataclass
class FakeStream:
    queue: list[Callable[[], None]] = field(default_factory=list)
    capturing: list[Callable[[], None]] | None = None


class FakeCuda:
    """Stands in for the loaded library; hand it out from ``cuda.load_library``."""

    def __init__(self, *, integrated=False, name="Fake GPU 9000", memory=1 << 30, gpus=1):
        self.integrated, self.name, self.total, self.gpus = integrated, name, memory, gpus
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, int] = {}  # function -> code it answers
        self.initialised = False
        self.contexts = 0
        self.bound = None
        self.used = 0
        self._next = FIRST_ADDRESS
        self.device: dict[int, np.ndarray] = {}  # address -> bytes
        self.host: dict[int, tuple[object, int]] = {}  # pointer -> (buffer, device address)
        self.streams: dict[int, FakeStream] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, float | None] = {}
        self.nodes: dict[int, tuple[str, int]] = {}
        self.execs: dict[int, list[Callable[[], None]]] = {}
        self.copies: list[tuple[str, int]] = []  # ("in" or "out", bytes), as they happen

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)
        function = object.__getattribute__(self, "_" + name)

        def counted(*arguments):
            self.calls[name] += 1
            if name in self.fail:
                return self.fail[name]
            if name not in ("cuInit", "cuGetErrorString"):
                assert self.initialised, f"{name} before cuInit"
            return function(*arguments) or 0

        return counted

    # -- what the fake TensorRT uses ---------------------------------------------------------------

    def enqueue(self, stream, work):
        target = self.streams[stream]
        (target.queue if target.capturing is None else target.capturing).append(work)

    def view(self, address, size):
        """The bytes at a device address; whatever else is asked for is a bug of the caller."""
        for base, array in self.device.items():
            if base <= address and address + size <= base + array.size:
                return array[address - base : address - base + size]
        raise AssertionError(f"no {size} bytes of device memory at {address:#x}")

    # -- driver ------------------------------------------------------------------------------------

    def _cuInit(self, flags):
        self.initialised = True

    def _cuGetErrorString(self, code, text):
        text._obj.value = TEXTS.get(code, b"unknown error")

    def _cuDriverGetVersion(self, version):
        version._obj.value = 12080

    def _cuDeviceGetCount(self, count):
        count._obj.value = self.gpus

    def _cuDeviceGet(self, device, index):
        device._obj.value = index

    def _cuDeviceGetName(self, text, size, device):
        text.value = self.name.encode()[: size - 1]

    def _cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {16: 132, 18: int(self.integrated), 75: 9, 76: 0}[attribute]

    def _cuDeviceTotalMem_v2(self, size, device):
        size._obj.value = self.total

    def _cuDevicePrimaryCtxRetain(self, context, device):
        self.contexts += 1
        context._obj.value = 0xC0DE

    def _cuDevicePrimaryCtxRelease_v2(self, device):
        self.contexts -= 1

    def _cuCtxSetCurrent(self, context):
        self.bound = context

    def _cuMemGetInfo_v2(self, free, total):
        free._obj.value, total._obj.value = self.total - self.used, self.total

    def _place(self, array):
        address = self._next
        self._next += (array.size + 4095) // 4096 * 4096
        self.device[address] = array
        return address

    def _cuMemAlloc_v2(self, address, size):
        if self.used + size > self.total:
            return OUT_OF_MEMORY
        self.used += size
        # What was in memory before is still there: 0xFF makes a NaN of a float that is not written.
        address._obj.value = self._place(np.full(size, 0xFF, dtype=np.uint8))

    def _cuMemFree_v2(self, address):
        self.used -= self.device.pop(address).size

    def _cuMemsetD8Async(self, address, value, size, stream):
        self.enqueue(stream, lambda: self.view(address, size).fill(value))

    def _cuMemHostAlloc(self, pointer, size, flags):
        buffer = (ctypes.c_ubyte * size)()
        where = ctypes.addressof(buffer)
        mapped = self._place(np.frombuffer(buffer, dtype=np.uint8))
        self.host[where] = (buffer, mapped)
        pointer._obj.value = where

    def _cuMemHostGetDevicePointer_v2(self, address, pointer, flags):
        address._obj.value = self.host[pointer][1]

    def _cuMemFreeHost(self, pointer):
        _, mapped = self.host.pop(pointer)
        del self.device[mapped]

    def _pinned(self, pointer, size):
        for where, (buffer, _) in self.host.items():
            if where <= pointer and pointer + size <= where + len(buffer):
                return np.frombuffer(buffer, dtype=np.uint8)[pointer - where :][:size]
        raise AssertionError(f"{pointer:#x} is not page-locked")

    def _cuMemcpyHtoDAsync_v2(self, address, pointer, size, stream):
        def copy():
            self.view(address, size)[:] = self._pinned(pointer, size)
            self.copies.append(("in", size))

        copy.node = ("in", size)
        self.enqueue(stream, copy)

    def _cuMemcpyDtoHAsync_v2(self, pointer, address, size, stream):
        def copy():
            self._pinned(pointer, size)[:] = self.view(address, size)
            self.copies.append(("out", size))

        copy.node = ("out", size)
        self.enqueue(stream, copy)

    def _cuMemcpyDtoDAsync_v2(self, target, source, size, stream):
        def copy():
            self.view(target, size)[:] = self.view(source, size)

        self.enqueue(stream, copy)

    def _cuEventCreate(self, event, flags):
        event._obj.value = 0xE000 + self.calls["cuEventCreate"]
        self.events[event._obj.value] = None

    def _cuEventRecord(self, event, stream):
        def mark():
            self.events[event] = time.perf_counter()

        self.enqueue(stream, mark)

    def _cuEventElapsedTime(self, milliseconds, first, second):
        milliseconds._obj.value = 1000 * (self.events[second] - self.events[first])

    def _cuEventDestroy_v2(self, event):
        del self.events[event]

    def _cuGraphGetNodes(self, graph, nodes, count):
        copies = [work for work in self.graphs[graph.value] if hasattr(work, "node")]
        if nodes is not None:
            for index, work in enumerate(copies):
                self.nodes[0xD000 + index] = work.node
                nodes[index] = 0xD000 + index
        count._obj.value = len(copies)

    def _cuGraphNodeGetType(self, node, kind):
        kind._obj.value = 1

    def _cuGraphMemcpyNodeGetParams(self, node, parameters):
        direction, size = self.nodes[node.value]
        made = parameters._obj
        host, device = 1, 2
        made.source_kind, made.target_kind = (host, device) if direction == "in" else (device, host)
        made.width, made.height, made.depth = size, 1, 1

    def _cuStreamCreate(self, stream, flags):
        handle = 0x51 + len(self.streams)
        self.streams[handle] = FakeStream()
        stream._obj.value = handle

    def _cuStreamSynchronize(self, stream):
        target = self.streams[stream]
        assert target.capturing is None, "synchronised while capturing"
        work, target.queue = target.queue, []
        for item in work:
            item()

    def _cuStreamDestroy_v2(self, stream):
        del self.streams[stream]

    def _cuStreamBeginCapture_v2(self, stream, mode):
        assert self.streams[stream].capturing is None
        self.streams[stream].capturing = []

    def _cuStreamEndCapture(self, stream, graph):
        target = self.streams[stream]
        handle = 0x6000 + self.calls["cuStreamEndCapture"]
        self.graphs[handle], target.capturing = target.capturing, None
        graph._obj.value = handle

    def _cuGraphInstantiateWithFlags(self, handle, graph, flags):
        handle._obj.value = graph + 0x1000
        self.execs[graph + 0x1000] = self.graphs[graph]

    def _cuGraphLaunch(self, handle, stream):
        for work in self.execs[handle]:
            self.enqueue(stream, work)

    def _cuGraphExecDestroy(self, handle):
        del self.execs[handle]

    def _cuGraphDestroy(self, graph):
        del self.graphs[graph]
