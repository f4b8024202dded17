"""Follow-me with real processes: what moves the robot, what stops it, and how soon."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import Box

pytestmark = pytest.mark.ros

RUN = ["ros2", "run", "siam_tracker_ros"]
SECOND = 10**9
# What a loaded machine may add to a stated time.
SLACK = 2.0


@pytest.fixture(scope="module", autouse=True)
def package(installed: None) -> None:
    """All of this starts what is installed."""


class Robot:
    """Plays localizer, tracker and operator, and notes the commands with the time they came."""

    def __init__(self, remote: Any, stamped: bool = False) -> None:
        from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
        from std_msgs.msg import Bool

        self.remote, self.node = remote, remote.node
        self.commands: list[tuple[float, float, float]] = []
        self.poses = self.node.create_publisher(PoseStamped, "target_pose", 1)
        self.permissions = self.node.create_publisher(Bool, "deadman", 1)
        from vision_msgs.msg import Detection2D

        self.found = self.node.create_publisher(Detection2D, "detection", 10)
        kind = TwistStamped if stamped else Twist
        self.subscription = self.node.create_subscription(kind, "cmd_vel", self._note, 50)

    def _note(self, message: Any) -> None:
        twist = getattr(message, "twist", message)
        self.commands.append((time.monotonic(), twist.linear.x, twist.angular.z))

    def close(self) -> None:
        for publisher in (self.poses, self.permissions, self.found):
            self.node.destroy_publisher(publisher)
        self.node.destroy_subscription(self.subscription)

    def pose(
        self, x: float = 3.0, y: float = 0.2, age: float = 0.0, frame: str = "base_link"
    ) -> None:
        from geometry_msgs.msg import PoseStamped

        now = self.node.get_clock().now().nanoseconds - round(age * SECOND)
        message = PoseStamped(header=self.remote.header(now, frame))
        message.pose.position.x, message.pose.position.y = x, y
        self.poses.publish(message)

    def permit(self, allowed: bool = True) -> None:
        from std_msgs.msg import Bool

        self.permissions.publish(Bool(data=allowed))

    def detect(self, visible: bool, score: float = 0.9) -> None:
        from siam_tracker_ros.nodes.messages import to_detection

        box = Box(320, 240, 50, 100) if visible else None
        header = self.remote.header(self.node.get_clock().now().nanoseconds)
        self.found.publish(to_detection(header, "it", "it", box, score))

    def hold(self, seconds: float, *each: Callable[[], None]) -> None:
        """Do all of ``each`` twenty times a second."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for act in each:
                act()
            time.sleep(0.05)

    def until(self, done: Callable[[], bool], *each: Callable[[], None], what: str = "it") -> None:
        end = time.monotonic() + 30
        while not done():
            assert time.monotonic() < end, f"{what} did not happen; {self.commands[-3:]}"
            self.hold(0.05, *each)

    @property
    def speed(self) -> float:
        return self.commands[-1][1] if self.commands else 0.0

    def drives(self) -> None:
        """Bring it to drive straight on."""
        go = (self.permit, lambda: self.detect(True), self.pose)
        self.until(lambda: self.speed > 0.25, *go, what="driving")

    def stands(self, *each: Callable[[], None]) -> float:
        """Wait until zero is commanded; the seconds it took."""
        began = time.monotonic()
        self.until(lambda: self.commands[-1][1:] == (0.0, 0.0), *each, what="standing")
        return self.commands[-1][0] - began


@pytest.fixture(scope="module")
def controller(start: Any) -> Any:
    running = start([*RUN, "follow_controller_node"])
    yield running
    assert interrupt(running, "follow_controller_node") == 0, running.output
    assert "Traceback" not in running.output


@pytest.fixture
def robot(controller: Any, remote: Any) -> Iterator[Robot]:
    made = Robot(remote)
    remote.wait(lambda: made.node.count_subscribers("deadman") > 0, "the controller")
    remote.wait(lambda: made.poses.get_subscription_count() > 0, "the controller")
    made.hold(0.8)  # permissions of the test before have run out
    made.commands.clear()
    yield made
    made.close()


# With the defaults: 0.5 s until a pose or a permission is old, 0.5 s to slow down.
STOP = 1.1 + SLACK


def test_without_permission_nothing_is_commanded(robot: Robot) -> None:
    robot.hold(1.5, robot.pose, lambda: robot.detect(True))
    assert robot.commands == []


def test_it_drives_turns_and_keeps_its_limits(robot: Robot) -> None:
    robot.drives()
    robot.hold(1.5, robot.permit, robot.pose, lambda: robot.detect(True))
    speeds, turns = np.array(robot.commands)[:, 1], np.array(robot.commands)[:, 2]
    assert speeds.min() >= 0.0 and 0.4 < speeds.max() <= 0.5
    assert turns.min() >= 0.0 and 0.03 < turns.max() <= 1.0
    assert np.diff(speeds).max() < 0.2


@pytest.mark.parametrize("how", ["released", "silent"])
def test_the_dead_man_switch_stops_it(robot: Robot, how: str) -> None:
    robot.drives()
    seen = (robot.pose, lambda: robot.detect(True))
    each = (*seen, lambda: robot.permit(False)) if how == "released" else seen
    assert robot.stands(*each) < STOP
    time.sleep(1.5)
    count = len(robot.commands)
    robot.hold(0.5, *each)
    assert len(robot.commands) == count  # others may drive now


@pytest.mark.parametrize("what", ["lost", "score"])
def test_it_stops_when_the_tracker_says_so_although_poses_come(robot: Robot, what: str) -> None:
    robot.drives()
    detection = (
        (lambda: robot.detect(False)) if what == "lost" else (lambda: robot.detect(True, 0.1))
    )
    assert robot.stands(robot.permit, robot.pose, detection) < STOP


@pytest.mark.parametrize("age", [5.0, -5.0, None])
def test_it_stops_when_poses_end_are_old_or_of_the_future(
    robot: Robot, controller: Any, age: float | None
) -> None:
    robot.drives()
    poses = [] if age is None else [lambda: robot.pose(age=age)]
    assert robot.stands(robot.permit, lambda: robot.detect(True), *poses) < STOP
    if age is not None:
        word = "s old when it comes" if age > 0 else "in the future"
        robot.remote.wait(lambda: word in controller.output)


def test_without_tf_it_stands_and_says_so(robot: Robot, controller: Any) -> None:
    robot.hold(1.5, robot.permit, lambda: robot.pose(frame="somewhere"), lambda: robot.detect(True))
    assert all(command[1:] == (0.0, 0.0) for command in robot.commands)
    robot.remote.wait(lambda: "no TF from 'somewhere' to 'base_link'" in controller.output)


@pytest.fixture
def change(remote: Any) -> Callable[..., Any]:
    """Change parameters of the controller; the result."""
    from rcl_interfaces.srv import SetParametersAtomically
    from rclpy.parameter import Parameter

    def do(**values: Any) -> Any:
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        name = "follow_controller/set_parameters_atomically"
        return remote.call(SetParametersAtomically, name, parameters=parameters).result

    return do


def test_it_looks_for_a_lost_target_if_asked_and_while_it_may(
    robot: Robot, change: Callable[..., Any]
) -> None:
    assert change(search_time=30.0, search_delay=0.2).successful
    try:
        robot.drives()
        lost = (lambda: robot.detect(False), robot.pose)
        robot.until(lambda: robot.commands[-1][2] > 0.2, robot.permit, *lost, what="looking")
        assert robot.speed == 0.0
        assert robot.stands(lambda: robot.permit(False), *lost) < STOP
    finally:
        assert change(search_time=0.0, search_delay=1.0).successful


def test_parameters_are_checked_together_and_taken_while_it_runs(
    robot: Robot, change: Callable[..., Any]
) -> None:
    assert "minimum_distance" in change(distance=0.4).reason
    assert "when the node starts" in change(stamped=True).reason
    assert change(distance=3.0).successful
    robot.hold(1.5, robot.permit, robot.pose, lambda: robot.detect(True))
    assert robot.speed == 0.0
    assert change(distance=1.5).successful


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_its_last_word_is_zero(start: Any, remote: Any, how: int) -> None:
    """TwistStamped here, and a joystick's button for the switch."""
    from sensor_msgs.msg import Joy

    name = f"alone_{int(how)}"
    parameters = {"deadman": "joy", "deadman_button": 1, "stamped": "true", "base_frame": "''"}
    given = [part for n, v in parameters.items() for part in ("-p", f"{n}:={v}")]
    remapped = [
        part
        for topic in ("target_pose", "detection", "cmd_vel", "joy")
        for part in ("-r", f"{topic}:={topic}")
    ]
    running = start(
        [*RUN, "follow_controller_node", "--ros-args", "-r", f"__node:={name}", *given, *remapped]
    )
    made = Robot(remote, stamped=True)
    buttons = remote.node.create_publisher(Joy, "joy", 1)
    try:
        remote.wait(lambda: buttons.get_subscription_count() > 0, "the controller")

        def press() -> None:
            buttons.publish(Joy(buttons=[0, 1]))

        def ahead() -> None:
            """In a camera's frame, and no TF: z is forward."""
            from geometry_msgs.msg import PoseStamped

            now = remote.node.get_clock().now().nanoseconds
            message = PoseStamped(header=remote.header(now))
            message.pose.position.z = 4.0
            made.poses.publish(message)

        made.until(lambda: made.speed > 0.2, press, ahead, lambda: made.detect(True))
        assert interrupt(running, "follow_controller_node", how) == 0, running.output
        remote.wait(lambda: made.commands[-1][1:] == (0.0, 0.0), "zero", 3.0)
        assert "Traceback" not in running.output
    finally:
        made.close()
        remote.node.destroy_publisher(buttons)


def _processes(group: int) -> Iterator[tuple[int, str]]:
    """All processes of a group: number and command line."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if os.getpgid(int(folder.name)) == group:
                yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace")
        except (ProcessLookupError, FileNotFoundError, PermissionError):
            continue


def _child(group: int, executable: str) -> int:
    """The process of a node that ``ros2 run`` or a launch started."""
    found = [
        pid
        for pid, line in _processes(group)
        if f"lib/siam_tracker_ros/{executable}" in line and "ros2\0run" not in line
    ]
    assert len(found) == 1, (executable, found)
    return found[0]


def interrupt(running: Any, executable: str, how: int = signal.SIGINT) -> int:
    """Signal a node that ``ros2 run`` started (which passes no signal on); its exit status."""
    if running.process.poll() is None:
        os.kill(_child(running.process.pid, executable), how)
    return int(running.wait())


def test_wrong_parameters_end_it_with_a_word(start: Any) -> None:
    for node, parameter, word in (
        ("follow_controller_node", "distance:=0.2", "minimum_distance"),
        ("target_localizer_node", "methods:=[sonar]", "depth, height, ground"),
    ):
        running = start([*RUN, node, "--ros-args", "-p", parameter])
        assert running.wait() == 2, running.output
        assert word in running.output and "Traceback" not in running.output


# --- the localizer ---

WIDTH, HEIGHT, FOCAL = 160, 120, 100.0
BOX = Box(99.5, 59.5, 30, 60)


class Camera:
    """Plays camera, depth camera and tracker for the localizer."""

    def __init__(self, remote: Any) -> None:
        from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import CameraInfo, Image
        from tf2_msgs.msg import TFMessage
        from vision_msgs.msg import Detection2D

        node = remote.node
        self.remote, self.node = remote, node
        self.images: list[Any] = []
        self.infos = node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        self.depths = node.create_publisher(Image, "depth", qos_profile_sensor_data)
        self.found = node.create_publisher(Detection2D, "detection", 10)
        self.poses: list[Any] = []
        self.covariances: list[Any] = []
        self.transforms: list[Any] = []
        node.create_subscription(PoseStamped, "target_pose", self.poses.append, 50)
        node.create_subscription(
            PoseWithCovarianceStamped, "target_pose_with_covariance", self.covariances.append, 50
        )
        node.create_subscription(TFMessage, "/tf", self.transforms.append, 50)
        self.stamp = 2_000 * SECOND

    def info(self, **changes: Any) -> None:
        from sensor_msgs.msg import CameraInfo

        message = CameraInfo(header=self.remote.header(self.stamp), width=WIDTH, height=HEIGHT)
        message.distortion_model = "plumb_bob"
        message.k = [FOCAL, 0.0, 79.5, 0.0, FOCAL, 59.5, 0.0, 0.0, 1.0]
        for name, value in changes.items():
            setattr(message, name, value)
        self.infos.publish(message)

    def depth(self, values: np.ndarray | None = None, late: float = 0.0) -> None:
        from sensor_msgs.msg import Image

        from siam_tracker_ros.nodes.messages import to_bytes

        if values is None:
            values = np.full((HEIGHT, WIDTH), 2.0, np.float32)
        message = Image(header=self.remote.header(self.stamp + round(late * SECOND)))
        message.height, message.width = values.shape
        message.encoding, message.step = "32FC1", 4 * values.shape[1]
        message.data = to_bytes(np.ascontiguousarray(values, np.float32).view("u1"))
        self.depths.publish(message)

    def detect(self, box: Box | None = BOX, score: float = 0.9) -> int:
        from siam_tracker_ros.nodes.messages import to_detection

        header = self.remote.header(self.stamp)
        self.found.publish(to_detection(header, "it", "it", box, score))
        return self.stamp

    def frame(self, box: Box | None = BOX, **more: Any) -> int:
        """An image's worth of messages; the stamp."""
        self.stamp += SECOND // 15
        self.info(**more.get("info", {}))
        self.depth(more.get("depth"), more.get("late", 0.0))
        self.detect(box, more.get("score", 0.9))
        time.sleep(1 / 15)
        return self.stamp

    def pose_of(self, stamp: int) -> Any:
        for pose in list(self.poses):
            if pose.header.stamp.sec * SECOND + pose.header.stamp.nanosec == stamp:
                return pose
        return None

    def until_word(self, process: Any, word: str, **frame: Any) -> None:
        """Send frames until the localizer says it; no pose may come of any of them."""
        stamps = []
        before = process.output.count(word)
        end = time.monotonic() + 30
        while process.output.count(word) == before:
            assert time.monotonic() < end, f"{word!r} was not said:\n{process.output}"
            stamps.append(self.frame(**frame))
        assert not any(self.pose_of(stamp) for stamp in stamps)

    def until_pose(self, **frame: Any) -> Any:
        end = time.monotonic() + 30
        stamps: list[int] = []
        while time.monotonic() < end:
            stamps.append(self.frame(**frame))
            for stamp in stamps[-5:]:
                if pose := self.pose_of(stamp):
                    return pose
        raise AssertionError("no pose came")


@pytest.fixture(scope="module")
def localizer(start: Any) -> Iterator[Any]:
    running = start([*RUN, "target_localizer_node", "--ros-args", "-p", "depth_max:=5.0"])
    yield running
    assert interrupt(running, "target_localizer_node") == 0, running.output
    assert "Traceback" not in running.output


@pytest.fixture(scope="module")
def camera(localizer: Any, remote: Any) -> Any:
    made = Camera(remote)
    remote.wait(lambda: made.depths.get_subscription_count() > 0, "the localizer")
    remote.wait(lambda: made.infos.get_subscription_count() > 0, "the localizer")
    made.detect()  # before any camera_info
    remote.wait(lambda: "no camera_info on /camera_info yet" in localizer.output)
    return made


def test_a_pose_carries_the_images_stamp_and_the_true_place(camera: Camera) -> None:
    pose = camera.until_pose()
    p = pose.pose.position
    assert pose.header.frame_id == "camera"
    assert (p.x, p.y, p.z) == pytest.approx((0.4, 0.0, 2.0), abs=0.01)
    stamp = pose.header.stamp

    def told() -> bool:
        return any(c.header.stamp == stamp for c in list(camera.covariances)) and any(
            t.header.stamp == stamp and t.child_frame_id == "tracked_target"
            for message in list(camera.transforms)
            for t in message.transforms
        )

    camera.remote.wait(told, "covariance and TF of the same stamp")
    covariance = np.array(camera.covariances[-1].pose.covariance).reshape(6, 6)
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert 0.01 < math.sqrt(covariance[2, 2]) < 0.1


def test_no_pose_while_the_target_is_not_seen(camera: Camera) -> None:
    camera.until_pose()
    stamps = [camera.frame(box=None), camera.frame(score=0.1), camera.frame(box=None)]
    after = camera.until_pose()
    assert not any(camera.pose_of(stamp) for stamp in stamps)
    assert after is not None


def test_no_pose_while_the_tracker_is_uncertain(camera: Camera, remote: Any) -> None:
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
    from rclpy.qos import DurabilityPolicy, QoSProfile

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    status = remote.node.create_publisher(DiagnosticStatus, "status", latched)
    try:
        camera.until_pose()
        status.publish(DiagnosticStatus(values=[KeyValue(key="state", value="uncertain")]))
        remote.wait(lambda: status.get_subscription_count() > 0)
        time.sleep(0.5)
        stamps = [camera.frame() for _ in range(5)]
        status.publish(DiagnosticStatus(values=[KeyValue(key="state", value="tracking")]))
        camera.until_pose()
        assert not any(camera.pose_of(stamp) for stamp in stamps)
    finally:
        remote.node.destroy_publisher(status)


HOLES = np.where(np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 50, np.nan, 2.0)


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        ({"info": {"k": [0.0] * 9}}, "no focal length"),
        ({"info": {"width": 0}}, "camera_info has no size"),
        ({"info": {"width": 100, "height": 80}}, "another camera's, or of another resolution"),
        ({"depth": np.full((100, 300), 2.0)}, "it is not registered to it"),
        ({"depth": np.zeros((HEIGHT, WIDTH))}, "only 0 % of the box has a depth"),
        ({"depth": HOLES}, "of the box has a depth"),
        ({"late": 40.0}, "no depth image within 0.04 s"),
        ({"box": Box(math.nan, 50, 20, 20)}, "the box is not one"),
    ],
)
def test_bad_input_is_named_and_the_rest_goes_on(
    camera: Camera, localizer: Any, frame: dict[str, Any], word: str
) -> None:
    camera.stamp += 2 * SECOND  # depth images of before do not fit
    camera.until_word(localizer, word, **frame)
    camera.stamp += 100 * SECOND  # nor those of this one
    camera.until_pose()


def test_another_size_of_the_images_is_found_out(
    camera: Camera, localizer: Any, remote: Any
) -> None:
    small = {"width": WIDTH // 2, "height": HEIGHT // 2}
    end = time.monotonic() + 30
    while "the images have 160 x 120" not in localizer.output:
        assert time.monotonic() < end, localizer.output
        remote.image(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        camera.frame(box=Box(30, 30, 20, 20), info=small)
    camera.stamp += 2 * SECOND
    camera.until_pose()


def test_missing_tf_is_named_and_a_set_back_clock_too(
    camera: Camera, localizer: Any, remote: Any
) -> None:
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    def output(frame: str) -> None:
        parameter = Parameter("output_frame", value=frame).to_parameter_msg()
        result = remote.call(
            SetParameters, "target_localizer/set_parameters", parameters=[parameter]
        ).results[0]
        assert result.successful

    output("odom")
    camera.until_word(localizer, "no TF from 'camera' to 'odom'")
    output("")
    camera.until_pose()
    said = localizer.output.count("stamps went back")
    camera.stamp -= 1_000 * SECOND
    camera.until_pose()
    localizer.said("stamps went back", said + 1)


# --- the chain ---


@pytest.mark.once
def test_a_short_run_of_the_benchmark_keeps_its_bounds(
    start: Any, colour_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "follow"
    options = {"duration": "25", "model": str(colour_bundle), "out": str(out), "rate": "10"}
    given = [part for n, v in options.items() for part in (f"--{n}", v)]
    running = start(["siam-tracker", "follow-benchmark", *given])
    assert running.wait(180) == 0, running.output
    figures = json.loads((out / "figures.json").read_text())
    assert figures["problems"] == [] and figures["hidings"] == 1
    assert figures["stops"][0] < 2.0 and figures["resumes"][0] < 5.0
    assert figures["speed_min"] == 0.0 < figures["speed_max"] <= 0.8
    assert figures["travelled_m"] > 1.5
    for name in ("follow.png", "follow.mp4"):
        assert (out / name).stat().st_size > 10_000


@pytest.mark.once
@pytest.mark.parametrize(
    "victim", ["tracker_node", "target_localizer_node", "follow_controller_node"]
)
def test_whichever_node_is_killed_the_robot_stops(
    start: Any, remote: Any, colour_bundle: Path, tmp_path: Path, victim: str
) -> None:
    from geometry_msgs.msg import Twist

    name = f"kill_{victim}"
    commands: list[tuple[float, float, float]] = []
    subscription = remote.node.create_subscription(
        Twist,
        f"/{name}/cmd_vel",
        lambda m: commands.append((time.monotonic(), m.linear.x, m.angular.z)),
        50,
    )
    values = {"model": colour_bundle, "namespace": name, "distance": 2.0, "max_speed": 0.8}
    arguments = [f"{n}:={v}" for n, v in values.items()]
    launch = ["ros2", "launch", "siam_tracker_ros", "follow_me.launch.py", "output_frame:=odom"]
    chain = start([*launch, *arguments])
    values = {"duration": 120.0, "hiding": "false", "rate": 10.0, "out": tmp_path}
    given = [part for n, v in values.items() for part in ("-p", f"{n}:={v}")]
    namespace = ["--ros-args", "-r", f"__ns:=/{name}"]
    simulator = start([*RUN, "follow_simulator_node", *namespace, *given])
    try:
        remote.wait(lambda: commands and commands[-1][1] > 0.12, "driving", 90.0)
        os.kill(_child(chain.process.pid, victim), signal.SIGKILL)
        killed = time.monotonic()
        remote.wait(
            lambda: commands[-1][1:] == (0.0, 0.0) and commands[-1][0] > killed, "standing", 15.0
        )
        # 0.5 s for the pose to grow old, 0.8 s to slow down
        assert commands[-1][0] - killed < 1.5 + SLACK, chain.output
        time.sleep(1.0)
        assert commands[-1][1:] == (0.0, 0.0)
    finally:
        interrupt(simulator, "follow_simulator_node")
        chain.press_ctrl_c()
        remote.node.destroy_subscription(subscription)
    assert "Traceback" not in simulator.output
