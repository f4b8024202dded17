"""Running a node until it is told to stop, whatever its callbacks raise."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

_interrupted = threading.Event()


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Let the first SIGINT raise KeyboardInterrupt and swallow it; ignore all that follow.

    A terminal interrupts a launch with all its processes, and launch then interrupts each of them
    again: the second must not break into the clean-up that the first one began, nor end the process
    by a signal when Python has already put its handlers away; nor a single one that comes when the
    node has just ended by itself. Wrap everything from ``rclpy.init`` on in it, in a process of its
    own.
    """

    def handle(number: int, frame: Any) -> None:
        if not _interrupted.is_set():
            _interrupted.set()
            raise KeyboardInterrupt

    _interrupted.clear()
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except KeyboardInterrupt:
        pass
    except Exception:
        # Where the interrupt hit inside rclpy's C++ it comes out as an error of pybind11's.
        if not _interrupted.is_set():
            raise
    finally:
        # Nothing is left to interrupt but the interpreter's own end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def spin(node: Node, threads: int) -> None:
    """Run a node's callbacks until the context is shut down (SIGINT, SIGTERM).

    What a callback raises is logged; rclpy would end the process.
    """
    executor = MultiThreadedExecutor(num_threads=threads)
    executor.add_node(node)
    try:
        # The interrupt itself may have come out of rclpy as another error, or not at all.
        while rclpy.ok() and not _interrupted.is_set():
            try:
                executor.spin_once()
            except (ExternalShutdownException, KeyboardInterrupt):
                break
            except InvalidHandle:
                continue  # something was destroyed just before its turn; nothing is lost
            except Exception as error:
                if rclpy.ok() and not _interrupted.is_set():
                    node.get_logger().error(f"a callback failed: {type(error).__name__}: {error}")
    finally:
        executor.shutdown(timeout_sec=2.0)
