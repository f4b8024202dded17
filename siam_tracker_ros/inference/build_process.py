"""Building engines in a process of its own: ``python -m siam_tracker_ros.inference.build_process``.

TensorRT may crash, or the machine may run out of memory, while an engine is built: that must not
take the tracker down. :mod:`siam_tracker_ros.inference.building` starts this and reads what it
says: one JSON object a line on stdout.

* ``{"event": "progress", "graph": ..., "phase": ..., "fraction": ..., "seconds": ...}``: when
  TensorRT reports progress, and every few seconds besides (a heartbeat for versions that do not)
* ``{"event": "say", "text": ...}``: a line for people
* ``{"event": "done", "graphs": {"search": "built", ...}}`` or
  ``{"event": "failed", "kind": ..., "text": ...}``: the last line; ``kind`` is an exception's name

With ``--end-with-stdin`` the end of its stdin means that nobody waits any more (the parent
cancelled, or died): it stops at once. What it had not stored by then is lost, and the cache is as it
was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from siam_tracker_ros.bundle import BundleError, load_bundle
from siam_tracker_ros.inference.cuda import find_gpu
from siam_tracker_ros.inference.engine_cache import EngineCache
from siam_tracker_ros.inference.engines import build_engines, build_options
from siam_tracker_ros.inference.errors import BackendError
from siam_tracker_ros.inference.trt_module import import_tensorrt

HEARTBEAT_S = 5.0
CANCELLED, FAILED = 3, 1
_NICENESS = 10


class Reporter:
    """Writes events, from any thread, and repeats the last progress while nothing new comes."""

    def __init__(self, stream: IO[str], heartbeat_s: float) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._graph: str | None = None
        self._phase: str = ""
        self._fraction: float | None = None
        self._heartbeat_s = heartbeat_s
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def say(self, text: str) -> None:
        """Report a line for people."""
        self._write({"event": "say", "text": text})

    def progress(self, graph: str, phase: str, fraction: float | None) -> None:
        """Report how far a build is."""
        with self._lock:
            if graph != self._graph:
                self._began = time.monotonic()
            self._graph, self._phase, self._fraction = graph, phase, fraction
            self._write_progress()

    def end(self, event: dict[str, Any]) -> None:
        """Report how it ended; nothing follows."""
        self._ended.set()
        self._write(event)

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat_s):
            # Under the lock, so that what is repeated is not older than what was written last.
            with self._lock:
                if self._graph is not None:
                    self._write_progress()

    def _write_progress(self) -> None:
        event = {
            "event": "progress",
            "graph": self._graph,
            "phase": self._phase,
            "fraction": self._fraction,
            "seconds": round(time.monotonic() - self._began, 1),
        }
        self._write(event)

    def _write(self, event: dict[str, Any]) -> None:
        # If nobody reads any more, the end of stdin ends the process.
        with self._lock, contextlib.suppress(OSError):
            print(json.dumps(event), file=self._stream, flush=True)


def build(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, str]:
    """Build what the arguments ask for; return what was done for each graph.

    Raises:
        BackendError, BundleError: saying what went wrong.
    """
    bundle = load_bundle(arguments.bundle)
    # The driver first: TensorRT 8.6 dies without one.
    gpu = find_gpu(arguments.gpu)
    trt = import_tensorrt()
    options = build_options(bundle, arguments.precision)
    cache = EngineCache(arguments.cache_dir)
    return dict(
        build_engines(
            bundle,
            options,
            cache,
            trt,
            gpu,
            force=arguments.force,
            say=reporter.say,
            on_progress=reporter.progress,
        )
    )


def exit_when_closed(descriptor: int) -> None:
    """End this process at once when a pipe's other end is closed, whatever else is running."""

    def watch() -> None:
        while os.read(descriptor, 1):
            pass
        os._exit(CANCELLED)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a process; see the module."""
    parser = argparse.ArgumentParser(prog="build_process", description="Builds a bundle's engines.")
    parser.add_argument("--bundle", required=True, help="the bundle's name or path")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--cache-dir", default=None)
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="build even what is there")
    parser.add_argument("--end-with-stdin", action="store_true", help="stop when stdin is closed")
    arguments = parser.parse_args(argv)
    # TensorRT and CUDA print to stdout as they like: that goes to stderr, events go their own way.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if arguments.end_with_stdin:
        exit_when_closed(0)
    os.nice(_NICENESS)
    reporter = Reporter(events, HEARTBEAT_S)
    try:
        graphs = build(arguments, reporter)
    except (BackendError, BundleError) as error:
        reporter.end({"event": "failed", "kind": type(error).__name__, "text": str(error)})
        return FAILED
    except MemoryError:
        text = "the machine ran out of memory while building"
        reporter.end({"event": "failed", "kind": "EngineError", "text": text})
        return FAILED
    reporter.end({"event": "done", "graphs": graphs})
    return 0


if __name__ == "__main__":
    status = main()
    # Destructors of TensorRT and CUDA have nothing to save, and have crashed at exit before.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
