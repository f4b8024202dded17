"""Real processes over a real ROS graph: starting and stopping them, and talking to a tracker_node."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FAKE_TRACKER = [sys.executable, str(HERE / "fake_tracker_node.py")]

# A loaded machine is slow; nothing here waits for longer than it must.
PATIENCE = 30.0


class Running:
    """A process with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        self._file = open(log, "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            cwd=log.parent,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def said(self, words: str, times: int = 1) -> None:
        """Wait until it said these words so often; a log line may come after the message it is about."""
        end = time.monotonic() + PATIENCE
        while (count := self.output.count(words)) < times and time.monotonic() < end:
            time.sleep(0.02)
        assert count == times, f"{words!r} was said {count} times:\n{self.output}"

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; the exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.process.args} did not end:\n{self.output}")

    def stop(self, how: int = signal.SIGINT) -> int:
        """Signal it and wait; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.wait()

    def press_ctrl_c(self) -> int:
        """Interrupt it and all that it started, as a terminal does, and wait; the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def end(self) -> None:
        """Make sure that neither it nor what it started lives on."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._file.close()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Function (command, **environment) -> a running process; all are ended after the module."""
    folder = tmp_path_factory.mktemp("processes")
    running: list[Running] = []

    def start_one(command: Sequence[str], **environment: str) -> Running:
        profile = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds.xml")}
        path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        log = folder / f"{len(running)}.log"
        process = Running(command, log, {"PYTHONPATH": path, **profile, **environment})
        running.append(process)
        return process

    yield start_one
    for process in running:
        process.end()


@pytest.fixture
def launch(start: Callable[..., Running], installed: None) -> Iterator[Callable[..., Running]]:
    """Function (file, words, **environment) -> a launch that ends with the test, also if it is run again."""
    running: list[Running] = []

    def launch_one(file: str, *words: str, **environment: str) -> Running:
        running.append(start(["ros2", "launch", "siam_tracker_ros", file, *words], **environment))
        return running[-1]

    yield launch_one
    for process in running:
        process.end()


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real bundle that finds the synthetic scene's thing."""
    pytest.importorskip("onnx")
    sys.path.insert(0, str(HERE))
    try:
        from colour_bundle import write_colour_bundle
    finally:
        sys.path.remove(str(HERE))
    return write_colour_bundle(tmp_path_factory.mktemp("models") / "colour").path


class Remote:
    """A node of the test's own that plays camera and operator for a tracker_node."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import Image
        from vision_msgs.msg import Detection2D

        self._rclpy = rclpy
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("remote", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.detections: list[Any] = []
        self.statuses: list[Any] = []
        self.diagnostics: list[Any] = []
        self._clients: dict[str, Any] = {}
        self.images = self.node.create_publisher(Image, "image", 5)
        self.targets = self.node.create_publisher(Detection2D, "target", 1)
        self.node.create_subscription(Detection2D, "detection", self.detections.append, 100)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(
            DiagnosticStatus, "tracker_node/status", self.statuses.append, latched
        )
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 100)
        self.clock = 1_000_000_000_000
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while self.context.ok():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except self._rclpy.executors.ExternalShutdownException:
                return

    def close(self) -> None:
        self._rclpy.shutdown(context=self.context)
        self._thread.join(5)
        self.node.destroy_node()

    def wait(self, done: Callable[[], Any], what: str = "it", timeout: float = PATIENCE) -> Any:
        """Wait until ``done()`` is true; its value."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if value := done():
                return value
            time.sleep(0.005)
        raise AssertionError(f"{what} did not happen within {timeout:g} s")

    # --- services and parameters ---

    def call(self, kind: type, name: str, timeout: float = PATIENCE, **request: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        assert client.wait_for_service(PATIENCE), f"no service {name}"
        message = kind.Request()
        for field, value in request.items():
            setattr(message, field, value)
        future = client.call_async(message)
        self.wait(future.done, f"an answer of {name}", timeout)
        return future.result()

    def change(self, transition: str, timeout: float = PATIENCE) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        response = self.call(
            ChangeState, "tracker_node/change_state", timeout, transition=Transition(id=number)
        )
        return bool(response.success)

    def state(self, timeout: float = PATIENCE) -> str:
        from lifecycle_msgs.srv import GetState

        return str(self.call(GetState, "tracker_node/get_state", timeout).current_state.label)

    def set(self, **values: Any) -> tuple[bool, str]:
        from rcl_interfaces.srv import SetParametersAtomically
        from rclpy.parameter import Parameter

        parameters = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        result = self.call(
            SetParametersAtomically,
            "tracker_node/set_parameters_atomically",
            parameters=parameters,
        ).result
        return bool(result.successful), str(result.reason)

    def clear(self) -> str:
        from std_srvs.srv import Trigger

        response = self.call(Trigger, "tracker_node/clear")
        assert response.success
        return str(response.message)

    def pause(self, paused: bool) -> Any:
        from std_srvs.srv import SetBool

        return self.call(SetBool, "tracker_node/pause", data=paused)

    # --- images and selections ---

    def image(self, pixels: np.ndarray, stamp: int | None = None, **changes: Any) -> Any:
        """Publish bgr8 pixels; by default a thirtieth of a second after the last ones."""
        from siam_tracker_ros.nodes.messages import to_image

        if stamp is None:
            self.clock += 33_333_333
            stamp = self.clock
        message = to_image(self.header(stamp), pixels)
        for name, value in changes.items():
            setattr(message, name, value)
        self.images.publish(message)
        return message.header

    @staticmethod
    def header(stamp: int, frame_id: str = "camera") -> Any:
        from std_msgs.msg import Header

        header = Header(frame_id=frame_id)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        return header

    def select(self, box: Any, stamp: int = 0, frame_id: str = "", **changes: Any) -> Any:
        from siam_tracker_ros.nodes.messages import to_detection

        message = to_detection(
            self.header(stamp, frame_id), changes.pop("id", ""), changes.pop("label", ""), box, 1.0
        )
        message.bbox.center.theta = changes.pop("theta", 0.0)
        assert not changes
        self.targets.publish(message)
        return message

    def begin(self, pixels: np.ndarray, box: Any, id: str, **more: Any) -> Any:
        """Publish an image and a selection for exactly that one; its detection."""
        header = self.image(pixels)
        self.select(box, self.clock, id=id, **more)
        return self.detection_of(header, id)

    def detection_of(self, header: Any, id: str | None = None) -> Any:
        """Wait for the detection with exactly this header."""

        def found() -> Any:
            for message in list(self.detections):
                if message.header == header and id in (None, message.id):
                    return message
            return None

        try:
            return self.wait(found, f"the detection for {header.stamp}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the status is {self.status()}") from None

    # --- what the node says of itself ---

    def status(self) -> dict[str, str]:
        """The newest ~/status: its keys, and ``message``."""
        if not self.statuses:
            return {}
        newest = self.statuses[-1]
        return {"message": newest.message, **{pair.key: pair.value for pair in newest.values}}

    def wait_status(self, **wanted: str) -> dict[str, str]:
        """Wait until the newest ~/status holds these texts."""

        def matches() -> dict[str, str] | None:
            status = self.status()
            fits = all(text in status.get(key, "\0") for key, text in wanted.items())
            return status if fits else None

        try:
            return self.wait(matches, f"a status with {wanted}", 15.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; the last one was {self.status()}") from None


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    """Camera and operator, for all tests of a module."""
    made = Remote()
    yield made
    made.close()


@pytest.fixture(scope="session")
def fake_tracker() -> list[str]:
    """The command of a tracker_node whose model may be fake, slow or hang."""
    return FAKE_TRACKER


@pytest.fixture(scope="session")
def installed() -> None:
    """The package is where ros2 finds it."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("siam_tracker_ros")
    except PackageNotFoundError:
        pytest.skip("the package is not built: run through scripts/with_ros.sh")
