"""The driver's functions, called for real: a library in C that has their signatures.

The other tests have a driver in Python, which takes whatever it is given. Here ctypes converts: an
address that is cut to 32 bits, or a number in the place of a pointer, does not pass.
"""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from siam_tracker_ros.inference import CudaError, cuda

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
typedef unsigned long long u64;
typedef struct { void* to; const void* from; size_t size; int set; unsigned char value; } Work;
typedef struct { int capturing; int count; Work work[16]; } Queue;
static Queue stream, graph;
static char context;
static int bound, references, allocations;

static void apply(Work* w) {
    if (w->set) memset(w->to, w->value, w->size); else memcpy(w->to, w->from, w->size);
}
static int enqueue(Work w, Queue* s) {
    if (s != &stream) return 400;
    s->work[s->count++] = w;
    return 0;
}
int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuGetErrorString(int code, const char** text) {
    *text = code == 2 ? "out of memory" : code == 400 ? "invalid resource handle" : 0;
    return 0;
}
int cuDriverGetVersion(int* v) { *v = 11040; return 0; }
int cuDeviceGetCount(int* n) { *n = 1; return 0; }
int cuDeviceGet(int* d, int i) { *d = 40 + i; return 0; }
int cuDeviceGetName(char* s, int n, int d) { strncpy(s, d == 40 ? "Orin" : "?", n); return 0; }
int cuDeviceGetAttribute(int* v, int a, int d) {
    *v = a == 16 ? 16 : a == 18 ? 1 : a == 75 ? 8 : a == 76 ? 7 : -1;
    return d == 40 ? 0 : 101;
}
int cuDeviceTotalMem_v2(size_t* n, int d) { *n = (size_t)16 << 30; return d == 40 ? 0 : 101; }
int cuDevicePrimaryCtxRetain(void** c, int d) { *c = &context; references++; return d == 40 ? 0 : 101; }
int cuDevicePrimaryCtxRelease_v2(int d) { references--; return d == 40 ? 0 : 101; }
int cuCtxSetCurrent(void* c) { bound = c == &context; return bound ? 0 : 201; }
int cuMemGetInfo_v2(size_t* f, size_t* t) { *f = (size_t)5 << 30; *t = (size_t)16 << 30; return 0; }
int cuMemAlloc_v2(u64* p, size_t n) {
    if (n > (size_t)5 << 30) return 2;
    *p = (u64)aligned_alloc(256, (n + 255) / 256 * 256);
    allocations++;
    return bound ? 0 : 201;
}
int cuMemFree_v2(u64 p) { free((void*)p); allocations--; return 0; }
int cuMemHostAlloc(void** p, size_t n, unsigned flags) {
    *p = aligned_alloc(256, (n + 255) / 256 * 256);
    memset(*p, 7, n);
    allocations++;
    return flags == 3 ? 0 : 1;
}
int cuMemHostGetDevicePointer_v2(u64* d, void* p, unsigned flags) { *d = (u64)p; return flags; }
int cuMemFreeHost(void* p) { free(p); allocations--; return 0; }
int cuMemsetD8Async(u64 p, unsigned char v, size_t n, void* s) {
    Work w = {(void*)p, 0, n, 1, v}; return enqueue(w, s);
}
int cuMemcpyHtoDAsync_v2(u64 d, const void* h, size_t n, void* s) {
    Work w = {(void*)d, h, n, 0, 0}; return enqueue(w, s);
}
int cuMemcpyDtoHAsync_v2(void* h, u64 d, size_t n, void* s) {
    Work w = {h, (void*)d, n, 0, 0}; return enqueue(w, s);
}
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t n, void* s) {
    Work w = {(void*)to, (void*)from, n, 0, 0}; return enqueue(w, s);
}
int cuEventCreate(void** e, unsigned flags) {
    *e = calloc(1, sizeof(float));
    allocations++;
    return flags;
}
int cuEventRecord(void* e, void* s) {
    static float now;
    *(float*)e = now += 1.5f;
    return s == &stream ? 0 : 400;
}
int cuEventElapsedTime(float* ms, void* a, void* b) { *ms = *(float*)b - *(float*)a; return 0; }
int cuEventDestroy_v2(void* e) { free(e); allocations--; return 0; }
int cuStreamCreate(void** s, unsigned flags) { *s = &stream; allocations++; return flags == 1 ? 0 : 1; }
int cuStreamSynchronize(void* s) {
    for (int i = 0; i < stream.count; i++) apply(stream.work + i);
    stream.count = 0;
    return s == &stream && !stream.capturing ? 0 : 400;
}
int cuStreamDestroy_v2(void* s) { allocations--; return s == &stream ? 0 : 400; }
int cuStreamBeginCapture_v2(void* s, int mode) {
    stream.capturing = 1;
    return s == &stream && mode == 1 && !stream.count ? 0 : 400;
}
int cuStreamEndCapture(void* s, void** g) {
    graph = stream;
    stream.capturing = stream.count = 0;
    *g = &graph;
    allocations++;
    return s == &stream ? 0 : 400;
}
int INSTANTIATE {
    *x = g;
    allocations++;
    return g == &graph CHECK ? 0 : 400;
}
int cuGraphLaunch(void* x, void* s) {
    if (x != &graph) return 400;
    for (int i = 0; i < graph.count; i++) enqueue(graph.work[i], s);
    return 0;
}
int cuGraphExecDestroy(void* x) { allocations--; return x == &graph ? 0 : 400; }
int cuGraphDestroy(void* g) { allocations--; return g == &graph ? 0 : 400; }
int left(void) { return 100 * references + allocations; }
"""

NEW = ("cuGraphInstantiateWithFlags(void** x, void* g, u64 flags)", "&& !flags")
OLD = (
    "cuGraphInstantiate_v2(void** x, void* g, void** node, char* log, size_t n)",
    "&& !node && !log && !n",
)


@pytest.fixture(params=[OLD, NEW], ids=["CUDA 11.0", "CUDA 11.4"])
def library(request, tmp_path, monkeypatch):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    signature, check = request.param
    source = SOURCE.replace("INSTANTIATE", signature).replace("CHECK", check)
    (tmp_path / "driver.c").write_text(source)
    path = tmp_path / "libdriver.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", path, tmp_path / "driver.c"],
        check=True,
    )
    monkeypatch.setattr(cuda, "LIBRARIES", (str(path),))
    cuda.load_library.cache_clear()
    yield cuda.load_library()
    cuda.load_library.cache_clear()


def test_a_gpu_is_described(library):
    gpu = cuda.find_gpu()
    assert gpu.identity == cuda.GpuIdentity("Orin", "8.7", 16)
    assert (gpu.handle, gpu.integrated, gpu.total_bytes) == (40, True, 16 << 30)
    assert gpu.driver_cuda == "11.4"


def test_copies_there_and_back(library):
    context = cuda.Context(cuda.find_gpu())
    stream = context.stream()
    source, _ = context.host_memory(1000)
    target, mapped = context.host_memory(1000)
    assert not source.any() and mapped == target.ctypes.data
    memory = context.memory(1000)
    assert memory % cuda.ALIGNMENT == 0
    source[:] = np.arange(1000) % 251
    stream.upload(memory, source)
    stream.clear(memory + 10, 20)
    stream.download(target, memory)
    assert not target.any()
    stream.synchronize()
    wanted = source.copy()
    wanted[10:30] = 0
    np.testing.assert_array_equal(target, wanted)
    assert context.free_bytes() == 5 << 30
    context.close()
    assert library.left() == 0


def test_a_graph_repeats_what_was_captured(library):
    context = cuda.Context(cuda.find_gpu())
    stream = context.stream()
    source, _ = context.host_memory(64)
    target, _ = context.host_memory(64)
    memory = context.memory(64)

    def work():
        stream.upload(memory, source)
        stream.download(target, memory)

    graph = context.capture(stream, work)
    assert not target.any()
    for value in (3, 9):
        source[:] = value
        graph.launch()
        stream.synchronize()
        assert (target == value).all()
    context.close()
    assert library.left() == 0


def test_copies_within_the_gpu_and_the_time_between_two_marks(library):
    context = cuda.Context(cuda.find_gpu())
    stream = context.stream()
    source, _ = context.host_memory(64)
    target, _ = context.host_memory(64)
    one, other = context.memory(64), context.memory(64)
    source[:] = 5
    marks = [context.event(), context.event()]
    marks[0].record(stream)
    stream.upload(one, source)
    stream.copy(other, one, 64)
    stream.download(target, other)
    marks[1].record(stream)
    stream.synchronize()
    assert (target == 5).all()
    assert marks[1].milliseconds_since(marks[0]) == 1.5
    for mark in marks:
        mark.close()
    context.close()
    assert library.left() == 0


def test_a_recording_is_given_to_who_asks_and_then_given_back(library):
    context = cuda.Context(cuda.find_gpu())
    stream = context.stream()
    handle = context.record(stream, lambda: None, lambda graph: graph)
    assert isinstance(handle, int) and handle > 1 << 32
    with pytest.raises(KeyError):
        context.record(stream, lambda: None, {}.__getitem__)
    context.close()
    assert library.left() == 0


def test_a_capture_that_fails_leaves_the_stream_usable(library):
    context = cuda.Context(cuda.find_gpu())
    stream = context.stream()
    source, _ = context.host_memory(8)

    def work():
        stream.upload(context.memory(8), source)
        raise KeyError("no")

    with pytest.raises(KeyError):
        context.capture(stream, work)
    stream.synchronize()
    context.close()
    assert library.left() == 0


def test_errors_are_in_the_drivers_words(library):
    context = cuda.Context(cuda.find_gpu())
    with pytest.raises(CudaError, match=r"out of GPU memory: 6442\.5 MB wanted, 5120 MiB of 16384"):
        context.memory(6 << 30)
    with pytest.raises(
        CudaError, match=r"invalid resource handle \(cuStreamSynchronize gave 400\)"
    ):
        cuda.Stream(1 << 40).synchronize()
    with pytest.raises(CudaError, match=r"unknown error \(cuDeviceTotalMem_v2 gave 101\)"):
        cuda._ask("cuDeviceTotalMem_v2", cuda.c_size_t, 7)
    context.close()
