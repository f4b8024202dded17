"""Starts ROS 2 launch files and executables as processes of their own, and ends them again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from siam_tracker_ros.cli.common import CommandError

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""What Fast DDS reads the name of its profile from: up to Jazzy, and after it."""


def require_ros() -> str:
    """Return the ``ros2`` command.

    Raises:
        CommandError: if there is no ROS 2 environment, or this package is not in it.
    """
    ros2 = shutil.which("ros2")
    if ros2 is None:
        raise CommandError(
            "ROS 2 is not on the path: use `make demo`, or `scripts/with_ros.sh siam-tracker ...`, "
            "or source your workspace's setup.bash first"
        )
    share()
    return ros2


def share() -> Path:
    """Return the package's share folder in the ROS 2 environment.

    Raises:
        CommandError: if the package is not installed in it.
    """
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        folder = Path(prefix) / "share" / "siam_tracker_ros"
        if prefix and folder.is_dir():
            return folder
    raise CommandError(
        "siam_tracker_ros is not built in this ROS 2 environment: colcon build it and source "
        "install/setup.bash, or use scripts/with_ros.sh"
    )


def transport_profile() -> dict[str, str]:
    """Return the environment that gives images room in shared memory, unless one is set already."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return {}
    profile = str(share() / "config" / "fastdds.xml")
    return dict.fromkeys(PROFILE_VARIABLES, profile)


@contextmanager
def own_domain() -> Iterator[str]:
    """Give a ROS domain that no other run here uses; the one of ROS_DOMAIN_ID if that is set."""
    given = os.environ.get("ROS_DOMAIN_ID")
    if given:
        yield given
        return
    candidates = list(range(1, 102))
    random.SystemRandom().shuffle(candidates)
    for domain in candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
            try:
                holder.bind(("127.0.0.1", 31000 + domain))
            except OSError:
                continue
            yield str(domain)
            return
    raise CommandError("all ROS domains are in use by other runs here: set ROS_DOMAIN_ID")


def own_namespace() -> str:
    """Return a namespace for the topics and nodes of this run alone, should a domain be shared."""
    return f"siam_tracker_run_{os.getpid()}"


class Process:
    """A process in a group of its own, its output in a file; ended, if need be, on leaving.

    Args:
        command: what to run.
        log: where its output goes.
        environment: what is added to this process's environment.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.log = log
        self.command = list(command)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as out:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )

    def wait(self, timeout: float) -> int | None:
        """Return the exit status, or None after ``timeout`` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    def end(self) -> None:
        """Interrupt the group as Ctrl-C does, and kill what has not ended after some seconds."""
        for which, patience in (
            (signal.SIGINT, 10.0),
            (signal.SIGTERM, 3.0),
            (signal.SIGKILL, 3.0),
        ):
            if not self._group_lives():
                return
            self._signal(which)
            until = time.monotonic() + patience
            while self._group_lives() and time.monotonic() < until:
                self._process.poll()
                time.sleep(0.05)

    def tail(self, lines: int = 12) -> str:
        """Return the last lines of what it said."""
        return "\n".join(
            self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )

    def _group_lives(self) -> bool:
        self._process.poll()
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _signal(self, which: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, which)
        except ProcessLookupError:
            return

    def __enter__(self) -> Process:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.end()
