"""The Python module of TensorRT 8.6, 10.3 and 11.4, over ONNX Runtime and a fake CUDA driver.

Each version has exactly the names that the real bindings have, of those that concern us (taken by
introspection of the real bindings; test_engine_build.py checks them where those are installed): what
uses a name that a version lacks fails here too. An engine holds its ONNX graph and computes with
ONNX Runtime, on what lies at the addresses it was given, when the stream gets to it.
"""

from __future__ import annotations

import enum
import json
import os
import signal
import time
import types
from dataclasses import dataclass, field

import numpy as np

VERSIONS = ("8.6.1", "10.3.0", "11.4.0")

# name -> in 8.6, 10.3, 11.4 (the tool's API matrix)
MATRIX = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": (1, 1, 0),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": (0, 1, 1),
    "BuilderFlag.FP16": (1, 1, 0),
    "BuilderFlag.INT8": (1, 1, 0),
    "BuilderFlag.TF32": (1, 1, 1),
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": (1, 1, 0),
    "TacticSource.CUBLAS": (1, 1, 0),
    "TacticSource.CUBLAS_LT": (1, 1, 0),
    "TacticSource.CUDNN": (1, 1, 0),
    "TacticSource.EDGE_MASK_CONVOLUTIONS": (1, 1, 1),
    "TacticSource.JIT_CONVOLUTIONS": (1, 1, 1),
    "PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805": (1, 0, 0),
    "PreviewFeature.PROFILE_SHARING_0806": (1, 1, 0),
    "MemoryPoolType.WORKSPACE": (1, 1, 1),
    "DataType.FLOAT": (1, 1, 1),
    "DataType.HALF": (1, 1, 1),
    "DataType.INT8": (1, 1, 1),
    "DataType.INT32": (1, 1, 1),
    "DataType.BOOL": (1, 1, 1),
    "DataType.UINT8": (1, 1, 1),
    "DataType.INT64": (0, 1, 1),
    "TensorIOMode.NONE": (1, 1, 1),
    "TensorIOMode.INPUT": (1, 1, 1),
    "TensorIOMode.OUTPUT": (1, 1, 1),
    "LayerType.CONVOLUTION": (1, 1, 1),
    "LayerType.ELEMENTWISE": (1, 1, 1),
    "LayerType.SOFTMAX": (1, 1, 1),
    "LayerType.CONSTANT": (1, 1, 1),
    "LayerType.CAST": (1, 1, 1),
    "LayerType.SHAPE": (1, 1, 1),
    "LayerType.IDENTITY": (1, 1, 1),
    "LayerType.ASSERTION": (1, 1, 1),
    "LayerType.GATHER": (1, 1, 1),
    "IBuilderConfig.progress_monitor": (0, 1, 1),
    "IBuilderConfig.builder_optimization_level": (1, 1, 1),
    "IProgressMonitor": (0, 1, 1),
    "ParserError.node_name": (0, 1, 1),
    "ParserError.node_operator": (0, 1, 1),
    "ILayer.precision": (1, 1, 0),
    "ILayer.set_output_type": (1, 1, 0),
    "IExecutionContext.execute_async_v3": (1, 1, 1),
    "IExecutionContext.set_tensor_address": (1, 1, 1),
    "ICudaEngine.num_io_tensors": (1, 1, 1),
    "Runtime.deserialize_cuda_engine": (1, 1, 1),
    "init_libnvinfer_plugins": (1, 1, 1),
}

_MAGIC = b"FAKE ENGINE "
_NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}
_FROM_ORT = {
    "tensor(float)": "FLOAT",
    "tensor(float16)": "HALF",
    "tensor(uint8)": "UINT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
}


@dataclass
class Behaviour:
    """What goes wrong, and what was seen."""

    build: str = ""  # "", "fail", "out of memory", "crash", "killed"
    parse: list[tuple[str, str, str]] = field(default_factory=list)  # operator, node, text
    load: str = ""  # "", "out of memory"
    context: str = ""  # "", "fail"
    execute: str = ""  # "", "fail", "fail in capture"
    steps: int = 3
    step_seconds: float = 0.0
    layers: list = field(default_factory=list)
    seen: dict = field(default_factory=dict)


@dataclass
class FakeTensor:
    dtype: object


def make_tensorrt(version, cuda=None, behaviour=None):
    """Return a module that looks like ``tensorrt`` of a version of VERSIONS."""
    column = VERSIONS.index(version)
    behaviour = behaviour or Behaviour()
    seen = behaviour.seen
    module = types.ModuleType("tensorrt")
    module.__version__, module.behaviour = version, behaviour

    def has(name):
        return bool(MATRIX[name][column])

    members = {}
    for name in MATRIX:
        kind, _, member = name.partition(".")
        if member.isupper() or member.replace("_", "").isupper():
            members.setdefault(kind, []).append((member, has(name)))
    for kind, names in members.items():
        values = {n: i for i, (n, there) in enumerate(names) if there}
        setattr(module, kind, enum.IntEnum(kind, values))
    strong_mask = (
        1 << module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        if has("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
        else 0
    )

    class ILogger:
        def __init__(self):
            self.ready = True

    def complain(logger, text):
        logger.log(1, text)

    class IHostMemory(bytes):
        @property
        def nbytes(self):
            return len(self)

    class FakeLayer:
        """A layer; 11 has neither ``precision`` nor ``set_output_type``."""

        def __init__(self, kind, inputs, outputs):
            self.type = module.LayerType[kind]
            self._inputs = [FakeTensor(module.DataType[d]) for d in inputs]
            self._outputs = [FakeTensor(module.DataType[d]) for d in outputs]
            self.pinned, self.output_types = None, {}

        num_inputs = property(lambda self: len(self._inputs))
        num_outputs = property(lambda self: len(self._outputs))

        def get_input(self, index):
            return self._inputs[index]

        def get_output(self, index):
            return self._outputs[index]

        if has("ILayer.precision"):

            @property
            def precision(self):
                return self.pinned

            @precision.setter
            def precision(self, value):
                assert isinstance(value, module.DataType)
                self.pinned = value

            def set_output_type(self, index, dtype):
                assert isinstance(dtype, module.DataType)
                self.output_types[index] = dtype

    class Network:
        def __init__(self, flags):
            self.flags, self.onnx = flags, None
            self.layers = [FakeLayer(*layer) for layer in behaviour.layers]
            seen["layers"] = self.layers

        num_layers = property(lambda self: len(self.layers))

        def get_layer(self, index):
            return self.layers[index]

    class ParserError:
        def __init__(self, operator, node, text):
            self._operator, self._node, self._text = operator, node, text

        def desc(self):
            return self._text

        if has("ParserError.node_name"):

            def node_name(self):
                return self._node

            def node_operator(self):
                return self._operator

    class OnnxParser:
        def __init__(self, network, logger):
            self._network, self._errors = network, []

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index):
            return self._errors[index]

        def parse(self, model):
            import onnxruntime

            if behaviour.parse:
                self._errors = [ParserError(*error) for error in behaviour.parse]
                return False
            try:
                onnxruntime.InferenceSession(bytes(model), providers=["CPUExecutionProvider"])
            except Exception as error:
                self._errors = [ParserError("", "", f"Failed to parse the ONNX model: {error}")]
                return False
            self._network.onnx = bytes(model)
            return True

    class TimingCache:
        def __init__(self, data):
            self.data = data

        def serialize(self):
            return IHostMemory(self.data)

    class BuilderConfig:
        __slots__ = ("_cache", "_flags", "_limits", "_monitor", "_tactics", "_x")

        def __init__(self):
            self._flags, self._limits, self._tactics, self._cache = (
                {module.BuilderFlag.TF32},
                {},
                0,
                None,
            )
            self._monitor, self._x = None, {}

        def set_flag(self, flag):
            assert isinstance(flag, module.BuilderFlag)
            self._flags.add(flag)

        def clear_flag(self, flag):
            assert isinstance(flag, module.BuilderFlag)
            self._flags.discard(flag)

        def set_memory_pool_limit(self, pool, size):
            assert isinstance(pool, module.MemoryPoolType) and isinstance(size, int)
            self._limits[pool.name] = size

        def set_tactic_sources(self, mask):
            assert isinstance(mask, int)
            self._tactics = mask
            return True

        def set_preview_feature(self, feature, enable):
            assert isinstance(feature, module.PreviewFeature)
            self._x[feature.name] = enable

        def create_timing_cache(self, data):
            memoryview(data)
            return TimingCache(bytes(data)) if data in (b"",) or data.startswith(b"TIMES") else None

        def set_timing_cache(self, cache, ignore_mismatch):
            assert isinstance(cache, TimingCache) and isinstance(ignore_mismatch, bool)
            seen["timing cache"] = cache.data
            self._cache = cache
            return True

        def get_timing_cache(self):
            return self._cache

        @property
        def builder_optimization_level(self):
            return self._x.get("level", 3)

        @builder_optimization_level.setter
        def builder_optimization_level(self, level):
            self._x["level"] = level

        if has("IBuilderConfig.progress_monitor"):

            @property
            def progress_monitor(self):
                return self._monitor

            @progress_monitor.setter
            def progress_monitor(self, monitor):
                assert monitor.ready, "IProgressMonitor.__init__ was not called"
                self._monitor = monitor

    class IProgressMonitor:
        ready = False

        def __init__(self):
            self.ready = True

    class Builder:
        def __init__(self, logger):
            assert logger.ready, "ILogger.__init__ was not called"
            self._logger = logger

        def create_network(self, flags=0):
            allowed = sum(1 << int(m) for m in module.NetworkDefinitionCreationFlag)
            assert not flags & ~allowed, f"unknown network flags {flags:b}"
            seen["network flags"] = flags
            return Network(flags)

        def create_builder_config(self):
            return BuilderConfig()

        def build_serialized_network(self, network, config):
            seen["flags"] = {flag.name for flag in config._flags}
            seen["limits"], seen["previews"] = config._limits, dict(config._x)
            seen["tactics"] = {t.name for t in module.TacticSource if config._tactics >> t & 1}
            strong = bool(network.flags & strong_mask) or version.startswith("11")
            seen["strong"] = strong
            if strong and seen["flags"] & {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}:
                complain(self._logger, "precision flags in a strongly typed network")
                return None
            if version.startswith("8.") and not network.flags & 1:
                complain(self._logger, "implicit batch dimension is not supported by the parser")
                return None
            if behaviour.build == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if behaviour.build == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            monitor = config._monitor
            if monitor is not None:
                monitor.phase_start("Building engine", None, 2)
                monitor.phase_start("Tactics", "Building engine", behaviour.steps)
            for step in range(behaviour.steps):
                time.sleep(behaviour.step_seconds)
                if monitor is not None and not monitor.step_complete("Tactics", step):
                    return None
            if monitor is not None:
                monitor.phase_finish("Tactics")
                monitor.step_complete("Building engine", 0)
                monitor.phase_finish("Building engine")
            if behaviour.build:
                complain(
                    self._logger,
                    "Requested amount of GPU memory (9 bytes) could not be allocated: OutOfMemory"
                    if behaviour.build == "out of memory"
                    else "Could not find any implementation for node /conv",
                )
                return None
            if config._cache is not None:
                config._cache.data = b"TIMES of " + version.encode()
            return make_plan(network.onnx, version)

    class Engine:
        def __init__(self, onnx):
            import onnxruntime

            self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
            self._io = [(a, "INPUT") for a in self.session.get_inputs()]
            self._io += [(a, "OUTPUT") for a in self.session.get_outputs()]

        num_io_tensors = property(lambda self: len(self._io))

        def _of(self, name):
            return next(item for item in self._io if item[0].name == name)

        def get_tensor_name(self, index):
            return self._io[index][0].name

        def get_tensor_mode(self, name):
            return module.TensorIOMode[self._of(name)[1]]

        def get_tensor_shape(self, name):
            return tuple(self._of(name)[0].shape)

        def get_tensor_dtype(self, name):
            kind = _FROM_ORT[self._of(name)[0].type]
            if kind == "INT64" and not has("DataType.INT64"):
                kind = "INT32"
            return module.DataType[kind]

        def create_execution_context(self):
            if behaviour.context == "fail":
                complain(seen["runtime logger"], "Error Code 2: OutOfMemory")
                return None
            return Execution(self)

    class Execution:
        def __init__(self, engine):
            self._engine, self._addresses = engine, {}

        def set_tensor_address(self, name, address):
            assert isinstance(address, int)
            names = [item[0].name for item in self._engine._io]
            if name not in names or address % 256:
                complain(seen["runtime logger"], f"address {address:#x} for {name}")
                return False
            self._addresses[name] = address
            return True

        def execute_async_v3(self, stream):
            engine, addresses = self._engine, dict(self._addresses)
            capturing = cuda.streams[stream].capturing is not None
            seen["executions"] = seen.get("executions", 0) + 1
            if behaviour.execute == "fail" or (
                behaviour.execute == "fail in capture" and capturing
            ):
                complain(seen["runtime logger"], "Error Code 1: Cuda Runtime (out of memory)")
                return False
            if set(addresses) != {item[0].name for item in engine._io}:
                complain(seen["runtime logger"], "a tensor has no address")
                return False

            def array(name):
                dtype = _NUMPY[engine.get_tensor_dtype(name).name]
                shape = engine.get_tensor_shape(name)
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                return cuda.view(addresses[name], size).view(dtype).reshape(shape)

            def compute():
                wanted = {a.name: _NUMPY[_FROM_ORT[a.type]] for a in engine.session.get_inputs()}
                feed = {name: array(name).astype(dtype) for name, dtype in wanted.items()}
                names = [a.name for a in engine.session.get_outputs()]
                for name, value in zip(names, engine.session.run(names, feed), strict=True):
                    array(name)[...] = value

            cuda.enqueue(stream, compute)
            return True

    class Runtime:
        def __init__(self, logger):
            # Without a driver the real one of 8.6 ends the process.
            assert cuda.initialised, "trt.Runtime before the driver was asked"
            assert logger.ready, "ILogger.__init__ was not called"
            self._logger = logger
            seen["runtime logger"] = logger

        def deserialize_cuda_engine(self, plan):
            if behaviour.load == "out of memory":
                complain(self._logger, "Error Code 2: OutOfMemory (Requested size was 9 bytes.)")
                return None
            head, _, onnx = bytes(plan).partition(b"\n")
            try:
                built_by = json.loads(head.removeprefix(_MAGIC))["version"]
            except (ValueError, TypeError):
                complain(self._logger, "Serialization assertion magicTag failed")
                return None
            if built_by != version:
                complain(self._logger, "The engine plan file is not compatible with this version")
                return None
            return Engine(onnx)

    for thing in (ILogger, Builder, OnnxParser, Runtime):
        setattr(module, thing.__name__, thing)
    module.IExecutionContext, module.ICudaEngine = Execution, Engine
    if has("IProgressMonitor"):
        module.IProgressMonitor = IProgressMonitor
    module.init_libnvinfer_plugins = lambda logger, namespace: True
    return module


def make_plan(onnx, version):
    """An engine's bytes."""
    return _MAGIC + json.dumps({"version": version}).encode() + b"\n" + onnx
