"""What TensorRT's own Python bindings call things, version by version.

``tensorrt_names.json`` holds it for some versions: for each name that we use, the lines of its signature, or null where
that version lacks it. Written from the bindings themselves, by

    python test/inference/real_bindings.py FOLDER...

A folder has ``tensorrt_bindings/`` (or ``tensorrt/``), ``lib/`` with the libraries that they link or stand-ins for them
(scripts/setup_tensorrt_check.sh makes such folders), and ``python`` where they need another interpreter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

NAMES = Path(__file__).with_name("tensorrt_names.json")

# What is called, and how: name -> the words that its signature in the bindings must have.
CALLS = {
    "Builder.create_network": "flags: int",
    "Builder.create_builder_config": "",
    "Builder.build_serialized_network": "network: config:",
    "OnnxParser.parse": "model: buffer",
    "OnnxParser.get_error": "index: int",
    "IBuilderConfig.set_flag": "flag:",
    "IBuilderConfig.clear_flag": "flag:",
    "IBuilderConfig.set_memory_pool_limit": "pool: pool_size: int",
    "IBuilderConfig.set_tactic_sources": "tactic_sources: int",
    "IBuilderConfig.set_preview_feature": "feature: enable: bool",
    "IBuilderConfig.create_timing_cache": "serialized_timing_cache: buffer",
    "IBuilderConfig.set_timing_cache": "cache: ignore_mismatch: bool -> bool",
    "IBuilderConfig.get_timing_cache": "",
    "ITimingCache.serialize": "-> IHostMemory",
    "INetworkDefinition.get_layer": "index: int",
    "INetworkDefinition.num_layers": "",
    "ILayer.get_input": "index: int",
    "ILayer.get_output": "index: int",
    "ILayer.num_inputs": "",
    "ILayer.num_outputs": "",
    "ILayer.type": "",
    "ITensor.dtype": "",
    "Runtime.deserialize_cuda_engine": "",
    "ICudaEngine.num_io_tensors": "",
    "ICudaEngine.get_tensor_name": "index: int -> str",
    "ICudaEngine.get_tensor_mode": "name: str",
    "ICudaEngine.get_tensor_shape": "name: str",
    "ICudaEngine.get_tensor_dtype": "name: str",
    "ICudaEngine.create_execution_context": "",
    "IExecutionContext.set_tensor_address": "name: str memory: int -> bool",
    "IExecutionContext.execute_async_v3": "stream_handle: int -> bool",
}
MONITOR_CALLS = {
    "IProgressMonitor.phase_start": "phase_name: str parent_phase: str num_steps: int",
    "IProgressMonitor.step_complete": "phase_name: str step: int -> bool",
    "IProgressMonitor.phase_finish": "phase_name: str",
}

INTROSPECTION = """
import json, re, sys
try:
    import tensorrt_bindings as trt
except ImportError:
    import tensorrt as trt

def look(name):
    thing = trt
    for part in name.split("."):
        if not hasattr(thing, part):
            return None
        thing = getattr(thing, part)
    text = (thing.__doc__ or "").replace("typing.SupportsInt", "int")
    text = re.sub(r"tensorrt(_bindings)?\\.tensorrt\\.", "", text)
    return "\\n".join(line.strip() for line in text.splitlines() if name.split(".")[-1] + "(" in line)

class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, message):
        pass

Log()
assert isinstance(int(trt.NetworkDefinitionCreationFlag.__members__.popitem()[1]), int)
assert trt.DataType.HALF.name == "HALF"
print(json.dumps({"version": trt.__version__, **{n: look(n) for n in json.loads(sys.argv[1])}}))
"""


def look(folder: Path, names: list[str]) -> dict[str, str | None]:
    """Return signatures by name, and ``version``, of the bindings in a folder."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "LD_LIBRARY_PATH": str(folder / "lib"),
    }
    python = folder / "python" if (folder / "python").exists() else sys.executable
    done = subprocess.run(
        [str(python), "-c", INTROSPECTION, json.dumps(names)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def differences(real: dict[str, str | None], matrix: dict[str, tuple]) -> list[str]:
    """Return where bindings differ from what the stand-ins have, and from how we call them."""
    major = real["version"].split(".")[0]
    column = {"8": 0, "10": 1, "11": 2}[major]
    wrong = [n for n in matrix if (real.get(n) is not None) != bool(matrix[n][column])]
    calls = {**CALLS, **(MONITOR_CALLS if matrix["IProgressMonitor"][column] else {})}
    for name, words in calls.items():
        wanted = ".*".join(re.escape(word) for word in words.split())
        # one line for each overload
        if real.get(name) is None or not re.search(wanted, real[name], re.I):
            wrong.append(f"{name}: {words} | {real.get(name)}")
    return wrong


def main() -> None:
    from fake_tensorrt import MATRIX

    names = sorted({*MATRIX, *CALLS, *MONITOR_CALLS})
    found = [look(Path(folder).resolve(), names) for folder in sys.argv[1:]]
    NAMES.write_text(json.dumps({f.pop("version"): f for f in found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
