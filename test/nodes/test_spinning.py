"""An interrupt ends a node even where rclpy turns it into an error of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]

# rclpy has no handlers here, as in follow_controller_node: nothing else would end the loop.
PROGRAM = """
import signal, sys
import rclpy
from rclpy.executors import MultiThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from siam_tracker_ros.nodes.spinning import interrupted_once, spin

def swallow(self):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("Unable to convert call argument '0' of type 'object'") from None

MultiThreadedExecutor.spin_once = swallow
with interrupted_once():
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("interrupted")
    try:
        spin(node, threads=1)
        print("ended")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
signal.raise_signal(signal.SIGINT)  # at the very end: launch's own
print("and out")
"""


def test_an_interrupt_that_comes_out_as_another_error_ends_it() -> None:
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stdout.split("\n")[:2] == ["ended", "and out"], done.stderr
    assert done.returncode == 0 and "Traceback" not in done.stderr
