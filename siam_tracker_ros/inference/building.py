"""The parent's side of a build: starts the process, passes on what it says, cancels it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.inference import errors
from siam_tracker_ros.inference.engines import BuildProgress
from siam_tracker_ros.inference.errors import BackendError, BuildCancelledError, EngineError

MODULE = "siam_tracker_ros.inference.build_process"
_CANCEL_S = 2.0
_POLL_S = 0.1
_LINES_KEPT = 40


class EngineBuild:
    """Engines being built by a process of its own, which ends with this one at the latest.

    Args:
        bundle: a loaded bundle.
        precision: auto, fp32, fp16 or int8.
        cache_dir: folder of the engine cache; None: the user's.
        force: build even what is there.
        on_progress: called from a thread of this object's.
        say: called with lines for people, from that thread.

    Raises:
        EngineError: if the process cannot be started.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: str = "auto",
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        force: bool = False,
        on_progress: Callable[[BuildProgress], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._name = bundle.name
        self._on_progress, self._say = on_progress, say
        self._last: BuildProgress | None = None
        self._end: Mapping[str, Any] | None = None
        self._cancelled = False
        self._errors: deque[str] = deque(maxlen=_LINES_KEPT)
        arguments = [f"--bundle={bundle.path.resolve()}", f"--precision={precision}"]
        arguments.append("--end-with-stdin")
        if cache_dir:
            arguments.append(f"--cache-dir={Path(cache_dir).expanduser().absolute()}")
        if force:
            arguments.append("--force")
        line = [sys.executable, "-m", MODULE, *arguments]
        try:
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for this process to decide on
            )
        except OSError as error:
            raise EngineError(f"the build cannot be started: {error}") from error
        self._readers = [
            threading.Thread(target=self._read_events, name="build events", daemon=True),
            threading.Thread(target=self._read_errors, name="build errors", daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def done(self) -> bool:
        """Whether it ended, well or not."""
        return self._process.poll() is not None and not any(r.is_alive() for r in self._readers)

    @property
    def progress(self) -> BuildProgress | None:
        """The newest progress, or None before there is any."""
        return self._last

    def wait(self, cancelled: Callable[[], bool] = lambda: False) -> Mapping[str, str]:
        """Wait until the engines are stored.

        Args:
            cancelled: asked ten times a second; True cancels the build.

        Returns:
            For each graph "built" or "there".

        Raises:
            BuildCancelledError: if it was cancelled.
            BackendError: if it failed: the class and message of what was raised there.
        """
        try:
            while not self.done:
                if cancelled():
                    self.cancel()
                time.sleep(_POLL_S)
        except BaseException:
            self.cancel()
            raise
        return self.result()

    def result(self) -> Mapping[str, str]:
        """Return what :meth:`wait` returns, or raise what it raises, once :attr:`done`."""
        end = self._end or {}
        self._process.wait()
        self._close_stdin()
        if end.get("event") == "done":
            return dict(end["graphs"])
        if self._cancelled:
            raise BuildCancelledError(f"{self._name}: building its engines was cancelled")
        if end.get("event") == "failed":
            kind = getattr(errors, str(end.get("kind")), EngineError)
            if not (isinstance(kind, type) and issubclass(kind, BackendError)):
                kind = EngineError
            raise kind(str(end.get("text")))
        raise EngineError(f"{self._name}: {self._crash()}")

    def cancel(self) -> None:
        """Stop the build and wait until its process is gone; the cache stays as it was."""
        if self._process.poll() is None:
            self._cancelled = True
            self._close_stdin()  # tells it to stop
            try:
                self._process.wait(_CANCEL_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for reader in self._readers:
            reader.join()

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _read_events(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        with stream:
            for line in stream:
                try:
                    event = json.loads(line)
                    kind = event["event"]
                    progress = (
                        BuildProgress(
                            event["graph"], event["phase"], event["fraction"], event["seconds"]
                        )
                        if kind == "progress"
                        else None
                    )
                except (ValueError, KeyError, TypeError):
                    self._errors.append(line.decode(errors="replace").rstrip())
                    continue
                if kind in ("done", "failed"):
                    self._end = event
                    continue
                try:
                    if progress is not None:
                        self._last = progress
                        self._on_progress(progress)
                    else:
                        self._say(str(event.get("text", "")))
                except Exception as error:  # whoever listens must not stop the build
                    self._errors.append(f"a listener failed: {error!r}")

    def _read_errors(self) -> None:
        stream: IO[bytes] | None = self._process.stderr
        if stream is None:
            return
        with stream:
            for line in stream:
                self._errors.append(line.decode(errors="replace").rstrip())

    def _crash(self) -> str:
        """Say how the process ended without saying so itself."""
        code = self._process.returncode
        last = next((line for line in reversed(self._errors) if line.strip()), "it said nothing")
        if code == -signal.SIGKILL:
            return (
                "the build was killed (most often: the machine ran out of memory); close other "
                "programs or add swap"
            )
        if code < 0:
            return f"the build crashed (signal {signal.Signals(-code).name}): {last[:300]}"
        return f"the build failed (exit status {code}): {last[:300]}"


def _environment() -> dict[str, str]:
    """Return this process's environment, in which the child finds the package that this one runs."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
