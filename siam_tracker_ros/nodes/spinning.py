"""Running a node until it is told to stop, whatever its callbacks raise."""

from __future__ import annotations

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node


def spin(node: Node, threads: int) -> None:
    """Run a node's callbacks until the context is shut down (SIGINT, SIGTERM).

    What a callback raises is logged; rclpy would end the process.
    """
    executor = MultiThreadedExecutor(num_threads=threads)
    executor.add_node(node)
    try:
        while rclpy.ok():
            try:
                executor.spin_once()
            except (ExternalShutdownException, KeyboardInterrupt):
                break
            except InvalidHandle:
                continue  # something was destroyed just before its turn; nothing is lost
            except Exception as error:
                if rclpy.ok():
                    node.get_logger().error(f"a callback failed: {type(error).__name__}: {error}")
    finally:
        executor.shutdown(timeout_sec=2.0)
