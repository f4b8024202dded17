"""Does TensorRT's own parser and compiler take a graph? Asked on a machine without a GPU.

``scripts/setup_tensorrt_check.sh`` puts the bindings of TensorRT 11.4 over TensorRT-RTX, which compiles on the CPU.
Graphs go through ``inference.engine_build``, as on a robot. What comes out is thrown away: it fits other GPUs. It says
that a graph is legal for that parser, strongly typed; nothing about older parsers, plug-ins, accuracy or speed.

The libraries must be found before Python starts, so the work is done in a process of its own; a graph that makes the
compiler crash is only refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

FOLDER = "SIAM_TRACKER_TENSORRT_CHECK"
"""Environment variable: the folder, where it is not the repository's ``.tools/tensorrt_check``."""

_VERSION = "11.4"
_PACKAGE = Path(__file__).resolve().parents[1]
_SECONDS = 300


def check_folder() -> Path | None:
    """Return the folder of the bindings that compile, or None if they are not set up."""
    base = Path(os.environ.get(FOLDER) or _PACKAGE.parent / ".tools" / "tensorrt_check")
    folder = base / _VERSION
    return folder if (folder / "lib" / "libnvonnxparser.so.11").is_file() else None


def compile_errors(graphs: Mapping[str, bytes]) -> dict[str, str | None]:
    """Compile graphs one after the other and return what was wrong with each (None: nothing).

    Args:
        graphs: ONNX graphs by a name of their own.

    Raises:
        RuntimeError: if the check is not set up, or its libraries cannot be loaded.
    """
    folder = check_folder()
    if folder is None:
        raise RuntimeError("no TensorRT check: scripts/setup_tensorrt_check.sh sets it up")
    found: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory() as scratch:
        files = {}
        for index, (name, data) in enumerate(graphs.items()):
            files[name] = Path(scratch) / f"{index}.onnx"
            files[name].write_bytes(data)
        while len(found) < len(files):
            left = [name for name in files if name not in found]
            answers, words = _compile(folder, [files[name] for name in left])
            found.update(zip(left, answers, strict=False))
            if len(answers) < len(left):
                if not words:
                    raise RuntimeError("the TensorRT check ended without a word")
                found[left[len(answers)]] = words
    return found


def _compile(folder: Path, files: list[Path]) -> tuple[list[str | None], str]:
    """Return the answers for the first files, and how the process ended if it did not get to the end."""
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "PYTHONPATH": os.pathsep.join((str(_PACKAGE.parent), str(folder), *sys.path)),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *map(str, files)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the TensorRT check took more than {_SECONDS} s") from error
    lines = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith(">")]
    if not lines:
        raise RuntimeError(f"the TensorRT check cannot run here: {done.stderr.strip()[-1000:]}")
    ended = f"the compiler ended with {done.returncode}: {done.stderr.strip()[-300:]}"
    return [line["error"] for line in lines[1:]], ended


def _child(files: list[str]) -> None:
    """Print a line when the libraries are loaded, then one for each file; the compiler prints too."""
    import tensorrt_bindings

    from siam_tracker_ros.inference.engine_build import BuildOptions, build_engine
    from siam_tracker_ros.inference.errors import EngineError

    print(">" + json.dumps({"version": tensorrt_bindings.__version__}), flush=True)
    for file in files:
        error = None
        try:
            build_engine(tensorrt_bindings, Path(file).read_bytes(), BuildOptions(), name="graph")
        except EngineError as reason:
            error = str(reason)
        print(">" + json.dumps({"error": error}), flush=True)


if __name__ == "__main__":
    _child(sys.argv[1:])
